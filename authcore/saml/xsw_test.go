package saml

import (
	"regexp"
	"strings"
	"testing"

	"custode/authcore/saml/xmldoc"
)

// The permutations below move a good signature around a document, so that the
// signature still holds for something while something else would be consumed.
// Each must be refused; wrong codes are wrong too.
func TestSignatureWrapping(t *testing.T) {
	v := testVerifier(t)
	for name, tc := range wrappingCases(t) {
		t.Run(name, func(t *testing.T) {
			got, err := v.Post(b64(tc.doc), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Fatalf("code %d, want %d: %v", r.Code, tc.code, err)
			}
			if err == nil && got.Request().ACS != spEntity+"/acs" {
				t.Errorf("consumed %q", got.Request().ACS)
			}
		})
	}
}

type wrappingCase struct {
	doc  string
	code Code
}

func wrappingCases(t *testing.T) map[string]wrappingCase {
	t.Helper()
	signed := signPost(t, plainRequest, spKit().key, spKit().cert)
	sigAt := regexp.MustCompile(`(?s)<ds:Signature .*</ds:Signature>`)
	sig := sigAt.FindString(signed)
	if sig == "" {
		t.Fatal("no signature")
	}
	unsigned := strings.Replace(signed, sig, "", 1)
	const evilACS = `AssertionConsumerServiceIndex="1"`
	evil := func(attrs string) string { // a request the SP did not sign, open for children after Issuer
		e := strings.Replace(unsigned, `AssertionConsumerServiceIndex="0"`, evilACS, 1)
		return strings.Replace(e, ` ID="_r1"`, attrs, 1)
	}
	afterIssuer := func(doc, insert string) string {
		return strings.Replace(doc, "</saml:Issuer>", "</saml:Issuer>"+insert, 1)
	}
	extensions := func(inner string) string { return "<samlp:Extensions>" + inner + "</samlp:Extensions>" }
	beforePolicy := func(doc, insert string) string {
		return strings.Replace(doc, "<samlp:NameIDPolicy", insert+"<samlp:NameIDPolicy", 1)
	}
	withObject := func(inner string) string {
		return strings.Replace(sig, "</ds:Signature>", "<ds:Object>"+inner+"</ds:Object></ds:Signature>", 1)
	}
	return map[string]wrappingCase{
		"control":                            {signed, 0},
		"unsigned":                           {unsigned, BadPostSig},
		"value changed":                      {strings.Replace(signed, `AssertionConsumerServiceIndex="0"`, evilACS, 1), BadPostSig},
		"signature moved to an evil root":    {afterIssuer(evil(` ID="_evil"`), sig), BadPostSig},
		"evil root with the same ID":         {afterIssuer(evil(` ID="_r1"`), sig), BadPostSig},
		"evil root without ID":               {afterIssuer(evil(``), sig), BadPostSig},
		"original in extensions":             {beforePolicy(afterIssuer(evil(` ID="_evil"`), sig), extensions(unsigned)), BadPostSig},
		"original in extensions, same ID":    {beforePolicy(afterIssuer(evil(` ID="_r1"`), sig), extensions(unsigned)), BadBinding},
		"signed original in extensions":      {beforePolicy(evil(` ID="_evil"`), extensions(signed)), BadPostSig},
		"original in ds:Object":              {afterIssuer(evil(` ID="_evil"`), withObject(unsigned)), BadPostSig},
		"original in KeyInfo":                {afterIssuer(evil(` ID="_evil"`), strings.Replace(sig, "<ds:X509Data>", unsigned+"<ds:X509Data>", 1)), BadPostSig},
		"original in the evil issuer":        {strings.Replace(evil(` ID="_evil"`), "https://sp.example.it</saml:Issuer>", signed+"https://sp.example.it</saml:Issuer>", 1), BadIssuer},
		"foreign root around":                {"<samlp:Wrapper xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\">" + evil(` ID="_evil"`) + signed + "</samlp:Wrapper>", BadBinding},
		"second root":                        {signed + evil(` ID="_evil"`), BadBinding},
		"evil first":                         {evil(` ID="_evil"`) + signed, BadBinding},
		"signature twice":                    {afterIssuer(signed, sig), BadPostSig},
		"second signature in extensions":     {beforePolicy(signed, extensions(sig)), BadPostSig},
		"signature last":                     {strings.Replace(unsigned, "</samlp:AuthnRequest>", sig+"</samlp:AuthnRequest>", 1), BadPostSig},
		"signature first":                    {strings.Replace(unsigned, "<saml:Issuer", sig+"<saml:Issuer", 1), BadPostSig},
		"signature in a wrapper":             {afterIssuer(unsigned, extensions(sig)), BadPostSig},
		"empty reference":                    {strings.Replace(signed, `URI="#_r1"`, `URI=""`, 1), BadPostSig},
		"foreign reference":                  {strings.Replace(signed, `URI="#_r1"`, `URI="#_r2"`, 1), BadPostSig},
		"XPointer reference":                 {strings.Replace(signed, `URI="#_r1"`, `URI="#xpointer(id('_r1'))"`, 1), BadPostSig},
		"no reference URI":                   {strings.Replace(signed, ` URI="#_r1"`, ``, 1), BadPostSig},
		"other ID attributes":                {strings.Replace(evil(` Id="_r1" ID="_evil"`), "</saml:Issuer>", "</saml:Issuer>"+sig, 1), BadPostSig},
		"comment in issuer":                  {strings.Replace(signed, "https://sp.example.it</saml:Issuer>", "https://sp.example.it<!-- -->.evil.it</saml:Issuer>", 1), BadBinding},
		"processing instruction":             {strings.Replace(signed, "</saml:Issuer>", "<?x y?></saml:Issuer>", 1), BadBinding},
		"CDATA in issuer":                    {strings.Replace(signed, "https://sp.example.it</saml:Issuer>", "<![CDATA[https://sp.example.it]]></saml:Issuer>", 1), BadBinding},
		"doctype":                            {`<!DOCTYPE x [<!ENTITY a "b">]>` + signed, BadBinding},
		"entity":                             {strings.Replace(signed, "https://sp.example.it</saml:Issuer>", "&a;</saml:Issuer>", 1), BadBinding},
		"attribute twice":                    {strings.Replace(signed, ` ID="_r1"`, ` ID="_r1" ID="_r1"`, 1), BadBinding},
		"text after":                         {signed + "x", BadBinding},
		"text before":                        {"x" + signed, BadBinding},
		"white space around":                 {"\n" + signed + "\n", 0},
		"declaration":                        {`<?xml version="1.0" encoding="UTF-8"?>` + signed, 0},
		"byte order mark":                    {"\ufeff" + signed, 0},
		"declared latin-1":                   {`<?xml version="1.0" encoding="ISO-8859-1"?>` + signed, BadBinding},
		"reference in a namespace":           {strings.Replace(signed, `URI="#_r1"`, `xmlns:x="u" x:URI="" URI="#_r1"`, 1), BadPostSig},
		"XSLT transform":                     {strings.Replace(signed, `<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"`, `<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"`, 1), BadPostSig},
		"transforms swapped":                 {swapTransforms(signed), BadPostSig},
		"third transform":                    {strings.Replace(signed, "</ds:Transforms>", `<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>`, 1), BadPostSig},
		"hmac":                               {strings.Replace(signed, "xmldsig-more#rsa-sha256", "xmldsig-more#hmac-sha256", 1), BadPostSig},
		"sha-1 digest":                       {strings.Replace(signed, "http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2000/09/xmldsig#sha1", 1), BadPostSig},
		"key info removed":                   {regexp.MustCompile(`(?s)<ds:KeyInfo>.*</ds:KeyInfo>`).ReplaceAllString(signed, ""), 0},
		"key info of somebody":               {regexp.MustCompile(`(?s)<ds:X509Certificate>.*</ds:X509Certificate>`).ReplaceAllString(signed, "<ds:X509Certificate>AAAA</ds:X509Certificate>"), 0},
		"signature value with white space":   {strings.Replace(signed, "<ds:SignatureValue>", "<ds:SignatureValue>\n    \t", 1), 0},
		"issuer of another SP under our key": {strings.Replace(signed, ">https://sp.example.it<", ">https://other.example.it<", 1), BadPostSig},
		"deep":                               {strings.Repeat("<a>", 40) + strings.Repeat("</a>", 40), BadBinding},
		"many declarations":                  {strings.Replace(signed, " ID=", strings.Repeat(" xmlns:a=\"b\"", 70)+" ID=", 1), BadBinding},
		"signature in no namespace":          {strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(signed, "<ds:", "<"), "</ds:", "</"), "xmlns:ds=", "xmlns:zz="), BadPostSig},
		"empty document":                     {"", BadBinding},
	}
}

func swapTransforms(doc string) string {
	const enveloped, c14n = "http://www.w3.org/2000/09/xmldsig#enveloped-signature", `Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"`
	doc = strings.Replace(doc, c14n, `Transform Algorithm="@"`, 1)
	doc = strings.Replace(doc, enveloped, "http://www.w3.org/2001/10/xml-exc-c14n#", 1)
	return strings.Replace(doc, "@", enveloped, 1)
}

// TestSignedByAnotherSP: a signature good for one SP says nothing about another.
func TestSignedByAnotherSP(t *testing.T) {
	v := testVerifier(t)
	_, err := v.Post(b64(signPost(t, plainRequest, otherKit().key, otherKit().cert)), nil, false, kitNow)
	if r := refusalOf(t, err); r.Code != BadPostSig {
		t.Error(err)
	}
}

func TestPostEncoding(t *testing.T) {
	v := testVerifier(t)
	signed := signPost(t, plainRequest, spKit().key, spKit().cert)
	field := string(b64(signed))
	var lines strings.Builder
	for i := 0; i < len(field); i += 76 {
		lines.WriteString(field[i:min(i+76, len(field))] + "\r\n")
	}
	for name, tc := range map[string]struct {
		field string
		code  Code
	}{
		"line breaks": {lines.String(), 0},
		"empty":       {"", BadBinding},
		"no padding":  {strings.TrimRight(string(b64(signed+" ")), "=") + "A", BadBinding},
		"url-safe":    {"_" + field[1:], BadBinding},
		"too long":    {string(b64(signed + strings.Repeat(" ", 64<<10))), BadBinding},
		"far too big": {strings.Repeat("A", 1<<20), BadBinding},
		"deflated":    {string(b64(string(deflate(signed)))), BadBinding},
		"not UTF-8":   {string(b64(strings.Replace(signed, "</saml:Issuer>", "\xff</saml:Issuer>", 1))), BadBinding},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Post([]byte(tc.field), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
}

// TestInclusiveNamespaces: Java SPs put a PrefixList into the second transform.
func TestInclusiveNamespaces(t *testing.T) {
	head, tail, _ := strings.Cut(strings.ReplaceAll(plainRequest, "/>", "></samlp:NameIDPolicy>"), "<samlp:NameIDPolicy")
	// In canonical form: xs first declared where the list keeps it, attributes sorted.
	head = `<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:xs="http://www.w3.org/2001/XMLSchema"` +
		` AssertionConsumerServiceIndex="0" Destination="https://idp.example.it" ForceAuthn="true" ID="_r1" IssueInstant="2026-11-21T19:04:59.500Z" Version="2.0">` +
		strings.Replace(head[strings.Index(head, "<saml:Issuer"):], "<saml:Issuer", `<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"`, 1)
	tail = "<samlp:NameIDPolicy" + strings.Replace(tail, "<saml:AuthnContextClassRef", `<saml:AuthnContextClassRef xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"`, 1)
	w := xmldoc.Writer{B: []byte(head)}
	w.Sign(xmldoc.NewKey(spKit().key, spKit().cert, nil), "_r1", true, []byte(head), []byte(tail))
	if w.Err != nil {
		t.Fatal(w.Err)
	}
	doc := string(w.B) + tail
	if !strings.Contains(doc, `PrefixList="xs"`) {
		t.Fatal("no prefix list")
	}
	if _, err := testVerifier(t).Post(b64(doc), nil, false, kitNow); err != nil {
		t.Error(err)
	}
	for _, changed := range []string{
		strings.Replace(doc, `PrefixList="xs"`, `PrefixList=""`, 1),
		strings.Replace(doc, ` xmlns:xs="http://www.w3.org/2001/XMLSchema"`, "", 1),
		strings.Replace(doc, `</ec:InclusiveNamespaces>`, `</ec:InclusiveNamespaces><ec:InclusiveNamespaces PrefixList="xs" xmlns:ec="http://www.w3.org/2001/10/xml-exc-c14n#"/>`, 1),
	} {
		_, err := testVerifier(t).Post(b64(changed), nil, false, kitNow)
		if r := refusalOf(t, err); r.Code != BadPostSig {
			t.Errorf("code %d: %s", r.Code, changed)
		}
	}
}
