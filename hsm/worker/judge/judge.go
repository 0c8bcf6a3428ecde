// Package judge says what octets are, of which the token's worker is asked for a signature, and
// refuses what is not exactly as this product writes it: an XML Signature's SignedInfo together
// with the element it is about, the query of SAML's HTTP-Redirect binding with a logout message
// in it, the signed attributes of a seal of the certified log. It signs nothing and knows no key:
// which kinds a key may sign is its caller's. Elements are looked at by their first tag; who is
// asserted to whom is not judged.
//
// It shares no code with the packages that write what it reads: a mistake there is not one here.
// It has no state, no network and no clock. hsm/worker and cmd/custode/hsmcmd import it.
package judge

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	oid "encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxContent is the length of the longest element that is signed, in octets.
const MaxContent = 128 << 10

// Kind says what octets are, of which a signature is asked.
type Kind byte

// The kinds. The first four are an XML Signature's SignedInfo with the element it is about.
const (
	Assertion Kind = iota + 1 // saml:Assertion
	Response                  // samlp:Response
	Logout                    // samlp:LogoutRequest or samlp:LogoutResponse
	Metadata                  // md:EntityDescriptor
	Query                     // HTTP-Redirect query with a logout message (SAML Bindings 3.4.4.1)
	CMS                       // signed attributes of a CAdES-B-B signature (RFC 5652, section 5.4)
)

var kindNames = [...]string{"nothing", "assertion", "response", "logout", "metadata", "query", "cms"}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", byte(k))
}

// elements are the beginnings of what an enveloped signature may be about.
var elements = map[string]Kind{
	"<saml:Assertion ": Assertion, "<samlp:Response ": Response, "<samlp:LogoutRequest ": Logout, "<samlp:LogoutResponse ": Logout,
	"<md:EntityDescriptor ": Metadata,
}

// Octets returns of what kind octets are. content is the element that a SignedInfo is about, in
// canonical form and without its signature; else it is empty. What is not exactly as this
// product writes it is an error.
func Octets(octets, content []byte) (Kind, error) {
	if len(octets) == 0 || len(octets) > MaxContent || len(content) > MaxContent {
		return 0, fmt.Errorf("%d octets, with an element of %d", len(octets), len(content))
	}
	switch {
	case octets[0] == '<':
		return judgeSignedInfo(octets, content)
	case len(content) > 0:
		return 0, errors.New("an element without a SignedInfo")
	case octets[0] == 0x31:
		if err := judgeAttributes(octets); err != nil {
			return 0, err
		}
		return CMS, nil
	}
	if err := judgeQuery(string(octets)); err != nil {
		return 0, err
	}
	return Query, nil
}

// The octets of a SignedInfo, as the product writes it: exclusive canonicalisation, RSA with
// SHA-256, one reference by ID.
const (
	excC14N        = "http://www.w3.org/2001/10/xml-exc-c14n#"
	rsaSHA256      = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	signedInfoHead = `<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:CanonicalizationMethod Algorithm="` + excC14N +
		`"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="` + rsaSHA256 + `"></ds:SignatureMethod><ds:Reference URI="#`
	signedInfoTransforms = `"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform>` +
		`<ds:Transform Algorithm="` + excC14N + `">`
	signedInfoXS     = `<ec:InclusiveNamespaces xmlns:ec="` + excC14N + `" PrefixList="xs"></ec:InclusiveNamespaces>`
	signedInfoDigest = `</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>`
	signedInfoTail   = `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
)

func judgeSignedInfo(octets, content []byte) (Kind, error) {
	var ok [4]bool
	rest := string(octets)
	rest, ok[0] = strings.CutPrefix(rest, signedInfoHead)
	elementID, rest, _ := strings.Cut(rest, `"`)
	rest, ok[1] = strings.CutPrefix(`"`+rest, signedInfoTransforms)
	rest = strings.TrimPrefix(rest, signedInfoXS)
	rest, ok[2] = strings.CutPrefix(rest, signedInfoDigest)
	digest, tail, _ := strings.Cut(rest, "<")
	ok[3] = "<"+tail == signedInfoTail
	if ok != [4]bool{true, true, true, true} || !plainID(elementID) {
		return 0, errors.New("not a SignedInfo as this product writes it")
	}
	sum := sha256.Sum256(content)
	if digest != base64.StdEncoding.EncodeToString(sum[:]) {
		return 0, errors.New("the SignedInfo is about another element")
	}
	tag, _, found := bytes.Cut(content, []byte(">"))
	if !found || bytes.Count(tag, []byte(` ID="`)) != 1 || !bytes.Contains(tag, []byte(` ID="`+elementID+`"`)) {
		return 0, errors.New("the element's ID is not the SignedInfo's")
	}
	for prefix, kind := range elements {
		if bytes.HasPrefix(content, []byte(prefix)) {
			return kind, nil
		}
	}
	return 0, errors.New("no element that is ever signed")
}

// plainID reports whether s is an identifier as the product draws them.
func plainID(s string) bool {
	return len(s) >= 2 && len(s) <= 128 && s[0] == '_' && strings.Trim(s, "_0123456789abcdefABCDEFghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ-.") == ""
}

// judgeQuery wants what query.Sign writes, with a logout message in it.
func judgeQuery(q string) error {
	name, rest, _ := strings.Cut(q, "=")
	if name != "SAMLRequest" && name != "SAMLResponse" {
		return errors.New("neither XML, nor signed attributes, nor a query")
	}
	message, rest, _ := strings.Cut(rest, "&")
	if relay, found := strings.CutPrefix(rest, "RelayState="); found {
		relay, rest, _ = strings.Cut(relay, "&")
		if _, err := url.QueryUnescape(relay); err != nil {
			return errors.New("RelayState is not encoded")
		}
	}
	if rest != "SigAlg="+url.QueryEscape(rsaSHA256) {
		return errors.New("the query does not end with SigAlg")
	}
	encoded, err := url.QueryUnescape(message)
	if err != nil {
		return errors.New("the message is not encoded")
	}
	packed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return errors.New("the message is not in base64")
	}
	doc, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), MaxContent+1))
	if err != nil || len(doc) > MaxContent {
		return errors.New("the message cannot be inflated")
	}
	for prefix, kind := range elements {
		if kind == Logout && bytes.HasPrefix(doc, []byte(prefix)) && strings.HasSuffix(prefix, name[len("SAML"):]+" ") {
			return nil
		}
	}
	return errors.New("the query carries no logout message")
}

// judgeAttributes wants the four signed attributes of a CAdES-B-B signature over data, each once.
func judgeAttributes(der []byte) error {
	want := map[string]func(cryptobyte.String) bool{
		"1.2.840.113549.1.9.3": func(v cryptobyte.String) bool { // content-type
			var kind oid.ObjectIdentifier
			return v.ReadASN1ObjectIdentifier(&kind) && v.Empty() && kind.String() == "1.2.840.113549.1.7.1"
		},
		"1.2.840.113549.1.9.4": func(v cryptobyte.String) bool { // message-digest
			var digest cryptobyte.String
			return v.ReadASN1(&digest, asn1.OCTET_STRING) && v.Empty() && len(digest) == sha256.Size
		},
		"1.2.840.113549.1.9.5": func(v cryptobyte.String) bool { // signing-time
			var at cryptobyte.String
			var tag asn1.Tag
			return v.ReadAnyASN1(&at, &tag) && v.Empty() && (tag == asn1.UTCTime || tag == asn1.GeneralizedTime)
		},
		"1.2.840.113549.1.9.16.2.47": func(v cryptobyte.String) bool { // signing-certificate-v2
			var certs cryptobyte.String
			return v.ReadASN1(&certs, asn1.SEQUENCE) && v.Empty() && !certs.Empty()
		},
	}
	all := cryptobyte.String(der)
	var set cryptobyte.String
	if !all.ReadASN1(&set, asn1.SET) || !all.Empty() {
		return errors.New("not a SET of attributes")
	}
	for !set.Empty() {
		var attribute, values cryptobyte.String
		var kind oid.ObjectIdentifier
		if !set.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&kind) || !attribute.ReadASN1(&values, asn1.SET) || !attribute.Empty() {
			return errors.New("not a SET of attributes")
		}
		check := want[kind.String()]
		if check == nil || !check(values) {
			return fmt.Errorf("signed attribute %s has no place in a seal, or is malformed", kind)
		}
		delete(want, kind.String())
	}
	if len(want) > 0 {
		return errors.New("a signed attribute of a seal is missing")
	}
	return nil
}
