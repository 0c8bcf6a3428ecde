package spsim_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	. "custode/simulators/spsim"
	"custode/simulators/spsim/catalogue"
)

// failing returns the ranges of the rules that a response breaks, each once;
// "unreadable" when it was refused before any rule.
func failing(t *testing.T, sp *SP, response, relayState string) string {
	t.Helper()
	e, err := sp.Evidence("", response, relayState)
	if err != nil {
		return "unreadable"
	}
	findings := catalogue.Audit(e)
	if len(findings) < 20 {
		t.Errorf("only %d rules were asked", len(findings))
	}
	var all []string
	for _, f := range findings {
		if f.Err != nil {
			t.Logf("%s %s: %v", f.Cases, f.Rule, f.Err)
			if !slices.Contains(all, f.Cases) {
				all = append(all, f.Cases)
			}
		}
	}
	return strings.Join(all, " ")
}

func TestCatalogueAccepts(t *testing.T) {
	for name, tc := range map[string]struct {
		request Request
		answer  Answer
	}{
		"level 1":       {Request{Level: 1}, Answer{}},
		"level 2":       {Request{Level: 2, Comparison: "exact"}, Answer{Level: 3}},
		"all":           {Request{Level: 2, Service: 2, ACSIndex: 1}, Answer{}},
		"no attributes": {Request{NoAttributes: true}, Answer{}},
		"issuer format": {Request{}, Answer{Response: Set("Issuer", "Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:entity")}},
		"nr22":          {Request{}, Answer{Status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr22"}}},
		"nr16":          {Request{ACSIndex: 1}, Answer{Status: [3]string{"Requester", "RequestUnsupported", "ErrorCode nr16"}, Response: Set("", "Destination", BaseURL+"/acs")}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.request.RelayState = "r"
			sp, response := Exchange(t, tc.request, tc.answer)
			if got := failing(t, sp, response, "r"); got != "" {
				t.Errorf("breaks %s", got)
			}
			// An audit is no answer: the response still counts.
			if _, err := sp.Consume(response, "r"); err != nil && tc.answer.Status[0] == "" {
				t.Error(err)
			}
		})
	}
}

// TestCatalogueRefuses breaks a good response in one way at a time, the signatures
// being good, and names every rule that sees it.
func TestCatalogueRefuses(t *testing.T) {
	ass := func(f func(*etree.Element)) Answer { return Answer{Assertion: f} }
	res := func(f func(*etree.Element)) Answer { return Answer{Response: f} }
	empty := func(path string) func(*etree.Element) { return Text(path, "") }
	conf, data := "Subject/SubjectConfirmation", "Subject/SubjectConfirmation/SubjectConfirmationData"
	class := "AuthnStatement/AuthnContext/AuthnContextClassRef"
	failed := func(sub, message string) Answer { return Answer{Status: [3]string{"Responder", sub, message}} }
	for _, tc := range []struct {
		name    string
		request Request
		answer  Answer
		want    string
	}{
		{"unsigned response", Request{}, Answer{UnsignedResponse: true}, "2 4-5 XSW 1-8 -"},
		{"unsigned assertion", Request{}, Answer{UnsignedAss: true}, "3 100 XSW 1-8 -"},
		{"response by a stranger", Request{}, Answer{StrangerResponse: true}, "4-5"},
		{"assertion by a stranger", Request{}, Answer{StrangerAss: true}, "100"},
		{"changed afterwards", Request{}, Answer{After: Text("Assertion/AttributeStatement/Attribute/AttributeValue", "ABCD000000000A")}, "2 3 4-5 100"},
		{"response ID missing", Request{}, Answer{Response: Unset("", "ID"), UnsignedResponse: true}, "2 4-5 8-9 XSW 1-8 -"},
		{"response ID a number", Request{}, res(Set("", "ID", "1")), "2 4-5 8-9"},
		{"response version", Request{}, res(Set("", "Version", "3.0")), "10"},
		{"response version missing", Request{}, res(Unset("", "Version")), "10"},
		{"response instant missing", Request{}, res(Unset("", "IssueInstant")), "11-13 14 15"},
		{"response instant malformed", Request{}, res(Set("", "IssueInstant", "today")), "11-13 14 15 109-110"},
		{"response instant with an offset", Request{}, res(Set("", "IssueInstant", "2026-03-04T06:06:09.000+01:00")), "11-13 109-110"},
		{"response instant long ago", Request{}, res(Set("", "IssueInstant", LongAgo)), "14 75-78"},
		{"response instant ahead", Request{}, res(Set("", "IssueInstant", FarAhead)), "15"},
		{"response instant in seconds", Request{}, res(Set("", "IssueInstant", "2026-03-04T05:06:09Z")), "109-110"},
		{"not an answer", Request{}, res(Unset("", "InResponseTo")), "unreadable"},
		{"answer to nothing", Request{}, res(Set("", "InResponseTo", "_x")), "unreadable"},
		{"no destination", Request{}, res(Unset("", "Destination")), "19-21"},
		{"other destination", Request{ACSIndex: 1}, res(Set("", "Destination", BaseURL)), "19-21"},
		{"no status", Request{}, res(Remove("Status")), "22-25 -"},
		{"unknown status", Request{}, res(Set("Status/StatusCode", "Value", "x")), "22-25 -"},
		{"success with a message", Request{}, res(func(el *etree.Element) { Add(el.FindElement("Status"), "samlp:StatusMessage").SetText("ok") }), "22-25"},
		{"no response issuer", Request{}, Answer{Response: Remove("Issuer"), UnsignedResponse: true}, "2 4-5 27-30 31 XSW 1-8 -"},
		{"other response issuer", Request{}, res(Text("Issuer", "https://other.example")), "27-30"},
		{"empty response issuer", Request{}, res(empty("Issuer")), "27-30"},
		{"response issuer format", Request{}, res(Set("Issuer", "Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:transient")), "31"},
		{"no assertion", Request{}, Answer{Response: Remove("Assertion")}, "all of the assertion"},
		{"assertion beside an anomaly", Request{}, res(func(el *etree.Element) {
			code := el.FindElement("Status/StatusCode")
			code.CreateAttr("Value", "urn:oasis:names:tc:SAML:2.0:status:Responder")
			Add(code, "samlp:StatusCode", "Value", "urn:oasis:names:tc:SAML:2.0:status:AuthnFailed")
			Add(el.FindElement("Status"), "samlp:StatusMessage").SetText("ErrorCode nr22")
		}), "-"},
		{"assertion ID a number", Request{}, ass(Set("", "ID", "1")), "3 100 33-34"},
		{"assertion version", Request{}, ass(Set("", "Version", "1.1")), "35"},
		{"assertion instant missing", Request{}, ass(Unset("", "IssueInstant")), "36-38 39 40"},
		{"assertion instant long ago", Request{}, ass(Set("", "IssueInstant", LongAgo)), "39"},
		{"assertion instant ahead", Request{}, ass(Set("", "IssueInstant", FarAhead)), "40"},
		{"no subject", Request{}, ass(Remove("Subject")), "41-43 44-46 47-49 51-55 56 57-59 60-62 63-66 -"},
		{"no NameID", Request{}, ass(Remove("Subject/NameID")), "41-43 44-46 47-49"},
		{"two NameID", Request{}, ass(Double("Subject/NameID")), "41-43 44-46 47-49"},
		{"empty NameID", Request{}, ass(empty("Subject/NameID")), "41-43"},
		{"NameID format", Request{}, ass(Set("Subject/NameID", "Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:entity")), "44-46"},
		{"NameID format missing", Request{}, ass(Unset("Subject/NameID", "Format")), "44-46"},
		{"NameID qualifier", Request{}, ass(Set("Subject/NameID", "NameQualifier", "x")), "47-49"},
		{"NameID qualifier missing", Request{}, ass(Unset("Subject/NameID", "NameQualifier")), "47-49"},
		{"no confirmation", Request{}, ass(Remove(conf)), "51-55 56 57-59 60-62 63-66"},
		{"confirmation method", Request{}, ass(Set(conf, "Method", "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches")), "51-55"},
		{"no confirmation data", Request{}, ass(Remove(data)), "56 57-59 60-62 63-66"},
		{"confirmation NotBefore", Request{}, ass(Set(data, "NotBefore", LongAgo)), "56"},
		{"recipient", Request{}, ass(Set(data, "Recipient", BaseURL)), "57-59"},
		{"no recipient", Request{}, ass(Unset(data, "Recipient")), "57-59"},
		{"confirmation answers another", Request{}, ass(Set(data, "InResponseTo", "_x")), "60-62"},
		{"confirmation answers none", Request{}, ass(Unset(data, "InResponseTo")), "60-62"},
		{"confirmation over", Request{}, ass(Set(data, "NotOnOrAfter", LongAgo)), "63-66"},
		{"confirmation endless", Request{}, ass(Unset(data, "NotOnOrAfter")), "63-66"},
		{"assertion issuer", Request{}, ass(Text("Issuer", "x")), "67-69"},
		{"assertion issuer format missing", Request{}, ass(Unset("Issuer", "Format")), "70-72"},
		{"assertion issuer format", Request{}, ass(Set("Issuer", "Format", "urn:oasis:names:tc:SAML:2.0:nameid-format:transient")), "70-72"},
		{"no conditions", Request{}, ass(Remove("Conditions")), "73-74 75-78 79-82 83-87 -"},
		{"NotBefore missing", Request{}, ass(Unset("Conditions", "NotBefore")), "75-78"},
		{"NotBefore ahead", Request{}, ass(Set("Conditions", "NotBefore", FarAhead)), "75-78"},
		{"NotOnOrAfter missing", Request{}, ass(Unset("Conditions", "NotOnOrAfter")), "79-82"},
		{"NotOnOrAfter over", Request{}, ass(Set("Conditions", "NotOnOrAfter", LongAgo)), "79-82"},
		{"no restriction", Request{}, ass(Remove("Conditions/AudienceRestriction")), "83-87"},
		{"no audience", Request{}, ass(Remove("Conditions/AudienceRestriction/Audience")), "83-87"},
		{"other audience", Request{}, ass(Text("Conditions/AudienceRestriction/Audience", "x")), "83-87"},
		{"no authentication statement", Request{}, ass(Remove("AuthnStatement")), "88-90 91-93 97 -"},
		{"authenticated in the future", Request{}, ass(Set("AuthnStatement", "AuthnInstant", FarAhead)), "88-90"},
		{"authenticated before", Request{}, ass(Set("AuthnStatement", "AuthnInstant", LongAgo)), "88-90"},
		{"no context", Request{}, ass(Remove("AuthnStatement/AuthnContext")), "91-93 97"},
		{"no class", Request{}, ass(Remove(class)), "91-93 97"},
		{"empty class", Request{}, ass(empty(class)), "91-93 97"},
		{"level too low", Request{Level: 3}, Answer{Level: 2}, "94-96"},
		{"level not better", Request{Level: 2, Comparison: "better"}, Answer{Level: 2}, "94-96"},
		{"withdrawn level", Request{}, ass(Text(class, "urn:oasis:names:tc:SAML:2.0:ac:classes:SpidL2")), "97"},
		{"statement without attributes", Request{}, ass(func(el *etree.Element) {
			s := el.FindElement("AttributeStatement")
			for _, a := range s.ChildElements() {
				s.RemoveChild(a)
			}
		}), "98-99 103"},
		{"attribute missing", Request{}, ass(Remove("AttributeStatement/Attribute")), "103"},
		{"attribute more", Request{NoAttributes: true}, ass(func(el *etree.Element) {
			v := Add(Add(Add(el, "saml:AttributeStatement"), "saml:Attribute", "Name", "name", "NameFormat", "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"), "saml:AttributeValue", "xsi:type", "xs:string")
			v.SetText("Ada")
		}), "103"},
		{"nr22 by the requester", Request{}, Answer{Status: [3]string{"Requester", "AuthnFailed", "ErrorCode nr22"}}, "22-25 104-108 111"},
		{"nr25 without sub-status", Request{}, failed("", "ErrorCode nr25"), "22-25 104-108 111"},
		{"nr26", Request{}, failed("AuthnFailed", "ErrorCode nr26"), "22-25"},
		{"message of another form", Request{}, failed("AuthnFailed", "nr22"), "22-25"},
		{"session above level 1", Request{}, ass(Set("AuthnStatement", "SessionIndex", "_s")), "-"},
		{"no session at level 1", Request{Level: 1}, ass(Unset("AuthnStatement", "SessionIndex")), "-"},
		{"advice", Request{}, ass(func(el *etree.Element) { Add(el, "saml:Advice") }), "-"},
		{"value of another form", Request{}, ass(Text("AttributeStatement/Attribute/AttributeValue", "x")), "-"},
		{"value twice", Request{}, ass(Double("AttributeStatement/Attribute/AttributeValue")), "-"},
		{"blanks", Request{}, ass(Text("Conditions/AudienceRestriction/Audience", " "+BaseURL+" ")), "83-87 -"},
		{"other root", Request{}, res(func(el *etree.Element) { el.Tag = "ArtifactResponse" }), "1 XSW 1-8"},
		{"fifth transform", Request{}, Answer{After: func(el *etree.Element) {
			Add(el.FindElement("Signature/SignedInfo/Reference/Transforms"), "ds:Transform", "Algorithm", "http://www.w3.org/2001/10/xml-exc-c14n#")
		}}, "2 4-5 -"},
		{"relay state", Request{RelayState: "other"}, Answer{}, "-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.request.RelayState == "" {
				tc.request.RelayState = "r"
			}
			sp, response := Exchange(t, tc.request, tc.answer)
			got := failing(t, sp, response, "r")
			if tc.want == "all of the assertion" {
				if !strings.HasPrefix(got, "3 100 32 33-34 35") {
					t.Errorf("breaks %q", got)
				}
			} else if got != tc.want {
				t.Errorf("breaks %q, want %q", got, tc.want)
			}
		})
	}
}

// TestCatalogueSeesWrapping: the wrapping shapes, of which TestConsumeRefusesWrapping
// has the list, break a rule of the catalogue or are not read.
func TestCatalogueSeesWrapping(t *testing.T) {
	for name, after := range map[string]func(*etree.Element){
		"second assertion": func(root *etree.Element) {
			evil := root.FindElement("Assertion").Copy()
			evil.CreateAttr("ID", "_evil")
			root.AddChild(evil)
		},
		"assertion in an extension": func(root *etree.Element) {
			good := root.FindElement("Assertion")
			root.RemoveChild(good)
			Add(root, "samlp:Extensions").AddChild(good)
		},
		"response in a response": func(root *etree.Element) { Add(root, "samlp:Response", "ID", "_inner") },
		"signature moved":        func(root *etree.Element) { s := root.FindElement("Signature"); root.RemoveChild(s); root.AddChild(s) },
	} {
		sp, response := Exchange(t, Request{}, Answer{After: after})
		if got := failing(t, sp, response, ""); !strings.Contains(got, "XSW 1-8") && got != "unreadable" {
			t.Errorf("%s: breaks %q", name, got)
		}
	}
}

// TestCatalogueIsWhole: the ranges follow each other, and every rule can be broken
// (TestCatalogueRefuses breaks the ranges it names).
func TestCatalogueIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range catalogue.Catalogue() {
		if c.Cases == "" || c.Rule == "" || seen[c.Rule] {
			t.Errorf("rule %q %q", c.Cases, c.Rule)
		}
		seen[c.Rule] = true
	}
	if n := len(catalogue.Catalogue()); n < 50 {
		t.Errorf("%d rules", n)
	}
}
