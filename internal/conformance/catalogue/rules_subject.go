package catalogue

import (
	"custode/internal/conformance/request"
)

func level(n int) func(*request.Message) {
	return edits(edit{"SpidL2", "SpidL" + itoa(n)}, edit{`"minimum"`, `"exact"`})
}

// subjectRules: what happens when somebody logs in, cancels, fails. Those
// without needs concern no particular subject.
func subjectRules() []Rule {
	const phase = "table of anomalies, row "
	purpose := func(p string) func(*request.Message) {
		return func(m *request.Message) {
			level(1)(m)
			m.Replace("<samlp:NameIDPolicy", `<samlp:Extensions xmlns:spid="`+request.NSSPID+`"><spid:Purpose>`+p+`</spid:Purpose></samlp:Extensions><samlp:NameIDPolicy`)
		}
	}
	service := func(index string) func(*request.Message) {
		return func(m *request.Message) {
			level(1)(m)
			m.Replace(` AttributeConsumingServiceIndex="0"`, index)
		}
	}
	all := []Rule{
		{ID: "cancelled", Source: phase + "25", Title: "the subject cancels before logging in", Walk: []Step{Cancel}, Want: Expect{Code: 25}},
		{ID: "failed", Source: phase + "19", Title: "wrong passwords up to the limit, for a username nobody has", Walk: []Step{AsNobody}, Want: Expect{Code: 19}},
		{ID: "timed-out", Source: phase + "21", Title: "the login is not finished in time", Walk: []Step{Overtime}, Want: Expect{Code: 21}, Needs: NeedTime},
		{ID: "suspended", Source: phase + "23", Title: "a suspended identity, after its right password", Walk: []Step{AsSuspended}, Want: Expect{Code: 23}, Needs: NeedSuspended},
		{ID: "suspended-english", Source: "docs/design/authcore-web.md, pages in four languages; " + phase + "23", Title: "the page of anomaly 23 in English", Walk: []Step{AsSuspended}, Want: Expect{Code: 23}, Needs: NeedSuspended,
			Change: func(m *request.Message) { m.Language = "en" }},
	}
	subject := []Rule{
		{ID: "level-1", Source: phase + "1; SPID technical rules, Response and Assertion", Title: "a login at level 1", Change: level(1), Walk: []Step{AsSubject, Consent}, Want: Expect{Code: 1}, Login: Login{1, 0}},
		{ID: "asserted-six", Source: "SPID technical rules, AttributeStatement", Title: "exactly the six attributes asked for", Change: service(` AttributeConsumingServiceIndex="1"`), Walk: []Step{AsSubject, Consent}, Want: Expect{Code: 1}, Login: Login{1, 1}},
		{ID: "asserted-empty", Source: "SPID technical rules, AttributeStatement; " + divergences, Title: "an attribute without a value is sent empty", Change: service(` AttributeConsumingServiceIndex="2"`), Walk: []Step{AsSubject, Consent}, Want: Expect{Code: 1}, Login: Login{1, 2}},
		{ID: "asserted-none", Source: "SPID technical rules, AttributeConsumingServiceIndex", Title: "no attributes when none are asked for", Change: service(""), Walk: []Step{AsSubject, Consent}, Want: Expect{Code: 1}, Login: Login{1, -1}},
		{ID: "no-level", Source: phase + "20", Title: "the subject has no credentials of level 3", Change: level(3), Walk: []Step{AsSubject}, Want: Expect{Code: 20}},
		{ID: "consent-refused", Source: phase + "22", Title: "the subject refuses consent", Change: level(1), Walk: []Step{AsSubject, Refuse}, Want: Expect{Code: 22}},
		{ID: "cancelled-consent", Source: phase + "25", Title: "the subject cancels on the Consent page", Change: level(1), Walk: []Step{AsSubject, Cancel}, Want: Expect{Code: 25}},
		{ID: "cancelled-method", Source: phase + "25", Title: "the subject cancels before the code", Walk: []Step{AsSubject, Cancel}, Want: Expect{Code: 25}},
		{ID: "replayed", Source: "SPID technical rules, ID is unique; " + divergences, Title: "a request that was Answered begins nothing", Change: level(1), Walk: []Step{AsSubject, Consent, Answered, Resend}, Want: Expect{Code: 11}},
	}
	const sessions = "SPID technical rules, authentication sessions; SPID Avviso 3"
	begun := []Step{AsSubject, Consent, Answered}
	subject = append(subject,
		Rule{ID: "session-used", Source: sessions, Title: "a session of level 1 answers a second request after consent", Change: level(1), Walk: append(begun[:3:3], NextLevel1, Consent), Want: Expect{Code: 1}, Login: Login{1, 0}},
		Rule{ID: "session-refused", Source: sessions + "; " + phase + "22", Title: "consent refused in a session", Change: level(1), Walk: append(begun[:3:3], NextLevel1, Refuse), Want: Expect{Code: 22}},
		Rule{ID: "session-forced", Source: sessions, Title: "ForceAuthn asks for the password in spite of the session", Change: level(1), Walk: append(begun[:3:3], NextForced), Want: Expect{Level: 1}},
		Rule{ID: "session-level-2", Source: sessions, Title: "a session never serves level 2", Change: level(1), Walk: append(begun[:3:3], NextLevel2), Want: Expect{Level: 2}},
	)
	for _, p := range []string{"P", "LP", "PG", "PF", "PX"} {
		subject = append(subject, Rule{ID: "identity-type-" + p, Source: "SPID Avviso 18 v2; " + phase + "30", Title: "a citizen's identity where Purpose " + p + " is asked for",
			Change: purpose(p), Walk: []Step{AsSubject}, Want: Expect{Code: 30}})
	}
	for i := range subject {
		subject[i].Needs |= NeedSubject
	}
	coded := []Rule{
		{ID: "level-2", Source: phase + "1; SPID technical rules, Response and Assertion", Title: "a login at level 2", Walk: []Step{AsSubject, ByCode, TypeCode, Consent}, Want: Expect{Code: 1}, Login: Login{2, 0}},
		{ID: "cancelled-code", Source: phase + "25", Title: "the subject cancels on the code's page", Walk: []Step{AsSubject, ByCode, Cancel}, Want: Expect{Code: 25}},
		{ID: "failed-code", Source: phase + "19", Title: "wrong codes up to the limit", Walk: []Step{AsSubject, ByCode, WrongCodes}, Want: Expect{Code: 19}},
	}
	for i := range coded {
		coded[i].Needs |= NeedSubject | NeedCode
	}
	return append(append(all, subject...), coded...)
}
