package spsim

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"
)

func TestMetadata(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"own key":  func(c *Config) { c.Key, c.Certificate = nil, nil },
		"variants": func(c *Config) { c.EntityID = "urn:prova:sp"; c.AttributeSets = map[int][]string{7: {"email"}} },
	} {
		t.Run(name, func(t *testing.T) {
			sp, _, _ := newSP(t, change)
			if msg := schemaError(t, "metadata", sp.Metadata()); msg != "" {
				t.Error(msg)
			}
			if msg := signatureError(t, nsMetadata, "EntityDescriptor", sp.Metadata(), sp.Certificate()); msg != "" {
				t.Error(msg)
			}
		})
	}
}

func TestMetadataContent(t *testing.T) {
	sp, _, _ := newSP(t, func(c *Config) { c.OrganizationDisplayName = "Ente <&> di prova" })
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(sp.Metadata()); err != nil {
		t.Fatal(err)
	}
	value := func(path, key string) string {
		el := doc.FindElement(path)
		if el == nil {
			return "no " + path
		}
		if key == "" {
			return el.Text()
		}
		return el.SelectAttrValue(key, "")
	}
	got := []string{
		value("EntityDescriptor", "entityID"),
		value("//SPSSODescriptor", "AuthnRequestsSigned"),
		value("//AssertionConsumerService[1]", "index"),
		value("//AssertionConsumerService[1]", "isDefault"),
		value("//AssertionConsumerService[1]", "Location"),
		value("//AssertionConsumerService[2]", "Location"),
		value("//SingleLogoutService", "Location"),
		value("//AttributeConsumingService[2]/RequestedAttribute", "Name"),
		value("//OrganizationDisplayName", ""),
		value("//ContactPerson", "contactType"),
		value("//ContactPerson/Extensions/IPACode", ""),
		value("//ContactPerson/Extensions/Public", ""),
	}
	want := []string{
		testBase, "true", "0", "true", testBase + "/acs", testBase + "/acs/1", testBase + "/slo/soap",
		"fiscalNumber", "Ente <&> di prova", "other", "c_z999", "",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
}

func TestOwnCertificate(t *testing.T) {
	sp, _, _ := newSP(t, func(c *Config) { c.Key, c.Certificate = nil, nil })
	cert, err := x509.ParseCertificate(sp.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]any{}
	for _, n := range cert.Subject.Names {
		names[n.Type.String()] = n.Value
	}
	want := map[string]any{
		"2.5.4.6": "IT", "2.5.4.7": "Prova Alta", "2.5.4.10": "Comune di Prova Alta", "2.5.4.3": "Comune di Prova Alta",
		"2.5.4.83": testBase, "2.5.4.97": "PA:IT-c_z999",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("subject (-want +got):\n%s", d)
	}
	if cert.PublicKey.(*rsa.PublicKey).N.BitLen() != 2048 || len(cert.Policies) != 1 || cert.Policies[0].String() != "1.3.76.16.4.2.1" {
		t.Errorf("key or policies: %v", cert.Policies)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no base":       {},
		"final slash":   {BaseURL: "https://a/"},
		"scheme":        {BaseURL: "ftp://a"},
		"half a key":    {BaseURL: "https://a", Certificate: []byte{1}},
		"empty set":     {BaseURL: "https://a", AttributeSets: map[int][]string{0: nil}},
		"index":         {BaseURL: "https://a", AttributeSets: map[int][]string{70000: {"name"}}},
		"idp's nothing": {BaseURL: "https://a", IdPMetadata: []byte("<a/>")},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// honest lists requests an honest SP makes.
func honest() map[string]Request {
	return map[string]Request{
		"default":         {},
		"level 1":         {Level: 1, Comparison: "exact"},
		"level 3":         {Level: 3, Comparison: "better", Hash: crypto.SHA512},
		"by URL":          {ACSByURL: true, ACSIndex: 1, Service: 1},
		"purpose":         {Purpose: "PX", ForceAuthn: "1"},
		"no attributes":   {NoAttributes: true, RelayState: `/percorso?a=è&b="<'>`},
		"entity as place": {Destination: testIdP, EmptyRelayState: true, Comparison: "maximum"},
	}
}

func TestPostForm(t *testing.T) {
	for name, r := range honest() {
		t.Run(name, func(t *testing.T) {
			sp, _, _ := newSP(t, nil)
			action, fields, id, err := sp.PostForm(r)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := base64.StdEncoding.DecodeString(fields.Get("SAMLRequest"))
			if err != nil {
				t.Fatal(err)
			}
			if action != testIdP+"/sso/post" || fields.Get("RelayState") != r.RelayState || fields.Has("RelayState") != (r.RelayState != "" || r.EmptyRelayState) {
				t.Errorf("form: %s %v", action, fields)
			}
			checkRequest(t, raw, r, id, testIdP+"/sso/post")
			if msg := signatureError(t, nsProtocol, "AuthnRequest", raw, sp.Certificate()); msg != "" {
				t.Error(msg)
			}
		})
	}
}

func TestRedirectURL(t *testing.T) {
	for name, r := range honest() {
		t.Run(name, func(t *testing.T) {
			sp, _, _ := newSP(t, nil)
			location, id, err := sp.RedirectURL(r)
			if err != nil {
				t.Fatal(err)
			}
			raw := redirectXML(t, location)
			checkRequest(t, raw, r, id, testIdP+"/sso/redirect")
			if bytes.Contains(raw, []byte("Signature")) {
				t.Error("an XML signature on the Redirect binding")
			}
			if err := redirectSignature(t, location, sp); err != nil {
				t.Error(err)
			}
		})
	}
}

func redirectXML(t *testing.T, location string) []byte {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := base64.StdEncoding.DecodeString(u.Query().Get("SAMLRequest"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// redirectSignature verifies the query as it stands, byte by byte.
func redirectSignature(t *testing.T, location string, sp *SP) error {
	t.Helper()
	_, query, _ := strings.Cut(location, "?")
	signed, last, _ := strings.Cut(query, "&Signature=")
	encoded, err := url.QueryUnescape(last)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	hash := crypto.SHA256
	if strings.Contains(signed, "rsa-sha512") {
		hash = crypto.SHA512
	}
	h := hash.New()
	h.Write([]byte(signed))
	return rsa.VerifyPKCS1v15(&sp.key.PublicKey, hash, h.Sum(nil), signature)
}

func checkRequest(t *testing.T, raw []byte, r Request, id, sso string) {
	t.Helper()
	if msg := schemaError(t, "protocol", raw); msg != "" {
		t.Error(msg)
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil {
		t.Fatal(err)
	}
	root := doc.Root()
	got := map[string]string{}
	for _, a := range root.Attr {
		if a.Space == "" {
			got[a.Key] = a.Value
		}
	}
	want := map[string]string{
		"ID": id, "Version": "2.0", "IssueInstant": "2026-03-04T05:06:07.890Z", "Destination": sso,
	}
	if r.Destination != "" {
		want["Destination"] = r.Destination
	}
	if r.Level != 1 {
		want["ForceAuthn"] = "true"
	}
	if r.ForceAuthn != "" {
		want["ForceAuthn"] = r.ForceAuthn
	}
	if !r.NoAttributes {
		want["AttributeConsumingServiceIndex"] = string(rune('0' + r.Service))
	}
	if r.ACSByURL {
		want["AssertionConsumerServiceURL"] = testBase + "/acs/1"
		want["ProtocolBinding"] = bindingPost
	} else {
		want["AssertionConsumerServiceIndex"] = string(rune('0' + r.ACSIndex))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("attributes of AuthnRequest (-want +got):\n%s", d)
	}
	issuer := root.FindElement("Issuer")
	if issuer.Text() != testBase || issuer.SelectAttrValue("NameQualifier", "") != testBase || issuer.SelectAttrValue("Format", "") != formatEntity {
		t.Error("Issuer is not conformant")
	}
	comparison, level := r.Comparison, r.Level
	if comparison == "" {
		comparison = "minimum"
	}
	if level == 0 {
		level = 2
	}
	rac := root.FindElement("RequestedAuthnContext")
	if rac.SelectAttrValue("Comparison", "") != comparison || rac.FindElement("AuthnContextClassRef").Text() != levelPrefix+string(rune('0'+level)) {
		t.Error("RequestedAuthnContext is not what was asked for")
	}
	if p := root.FindElement("Extensions/Purpose"); (p != nil) != (r.Purpose != "") || (p != nil && p.Text() != r.Purpose) {
		t.Error("Purpose is not what was asked for")
	}
}

func TestBrokenPostForms(t *testing.T) {
	sp, _, _ := newSP(t, nil)
	build := func(r Request) (url.Values, []byte, string) {
		t.Helper()
		_, fields, id, err := sp.PostForm(r)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(fields.Get("SAMLRequest"))
		if err != nil {
			t.Fatal(err)
		}
		return fields, raw, id
	}
	for name, r := range map[string]Request{
		"other key": {OtherKey: true},
		"unsigned":  {Unsigned: true},
		"tampered": {TamperAfterSigning: func(xml []byte) []byte {
			return bytes.Replace(xml, []byte("SpidL2"), []byte("SpidL1"), 1)
		}},
	} {
		_, raw, _ := build(r)
		if signatureError(t, nsProtocol, "AuthnRequest", raw, sp.Certificate()) == "" {
			t.Errorf("%s: the signature verifies", name)
		}
	}
	_, raw, _ := build(Request{IssuerOverride: "https://nobody.example"})
	if !bytes.Contains(raw, []byte(`NameQualifier="https://nobody.example">https://nobody.example<`)) {
		t.Error("the issuer was not replaced")
	}
	if msg := signatureError(t, nsProtocol, "AuthnRequest", raw, sp.Certificate()); msg != "" {
		t.Error(msg)
	}
	_, raw, id := build(Request{Mutate: func(d *etree.Document) { d.Root().RemoveAttr("ID") }})
	if id != "" || !bytes.Contains(raw, []byte(`Reference URI=""`)) && !bytes.Contains(raw, []byte(`ds:Reference URI=""`)) {
		t.Error("without an ID the signature does not refer to the whole document")
	}
	if _, _, id := build(Request{ID: "_again"}); id != "_again" {
		t.Errorf("ID %q", id)
	}
	fields, _, _ := build(Request{RelayState: "r", Drop: []string{"RelayState"}, Double: []string{"SAMLRequest"}})
	if fields.Has("RelayState") || len(fields["SAMLRequest"]) != 2 {
		t.Errorf("fields %v", fields)
	}
	for name, r := range map[string]Request{"service": {Service: 9}, "ACS": {ACSIndex: 2}, "hash": {Hash: crypto.MD5}} {
		if _, _, _, err := sp.PostForm(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestBrokenRedirectURLs(t *testing.T) {
	sp, _, _ := newSP(t, nil)
	for name, r := range map[string]Request{
		"other key": {OtherKey: true},
		"tampered":  {TamperAfterSigning: func(xml []byte) []byte { return bytes.Replace(xml, []byte("SpidL2"), []byte("SpidL1"), 1) }},
	} {
		location, _, err := sp.RedirectURL(r)
		if err != nil {
			t.Fatal(err)
		}
		if redirectSignature(t, location, sp) == nil {
			t.Errorf("%s: the signature verifies", name)
		}
	}
	parameters := func(r Request) []string {
		location, _, err := sp.RedirectURL(r)
		if err != nil {
			t.Fatal(err)
		}
		_, query, _ := strings.Cut(location, "?")
		var names []string
		for _, p := range strings.Split(query, "&") {
			name, _, _ := strings.Cut(p, "=")
			names = append(names, name)
		}
		return names
	}
	for _, tt := range []struct {
		r    Request
		want string
	}{
		{Request{}, "SAMLRequest SigAlg Signature"},
		{Request{RelayState: "r"}, "SAMLRequest RelayState SigAlg Signature"},
		{Request{EmptyRelayState: true}, "SAMLRequest RelayState SigAlg Signature"},
		{Request{Unsigned: true}, "SAMLRequest"},
		{Request{Drop: []string{"SigAlg", "SAMLRequest"}}, "Signature"},
		{Request{Double: []string{"Signature"}}, "SAMLRequest SigAlg Signature Signature"},
		{Request{Hash: crypto.SHA1}, "SAMLRequest SigAlg Signature"},
	} {
		if got := parameters(tt.r); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("got %v, want %s", got, tt.want)
		}
	}
	location, _, err := sp.RedirectURL(Request{EmbedSignature: true})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(redirectXML(t, location), []byte("SignatureValue")) {
		t.Error("no embedded signature")
	}
	if joined := joinQuery("https://a/?x=1", []parameter{{"p", "v"}}); joined != "https://a/?x=1&p=v" {
		t.Errorf("joined: %s", joined)
	}
}

func TestRequestBookIsBounded(t *testing.T) {
	sp, idp, c := newSP(t, func(cfg *Config) { cfg.MaxPending = 3 })
	first := ask(t, sp, c, Request{})
	response := idp.respond(t, sp, first, answer{})
	for range 3 {
		ask(t, sp, c, Request{})
	}
	if n := len(sp.requests.byID); n != 3 || sp.requests.order.Len() != 3 {
		t.Errorf("%d requests remembered, want 3", n)
	}
	if _, err := sp.Consume(response, ""); CheckOf(err) != "response.inResponseTo" {
		t.Errorf("got %v", err)
	}
	c.advance(sp.cfg.RequestTTL)
	ask(t, sp, c, Request{ID: "_x"})
	ask(t, sp, c, Request{ID: "_x"})
	if n := len(sp.requests.byID); n != 1 || sp.requests.order.Len() != 1 {
		t.Errorf("%d requests remembered after the others expired, want 1", n)
	}
	for i := range 100 {
		sp.requests.first(hex.EncodeToString([]byte{byte(i)}))
	}
	if n := len(sp.requests.seen); n != 12 {
		t.Errorf("%d identifiers remembered, want 12", n)
	}
}

func TestParseIdPMetadataRefuses(t *testing.T) {
	c := newClock()
	idp := newFakeIdP(t, c)
	if _, err := ParseIdPMetadata(idp.metadata(t, nil), c.now()); err != nil {
		t.Fatal(err)
	}
	role := "IDPSSODescriptor"
	for name, mutate := range map[string]func(*etree.Element){
		"no role":           remove(role),
		"two roles":         double(role),
		"requests unsigned": unset(role, "WantAuthnRequestsSigned"),
		"protocol":          set(role, "protocolSupportEnumeration", "urn:x"),
		"no signing key":    set(role+"/KeyDescriptor", "use", "encryption"),
		"foreign key":       text("//X509Certificate", base64.StdEncoding.EncodeToString(idp.other)),
		"no NameIDFormat":   remove(role + "/NameIDFormat"),
		"NameIDFormat typo": text(role+"/NameIDFormat", "urn:oasis:names:tc:SAML:2.0:nameidformat:transient"),
		"no POST":           remove(role + "/SingleSignOnService[1]"),
		"no Redirect":       remove(role + "/SingleSignOnService[2]"),
		"relative location": set(role+"/SingleSignOnService[2]", "Location", "/sso"),
		"typed attribute": func(el *etree.Element) {
			a := el.FindElement("//Attribute")
			a.CreateAttr("xmlns:xsi", nsXSI)
			a.CreateAttr("xsi:type", "xs:string")
		},
		"nameless attribute": unset("//Attribute", "Name"),
		"entityID":           set("", "entityID", "x"),
		"no ID":              unset("", "ID"),
		"no logout": func(el *etree.Element) {
			remove(role + "/SingleLogoutService")(el)
			remove(role + "/SingleLogoutService")(el)
		},
	} {
		if _, err := ParseIdPMetadata(idp.metadata(t, mutate), c.now()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, key := range map[string]string{"not base64": "%", "not a certificate": "AAAA", "short key": shortCertificate(t, c)} {
		doc := idp.metadataDoc()
		text("//X509Certificate", key)(doc.Root())
		if _, err := signersOf(doc.Root()); err == nil {
			t.Errorf("certificate %s: accepted", name)
		}
	}
	good := idp.metadata(t, nil)
	for want, raw := range map[string][]byte{
		"too large":       append(bytes.Repeat([]byte(" "), maxIdPMetadata), good...),
		"root element":    bytes.ReplaceAll(good, []byte("EntityDescriptor"), []byte("EntitiesDescriptor")),
		"the first child": signatureLast(t, good),
	} {
		if _, err := ParseIdPMetadata(raw, c.now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %q", err, want)
		}
	}
	unsigned := bytesOf(t, idp.metadataDoc())
	if _, err := ParseIdPMetadata(unsigned, c.now()); err == nil {
		t.Error("unsigned: accepted")
	}
	tampered := bytes.Replace(idp.metadata(t, nil), []byte("/sso/post"), []byte("/sso/evil"), 1)
	if _, err := ParseIdPMetadata(tampered, c.now()); err == nil {
		t.Error("tampered: accepted")
	}
}

func shortCertificate(t *testing.T, c *clock) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(certificateFor(t, key, c.now().Add(-time.Hour), c.now().Add(time.Hour)))
}

func signatureLast(t *testing.T, raw []byte) []byte {
	t.Helper()
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil {
		t.Fatal(err)
	}
	sig := doc.Root().FindElement("Signature")
	doc.Root().RemoveChild(sig)
	doc.Root().AddChild(sig)
	return bytesOf(t, doc)
}

// A federation's key may sign the metadata instead of the IdP's own.
func TestParseIdPMetadataSignedByTheFederation(t *testing.T) {
	c := newClock()
	idp := newFakeIdP(t, c)
	doc := idp.metadataDoc()
	if err := signEnveloped(doc.Root(), idp.otherKey, idp.other, crypto.SHA256, 0); err != nil {
		t.Fatal(err)
	}
	raw := bytesOf(t, doc)
	if _, err := ParseIdPMetadata(raw, c.now()); err == nil {
		t.Error("accepted without trusting the federation")
	}
	federation, err := x509.ParseCertificate(idp.other)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseIdPMetadata(raw, c.now(), federation)
	if err != nil || len(got.Signers) != 1 || !bytes.Equal(got.Signers[0].Raw, idp.cert) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParseIdPMetadata(f *testing.F) {
	c := newClock()
	idp := newFakeIdP(f, c)
	f.Add(idp.metadata(f, nil))
	f.Add(bytesOf(f, idp.metadataDoc()))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseIdPMetadata(data, c.now())
		if err == nil && (got.EntityID == "" || len(got.Signers) == 0 || got.SSOPost == "") {
			t.Errorf("incomplete metadata accepted: %+v", got)
		}
	})
}
