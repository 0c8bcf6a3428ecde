package catalogue

import (
	"slices"
	"strings"
	"time"

	"custode/internal/conformance/request"
)

const logoutSource = "SPID technical rules, Single Logout; SPID Avviso 3"

// asLogout lets a rule about AuthnRequest work on a LogoutRequest.
func asLogout(change func(*request.Message)) func(*request.Message) {
	return func(m *request.Message) {
		m.Text, m.To = request.Logout, m.IDP.SLO[m.Binding]
		if change != nil {
			change(m)
		}
	}
}

// logoutRules: a LogoutRequest about a session that nobody knows is answered at
// once with a partial logout; whatever is wrong with the message itself ends on
// a page, because no row of the table speaks of logout. The attacks are those on
// AuthnRequest, over another root.
func logoutRules() []Rule {
	all := []Rule{{ID: "logout-unknown-session", Source: logoutSource, Title: "a LogoutRequest about an unknown session", Want: Expect{Code: PartialLogout}, Change: asLogout(nil)}}
	all = append(all, variants("logout", logoutSource,
		variant{"issuer-plain", "an Issuer without Format and NameQualifier is tolerated", asLogout(issuer("<saml:Issuer>{entity}</saml:Issuer>")), PartialLogout},
		variant{"no-session-index", "no SessionIndex", asLogout(swap("<samlp:SessionIndex>_sessione</samlp:SessionIndex>", "")), PartialLogout},
		variant{"entity-destination", "the entityID as Destination", asLogout(swap("{destination}", "{idp}")), PartialLogout},
		variant{"issuer-unknown", "an unknown issuer", asLogout(issuer(strings.ReplaceAll(issuerOpen, "{entity}", "https://nessuno.example.it"))), Refused},
		variant{"issuer-missing", "no issuer", asLogout(issuer("")), Refused},
		variant{"no-name", "no NameID", asLogout(swap(request.LogoutName, "")), Refused},
		variant{"two-names", "two NameIDs", asLogout(swap(request.LogoutName, request.LogoutName+request.LogoutName)), Refused},
		variant{"old", "a request of an hour ago", asLogout(shifted(-time.Hour)), Refused},
		variant{"over", "a request whose time is over", asLogout(swap("{later}", "2020-01-01T00:00:00Z")), Refused},
		variant{"destination", "another destination", asLogout(swap("{destination}", "https://idp.example.org/slo")), Refused},
		variant{"destination-missing", "no destination", asLogout(swap(` Destination="{destination}"`, "")), Refused},
		variant{"version", "Version 1.1", asLogout(swap(`Version="2.0"`, `Version="1.1"`)), Refused},
		variant{"id-missing", "no ID", asLogout(swap(` ID="{id}"`, "")), Refused},
		variant{"reordered", "SessionIndex before NameID", asLogout(edits(edit{request.LogoutName, ""}, edit{"</samlp:SessionIndex>", "</samlp:SessionIndex>" + request.LogoutName})), Refused},
		variant{"comment-name", "a comment that truncates NameID", asLogout(inDocument("</saml:NameID>", "<!-- -->x</saml:NameID>")), Refused},
		variant{"authn-request", "an AuthnRequest in its place", func(m *request.Message) { m.To = m.IDP.SLO[m.Binding] }, Refused},
		variant{"method-put", "PUT is no method of this location", asLogout(method("PUT")), Refused},
	)...)
	elsewhere := []string{"attack-crossed", "attack-other-message", "attack-foreign-element", "attack-foreign-attribute", "attack-foreign-root", "signature-english", "form-deflated", "xmlsig-empty-reference"}
	for _, r := range slices.Concat(attackRules(), wrappingRules(), signatureRules(), parameterRules(), encodingRules()) {
		if slices.Contains(elsewhere, r.ID) {
			continue
		}
		if r.ID, r.Change = "logout-"+r.ID, asLogout(r.Change); r.Want.Code == 0 {
			r.Want = Expect{Code: PartialLogout}
		} else {
			r.Want = Expect{Code: Refused, Status: 403}
		}
		all = append(all, r)
	}
	return append(all, Rule{ID: "logout-session", Source: logoutSource, Title: "the only SP of a session ends it", Change: level(1), Needs: NeedSubject,
		Walk: []Step{AsSubject, Consent, Answered, LogOut}, Want: Expect{Code: LoggedOut}},
		Rule{ID: "logout-twice", Source: logoutSource, Title: "a session that was ended is unknown", Change: level(1), Needs: NeedSubject,
			Walk: []Step{AsSubject, Consent, Answered, LogOut, Resend}, Want: Expect{Code: PartialLogout}})
}
