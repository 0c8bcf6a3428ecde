package conformance

import (
	"context"
	"fmt"
	"strconv"
)

// Rule is one line of the catalogue.
type Rule struct {
	ID       string
	Source   string // where the rule comes from
	Title    string
	Bindings []Binding

	change func(*message) // makes the request out of a valid one
	want   expect
	needs  need
	walk   []step // what the subject does after the request
	login  login  // what a success must assert
}

// need says what a rule cannot do without.
type need uint8

const (
	needSubject need = 1 << iota
	needSuspended
	needCode
	needExpired
	needOther
	needTime
	needSLO
)

// missing tells why a rule is skipped, "" when it is not.
func (a *Auditor) missing(n need) string {
	for _, c := range []struct {
		need need
		has  bool
		why  string
	}{
		{needSubject, a.cfg.Subject != nil, "needs a subject's login (--subject-file)"},
		{needSuspended, a.cfg.Suspended != nil, "needs a suspended subject's login (--subject-file)"},
		{needCode, a.cfg.Code != nil, "needs the one-time code sent to the subject (--ask-code)"},
		{needExpired, a.cfg.SP.Expired != nil, "needs a key whose certificate is over (--expired-key, --expired-cert)"},
		{needOther, a.cfg.OtherEntity != "", "needs the entityID of another registered service provider (--other-entity)"},
		{needTime, a.cfg.FlowLife > 0, "needs the time a login may take (--flow-life)"},
		{needSLO, a.idp.slo[Redirect] != "" && a.idp.slo[Post] != "", "the instance publishes no single logout for both bindings"},
	} {
		if n&c.need != 0 && !c.has {
			return c.why
		}
	}
	return ""
}

// step is something the subject does; it gets the page and returns the next.
type step func(ctx context.Context, w *walker, o *observation) (*observation, error)

// walker is what a step works with.
type walker struct {
	a *Auditor
	b *browser
	m *message
}

// badSignature stands for row 5 by HTTP-Redirect and row 7 by HTTP-POST.
const badSignature = -2

// on resolves what depends on the binding.
func (e expect) on(by Binding) expect {
	if e.code == badSignature {
		e.code = 7
		if by == Redirect {
			e.code = 5
		}
	}
	return e
}

// String tells the expectation in words.
func (e expect) String() string {
	switch row := table[e.code]; {
	case e.code == 0:
		return "the login begins"
	case e.code == refused:
		return refusal(e.status)
	case row.Response:
		s := fmt.Sprintf("HTTP %d, Response %s", row.HTTP, row.Status)
		if row.Sub != "" {
			s += "/" + row.Sub
		}
		return s + " " + row.Message() + " to ACS " + strconv.Itoa(e.acs)
	default:
		return fmt.Sprintf("HTTP %d, «%s»", row.HTTP, row.PageIT)
	}
}

var both = []Binding{Redirect, Post}

// Catalogue returns all rules, in the order in which they are best run. The
// slice is the caller's.
func Catalogue() []Rule {
	var all []Rule
	for _, part := range []func() []Rule{
		transportRules, issuerRules, signatureRules, formRules, contextRules, consumerRules, orderRules,
		mutationRules, attackRules, wrappingRules, subjectRules,
	} {
		all = append(all, part()...)
	}
	for i := range all {
		if all[i].Bindings == nil {
			all[i].Bindings = both
		}
	}
	return all
}

// edit is one replacement in the request's text; old has to be there once.
type edit struct{ old, new string }

func edits(list ...edit) func(*message) {
	return func(m *message) {
		for _, e := range list {
			m.replace(e.old, e.new)
		}
	}
}

// swap is edits with one edit.
func swap(old, new string) func(*message) { return edits(edit{old, new}) }

// cases makes rules of one source that differ in their change: name, title,
// change, code.
type variant struct {
	name, title string
	change      func(*message)
	code        int
}

func variants(prefix, source string, list ...variant) []Rule {
	out := make([]Rule, len(list))
	for i, v := range list {
		out[i] = Rule{ID: prefix + "-" + v.name, Source: source, Title: v.title, change: v.change, want: expect{code: v.code}}
	}
	return out
}
