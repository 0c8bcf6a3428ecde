package saml

import (
	"crypto"
	_ "crypto/sha1" // to show that a good SHA-1 digest is refused
	"encoding/base64"
	"strings"
	"testing"
)

// freeSignature signs doc with any SignedInfo: what a careless or hostile SP
// library could emit. The cryptography is always right, so that only the shape
// can be refused.
type freeSignature struct {
	hash  crypto.Hash
	info  func(string) string          // changes SignedInfo before it is signed
	sig   func(string) string          // changes Signature afterwards
	place func(doc, sig string) string // puts the signature into the document
	doc   func(string) string          // changes the document before it is digested
	uri   string
}

const freeInfo = `<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` +
	`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod>` +
	`<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod>` +
	`<ds:Reference URI="@URI"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform>` +
	`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>` +
	`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>@DIGEST</ds:DigestValue></ds:Reference></ds:SignedInfo>`

func afterIssuer(doc, sig string) string {
	return strings.Replace(doc, "</saml:Issuer>", "</saml:Issuer>"+sig, 1)
}

func (f freeSignature) sign(t *testing.T) string {
	t.Helper()
	doc := plainRequest
	if f.doc != nil {
		doc = f.doc(doc)
	}
	if f.hash == 0 {
		f.hash = crypto.SHA256
	}
	if f.uri == "" {
		f.uri = "#_r1"
	}
	if f.place == nil {
		f.place = afterIssuer
	}
	h := f.hash.New()
	h.Write(canonicalBytes(t, []byte(doc), ""))
	info := strings.NewReplacer("@URI", strings.TrimPrefix(f.uri, "-"), "@DIGEST", base64.StdEncoding.EncodeToString(h.Sum(nil))).Replace(freeInfo)
	if f.info != nil {
		changed := f.info(info)
		if changed == info {
			t.Fatal("SignedInfo not changed")
		}
		info = changed
	}
	s := crypto.SHA256.New()
	s.Write(canonicalBytes(t, []byte(info), ""))
	value, err := spKit().key.Sign(nil, s.Sum(nil), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	sig := `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` + info + "<ds:SignatureValue>" + base64.StdEncoding.EncodeToString(value) + "</ds:SignatureValue></ds:Signature>"
	if f.sig != nil {
		sig = f.sig(sig)
	}
	return f.place(doc, sig)
}

// TestSignatureShapes: the signature is good in every case; the shape decides.
func TestSignatureShapes(t *testing.T) {
	v := testVerifier(t)
	swap := func(old, with string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, with, 1) }
	}
	const (
		exc     = "http://www.w3.org/2001/10/xml-exc-c14n#"
		method  = `<ds:CanonicalizationMethod Algorithm="` + exc + `">`
		second  = `<ds:Transform Algorithm="` + exc + `">`
		list    = `<ec:InclusiveNamespaces xmlns:ec="` + exc + `" PrefixList="zz"></ec:InclusiveNamespaces>`
		foreign = `<x:y xmlns:x="u"></x:y>`
		another = `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo></ds:SignedInfo></ds:Signature>`
	)
	for name, tc := range map[string]struct {
		f    freeSignature
		code Code
	}{
		"control":              {freeSignature{}, 0},
		"prefix list":          {freeSignature{info: swap(second, second+list)}, 0},
		"prefix list, 32 long": {freeSignature{info: swap(second, second+strings.Replace(list, "zz", strings.Repeat("zz ", 32), 1))}, 0},
		"prefix list, 33 long": {freeSignature{info: swap(second, second+strings.Replace(list, "zz", strings.Repeat("zz ", 33), 1))}, BadPostSig},
		"reference with an Id": {freeSignature{info: swap(`<ds:Reference `, `<ds:Reference Id="ref" Type="x" `)}, 0},
		"signature last": {freeSignature{place: func(doc, sig string) string {
			return strings.Replace(doc, "</samlp:AuthnRequest>", sig+"</samlp:AuthnRequest>", 1)
		}}, BadPostSig},
		"signature first": {freeSignature{place: func(doc, sig string) string { return strings.Replace(doc, "<saml:Issuer", sig+"<saml:Issuer", 1) }}, BadPostSig},
		"signature in extensions": {freeSignature{doc: swap("<samlp:NameIDPolicy", "<samlp:Extensions></samlp:Extensions><samlp:NameIDPolicy"), place: func(doc, sig string) string {
			return strings.Replace(doc, "<samlp:Extensions>", "<samlp:Extensions>"+sig, 1)
		}}, BadPostSig},
		"another signature inside": {freeSignature{doc: swap("<samlp:NameIDPolicy", "<samlp:Extensions>"+another+"</samlp:Extensions><samlp:NameIDPolicy")}, BadPostSig},
		"object":                   {freeSignature{sig: swap("</ds:Signature>", "<ds:Object>x</ds:Object></ds:Signature>")}, BadPostSig},
		"two key infos":            {freeSignature{sig: swap("</ds:Signature>", "<ds:KeyInfo/><ds:KeyInfo/></ds:Signature>")}, BadPostSig},
		"value before info": {freeSignature{sig: func(s string) string {
			a, b := strings.Index(s, "<ds:SignedInfo"), strings.Index(s, "<ds:SignatureValue")
			e := strings.Index(s, "</ds:Signature>")
			return s[:a] + s[b:e] + s[a:b] + s[e:]
		}}, BadPostSig},
		"with comments":               {freeSignature{info: swap(method, `<ds:CanonicalizationMethod Algorithm="`+exc+`WithComments">`)}, BadPostSig},
		"canonicalisation parameters": {freeSignature{info: swap(method, method+list)}, BadPostSig},
		"method parameters":           {freeSignature{info: swap("</ds:SignatureMethod>", "<ds:HMACOutputLength>8</ds:HMACOutputLength></ds:SignatureMethod>")}, BadPostSig},
		"second transform commented":  {freeSignature{info: swap(second, `<ds:Transform Algorithm="`+exc+`WithComments">`)}, BadPostSig},
		"third transform":             {freeSignature{info: swap("</ds:Transforms>", second+"</ds:Transform></ds:Transforms>")}, BadPostSig},
		"transforms swapped":          {freeSignature{info: reverseTransforms}, BadPostSig},
		"parameters of enveloped":     {freeSignature{info: swap(`enveloped-signature">`, `enveloped-signature">`+foreign)}, BadPostSig},
		"foreign parameters":          {freeSignature{info: swap(second, second+foreign)}, BadPostSig},
		"two prefix lists":            {freeSignature{info: swap(second, second+list+list)}, BadPostSig},
		"digest sha-1":                {freeSignature{hash: crypto.SHA1, info: swap("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2000/09/xmldsig#sha1")}, BadPostSig},
		"empty reference":             {freeSignature{uri: "-"}, 0},
		"reference to nothing":        {freeSignature{uri: "#"}, BadPostSig},
		"reference by XPointer":       {freeSignature{uri: "#xpointer(/)"}, BadPostSig},
		"digest sha-384":              {freeSignature{hash: crypto.SHA384, info: swap("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384")}, 0},
		"digest sha-384 odd":          {freeSignature{hash: crypto.SHA384, info: swap("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha384")}, 0},
		"digest sha-384 odd, 256":     {freeSignature{info: swap("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha384")}, BadPostSig},
		"digest sha-224":              {freeSignature{hash: crypto.SHA224, info: swap("http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha224")}, BadPostSig},
		"digest empty": {freeSignature{info: func(s string) string {
			a, e := strings.Index(s, "<ds:DigestValue>"), strings.Index(s, "</ds:DigestValue>")
			return s[:a] + "<ds:DigestValue>" + s[e:]
		}}, BadPostSig},
		"digest parameters": {freeSignature{info: swap("</ds:DigestMethod>", "<x></x></ds:DigestMethod>")}, BadPostSig},
		"second reference": {freeSignature{info: func(s string) string {
			a := strings.Index(s, "<ds:Reference")
			e := strings.Index(s, "</ds:SignedInfo>")
			return s[:e] + strings.Replace(s[a:e], "#_r1", "#_r2", 1) + s[e:]
		}}, BadPostSig},
		"URI in a namespace":        {freeSignature{info: swap(`<ds:Reference URI="#_r1"`, `<ds:Reference xmlns:x="u" URI="#_r1" x:URI="#_r1"`)}, BadPostSig},
		"attribute in a namespace":  {freeSignature{info: swap(`<ds:DigestMethod `, `<ds:DigestMethod xmlns:x="u" x:Algorithm="http://www.w3.org/2001/04/xmlenc#sha256" `)}, BadPostSig},
		"reference with more parts": {freeSignature{info: swap("<ds:DigestValue>", "<ds:More></ds:More><ds:DigestValue>")}, BadPostSig},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Post(b64(tc.f.sign(t)), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
}

func reverseTransforms(info string) string {
	a, e := strings.Index(info, "<ds:Transform "), strings.Index(info, "</ds:Transforms>")
	m := strings.LastIndex(info, "<ds:Transform ")
	return info[:a] + info[m:e] + info[a:m] + info[e:]
}
