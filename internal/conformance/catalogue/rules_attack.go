package catalogue

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"

	"custode/internal/conformance/request"
)

const (
	xmlGuard = "SPID technical rules; table of anomalies, row 4; " + divergences
	sigGuard = "SPID technical rules, signatures; table of anomalies, row 7"
)

// document changes the finished document: after signing by HTTP-POST, before
// the query is signed by HTTP-Redirect.
func document(f func(string) string) func(*request.Message) {
	return func(m *request.Message) { m.Raw = f }
}

func inDocument(old, new string) func(*request.Message) {
	return document(func(doc string) string { return strings.Replace(doc, old, new, 1) })
}

// beforeRoot puts something in front of the root element.
func beforeRoot(what string) func(*request.Message) {
	return document(func(doc string) string { return what + doc })
}

// attackRules: XML that is made to be read in two ways, or to cost too much.
func attackRules() []Rule {
	entities := `<!DOCTYPE a [<!ENTITY l0 "lol">`
	for i := range 9 {
		entities += fmt.Sprintf(`<!ENTITY l%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&l%d;", i), 10))
	}
	issuerEnd := "</saml:Issuer>"
	into := func(what string) func(*request.Message) { return inDocument(issuerEnd, what+issuerEnd) }
	padding := func(what string) func(*request.Message) {
		return inDocument(issuerEnd, issuerEnd+"<samlp:Extensions>"+what+"</samlp:Extensions>")
	}
	return append(variants("attack", xmlGuard,
		variant{"doctype", "a document type", beforeRoot(`<!DOCTYPE samlp:AuthnRequest>`), 4},
		variant{"doctype-external", "an external document type", beforeRoot(`<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd">`), 4},
		variant{"entity", "an entity in Issuer", document(func(d string) string {
			return `<!DOCTYPE a [<!ENTITY e "x">]>` + strings.Replace(d, issuerEnd, "&e;"+issuerEnd, 1)
		}), 4},
		variant{"entity-file", "an entity that is a file", document(func(d string) string {
			return `<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + strings.Replace(d, issuerEnd, "&e;"+issuerEnd, 1)
		}), 4},
		variant{"entity-parameter", "a parameter entity", beforeRoot(`<!DOCTYPE a [<!ENTITY % e SYSTEM "http://127.0.0.1:9/x">%e;]>`), 4},
		variant{"entity-bomb", "ten to the ninth entities", document(func(d string) string {
			return entities + "]>" + strings.Replace(d, issuerEnd, "&l9;"+issuerEnd, 1)
		}), 4},
		variant{"entity-unknown", "an entity of nobody", into("&nope;"), 4},
		variant{"comment-issuer", "a comment that truncates Issuer", inDocument("</saml:Issuer>", "<!-- -->.attacker.example.org</saml:Issuer>"), 4},
		variant{"comment-inside", "a comment within Issuer's text", inDocument("://", ":<!-- -->//"), 4},
		variant{"pi-issuer", "a processing instruction that truncates Issuer", inDocument("</saml:Issuer>", "<?x y?>.attacker.example.org</saml:Issuer>"), 4},
		variant{"pi-before", "a processing instruction before the root", beforeRoot("<?x y?>"), 4},
		variant{"stylesheet", "a style sheet", beforeRoot(`<?xml-stylesheet href="http://127.0.0.1:9/x.xsl"?>`), 4},
		variant{"cdata-issuer", "a CDATA section in Issuer", into("<![CDATA[]]>"), 4},
		variant{"second-root", "a second root", document(func(d string) string { return d + d }), 4},
		variant{"text-after", "text after the root", document(func(d string) string { return d + "x" }), 4},
		variant{"text-before", "text before the root", beforeRoot("x"), 4},
		variant{"id-twice", "the same ID twice", document(func(d string) string {
			id := regexp.MustCompile(` ID="[^"]*"`).FindString(d)
			return strings.Replace(d, issuerEnd, issuerEnd+`<samlp:Extensions><x`+id+`/></samlp:Extensions>`, 1)
		}), 4},
		variant{"unfinished", "a document that ends too early", document(func(d string) string { return d[:len(d)-3] }), 4},
		variant{"crossed", "crossed tags", inDocument("</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>", "</samlp:RequestedAuthnContext></saml:AuthnContextClassRef>"), 4},
		variant{"undeclared", "a prefix without a declaration", padding("<q:x/>"), 4},
		variant{"nul", "a NUL", into("\x00"), 4},
		variant{"control", "a control character", into("\x01"), 4},
		variant{"nul-reference", "a reference to NUL", into("&#0;"), 4},
		variant{"bad-utf8", "octets that are not UTF-8", into("\xff\xfe"), 4},
		variant{"overlong", "an overlong UTF-8 sequence", into("\xc0\xaf"), 4},
		variant{"utf-16", "UTF-16", document(func(d string) string {
			b := []byte{0xfe, 0xff}
			for _, u := range utf16.Encode([]rune(d)) {
				b = append(b, byte(u>>8), byte(u))
			}
			return string(b)
		}), 4},
		variant{"latin-1", "ISO 8859-1 declared", beforeRoot(`<?xml version="1.0" encoding="ISO-8859-1"?>`), 4},
		variant{"utf-7", "UTF-7 declared", beforeRoot(`<?xml version="1.0" encoding="UTF-7"?>`), 4},
		variant{"xml-1-1", "XML 1.1", beforeRoot(`<?xml version="1.1" encoding="UTF-8"?>`), 4},
		variant{"deep", "2,000 elements within each other", padding(strings.Repeat("<a>", 2000) + strings.Repeat("</a>", 2000)), 4},
		variant{"wide", "2,000 elements beside each other", padding(strings.Repeat("<a/>", 2000)), 4},
		variant{"attributes", "500 attributes", padding("<a" + numbered(` a%d="x"`, 500) + "/>"), 4},
		variant{"declarations", "500 namespace declarations", padding("<a" + numbered(` xmlns:n%d="u"`, 500) + "/>"), 4},
		variant{"long", "100,000 octets of text", padding(strings.Repeat("testo ", 16_000)), 4},
		variant{"empty", "an empty document", document(func(string) string { return "" }), 4},
		variant{"other-message", "another message in a request's place", document(func(d string) string {
			return strings.ReplaceAll(d, "samlp:AuthnRequest", "samlp:LogoutRequest")
		}), 4},
		variant{"wrapped", "the request in an element of somebody", document(func(d string) string { return `<x:y xmlns:x="urn:example:x">` + d + `</x:y>` }), 4},
	), variants("attack", "SAML Core schema; table of anomalies, row 8",
		variant{"foreign-element", "an element of a foreign namespace among the children", swap("<samlp:NameIDPolicy", `<x:a xmlns:x="urn:example:x"/><samlp:NameIDPolicy`), 8},
		variant{"foreign-attribute", "an attribute of a foreign namespace", swap(` Version="2.0"`, ` xmlns:x="urn:example:x" x:a="b" Version="2.0"`), 8},
		variant{"foreign-root", "the names of SAML 1.1", func(m *request.Message) {
			m.Text = strings.ReplaceAll(m.Text, request.NSProtocol, "urn:oasis:names:tc:SAML:1.0:protocol")
		}, 4},
	)...)
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// wrappingRules: signatures that hold for something else than what is read, and
// signatures made of what must not be. By HTTP-POST; a redirected document has
// no signature of its own.
func wrappingRules() []Rule {
	var all []Rule
	for _, shape := range wrappingShapes {
		all = append(all, Rule{ID: "xsw-" + shape.name, Source: sigGuard + "; signature wrapping", Title: shape.title, Want: Expect{Code: shape.code},
			Change: document(func(doc string) string { return shape.wrap(doc, "_evil") })})
	}
	sign := func(f func(*request.Signing)) func(*request.Message) { return func(m *request.Message) { f(m.Sign) } }
	all = append(all, variants("xmlsig", sigGuard,
		variant{"inclusive", "inclusive canonical form", sign(func(s *request.Signing) { s.C14N = request.AlgC14N }), 7},
		variant{"comments", "the canonical form with comments", sign(func(s *request.Signing) { s.C14N = request.AlgExcC14N + "WithComments" }), 7},
		variant{"sha1-digest", "a digest of SHA-1 under SHA-256", sign(func(s *request.Signing) { s.Digest = request.DigestSHA1 }), 7},
		variant{"sha384-odd", "the digest of SHA-384 in the spelling of test tools is good", sign(func(s *request.Signing) { s.Digest = request.DigestSHA384Odd }), 0},
		variant{"xslt", "a transformation by XSLT", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgEnveloped, "") + transform("http://www.w3.org/TR/1999/REC-xslt-19991116",
				`<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"><xsl:template match="/"><xsl:value-of select="document('http://127.0.0.1:9/')"/></xsl:template></xsl:stylesheet>`)
		}), 7},
		variant{"xpath", "a transformation by XPath", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgEnveloped, "") + transform("http://www.w3.org/TR/1999/REC-xpath-19991116", `<ds:XPath>count(//.)=0</ds:XPath>`)
		}), 7},
		variant{"xpath-filter", "a transformation by an XPath filter", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgEnveloped, "") + transform("http://www.w3.org/2002/06/xmldsig-filter2",
				`<f:XPath xmlns:f="http://www.w3.org/2002/06/xmldsig-filter2" Filter="subtract">/*/*</f:XPath>`) + transform(request.AlgExcC14N, "")
		}), 7},
		variant{"base64", "a transformation from base64", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgEnveloped, "") + transform(request.NSSignature+"base64", "")
		}), 7},
		variant{"swapped", "the two transformations in the other order", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgExcC14N, "") + transform(request.AlgEnveloped, "")
		}), 7},
		variant{"no-enveloped", "no enveloped-signature transformation", sign(func(s *request.Signing) { s.Transforms = transform(request.AlgExcC14N, "") }), 7},
		variant{"third", "one transformation more", sign(func(s *request.Signing) {
			s.Transforms = transform(request.AlgEnveloped, "") + transform(request.AlgExcC14N, "") + transform(request.AlgExcC14N, "")
		}), 7},
		variant{"no-reference", "a reference without URI", sign(func(s *request.Signing) { s.Reference = "-" }), 7},
		variant{"other-reference", "a reference to something else", sign(func(s *request.Signing) { s.Reference = "#_other" }), 7},
		variant{"xpointer", "a reference by XPointer", sign(func(s *request.Signing) { s.Reference = "#xpointer(/)" }), 7},
		variant{"web-reference", "a reference to the network", sign(func(s *request.Signing) { s.Reference = "http://127.0.0.1:9/x" }), 7},
		variant{"empty-reference", "a reference to the whole document is the root too", sign(func(s *request.Signing) { s.Reference = request.WholeDocument }), 0},
		variant{"twice", "the signature twice", document(func(d string) string {
			_, sig := takeSignature(d)
			return strings.Replace(d, sig, sig+sig, 1)
		}), 7},
		variant{"retrieval", "a key to be fetched", document(func(d string) string {
			return regexp.MustCompile(`(?s)<ds:X509Data>.*</ds:X509Data>`).ReplaceAllString(d, `<ds:RetrievalMethod URI="http://127.0.0.1:9/key"/>`)
		}), 0},
		variant{"no-keyinfo", "no KeyInfo: it is a hint only", sign(func(s *request.Signing) { s.Cert = nil }), 0},
		variant{"changed", "content changed after signing", document(changed), 7},
	)...)
	return only(request.Post, all)
}

// WholeDocument is the URI "" (an empty text means the usual reference).

func transform(algorithm, content string) string {
	return `<ds:Transform Algorithm="` + algorithm + `">` + content + `</ds:Transform>`
}

var signatureText = regexp.MustCompile(`(?s)<ds:Signature .*?</ds:Signature>`)

// takeSignature returns the document without its signature, and the signature.
func takeSignature(doc string) (rest, sig string) {
	sig = signatureText.FindString(doc)
	return strings.Replace(doc, sig, "", 1), sig
}

// wrappingShapes are the eight classic ways (Somorovsky and others, 2012) to
// have a good signature beside content that its owner never signed, in the
// terms of a signed root element: whatever root the message has, "evil" is a
// copy of it with another identifier and without the signature, "signed" the
// message as its owner made it.
var wrappingShapes = []struct {
	name, title string
	code        int
	wrap        func(signed, evilID string) string
}{
	{"1", "evil root; the signature in it holds the original", 7, func(doc, id string) string {
		original, sig := takeSignature(doc)
		return afterIssuer(evil(doc, id), strings.Replace(sig, "</ds:Signature>", original+"</ds:Signature>", 1))
	}},
	{"2", "evil root; original and signature beside each other in it", 7, func(doc, id string) string {
		original, sig := takeSignature(doc)
		return afterIssuer(evil(doc, id), original+sig)
	}},
	{"3", "evil before the original under a root of somebody", 4, func(doc, id string) string {
		return `<x:wrap xmlns:x="urn:example:x">` + evil(doc, id) + doc + `</x:wrap>`
	}},
	{"4", "evil root around the signed original", 7, func(doc, id string) string {
		return atEnd(evil(doc, id), doc)
	}},
	{"5", "evil root with the signature in its place; the original last", 7, func(doc, id string) string {
		original, sig := takeSignature(doc)
		return atEnd(afterIssuer(evil(doc, id), sig), original)
	}},
	{"6", "evil root; signature last, the original in it", 7, func(doc, id string) string {
		original, sig := takeSignature(doc)
		return atEnd(evil(doc, id), strings.Replace(sig, "</ds:Signature>", original+"</ds:Signature>", 1))
	}},
	{"7", "evil root; the signed original in Extensions", 7, func(doc, id string) string {
		return afterIssuer(evil(doc, id), "<samlp:Extensions>"+doc+"</samlp:Extensions>")
	}},
	{"8", "evil root; the original in an Object of the signature", 7, func(doc, id string) string {
		original, sig := takeSignature(doc)
		return afterIssuer(evil(doc, id), strings.Replace(sig, "</ds:Signature>", "<ds:Object>"+original+"</ds:Object></ds:Signature>", 1))
	}},
	{"same-id", "evil root with the original's ID; the original in Extensions", 4, func(doc, _ string) string {
		original, sig := takeSignature(doc)
		e := changed(original)
		return afterIssuer(e, sig+"<samlp:Extensions>"+original+"</samlp:Extensions>")
	}},
	{"no-id", "evil root without ID; the original in Extensions", 7, func(doc, _ string) string {
		original, sig := takeSignature(doc)
		e := regexp.MustCompile(` ID="[^"]*"`).ReplaceAllString(changed(original), "")
		return afterIssuer(e, sig+"<samlp:Extensions>"+original+"</samlp:Extensions>")
	}},
	{"moved", "the signature of another document", 7, func(doc, _ string) string {
		original, sig := takeSignature(doc)
		return afterIssuer(changed(original), sig)
	}},
}

// evil is the message with other content and another identifier, unsigned.
func evil(doc, id string) string {
	rest, _ := takeSignature(doc)
	return regexp.MustCompile(` ID="[^"]*"`).ReplaceAllString(changed(rest), ` ID="`+id+`"`)
}

// changed is what the attacker wants: another place for the answer, or another
// session to end.
func changed(doc string) string {
	doc = strings.Replace(doc, acsIndex0, `AssertionConsumerServiceIndex="1"`, 1)
	return regexp.MustCompile(`<samlp:SessionIndex>[^<]*<`).ReplaceAllString(doc, "<samlp:SessionIndex>_altrui<")
}

func afterIssuer(doc, what string) string {
	return strings.Replace(doc, "</saml:Issuer>", "</saml:Issuer>"+what, 1)
}

// atEnd puts something before the root's end tag.
func atEnd(doc, what string) string {
	at := strings.LastIndex(doc, "</")
	return doc[:at] + what + doc[at:]
}
