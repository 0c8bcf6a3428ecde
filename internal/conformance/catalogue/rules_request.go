package catalogue

import (
	"strings"
	"time"

	"custode/internal/conformance/request"
)

const (
	root0     = `AssertionConsumerServiceIndex="0" AttributeConsumingServiceIndex="0"`
	policy    = `<samlp:NameIDPolicy Format="` + request.FormatTransient + `"/>`
	classRef  = `<saml:AuthnContextClassRef>` + request.LevelPrefix + `2</saml:AuthnContextClassRef>`
	requested = `<samlp:RequestedAuthnContext Comparison="minimum">` + classRef + `</samlp:RequestedAuthnContext>`
	acsIndex0 = `AssertionConsumerServiceIndex="0"`
)

// identifier makes a request with that ID; whether it is usable says the rule.
func identifier(id string) func(*request.Message) { return func(m *request.Message) { m.ID = id } }

func shifted(d time.Duration) func(*request.Message) {
	return func(m *request.Message) { m.Issued = m.Issued.Add(d) }
}

// formRules: the attributes of AuthnRequest and the optional elements (§ 2.3 of
// the technical rules' profile).
func formRules() []Rule {
	ids := variants("id", "table of anomalies, row 11; XML Schema, xs:ID",
		variant{"missing", "no ID", swap(` ID="{id}"`, ""), 11},
		variant{"empty", "an empty ID", identifier(""), 11},
		variant{"digit", "an ID that begins with a digit", identifier("1234567890abcdef"), 11},
		variant{"colon", "an ID with a colon", identifier("_a:b"), 11},
		variant{"blank", "an ID with a blank", identifier("_a b"), 11},
		variant{"slash", "an ID that is a URL", identifier("https://sp.example.it/1"), 11},
	)
	for i := range ids {
		ids[i].Want.NoID = true
	}
	all := ids
	all = append(all, variants("id", "XML Schema, xs:ID; no limit of length in the rules",
		variant{"long", "an ID of 300 characters", func(m *request.Message) { m.ID += strings.Repeat("a", 300-len(m.ID)) }, 0},
		variant{"accent", "an ID with a letter beyond ASCII", func(m *request.Message) { m.ID += "è" }, 0},
		variant{"dots", "an ID with dots and hyphens", func(m *request.Message) { m.ID += "-.-" }, 0},
	)...)
	all = append(all, variants("version", "table of anomalies, row 9",
		variant{"missing", "no Version", swap(` Version="2.0"`, ""), 9},
		variant{"empty", "an empty Version", swap(`Version="2.0"`, `Version=""`), 9},
		variant{"1-1", "Version 1.1", swap(`Version="2.0"`, `Version="1.1"`), 9},
		variant{"2", "Version 2", swap(`Version="2.0"`, `Version="2"`), 9},
		variant{"2-00", "Version 2.00", swap(`Version="2.0"`, `Version="2.00"`), 9},
	)...)
	return append(append(append(all, instantRules()...), destinationRules()...), optionalRules()...)
}

func instantRules() []Rule {
	at := func(text string) func(*request.Message) {
		return swap(`IssueInstant="{now}"`, `IssueInstant="`+text+`"`)
	}
	form := func(layout string) func(*request.Message) {
		return func(m *request.Message) {
			m.Issued = m.Issued.Truncate(time.Second)
			m.Replace(`IssueInstant="{now}"`, `IssueInstant="`+m.Issued.UTC().Format(layout)+`"`)
		}
	}
	all := variants("instant", "table of anomalies, row 13; SPID technical rules, IssueInstant in UTC",
		variant{"missing", "no IssueInstant", swap(` IssueInstant="{now}"`, ""), 13},
		variant{"empty", "an empty IssueInstant", at(""), 13},
		variant{"words", "an IssueInstant in words", at("adesso"), 13},
		variant{"date", "a date only", form("2006-01-02"), 13},
		variant{"blank", "a blank for the T", form("2006-01-02 15:04:05Z"), 13},
		variant{"zoneless", "no zone", form("2006-01-02T15:04:05"), 13},
		variant{"offset", "an offset", form("2006-01-02T15:04:05+00:00"), 13},
		variant{"impossible", "a day that does not exist", at("2026-02-30T10:00:00Z"), 13},
		variant{"old", "an hour old", shifted(-time.Hour), 13},
		variant{"ahead", "an hour ahead", shifted(time.Hour), 13},
		variant{"year", "a year old", shifted(-365 * 24 * time.Hour), 13},
		variant{"bit-old", "two minutes old is good", shifted(-2 * time.Minute), 0},
		variant{"bit-ahead", "one minute ahead is good", shifted(time.Minute), 0},
		variant{"no-fraction", "no fraction is good", form("2006-01-02T15:04:05Z"), 0},
		variant{"nanoseconds", "nine digits are good", form("2006-01-02T15:04:05.000000000Z"), 0},
		variant{"one-digit", "one digit is good", form("2006-01-02T15:04:05.0Z"), 0},
	)
	return all
}

func destinationRules() []Rule {
	to := func(text string) func(*request.Message) {
		return swap(`Destination="{destination}"`, `Destination="`+text+`"`)
	}
	all := variants("destination", "table of anomalies, row 14; SPID Avviso 11",
		variant{"missing", "no Destination", swap(` Destination="{destination}"`, ""), 14},
		variant{"empty", "an empty Destination", to(""), 14},
		variant{"other", "another identity provider", to("https://idp.example.org/sso"), 14},
		variant{"longer", "our location with something after it", to("{destination}/"), 14},
		variant{"query", "our location with a query", to("{destination}?x=1"), 14},
		variant{"self", "the asking request.SP itself", to("{entity}"), 14},
		variant{"entity", "the identity provider's entityID is good", to("{idp}"), 0},
		variant{"either", "the location of the other binding is good", func(m *request.Message) {
			other := request.Post
			if m.Binding == request.Post {
				other = request.Redirect
			}
			m.Replace("{destination}", request.EscapeAttr(m.IDP.SSO[other]))
		}, 0},
	)
	all = append(all, variants("force", "SPID technical rules, ForceAuthn; "+divergences,
		variant{"missing", "no ForceAuthn at level 2", swap(` ForceAuthn="true"`, ""), 8},
		variant{"false", "ForceAuthn false at level 2", swap(`ForceAuthn="true"`, `ForceAuthn="false"`), 8},
		variant{"capitals", "ForceAuthn in capitals", swap(`ForceAuthn="true"`, `ForceAuthn="TRUE"`), 8},
		variant{"word", "ForceAuthn in Italian", swap(`ForceAuthn="true"`, `ForceAuthn="sì"`), 8},
		variant{"one", "ForceAuthn 1 is good", swap(`ForceAuthn="true"`, `ForceAuthn="1"`), 0},
	)...)
	for _, r := range variants("force", "SPID technical rules, ForceAuthn",
		variant{"level-1-missing", "no ForceAuthn at level 1 is good", edits(edit{` ForceAuthn="true"`, ""}, edit{"SpidL2", "SpidL1"}), 0},
		variant{"level-1-zero", "ForceAuthn 0 at level 1 is good", edits(edit{`ForceAuthn="true"`, `ForceAuthn="0"`}, edit{"SpidL2", "SpidL1"}), 0},
	) {
		r.Want.Level = 1
		all = append(all, r)
	}
	passive := func(v string) func(*request.Message) {
		return swap(`ForceAuthn="true"`, `ForceAuthn="true" IsPassive="`+v+`"`)
	}
	return append(all, variants("passive", "table of anomalies, row 15",
		variant{"true", "IsPassive true", passive("true"), 15},
		variant{"one", "IsPassive 1", passive("1"), 15},
		variant{"false", "IsPassive false is good", passive("false"), 0},
		variant{"zero", "IsPassive 0 is good", passive("0"), 0},
		variant{"capitals", "IsPassive in capitals", passive("TRUE"), 8},
		variant{"empty", "IsPassive empty", passive(""), 8},
	)...)
}

// optionalRules: Extensions, Subject, Conditions, Scoping and attributes that
// only SAML knows.
func optionalRules() []Rule {
	before := func(markup string) func(*request.Message) {
		return swap("<samlp:NameIDPolicy", markup+"<samlp:NameIDPolicy")
	}
	purpose := func(p string) func(*request.Message) {
		return before(`<samlp:Extensions xmlns:spid="` + request.NSSPID + `">` + p + `</samlp:Extensions>`)
	}
	subject := func(attrs, after string) func(*request.Message) {
		return before(`<saml:Subject><saml:NameID ` + attrs + `>x</saml:NameID>` + after + `</saml:Subject>`)
	}
	var all []Rule
	for _, p := range []string{"P", "LP", "PG", "PF", "PX"} {
		all = append(all, Rule{ID: "purpose-" + p, Source: "SPID Avviso 18 v2", Title: "Purpose " + p + " is known", Change: purpose("<spid:Purpose>" + p + "</spid:Purpose>")})
	}
	all = append(all, variants("purpose", "SPID Avviso 18 v2; "+divergences,
		variant{"unknown", "an unknown Purpose", purpose("<spid:Purpose>XX</spid:Purpose>"), 8},
		variant{"lower", "a Purpose in lower case", purpose("<spid:Purpose>pg</spid:Purpose>"), 8},
		variant{"two", "two Purposes", purpose("<spid:Purpose>P</spid:Purpose><spid:Purpose>PG</spid:Purpose>"), 8},
	)...)
	all = append(all, variants("extensions", "SPID technical rules, Extensions", variant{"foreign", "other extensions are ignored", purpose(`<x:A xmlns:x="urn:example:x" y="1">z</x:A>`), 0})...)
	all = append(all, variants("subject", "SPID technical rules, Subject",
		variant{"saml-1-1", "NameID of the format of SAML 1.1", subject(`Format="`+request.FormatUnspecified+`" NameQualifier="x"`, ""), 0},
		variant{"saml-2-0", "NameID of the format the rules print", subject(`Format="urn:oasis:names:tc:SAML:2.0:nameid-format:unspecified" NameQualifier="x"`, ""), 0},
		variant{"format", "NameID of another format", subject(`Format="`+request.FormatTransient+`" NameQualifier="x"`, ""), 8},
		variant{"qualifier", "NameID without NameQualifier", subject(`Format="`+request.FormatUnspecified+`"`, ""), 8},
		variant{"confirmation", "a SubjectConfirmation", subject(`Format="`+request.FormatUnspecified+`" NameQualifier="x"`, `<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"/>`), 8},
	)...)
	conditions := func(attrs string) func(*request.Message) {
		return swap("<samlp:RequestedAuthnContext", "<saml:Conditions "+attrs+"/><samlp:RequestedAuthnContext")
	}
	all = append(all, variants("conditions", "SPID technical rules, Conditions; "+divergences,
		variant{"future", "a validity that lasts", conditions(`NotBefore="{now}" NotOnOrAfter="{later}"`), 0},
		variant{"over", "a validity that is over", conditions(`NotOnOrAfter="2020-01-01T00:00:00Z"`), 13},
		variant{"malformed", "a malformed instant", conditions(`NotOnOrAfter="domani"`), 8},
	)...)
	scoping := func(markup string) func(*request.Message) {
		return swap("</samlp:RequestedAuthnContext>", "</samlp:RequestedAuthnContext>"+markup)
	}
	all = append(all, variants("scoping", "SPID technical rules, Scoping; "+divergences,
		variant{"zero", "ProxyCount 0", scoping(`<samlp:Scoping ProxyCount="0"/>`), 0},
		variant{"one", "ProxyCount 1 is tolerated", scoping(`<samlp:Scoping ProxyCount="1"/>`), 0},
		variant{"requester", "RequesterID is ignored", scoping(`<samlp:Scoping ProxyCount="0"><samlp:RequesterID>https://x.example.it</samlp:RequesterID></samlp:Scoping>`), 0},
		variant{"malformed", "a ProxyCount that is no number", scoping(`<samlp:Scoping ProxyCount="zero"/>`), 8},
	)...)
	return append(all, variants("ignored", divergences+"; SAML Core 3.4.1",
		variant{"provider", "ProviderName", swap(root0, root0+` ProviderName="Ente"`), 0},
		variant{"consent", "Consent", swap(root0, root0+` Consent="urn:oasis:names:tc:SAML:2.0:consent:obtained"`), 0},
	)...)
}

// contextRules: RequestedAuthnContext.
func contextRules() []Rule {
	var all []Rule
	for i, level := range []string{"1", "2", "3"} {
		for _, comparison := range []string{"exact", "minimum", "maximum", "better"} {
			r := Rule{ID: "context-" + comparison + "-" + level, Source: "SPID technical rules, RequestedAuthnContext", Title: comparison + " level " + level,
				Change: edits(edit{"SpidL2", "SpidL" + level}, edit{`"minimum"`, `"` + comparison + `"`}), Want: Expect{Level: i + 1}}
			if comparison == "better" {
				if r.Want.Level++; i == 2 {
					r.Want, r.Source, r.Title = Expect{Code: 12}, divergences, "nothing is better than level 3"
				}
			}
			if comparison == "maximum" && i == 2 {
				r.Want.Level, r.Title = 2, "maximum level 3 is the strongest there is"
			}
			all = append(all, r)
		}
	}
	all = append(all, variants("context", "table of anomalies, row 12",
		variant{"missing", "no RequestedAuthnContext", swap(requested, ""), 12},
		variant{"empty", "an empty RequestedAuthnContext", swap(classRef, ""), 12},
		variant{"two", "two RequestedAuthnContexts", swap(requested, requested+requested), 12},
		variant{"two-refs", "two class references", swap(classRef, classRef+strings.Replace(classRef, "L2", "L3", 1)), 12},
		variant{"declaration", "a declaration in the place of a class", swap(classRef, `<saml:AuthnContextDeclRef>`+request.LevelPrefix+`2</saml:AuthnContextDeclRef>`), 12},
		variant{"level-4", "a level that does not exist", swap("SpidL2", "SpidL4"), 12},
		variant{"old-names", "the withdrawn names (SPID Avviso 5)", swap(request.LevelPrefix+"2", "urn:oasis:names:tc:SAML:2.0:ac:classes:SpidL2"), 12},
		variant{"no-www", "the name without www", swap(request.LevelPrefix, "https://spid.gov.it/SpidL"), 12},
		variant{"http", "the name with http", swap(request.LevelPrefix, "http://www.spid.gov.it/SpidL"), 12},
		variant{"password", "a class of SAML", swap(request.LevelPrefix+"2", "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"), 12},
		variant{"comparison-unknown", "an unknown Comparison", swap(`"minimum"`, `"almost"`), 12},
		variant{"comparison-capital", "Comparison with a capital", swap(`"minimum"`, `"Minimum"`), 12},
		variant{"comparison-empty", "an empty Comparison", swap(`"minimum"`, `""`), 12},
		variant{"comparison-absent", "no Comparison means exact", swap(` Comparison="minimum"`, ""), 0},
	)...)
	return append(all, Rule{ID: "context-english", Source: "docs/design/authcore-web.md, pages in four languages; table of anomalies, row 12", Title: "the page of anomaly 12 in English", Want: Expect{Code: 12},
		Change: func(m *request.Message) {
			m.Language = "en"
			m.Replace("SpidL2", "SpidL4")
		}})
}

// consumerRules: where the answer goes and what it holds.
func consumerRules() []Rule {
	acs := func(attrs string) func(*request.Message) { return swap(acsIndex0, attrs) }
	const byURL, post = `AssertionConsumerServiceURL="{acs1}"`, `ProtocolBinding="` + request.BindingPrefix + `HTTP-POST"`
	all := variants("acs", "table of anomalies, row 16 (answered at the default)",
		variant{"none", "neither index nor location", acs(""), 16},
		variant{"unknown-index", "an index that is not in the metadata", acs(`AssertionConsumerServiceIndex="7"`), 16},
		variant{"malformed-index", "an index that is no number", acs(`AssertionConsumerServiceIndex="zero"`), 16},
		variant{"negative-index", "a negative index", acs(`AssertionConsumerServiceIndex="-1"`), 16},
		variant{"big-index", "an index beyond unsigned short", acs(`AssertionConsumerServiceIndex="65536"`), 16},
		variant{"empty-index", "an empty index", acs(`AssertionConsumerServiceIndex=""`), 16},
		variant{"index-and-url", "index and location", acs(`AssertionConsumerServiceIndex="1" ` + byURL), 16},
		variant{"index-and-binding", "index and binding", acs(`AssertionConsumerServiceIndex="1" ` + post), 16},
		variant{"url-only", "location without binding", acs(byURL), 16},
		variant{"binding-only", "binding without location", acs(post), 16},
		variant{"unknown-url", "a location that is not in the metadata", acs(`AssertionConsumerServiceURL="https://attacker.example.org/acs" ` + post), 16},
		variant{"longer-url", "a registered location with something after it", acs(`AssertionConsumerServiceURL="{acs1}/x" ` + post), 16},
		variant{"wrong-binding", "another binding", acs(byURL + ` ProtocolBinding="` + request.BindingPrefix + `HTTP-Artifact"`), 16},
	)
	all = append(all, variants("acs", "SPID technical rules, AssertionConsumerService",
		variant{"index-1", "another index of the metadata", acs(`AssertionConsumerServiceIndex="1"`), 0},
		variant{"url", "location and binding of the metadata", acs(byURL + " " + post), 0},
	)...)
	for _, r := range variants("acs", "table of anomalies: the Response goes where the request says",
		variant{"reply-index-1", "an error is answered at the index asked for", edits(edit{acsIndex0, `AssertionConsumerServiceIndex="1"`}, edit{`"minimum"`, `"x"`}), 12},
		variant{"reply-url", "an error is answered at the location asked for", edits(edit{acsIndex0, byURL + " " + post}, edit{`"minimum"`, `"x"`}), 12},
	) {
		r.Want.ACS = 1
		all = append(all, r)
	}
	all = append(all, variants("acs", "table of anomalies, row 16; rules, open redirect",
		variant{"reply-default", "an earlier error with an unusable ACS is answered at the default", edits(
			edit{acsIndex0, `AssertionConsumerServiceURL="https://attacker.example.org/acs" ` + post}, edit{`Version="2.0"`, `Version="3.0"`}), 9})...)
	format := func(v string) func(*request.Message) { return swap(policy, v) }
	all = append(all, variants("nameid", "table of anomalies, row 17",
		variant{"missing", "no NameIDPolicy", format(""), 17},
		variant{"no-format", "NameIDPolicy without Format", format("<samlp:NameIDPolicy/>"), 17},
		variant{"empty", "an empty Format", format(`<samlp:NameIDPolicy Format=""/>`), 17},
		variant{"persistent", "another Format", format(`<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"/>`), 17},
		variant{"typo", "the misprint of the rules", format(`<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:2.0:nameidformat:transient"/>`), 17},
		variant{"blank-after", "a blank after the Format", format(`<samlp:NameIDPolicy Format="` + request.FormatTransient + ` "/>`), 17},
	)...)
	all = append(all, variants("nameid", "SPID Avviso 5; SPID technical rules, NameIDPolicy",
		variant{"create-true", "AllowCreate is ignored", format(`<samlp:NameIDPolicy AllowCreate="true" Format="` + request.FormatTransient + `"/>`), 0},
		variant{"create-false", "AllowCreate false is ignored", format(`<samlp:NameIDPolicy AllowCreate="false" Format="` + request.FormatTransient + `"/>`), 0},
		variant{"qualifier", "SPNameQualifier is tolerated", format(`<samlp:NameIDPolicy SPNameQualifier="{entity}" Format="` + request.FormatTransient + `"/>`), 0},
	)...)
	service := func(v string) func(*request.Message) { return swap(` AttributeConsumingServiceIndex="0"`, v) }
	return append(all, variants("attributes", "table of anomalies, row 18",
		variant{"unknown", "an index that is not in the metadata", service(` AttributeConsumingServiceIndex="9"`), 18},
		variant{"malformed", "an index that is no number", service(` AttributeConsumingServiceIndex="primo"`), 18},
		variant{"negative", "a negative index", service(` AttributeConsumingServiceIndex="-1"`), 18},
		variant{"empty", "an empty index", service(` AttributeConsumingServiceIndex=""`), 18},
		variant{"big", "an index beyond unsigned short", service(` AttributeConsumingServiceIndex="65536"`), 18},
		variant{"absent", "no index: no attributes are asked for", service(""), 0},
		variant{"other", "another index of the metadata", service(` AttributeConsumingServiceIndex="2"`), 0},
	)...)
}

// orderRules: of two faults the first in the order of the table decides.
func orderRules() []Rule {
	faults := []struct {
		code int
		edit edit
	}{
		{9, edit{`Version="2.0"`, `Version="1.0"`}},
		{11, edit{` ID="{id}"`, ""}},
		{8, edit{`ForceAuthn="true"`, `ForceAuthn="x"`}},
		{12, edit{"SpidL2", "SpidL9"}},
		{13, edit{`IssueInstant="{now}"`, `IssueInstant="x"`}},
		{14, edit{`Destination="{destination}"`, `Destination="x"`}},
		{15, edit{` Version="2.0"`, ` Version="2.0" IsPassive="1"`}},
		{16, edit{acsIndex0, `AssertionConsumerServiceIndex="77"`}},
		{17, edit{policy, ""}},
		{18, edit{` AttributeConsumingServiceIndex="0"`, ` AttributeConsumingServiceIndex="77"`}},
	}
	var all []Rule
	for i, first := range faults[:len(faults)-1] {
		second := faults[i+1]
		list := []edit{first.edit, second.edit}
		if first.code == 9 || second.code == 15 { // their edits share a place
			list = []edit{second.edit, first.edit}
		}
		all = append(all, Rule{ID: "order-" + itoa(first.code) + "-" + itoa(second.code), Source: "table of anomalies, order of the checks; docs/errors.md",
			Title: "anomaly " + itoa(first.code) + " before " + itoa(second.code), Change: edits(list...),
			Want: Expect{Code: first.code, NoID: first.code == 11 || second.code == 11}})
	}
	all = append(all, Rule{ID: "order-signature", Source: "table of anomalies, rows 8 and 11: only after the signature", Title: "the signature before everything a Response would tell",
		Want: Expect{Code: badSignature}, Change: func(m *request.Message) {
			m.Replace(`Version="2.0"`, `Version="1.0"`)
			strangerKey(false)(m)
		}})
	return append(all, Rule{ID: "order-issuer", Source: "table of anomalies; docs/errors.md", Title: "the issuer before the signature",
		Want: Expect{Code: 10}, Change: func(m *request.Message) {
			m.Replace(request.FormatEntity, request.FormatUnspecified)
			strangerKey(false)(m)
		}})
}
