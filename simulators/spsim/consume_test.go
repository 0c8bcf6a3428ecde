package spsim

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"
	dsig "github.com/russellhaering/goxmldsig"
)

// ask makes a request and lets a second pass.
func ask(t testing.TB, sp *SP, c *clock, r Request) string {
	t.Helper()
	_, _, id, err := sp.PostForm(r)
	if err != nil {
		t.Fatal(err)
	}
	c.advance(1234 * time.Millisecond)
	return id
}

func TestConsumeAccepts(t *testing.T) {
	all := func(c *Config) {}
	tests := map[string]struct {
		config  func(*Config)
		request Request
		answer  answer
		level   int
		session bool
	}{
		"level 2":                 {all, Request{}, answer{}, 2, false},
		"level 1":                 {all, Request{Level: 1}, answer{}, 1, true},
		"level 3":                 {all, Request{Level: 3}, answer{}, 3, false},
		"exact, stepped up":       {all, Request{Comparison: "exact"}, answer{level: 3}, 3, false},
		"better":                  {all, Request{Comparison: "better"}, answer{level: 3}, 3, false},
		"maximum, lower":          {all, Request{Level: 3, Comparison: "maximum"}, answer{level: 2}, 2, false},
		"no attributes":           {all, Request{NoAttributes: true}, answer{}, 2, false},
		"every attribute":         {all, Request{Service: 2}, answer{}, 2, false},
		"second ACS":              {all, Request{ACSIndex: 1}, answer{}, 2, false},
		"ACS by URL":              {all, Request{ACSIndex: 1, ACSByURL: true}, answer{}, 2, false},
		"relay state":             {all, Request{RelayState: `a b&c="<è>`}, answer{}, 2, false},
		"SHA-512":                 {all, Request{}, answer{hash: crypto.SHA512}, 2, false},
		"issuer format":           {all, Request{}, answer{response: set("Issuer", "Format", formatEntity)}, 2, false},
		"same millisecond":        {all, Request{}, answer{issued: newClock().now()}, 2, false},
		"clock ahead within skew": {func(c *Config) { c.Skew = time.Minute }, Request{}, answer{issued: newClock().now().Add(30 * time.Second)}, 2, false},
		"empty attribute": {all, Request{}, answer{assertion: func(el *etree.Element) {
			v := el.FindElement("//Attribute[@Name='dateOfBirth']/AttributeValue")
			v.SetText("")
			v.CreateAttr("xsi:type", "xs:string")
		}}, 2, false},
		"level 1 from a session": {all, Request{Level: 1}, answer{assertion: func(el *etree.Element) {
			el.FindElement("AuthnStatement").CreateAttr("AuthnInstant", "2026-03-04T05:00:00.000Z")
		}}, 1, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sp, idp, c := newSP(t, tt.config)
			id := ask(t, sp, c, tt.request)
			login, err := sp.Consume(idp.respond(t, sp, id, tt.answer), tt.request.RelayState)
			if err != nil {
				t.Fatal(err)
			}
			if login.Level != tt.level || (login.SessionIndex != "") != tt.session {
				t.Errorf("level %d, session index %q", login.Level, login.SessionIndex)
			}
			want := sp.cfg.AttributeSets[tt.request.Service]
			if tt.request.NoAttributes {
				want = nil
			}
			if d := cmp.Diff(want, login.AttributeNames); d != "" {
				t.Errorf("attributes (-want +got):\n%s", d)
			}
			if login.InResponseTo != id || login.NameID == "" || len(login.XML) == 0 || len(login.RequestXML) == 0 || len(login.SignerSHA256) != 64 {
				t.Errorf("login is not complete: %+v", login)
			}
		})
	}
}

// set returns a breaker that sets an attribute of the element at path ("" is
// the element itself).
func set(path, key, value string) func(*etree.Element) {
	return func(el *etree.Element) {
		if path != "" {
			el = el.FindElement(path)
		}
		el.CreateAttr(key, value)
	}
}

func unset(path, key string) func(*etree.Element) {
	return func(el *etree.Element) {
		if path != "" {
			el = el.FindElement(path)
		}
		el.RemoveAttr(key)
	}
}

func text(path, value string) func(*etree.Element) {
	return func(el *etree.Element) { el.FindElement(path).SetText(value) }
}

func remove(path string) func(*etree.Element) {
	return func(el *etree.Element) {
		c := el.FindElement(path)
		c.Parent().RemoveChild(c)
	}
}

func double(path string) func(*etree.Element) {
	return func(el *etree.Element) {
		c := el.FindElement(path)
		c.Parent().InsertChildAt(c.Index(), c.Copy())
	}
}

const longAgo, farAhead = "2020-01-01T00:00:00.000Z", "2030-01-01T00:00:00.000Z"

// refusals lists, by the name of the check, every rule with a response that
// breaks it and nothing else.
func refusals() []struct {
	name, check string
	request     Request
	answer      answer
} {
	type table = []struct {
		name, check string
		request     Request
		answer      answer
	}
	lvl1, none := Request{Level: 1}, Request{}
	ass := func(f func(*etree.Element)) answer { return answer{assertion: f} }
	res := func(f func(*etree.Element)) answer { return answer{response: f} }
	value := "//Attribute[@Name='name']/AttributeValue"
	return table{
		{"response unsigned", "response.signature", none, answer{unsignedResponse: true}},
		{"assertion unsigned", "assertion.signature", none, answer{unsignedAss: true}},
		{"response by a stranger", "response.signature", none, answer{strangerResponse: true}},
		{"assertion by a stranger", "assertion.signature", none, answer{strangerAss: true}},
		{"SHA-1", "response.signature", none, answer{hash: crypto.SHA1}},
		{"response changed", "response.signature", none, answer{after: set("", "Destination", "https://x.example")}},
		{"assertion changed", "response.signature", none, answer{after: text(value, "Eva")}},
		{"assertion changed, response re-signed", "assertion.signature", none, res(text("//Attribute[@Name='name']/AttributeValue", "Eva"))},
		{"two references", "response.signature", none, answer{after: double("Signature/SignedInfo/Reference")}},
		{"reference to the whole document", "response.signature", none, answer{after: set("Signature/SignedInfo/Reference", "URI", "")}},
		{"inclusive canonicalisation", "response.signature", none, answer{after: set("Signature/SignedInfo/CanonicalizationMethod", "Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")}},
		{"HMAC", "response.signature", none, answer{after: set("Signature/SignedInfo/SignatureMethod", "Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")}},
		{"extra transform", "response.signature", none, answer{after: double("Signature/SignedInfo/Reference/Transforms/Transform")}},
		{"no KeyInfo", "response.signature", none, answer{after: remove("Signature/KeyInfo")}},
		{"doubled signature", "response.signature", none, answer{after: double("Signature")}},
		{"signature last", "signature.place", none, answer{after: func(el *etree.Element) {
			sig := el.FindElement("Signature")
			el.RemoveChild(sig)
			el.AddChild(sig)
		}}},
		{"not a response", "response.root", none, answer{after: func(el *etree.Element) { el.Tag = "LogoutResponse" }}},
		{"DTD", "xml", none, answer{raw: func(b []byte) []byte { return append([]byte("<!DOCTYPE a>"), b...) }}},
		{"comment in a value", "xml", none, answer{raw: func(b []byte) []byte {
			return bytes.Replace(b, []byte("Maria"), []byte("Ma<!-- -->ria"), 1)
		}}},
		{"doubled attribute", "xml", none, answer{raw: func(b []byte) []byte {
			return bytes.Replace(b, []byte(` Version="2.0"`), []byte(` Version="2.0" Version="2.0"`), 1)
		}}},
		{"no success without assertion", "response.shape", none, res(remove("Assertion"))},
		{"two assertions", "xml", none, res(double("Assertion"))}, // the ID comes twice
		{"two assertions with their own IDs", "response.shape", none, res(func(el *etree.Element) {
			twin := el.FindElement("Assertion").Copy()
			twin.CreateAttr("ID", "_twin")
			el.AddChild(twin)
		})},
		{"assertion in an error", "response.shape", none, res(func(el *etree.Element) {
			status := el.FindElement("Status")
			top := status.FindElement("StatusCode")
			top.CreateAttr("Value", statusPrefix+"Responder")
			add(top, "samlp:StatusCode", "Value", statusPrefix+"AuthnFailed")
			add(status, "samlp:StatusMessage").SetText("ErrorCode nr25")
		})},
		{"response extensions", "response.shape", none, res(func(el *etree.Element) { add(el, "samlp:Extensions") })},
		{"response ID missing", "response.signature", none, res(unset("", "ID"))},
		{"response ID a number", "response.signature", none, res(set("", "ID", "1abc"))},
		{"response version", "response.version", none, res(set("", "Version", "2.1"))},
		{"response instant missing", "response.issueInstant", none, res(unset("", "IssueInstant"))},
		{"response instant without milliseconds", "response.issueInstant", none, res(set("", "IssueInstant", "2026-03-04T05:06:09Z"))},
		{"response instant with six digits", "response.issueInstant", none, res(set("", "IssueInstant", "2026-03-04T05:06:09.000000Z"))},
		{"response instant with an offset", "response.issueInstant", none, res(set("", "IssueInstant", "2026-03-04T06:06:09.000+01:00"))},
		{"response instant impossible", "response.issueInstant", none, res(set("", "IssueInstant", "2026-02-30T05:06:09.000Z"))},
		{"response before the request", "response.issueInstant", none, res(set("", "IssueInstant", "2026-03-04T05:06:07.889Z"))},
		{"response in the future", "response.issueInstant", none, res(set("", "IssueInstant", "2026-03-04T05:06:09.125Z"))},
		{"response InResponseTo missing", "response.inResponseTo", none, res(unset("", "InResponseTo"))},
		{"response InResponseTo unknown", "response.inResponseTo", none, res(set("", "InResponseTo", "_x"))},
		{"destination", "response.destination", none, res(set("", "Destination", testBase+"/acs/1"))},
		{"destination missing", "response.destination", none, res(unset("", "Destination"))},
		{"response issuer", "response.issuer", none, res(text("Issuer", "https://evil.example"))},
		{"response issuer format", "response.issuerFormat", none, res(set("Issuer", "Format", formatTransient))},
		{"status missing", "response.status", none, res(remove("Status"))},
		{"success with a message", "response.status", none, res(func(el *etree.Element) {
			add(el.FindElement("Status"), "samlp:StatusMessage").SetText("ErrorCode nr01")
		})},
		{"assertion ID equal to the response's", "xml", none, res(func(el *etree.Element) {
			el.CreateAttr("ID", el.FindElement("Assertion").SelectAttrValue("ID", ""))
		})},
		{"assertion version", "assertion.version", none, ass(set("", "Version", "1.1"))},
		{"assertion instant", "assertion.issueInstant", none, ass(set("", "IssueInstant", longAgo))},
		{"assertion in the future", "assertion.issueInstant", none, ass(set("", "IssueInstant", farAhead))},
		{"assertion issuer", "assertion.issuer", none, ass(text("Issuer", "https://evil.example"))},
		{"assertion issuer without format", "assertion.issuerFormat", none, ass(unset("Issuer", "Format"))},
		{"no subject", "assertion.shape", none, ass(remove("Subject"))},
		{"advice", "assertion.shape", none, ass(func(el *etree.Element) { add(el, "saml:Advice") })},
		{"no attribute statement", "assertion.shape", none, ass(remove("AttributeStatement"))},
		{"attribute statement not asked for", "assertion.shape", Request{NoAttributes: true}, ass(func(el *etree.Element) {
			add(el, "saml:AttributeStatement")
		})},
		{"empty NameID", "nameID", none, ass(text("Subject/NameID", ""))},
		{"NameID format", "nameID.format", none, ass(set("Subject/NameID", "Format", formatEntity))},
		{"NameID qualifier", "nameID.nameQualifier", none, ass(unset("Subject/NameID", "NameQualifier"))},
		{"two confirmations", "subject", none, ass(double("Subject/SubjectConfirmation"))},
		{"confirmation method", "subjectConfirmation.method", none, ass(set("Subject/SubjectConfirmation", "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"))},
		{"no confirmation data", "subjectConfirmation", none, ass(remove("//SubjectConfirmationData"))},
		{"confirmation recipient", "subjectConfirmation.recipient", none, ass(set("//SubjectConfirmationData", "Recipient", testBase+"/acs/1"))},
		{"confirmation request", "subjectConfirmation.inResponseTo", none, ass(set("//SubjectConfirmationData", "InResponseTo", "_x"))},
		{"confirmation over", "subjectConfirmation.notOnOrAfter", none, ass(set("//SubjectConfirmationData", "NotOnOrAfter", "2026-03-04T05:06:09.124Z"))},
		{"confirmation not before", "subjectConfirmation.notBefore", none, ass(set("//SubjectConfirmationData", "NotBefore", longAgo))},
		{"conditions begin later", "conditions.notBefore", none, ass(set("Conditions", "NotBefore", "2026-03-04T05:06:09.125Z"))},
		{"conditions begin after the response", "conditions.notBefore", none, answer{issued: newClock().now().Add(time.Second),
			assertion: set("Conditions", "NotBefore", "2026-03-04T05:06:09.000Z")}},
		{"conditions without begin", "conditions.notBefore", none, ass(unset("Conditions", "NotBefore"))},
		{"conditions over", "conditions.notOnOrAfter", none, ass(set("Conditions", "NotOnOrAfter", "2026-03-04T05:06:09.124Z"))},
		{"audience", "conditions.audience", none, ass(text("//Audience", "https://other.example"))},
		{"no audience", "conditions.audience", none, ass(remove("//AudienceRestriction"))},
		{"one-time use", "conditions.audience", none, ass(func(el *etree.Element) { add(el.FindElement("Conditions"), "saml:OneTimeUse") })},
		{"session index at level 2", "authnStatement.sessionIndex", none, ass(set("AuthnStatement", "SessionIndex", "_s"))},
		{"no session index at level 1", "authnStatement.sessionIndex", lvl1, ass(unset("AuthnStatement", "SessionIndex"))},
		{"authenticated before a level 2 request", "authnStatement.authnInstant", none, ass(set("AuthnStatement", "AuthnInstant", longAgo))},
		{"session used despite ForceAuthn", "authnStatement.authnInstant", Request{Level: 1, ForceAuthn: "1"}, ass(set("AuthnStatement", "AuthnInstant", longAgo))},
		{"authenticated in the future", "authnStatement.authnInstant", lvl1, ass(set("AuthnStatement", "AuthnInstant", farAhead))},
		{"level too low", "authnContext.level", none, answer{level: 1}},
		{"level not better", "authnContext.level", Request{Comparison: "better"}, answer{level: 2}},
		{"level URN withdrawn by Avviso 5", "authnContext.level", none, ass(text("//AuthnContextClassRef", "urn:oasis:names:tc:SAML:2.0:ac:classes:SpidL2"))},
		{"level 4", "authnContext.level", none, answer{level: 4}},
		{"declaration beside the class", "authnContext", none, ass(func(el *etree.Element) {
			add(el.FindElement("//AuthnContext"), "saml:AuthnContextDeclRef").SetText("x")
		})},
		{"no class", "authnContext", none, ass(remove("//AuthnContextClassRef"))},
		{"attribute missing", "attributes", none, ass(remove("//Attribute[@Name='email']"))},
		{"encrypted attribute", "attributes", none, ass(func(el *etree.Element) {
			add(el.FindElement("AttributeStatement"), "saml:EncryptedAttribute")
		})},
		{"attribute twice", "attributes", none, ass(double("//Attribute[@Name='email']"))},
		{"attribute not asked for", "attributes", none, ass(set("//Attribute[@Name='email']", "Name", "address"))},
		{"attribute name format", "attribute.nameFormat", none, ass(unset("//Attribute", "NameFormat"))},
		{"two values", "attribute.value", none, ass(double("//AttributeValue"))},
		{"date as string", "attribute.type", none, ass(set("//Attribute[@Name='dateOfBirth']/AttributeValue", "xsi:type", "xs:string"))},
		{"empty date", "attribute.type", none, ass(text("//Attribute[@Name='dateOfBirth']/AttributeValue", ""))},
		{"no type", "attribute.type", none, ass(unset(value, "xsi:type"))},
		{"type of a foreign namespace", "attribute.type", none, ass(set(value, "xmlns:xs", "urn:x"))},
		{"date in Italian form", "attribute.value", none, ass(text("//Attribute[@Name='dateOfBirth']/AttributeValue", "01/01/1980"))},
		{"fiscal number without TINIT", "attribute.value", none, ass(text("//Attribute[@Name='fiscalNumber']/AttributeValue", "RSSMRA80A01H501U"))},
		{"spidCode too long", "attribute.value", none, ass(text("//Attribute[@Name='spidCode']/AttributeValue", "ABCD123456789AB"))},
		{"blank before a value", "text.whitespace", none, ass(text(value, " Maria"))},
		{"newline around the audience", "text.whitespace", none, ass(text("//Audience", testBase+"\n"))},
		{"three-level status", "response.status", none, answer{status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr19"}, response: func(el *etree.Element) {
			add(el.FindElement("Status/StatusCode"), "samlp:StatusCode", "Value", statusPrefix+"AuthnFailed")
		}}},
		{"wrong status pair", "response.status", none, answer{status: [3]string{"Responder", "NoAuthnContext", "ErrorCode nr12"}}},
		{"anomaly 24", "response.status", none, answer{status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr24"}}},
		{"anomaly of a page", "response.status", none, answer{status: [3]string{"Requester", "", "ErrorCode nr07"}}},
		{"wrong message", "response.status", none, answer{status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr 19"}}},
		{"unsigned error", "response.signature", none, answer{unsignedResponse: true, status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr19"}}},
		{"error without InResponseTo", "response.inResponseTo", none, answer{response: unset("", "InResponseTo"), status: [3]string{"Responder", "AuthnFailed", "ErrorCode nr19"}}},
		{"nr16 not to the default ACS", "response.destination", Request{ACSIndex: 1}, answer{status: [3]string{"Requester", "RequestUnsupported", "ErrorCode nr16"}}},
	}
}

func TestConsumeRefuses(t *testing.T) {
	sp, idp, c := newSP(t, nil)
	start := c.now()
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			c.advance(start.Sub(c.now()))
			id := ask(t, sp, c, tt.request)
			login, err := sp.Consume(idp.respond(t, sp, id, tt.answer), "")
			if CheckOf(err) != tt.check {
				t.Errorf("got %v (%+v), want a refusal by %s", err, login, tt.check)
			}
		})
	}
}

// The library behind the judge accepts more than SPID allows: the
// first case proves that a re-signed SignedInfo is valid as such.
func TestConsumeRefusesUnusualSignatures(t *testing.T) {
	const sha1Digest = "http://www.w3.org/2000/09/xmldsig#sha1"
	for name, tt := range map[string]struct {
		answer answer
		want   string // part of the refusal; "" accepts
	}{
		"as usual":         {answer{signedInfo: func(*etree.Element) {}}, ""},
		"SHA-1 signature":  {answer{signedInfo: set("SignatureMethod", "Algorithm", dsig.RSASHA1SignatureMethod), infoHash: crypto.SHA1}, "signature method"},
		"SHA-1 digest":     {answer{signedInfo: set("//DigestMethod", "Algorithm", sha1Digest)}, "digest method"},
		"whole document":   {answer{signedInfo: set("Reference", "URI", "")}, "reference to"},
		"two references":   {answer{signedInfo: double("Reference")}, "SignedInfo holds"},
		"three transforms": {answer{signedInfo: double("//Transform[2]")}, "Transforms holds"},
		"comments kept":    {answer{signedInfo: set("//Transform[2]", "Algorithm", algExclusive+"WithComments")}, "transform 2"},
		"c14n 1.1":         {answer{signedInfo: set("CanonicalizationMethod", "Algorithm", "http://www.w3.org/2006/12/xml-c14n11")}, "canonicalisation"},
	} {
		t.Run(name, func(t *testing.T) {
			sp, idp, c := newSP(t, nil)
			id := ask(t, sp, c, Request{})
			_, err := sp.Consume(idp.respond(t, sp, id, tt.answer), "")
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (CheckOf(err) != "response.signature" || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want a refusal about %q", err, tt.want)
			}
		})
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	for want, document := range map[string]string{
		"not UTF-8":                   "<a xmlns='u'>\xff</a>",
		"CDATA section":               "<a xmlns='u'><![CDATA[x]]></a>",
		"not well-formed":             "<a xmlns='u'>",
		"outside the XML declaration": "<?php x?><a xmlns='u'/>",
		"encoding other than UTF-8":   "<?xml version='1.0' encoding='ISO-8859-1'?><a xmlns='u'/>",
		"more than one root":          "<a xmlns='u'/><a xmlns='u'/>",
		"outside the root element":    "<a xmlns='u'/>x",
		"DTD or comment":              "<!DOCTYPE a><a xmlns='u'/>",
		"no root element":             "<?xml version='1.0'?>",
		"too many elements":           "<a xmlns='u'>" + strings.Repeat("<b/>", maxElements) + "</a>",
		"between the elements":        "<a xmlns='u'>x<b/></a>",
		"without a namespace":         "<a/>",
		"comment, processing":         "<a xmlns='u'><!-- --></a>",
		`attribute "x" twice`:         "<a xmlns='u' x='1' x='2'/>",
		`ID "i" twice`:                "<a xmlns='u' ID='i'><b Id='i'/></a>",
	} {
		if _, err := parseDocument([]byte(document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %q", err, want)
		}
	}
	if _, err := parseDocument([]byte("<?xml version='1.0' encoding='utf-8'?>\n<a xmlns='u'>\n<b ID='i'>è</b>\n</a>\n")); err != nil {
		t.Error(err)
	}
}

func TestConsumeRefusesUnreadableFields(t *testing.T) {
	sp, _, _ := newSP(t, nil)
	for name, tt := range map[string]struct{ field, check string }{
		"empty":       {"", "encoding"},
		"not base64":  {"%%%", "encoding"},
		"line breaks": {"PGEv\nPg==", "encoding"},
		"not XML":     {base64.StdEncoding.EncodeToString([]byte("hello")), "xml"},
		"two roots":   {base64.StdEncoding.EncodeToString([]byte("<a xmlns='u'/><a xmlns='u'/>")), "xml"},
		"deep":        {base64.StdEncoding.EncodeToString([]byte("<a xmlns='u'>" + strings.Repeat("<a>", 99) + strings.Repeat("</a>", 99) + "</a>")), "xml"},
		"huge":        {strings.Repeat("A", maxResponse+4), "size"},
	} {
		if _, err := sp.Consume(tt.field, ""); CheckOf(err) != tt.check {
			t.Errorf("%s: got %v, want a refusal by %s", name, err, tt.check)
		}
	}
}

func TestConsumeRefusesExpiredCertificate(t *testing.T) {
	sp, idp, c := newSP(t, nil)
	c.advance(1000 * time.Hour)
	id := ask(t, sp, c, Request{})
	if _, err := sp.Consume(idp.respond(t, sp, id, answer{}), ""); CheckOf(err) != "response.signature" {
		t.Errorf("got %v", err)
	}
}

func TestConsumeOnceAndByTheSameBrowser(t *testing.T) {
	sp, idp, c := newSP(t, nil)
	id := ask(t, sp, c, Request{Browser: "b1", RelayState: "r"})
	response := idp.respond(t, sp, id, answer{})
	for _, tt := range []struct{ browser, relay, check string }{
		{"", "r", "response.inResponseTo"},
		{"b2", "r", "response.inResponseTo"},
		{"b1", "r", ""},
		{"b1", "r", "response.replay"},
	} {
		if _, err := sp.ConsumeFor(tt.browser, response, tt.relay); CheckOf(err) != tt.check || (tt.check == "" && err != nil) {
			t.Errorf("browser %q: got %v, want %q", tt.browser, err, tt.check)
		}
	}

	id = ask(t, sp, c, Request{RelayState: "r"})
	if _, err := sp.Consume(idp.respond(t, sp, id, answer{}), "R"); CheckOf(err) != "relayState" {
		t.Errorf("changed relay state: got %v", err)
	}
	id = ask(t, sp, c, Request{RelayState: "r", Drop: []string{"RelayState"}})
	if _, err := sp.Consume(idp.respond(t, sp, id, answer{}), ""); err != nil {
		t.Errorf("relay state that was never sent: got %v", err)
	}
	id = ask(t, sp, c, Request{})
	c.advance(sp.cfg.RequestTTL)
	if _, err := sp.Consume(idp.respond(t, sp, id, answer{}), ""); CheckOf(err) != "response.inResponseTo" {
		t.Errorf("late answer: got %v", err)
	}
}

func TestConsumeRefusesUsedIdentifiers(t *testing.T) {
	for check, answers := range map[string]answer{
		"nameID":       {assertion: text("Subject/NameID", "_same")},
		"response.id":  {response: set("", "ID", "_same")},
		"assertion.id": {assertion: set("", "ID", "_same")},
	} {
		sp, idp, c := newSP(t, nil)
		var err error
		for range 2 {
			if err != nil {
				t.Fatal(err)
			}
			_, err = sp.Consume(idp.respond(t, sp, ask(t, sp, c, Request{}), answers), "")
		}
		if CheckOf(err) != check {
			t.Errorf("got %v, want a refusal by %s", err, check)
		}
	}
}

func TestConsumeStatusErrors(t *testing.T) {
	sp, idp, c := newSP(t, nil)
	for number, pair := range anomalyStatus {
		message := "ErrorCode nr" + string([]byte{'0' + byte(number/10), '0' + byte(number%10)})
		id := ask(t, sp, c, Request{RelayState: "r"})
		response := idp.respond(t, sp, id, answer{status: [3]string{pair[0], pair[1], message}})
		_, err := sp.Consume(response, "r")
		var anomaly *StatusError
		if !errors.As(err, &anomaly) {
			t.Errorf("nr%02d: got %v", number, err)
			continue
		}
		got := []any{anomaly.Anomaly, anomaly.Message, anomaly.Code, anomaly.InResponseTo, anomaly.RelayState}
		want := []any{number, message, statusPrefix + pair[0], id, "r"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("nr%02d (-want +got):\n%s", number, d)
		}
	}
	id := ask(t, sp, c, Request{})
	response := idp.respond(t, sp, id, answer{response: unset("", "InResponseTo"), status: [3]string{"Requester", "", "ErrorCode nr11"}})
	var anomaly *StatusError
	if _, err := sp.Consume(response, ""); !errors.As(err, &anomaly) || anomaly.Anomaly != 11 || anomaly.InResponseTo != "" {
		t.Errorf("nr11 without InResponseTo: got %v", err)
	}
}

// The eight classic ways to wrap a signed element: the verified one is moved
// away and a forged one put in its place.
func TestConsumeRefusesWrapping(t *testing.T) {
	forge := func(el *etree.Element) *etree.Element {
		evil := el.Copy()
		evil.CreateAttr("ID", "_evil")
		evil.FindElement("//Attribute[@Name='fiscalNumber']/AttributeValue").SetText("TINIT-VRDLGI80A01H501U")
		return evil
	}
	wraps := map[string]func(root *etree.Element){
		"evil assertion before": func(root *etree.Element) {
			good := root.FindElement("Assertion")
			root.InsertChildAt(good.Index(), forge(good))
		},
		"evil assertion after": func(root *etree.Element) { root.AddChild(forge(root.FindElement("Assertion"))) },
		"good assertion inside the evil one": func(root *etree.Element) {
			good := root.FindElement("Assertion")
			evil := forge(good)
			root.RemoveChild(good)
			evil.AddChild(good)
			root.AddChild(evil)
		},
		"good assertion in the evil one's signature": func(root *etree.Element) {
			good := root.FindElement("Assertion")
			evil := forge(good)
			root.RemoveChild(good)
			add(evil.FindElement("Signature"), "ds:Object", "xmlns:ds", nsSignature).AddChild(good)
			root.AddChild(evil)
		},
		"good assertion in Extensions": func(root *etree.Element) {
			good := root.FindElement("Assertion")
			evil := forge(good)
			root.RemoveChild(good)
			add(root, "samlp:Extensions").AddChild(good)
			root.AddChild(evil)
		},
		"good response inside its evil copy": func(root *etree.Element) {
			good := root.Copy()
			root.CreateAttr("ID", "_evilresponse")
			root.FindElement("Assertion").CreateAttr("ID", "_evil")
			add(root.FindElement("Signature"), "ds:Object", "xmlns:ds", nsSignature).AddChild(good)
		},
	}
	for name, wrap := range wraps {
		t.Run(name, func(t *testing.T) {
			sp, idp, c := newSP(t, nil)
			id := ask(t, sp, c, Request{})
			login, err := sp.Consume(idp.respond(t, sp, id, answer{after: wrap}), "")
			if CheckOf(err) == "" {
				t.Errorf("got %+v, %v; want a refusal", login, err)
			}
		})
	}
}

// forget makes every request unanswered and every identifier new again.
func forget(sp *SP) {
	sp.requests.mu.Lock()
	defer sp.requests.mu.Unlock()
	for _, s := range sp.requests.byID {
		s.answered = false
	}
	clear(sp.requests.seen)
	sp.requests.trail.Init()
}

// Every field is read from verified bytes only: flipping any single byte of a
// response never yields a different login.
func TestConsumeFlippedBytes(t *testing.T) {
	sp, idp, c := newSP(t, nil)
	id := ask(t, sp, c, Request{Service: 1})
	raw, err := base64.StdEncoding.DecodeString(idp.respond(t, sp, id, answer{}))
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for i := 0; i < len(raw); i += 7 {
		broken := bytes.Clone(raw)
		broken[i] ^= 0x02
		forget(sp)
		login, err := sp.Consume(base64.StdEncoding.EncodeToString(broken), "")
		if err != nil {
			continue
		}
		accepted++
		if login.Attributes["fiscalNumber"] != sampleValue("fiscalNumber") || login.Level != 2 {
			t.Errorf("byte %d: a forged login was accepted: %+v", i, login)
		}
	}
	if accepted > 4 {
		t.Errorf("%d changed responses were accepted", accepted)
	}
}

func FuzzConsume(f *testing.F) {
	sp, idp, c := newSP(f, nil)
	id := ask(f, sp, c, Request{})
	raw, err := base64.StdEncoding.DecodeString(idp.respond(f, sp, id, answer{}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"/>`))
	f.Add([]byte("<a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		forget(sp)
		login, err := sp.Consume(base64.StdEncoding.EncodeToString(data), "")
		if err == nil && !bytes.Equal(data, raw) && login.Attributes["name"] != sampleValue("name") {
			t.Errorf("a forged login was accepted: %+v", login)
		}
	})
}
