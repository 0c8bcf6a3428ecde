package conformance

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// expect is what a rule wants to see.
type expect struct {
	code   int  // row of the table; 0: the login begins
	acs    int  // of the auditor's two, where a Response goes
	noID   bool // the request has no identifier that InResponseTo could name
	status int  // HTTP status when it is not the row's; with code -1 all that is asked
	level  int  // shown when the login begins; 0: 2
}

const (
	clockSlack     = 2 * time.Second // between the auditor's clock and the instance's
	clockTolerance = 3 * time.Minute // of the instance for requests from the future
)

// findings collects what was not as the rules say.
type findings []string

func (f *findings) check(ok bool, format string, args ...any) bool {
	if !ok {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
	return ok
}

// judge compares an observation with what the rule wants.
func (a *Auditor) judge(m *message, o *observation, want expect) findings {
	var f findings
	f.check(o.elapsed <= a.cfg.Bound, "the answer took %v, more than %v", o.elapsed.Round(time.Millisecond), a.cfg.Bound)
	_, response := o.page.field("SAMLResponse")
	switch row := table[want.code]; {
	case want.code == refused:
		f.check(o.status == want.status || want.status == 0 && o.status >= 400 && o.status < 500, "HTTP %d, want %s", o.status, refusal(want.status))
		f.check(!response && o.page.with("password", "") == nil, "the answer goes on with the login")
	case want.code == 0:
		f.begins(o, want, m.language)
	case !row.Response:
		f.page(o, row, m.language)
		f.check(!response, "a Response leaves for a request that proves nothing")
	default:
		if f.check(response, "no Response (HTTP %d, %q), want anomaly %d", o.status, clip(o.page.text), want.code) {
			f.check(o.status == row.HTTP, "HTTP %d, want %d", o.status, row.HTTP)
			f.sentence(o, row, m.language)
			a.judgeResponse(&f, m, o, want)
		}
	}
	return f
}

func refusal(status int) string {
	if status == 0 {
		return "a refusal (4xx)"
	}
	return fmt.Sprint(status)
}

// refused is the code of an expectation without a row: any refusal at the level
// of HTTP (a status of 4xx) that neither goes on nor answers the SP.
const refused = -1

func clip(s string) string {
	if len(s) > 160 {
		s = strings.ToValidUTF8(s[:160], "")
	}
	return s
}

// begins expects the credentials page, with service and level.
func (f *findings) begins(o *observation, want expect, lang string) {
	_, response := o.page.field("SAMLResponse")
	if response {
		doc := decodeResponse(o)
		status := ""
		if root, err := parseXML(doc); err == nil {
			status = root.child(nsProtocol, "Status").child(nsProtocol, "StatusMessage").text()
		}
		f.check(false, "the request is refused (%s), want a login", status)
		return
	}
	level := want.level
	if level == 0 {
		level = 2
	}
	if !f.check(o.status == http.StatusOK && o.page.with("password", "") != nil, "HTTP %d and %q, want the credentials page", o.status, clip(o.page.text)) {
		return
	}
	f.check(o.page.says(displayName), "the page does not name the service %q", displayName)
	f.check(o.page.says(fmt.Sprintf("SPID %d", level)), "the page does not show level %d", level)
	f.check(o.page.with("action", "cancel") != nil, "the page has no way to cancel")
	f.check(o.page.lang == language(lang), "the page is in %q, asked for %q", o.page.lang, lang)
}

func language(accept string) string {
	if strings.HasPrefix(accept, "en") {
		return "en"
	}
	return "it"
}

// page expects a page of the table.
func (f *findings) page(o *observation, row Row, lang string) {
	f.check(o.status == row.HTTP, "HTTP %d, want %d", o.status, row.HTTP)
	f.sentence(o, row, lang)
	// Rows 4, 7 and 10 have one sentence; the number tells them apart.
	number := o.page.number()
	f.check(number == row.Code, "the page tells anomaly %d, want %d", number, row.Code)
	f.check(o.header.Get("Set-Cookie") == "" || o.page.with("password", "") == nil, "the refusal begins a login")
}

func (f *findings) sentence(o *observation, row Row, lang string) {
	if row.PageIT == "" {
		return
	}
	f.check(o.page.says(row.PageIT), "the page does not say %q but %q", row.PageIT, clip(o.page.text))
	f.check(o.page.lang == language(lang), "the page is in %q, asked for %q", o.page.lang, lang)
	if language(lang) == "en" {
		f.check(o.page.says(row.PageEN), "the English page does not say %q", row.PageEN)
	}
}

func decodeResponse(o *observation) string {
	v, _ := o.page.field("SAMLResponse")
	doc, err := base64.StdEncoding.DecodeString(v)
	if err != nil {
		return ""
	}
	return string(doc)
}

var instantForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// judgeResponse checks a Response at the level of samlp:Response (SPID
// technical rules, Response).
func (a *Auditor) judgeResponse(f *findings, m *message, o *observation, want expect) *node {
	acs := m.acs[want.acs]
	if form := o.page.with("SAMLResponse", ""); form != nil {
		f.check(form.action == acs, "the Response goes to %q, want %q", form.action, acs)
		f.check(form.method == http.MethodPost, "the Response travels by %q, want POST", form.method)
	}
	relay, has := o.page.field("RelayState")
	f.check(relay == m.relay && (has || m.relay == ""), "RelayState is %q, want %q", relay, m.relay)
	root, err := parseXML(decodeResponse(o))
	if !f.check(err == nil, "Response: %v", err) {
		return nil
	}
	if !f.check(root.is(nsProtocol, "Response"), "the message is no Response but %s", root.name) {
		return nil
	}
	err = verifyEnveloped(root, m.idp.certificates)
	f.check(err == nil, "Response: %v", err)
	f.check(root.get("Version") == "2.0", "Response Version %q", root.get("Version"))
	f.check(root.get("Destination") == acs, "Destination %q, want %q", root.get("Destination"), acs)
	a.judgeInstant(f, "Response", root, m)
	f.check(isNCName(root.get("ID")) && !a.known[root.get("ID")], "Response ID %q is malformed or was used before", root.get("ID"))
	a.known[root.get("ID")] = true
	in, hasIn := root.attr("InResponseTo")
	if want.noID {
		f.check(!hasIn, "InResponseTo %q, although the request has no usable ID", in)
	} else {
		f.check(in == m.id, "InResponseTo %q, want %q", in, m.id)
	}
	issuer := root.child(nsAssertion, "Issuer")
	f.check(issuer != nil && issuer.text() == m.idp.entityID, "Response Issuer %q, want %q", issuer.text(), m.idp.entityID)
	if issuer != nil {
		format, present := issuer.attr("Format")
		f.check(!present || format == formatEntity, "Response Issuer Format %q", format)
	}
	a.judgeStatus(f, root, table[want.code])
	return root
}

// judgeStatus compares the status pair and message with the row.
func (a *Auditor) judgeStatus(f *findings, root *node, row Row) {
	status := root.child(nsProtocol, "Status")
	code := status.child(nsProtocol, "StatusCode")
	sub := code.child(nsProtocol, "StatusCode")
	value := func(n *node) string {
		if n == nil {
			return ""
		}
		return n.get("Value")
	}
	subWant := ""
	if row.Sub != "" {
		subWant = statusPrefix + row.Sub
	}
	f.check(value(code) == statusPrefix+row.Status, "status %q, want %q", value(code), statusPrefix+row.Status)
	f.check(value(sub) == subWant, "second-level status %q, want %q", value(sub), subWant)
	message := status.child(nsProtocol, "StatusMessage").text()
	f.check(message == row.Message(), "StatusMessage %q, want %q", message, row.Message())
	assertions := len(root.children(nsAssertion, "Assertion"))
	if row.Code == 1 {
		f.check(assertions == 1, "%d assertions, want one", assertions)
	} else {
		f.check(assertions == 0, "an error Response with an assertion")
	}
	f.check(len(root.children(nsAssertion, "EncryptedAssertion")) == 0, "an encrypted assertion")
	a.messages[message]++
}

// judgeInstant: never before the request, never after now, milliseconds.
func (a *Auditor) judgeInstant(f *findings, what string, n *node, m *message) {
	text := n.get("IssueInstant")
	if !f.check(instantForm.MatchString(text), "%s IssueInstant %q is not UTC with milliseconds", what, text) {
		return
	}
	t, err := time.Parse(instantLayout, text)
	if !f.check(err == nil, "%s IssueInstant %q", what, text) {
		return
	}
	// A request from a clock that runs ahead is answered at its own instant.
	ceiling := a.cfg.Now()
	if ahead := m.issued.Sub(ceiling); ahead > 0 && ahead < clockTolerance {
		ceiling = m.issued
	}
	f.check(t.Sub(ceiling) <= clockSlack && ceiling.Sub(t) < time.Minute, "%s IssueInstant %s is not now", what, text)
	if m.issued.Sub(ceiling) <= 0 {
		f.check(!t.Before(m.issued.UTC().Truncate(time.Millisecond)), "%s IssueInstant %s is before the request's", what, text)
	}
}
