package conformance

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
)

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
func (a *Auditor) judge(m *request.Message, o *observation, want catalogue.Expect) findings {
	var f findings
	f.check(o.elapsed <= a.cfg.Bound, "the answer took %v, more than %v", o.elapsed.Round(time.Millisecond), a.cfg.Bound)
	_, response := o.page.field("SAMLResponse")
	switch row := catalogue.Table[want.Code]; {
	case want.Code == catalogue.Refused:
		f.check(o.status == want.Status || want.Status == 0 && o.status >= 400 && o.status < 500, "HTTP %d, want %s", o.status, want)
		f.check(!response && o.page.with("password", "") == nil, "the answer goes on with the login")
	case want.Code == catalogue.LoggedOut, want.Code == catalogue.PartialLogout:
		a.judgeLogout(&f, m, o, want)
	case want.Code == 0:
		f.begins(o, want, m.Language)
	case !row.Response:
		f.page(o, row, m.Language)
		f.check(!response, "a Response leaves for a request that proves nothing")
	default:
		if f.check(response, "no Response (HTTP %d, %q), want anomaly %d", o.status, clip(o.page.text), want.Code) {
			f.check(o.status == row.HTTP, "HTTP %d, want %d", o.status, row.HTTP)
			f.sentence(o, row, m.Language)
			a.judgeResponse(&f, m, o, want)
		}
	}
	return f
}

func clip(s string) string {
	if len(s) > 160 {
		s = strings.ToValidUTF8(s[:160], "")
	}
	return s
}

// begins expects the credentials page, with service and level.
func (f *findings) begins(o *observation, want catalogue.Expect, lang string) {
	_, response := o.page.field("SAMLResponse")
	if response {
		doc := decodeResponse(o)
		status := ""
		if root, err := request.Parse(doc); err == nil {
			status = root.Child(request.NSProtocol, "Status").Child(request.NSProtocol, "StatusMessage").Text()
		}
		f.check(false, "the request is refused (%s), want a login", status)
		return
	}
	level := want.Level
	if level == 0 {
		level = 2
	}
	if !f.check(o.status == http.StatusOK && o.page.with("password", "") != nil, "HTTP %d and %q, want the credentials page", o.status, clip(o.page.text)) {
		return
	}
	f.check(o.page.says(request.DisplayName), "the page does not name the service %q", request.DisplayName)
	f.check(o.page.says(fmt.Sprintf("SPID %d", level)), "the page does not show level %d", level)
	f.check(o.page.with("action", "cancel") != nil, "the page has no way to cancel")
	f.check(o.page.lang == language(lang), "the page is in %q, asked for %q", o.page.lang, lang)
}

func language(accept string) string {
	switch accept {
	case "en", "de", "sl":
		return accept
	}
	return "it"
}

// page expects a page of the table.
func (f *findings) page(o *observation, row catalogue.Row, lang string) {
	f.check(o.status == row.HTTP, "HTTP %d, want %d", o.status, row.HTTP)
	f.sentence(o, row, lang)
	// Rows 4, 7 and 10 have one sentence; the number tells them apart.
	number := o.page.number()
	f.check(number == row.Code, "the page tells anomaly %d, want %d", number, row.Code)
	f.check(o.header.Get("Set-Cookie") == "" || o.page.with("password", "") == nil, "the refusal begins a login")
}

func (f *findings) sentence(o *observation, row catalogue.Row, lang string) {
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
func (a *Auditor) judgeResponse(f *findings, m *request.Message, o *observation, want catalogue.Expect) *request.Node {
	acs := m.ACS[want.ACS]
	if form := o.page.with("SAMLResponse", ""); form != nil {
		f.check(form.action == acs, "the Response goes to %q, want %q", form.action, acs)
		f.check(form.method == http.MethodPost, "the Response travels by %q, want POST", form.method)
	}
	relay, has := o.page.field("RelayState")
	f.check(relay == m.Relay && (has || !m.HasRelay), "RelayState is %q, want %q", relay, m.Relay)
	root, err := request.Parse(decodeResponse(o))
	if !f.check(err == nil, "Response: %v", err) {
		return nil
	}
	if !f.check(root.Is(request.NSProtocol, "Response"), "the message is no Response but %s", root.Name) {
		return nil
	}
	err = request.Verify(root, m.IDP.Certificates)
	f.check(err == nil, "Response: %v", err)
	f.check(root.Get("Version") == "2.0", "Response Version %q", root.Get("Version"))
	f.check(root.Get("Destination") == acs, "Destination %q, want %q", root.Get("Destination"), acs)
	a.judgeInstant(f, "Response", root, m)
	f.check(request.IsNCName(root.Get("ID")) && !a.known[root.Get("ID")], "Response ID %q is malformed or was used before", root.Get("ID"))
	a.known[root.Get("ID")] = true
	in, hasIn := root.Attr("InResponseTo")
	if want.NoID {
		f.check(!hasIn, "InResponseTo %q, although the request has no usable ID", in)
	} else {
		f.check(in == m.ID, "InResponseTo %q, want %q", in, m.ID)
	}
	issuer := root.Child(request.NSAssertion, "Issuer")
	f.check(issuer != nil && issuer.Text() == m.IDP.EntityID, "Response Issuer %q, want %q", issuer.Text(), m.IDP.EntityID)
	if issuer != nil {
		format, present := issuer.Attr("Format")
		f.check(!present || format == request.FormatEntity, "Response Issuer Format %q", format)
	}
	a.judgeStatus(f, root, catalogue.Table[want.Code])
	return root
}

// judgeStatus compares the status pair and message with the row.
func (a *Auditor) judgeStatus(f *findings, root *request.Node, row catalogue.Row) {
	status := root.Child(request.NSProtocol, "Status")
	code := status.Child(request.NSProtocol, "StatusCode")
	sub := code.Child(request.NSProtocol, "StatusCode")
	value := func(n *request.Node) string {
		if n == nil {
			return ""
		}
		return n.Get("Value")
	}
	subWant := ""
	if row.Sub != "" {
		subWant = catalogue.StatusPrefix + row.Sub
	}
	f.check(value(code) == catalogue.StatusPrefix+row.Status, "status %q, want %q", value(code), catalogue.StatusPrefix+row.Status)
	f.check(value(sub) == subWant, "second-level status %q, want %q", value(sub), subWant)
	message := status.Child(request.NSProtocol, "StatusMessage").Text()
	f.check(message == row.Message(), "StatusMessage %q, want %q", message, row.Message())
	assertions := len(root.Children(request.NSAssertion, "Assertion"))
	if row.Code == 1 {
		f.check(assertions == 1, "%d assertions, want one", assertions)
	} else {
		f.check(assertions == 0, "an error Response with an assertion")
	}
	f.check(len(root.Children(request.NSAssertion, "EncryptedAssertion")) == 0, "an encrypted assertion")
	a.messages[message]++
}

// judgeInstant: never before the request, never after now, milliseconds.
func (a *Auditor) judgeInstant(f *findings, what string, n *request.Node, m *request.Message) {
	text := n.Get("IssueInstant")
	if !f.check(instantForm.MatchString(text), "%s IssueInstant %q is not UTC with milliseconds", what, text) {
		return
	}
	t, err := time.Parse(request.InstantLayout, text)
	if !f.check(err == nil, "%s IssueInstant %q", what, text) {
		return
	}
	// A request from a clock that runs ahead is answered at its own instant.
	ceiling := a.cfg.Now()
	if ahead := m.Issued.Sub(ceiling); ahead > 0 && ahead < clockTolerance {
		ceiling = m.Issued
	}
	f.check(t.Sub(ceiling) <= clockSlack && ceiling.Sub(t) < time.Minute, "%s IssueInstant %s is not now", what, text)
	if m.Issued.Sub(ceiling) <= 0 {
		f.check(!t.Before(m.Issued.UTC().Truncate(time.Millisecond)), "%s IssueInstant %s is before the request's", what, text)
	}
}

// judgeLogout checks a LogoutResponse (SPID technical rules, Single Logout).
func (a *Auditor) judgeLogout(f *findings, m *request.Message, o *observation, want catalogue.Expect) {
	form := o.page.with("SAMLResponse", "")
	if !f.check(form != nil && form.method == http.MethodPost, "no LogoutResponse (HTTP %d, %q)", o.status, clip(o.page.text)) {
		return
	}
	to := m.SP.SLO()
	f.check(form.action == to, "the LogoutResponse goes to %q, want %q", form.action, to)
	relay, has := o.page.field("RelayState")
	f.check(relay == m.Relay && (has || !m.HasRelay), "RelayState is %q, want %q", relay, m.Relay)
	root, err := request.Parse(decodeResponse(o))
	if !f.check(err == nil && root.Is(request.NSProtocol, "LogoutResponse"), "the message is no LogoutResponse (%v)", err) {
		return
	}
	err = request.Verify(root, m.IDP.Certificates)
	f.check(err == nil, "LogoutResponse: %v", err)
	f.check(root.Get("Version") == "2.0", "LogoutResponse Version %q", root.Get("Version"))
	f.check(root.Get("Destination") == to, "Destination %q, want %q", root.Get("Destination"), to)
	f.check(root.Get("InResponseTo") == m.ID, "InResponseTo %q, want %q", root.Get("InResponseTo"), m.ID)
	a.judgeInstant(f, "LogoutResponse", root, m)
	issuer := root.Child(request.NSAssertion, "Issuer")
	f.check(issuer != nil && issuer.Text() == m.IDP.EntityID && issuer.Get("Format") == request.FormatEntity && issuer.Get("NameQualifier") != "",
		"LogoutResponse Issuer is not the identity provider with Format and NameQualifier")
	var codes []string
	for c := root.Child(request.NSProtocol, "Status").Child(request.NSProtocol, "StatusCode"); c != nil; c = c.Child(request.NSProtocol, "StatusCode") {
		codes = append(codes, strings.TrimPrefix(c.Get("Value"), catalogue.StatusPrefix))
	}
	wanted := "Success"
	if want.Code == catalogue.PartialLogout {
		wanted = "Requester/PartialLogout"
	}
	f.check(strings.Join(codes, "/") == wanted, "status %s, want %s", strings.Join(codes, "/"), wanted)
}
