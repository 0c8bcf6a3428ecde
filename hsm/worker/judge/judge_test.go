package judge

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
)

// signedInfo is what the product writes about content with that ID.
func signedInfo(elementID string, content []byte, xs bool) []byte {
	sum := sha256.Sum256(content)
	more := ""
	if xs {
		more = signedInfoXS
	}
	return []byte(signedInfoHead + elementID + signedInfoTransforms + more + signedInfoDigest + base64.StdEncoding.EncodeToString(sum[:]) + signedInfoTail)
}

func packed(doc string) string {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	_, _ = z.Write([]byte(doc))
	z.Close()
	return url.QueryEscape(base64.StdEncoding.EncodeToString(b.Bytes()))
}

// attributes are the signed attributes of a seal of this product, in DER.
func attributes() []byte {
	der, err := hex.DecodeString("3166" +
		"301806092a864886f70d010903310b06092a864886f70d010701" +
		"301c06092a864886f70d010905310f170d3237303131353038303030305a" +
		"302f06092a864886f70d01090431220420" + strings.Repeat("ab", 32))
	if err != nil {
		panic(err)
	}
	ess, err := hex.DecodeString("3017060b2a864886f70d010910022f3108300630040402abcd")
	if err != nil {
		panic(err)
	}
	der = append(der, ess...)
	return append([]byte{0x31, 0x81, byte(len(der) - 2)}, der[2:]...)
}

const sigAlg = "&SigAlg=http%3A%2F%2Fwww.w3.org%2F2001%2F04%2Fxmldsig-more%23rsa-sha256"

func TestOctets(t *testing.T) {
	assertion := []byte(`<saml:Assertion xmlns:saml="x" ID="_a" Version="2.0"><saml:Issuer>i</saml:Issuer></saml:Assertion>`)
	for name, c := range map[string]struct {
		octets, content []byte
		want            Kind
	}{
		"assertion": {signedInfo("_a", assertion, true), assertion, Assertion},
		"response":  {signedInfo("_b", []byte(`<samlp:Response ID="_b">`), false), []byte(`<samlp:Response ID="_b">`), Response},
		"metadata":  {signedInfo("_c", []byte(`<md:EntityDescriptor ID="_c">`), false), []byte(`<md:EntityDescriptor ID="_c">`), Metadata},
		"logout":    {signedInfo("_d", []byte(`<samlp:LogoutRequest ID="_d">`), false), []byte(`<samlp:LogoutRequest ID="_d">`), Logout},
		"query":     {[]byte("SAMLRequest=" + packed("<samlp:LogoutRequest x>") + "&RelayState=a+b" + sigAlg), nil, Query},
		"answer":    {[]byte("SAMLResponse=" + packed("<samlp:LogoutResponse x>") + sigAlg), nil, Query},
		"seal":      {attributes(), nil, CMS},
	} {
		if kind, err := Octets(c.octets, c.content); err != nil || kind != c.want || kind.String() == "nothing" {
			t.Errorf("%s: %v, %v", name, kind, err)
		}
	}
	twice := []byte(`<saml:Assertion ID="_a" ID="_a">`)
	for name, c := range map[string]struct{ octets, content []byte }{
		"nothing":                  {nil, nil},
		"a digest":                 {make([]byte, 32), nil},
		"no element":               {signedInfo("_a", nil, true), nil},
		"another element":          {signedInfo("_a", []byte("x"), true), assertion},
		"another ID":               {signedInfo("_b", assertion, true), assertion},
		"an ID that is markup":     {signedInfo(`_a"><x a="`, assertion, true), assertion},
		"ID in an inner element":   {signedInfo("_i", []byte(`<saml:Assertion ID="_a"><x ID="_i">`), true), []byte(`<saml:Assertion ID="_a"><x ID="_i">`)},
		"ID twice":                 {signedInfo("_a", twice, true), twice},
		"a request":                {signedInfo("_a", []byte(`<samlp:AuthnRequest ID="_a">`), true), []byte(`<samlp:AuthnRequest ID="_a">`)},
		"an assertion in disguise": {signedInfo("_a", []byte(`<saml:Assertions ID="_a">`), true), []byte(`<saml:Assertions ID="_a">`)},
		"SHA-1":                    {bytes.Replace(signedInfo("_a", assertion, true), []byte("rsa-sha256"), []byte("rsa-sha1"), 1), assertion},
		"two references":           {bytes.Replace(signedInfo("_a", assertion, true), []byte("</ds:Reference>"), []byte(`</ds:Reference><ds:Reference URI="#_x"></ds:Reference>`), 1), assertion},
		"a seal with an element":   {attributes(), assertion},
		"a query with a response":  {[]byte("SAMLResponse=" + packed("<samlp:Response x>") + sigAlg), nil},
		"an answer as a request":   {[]byte("SAMLRequest=" + packed("<samlp:LogoutResponse x>") + sigAlg), nil},
		"a query without SigAlg":   {[]byte("SAMLRequest=" + packed("<samlp:LogoutRequest x>")), nil},
		"a query that goes on":     {[]byte("SAMLRequest=" + packed("<samlp:LogoutRequest x>") + sigAlg + "&a=b"), nil},
		"another algorithm":        {[]byte("SAMLRequest=" + packed("<samlp:LogoutRequest x>") + "&SigAlg=x"), nil},
		"a bomb":                   {[]byte("SAMLRequest=" + packed("<samlp:LogoutRequest "+strings.Repeat(" ", MaxContent)) + sigAlg), nil},
		"not deflated":             {[]byte("SAMLRequest=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("<samlp:LogoutRequest x>"))) + sigAlg), nil},
		"too long":                 {bytes.Repeat([]byte("<"), MaxContent+1), nil},
		"a content type":           {bytes.Replace(attributes(), []byte{0xf7, 0x0d, 0x01, 0x07, 0x01}, []byte{0xf7, 0x0d, 0x01, 0x07, 0x02}, 1), nil},
		"another attribute":        {bytes.Replace(attributes(), []byte{0xf7, 0x0d, 0x01, 0x09, 0x05}, []byte{0xf7, 0x0d, 0x01, 0x09, 0x06}, 1), nil},
		"an attribute twice":       {bytes.Replace(attributes(), []byte{0xf7, 0x0d, 0x01, 0x09, 0x05}, []byte{0xf7, 0x0d, 0x01, 0x09, 0x04}, 1), nil},
		"no attributes":            {[]byte{0x31, 0}, nil},
	} {
		if kind, err := Octets(c.octets, c.content); err == nil || kind != 0 {
			t.Errorf("%s: %v, %v", name, kind, err)
		}
	}
}

// FuzzOctets: nothing panics, and what passes as an element's signature is over that element.
func FuzzOctets(f *testing.F) {
	content := []byte(`<saml:Assertion xmlns:saml="x" ID="_a">`)
	f.Add(signedInfo("_a", content, true), content)
	f.Add([]byte("SAMLRequest="+packed("<samlp:LogoutRequest x>")+"&RelayState=a"+sigAlg), []byte(nil))
	f.Add(attributes(), []byte(nil))
	f.Fuzz(func(t *testing.T, octets, content []byte) {
		kind, err := Octets(octets, content)
		if err != nil || kind >= Query {
			return
		}
		sum := sha256.Sum256(content)
		if !bytes.Contains(octets, []byte(base64.StdEncoding.EncodeToString(sum[:]))) {
			t.Errorf("%s passes with another element", kind)
		}
	})
}
