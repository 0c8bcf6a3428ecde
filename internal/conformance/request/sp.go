package request

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strconv"
	"strings"

	"custode/internal/fault"
)

// The SAML names the auditor writes and expects.
const (
	NSProtocol      = "urn:oasis:names:tc:SAML:2.0:protocol"
	NSAssertion     = "urn:oasis:names:tc:SAML:2.0:assertion"
	NSMetadata      = "urn:oasis:names:tc:SAML:2.0:metadata"
	NSSPID          = "https://spid.gov.it/saml-extensions"
	FormatEntity    = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	FormatTransient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	BindingPrefix   = "urn:oasis:names:tc:SAML:2.0:bindings:"
	LevelPrefix     = "https://www.spid.gov.it/SpidL"
	BasicName       = "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"
)

// DisplayName is the auditor's OrganizationDisplayName; login pages must show it.
const DisplayName = "Verifica di conformità"

// Services are the attribute sets of the auditor's metadata, by index.
var Services = [][]string{
	{"fiscalNumber"},
	{"spidCode", "name", "familyName", "dateOfBirth", "fiscalNumber", "email"},
	{"digitalAddress", "gender"},
}

// KeyPair is an RSA key with its certificate.
type KeyPair struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// SP is the auditor's service provider. EntityID and Main are required.
type SP struct {
	EntityID string
	Main     KeyPair
	// Expired is a second pair of the metadata whose certificate is over; the
	// rules about expired certificates and about several certificates need it.
	Expired *KeyPair
}

// ACS returns the auditor's assertion consumer Services: 0 (the default) and 1.
// Nothing has to answer there; the auditor reads the form that would be sent.
func (s *SP) ACS(index int) string {
	return strings.TrimRight(s.EntityID, "/") + "/acs/" + strconv.Itoa(index)
}

// SLO is the auditor's single logout location.
func (s *SP) SLO() string { return strings.TrimRight(s.EntityID, "/") + "/slo" }

// Check refuses what cannot stand in metadata; fault.Invalid.
func (s *SP) Check() error {
	const op = "describe the auditor's service provider"
	scheme, host, _ := strings.Cut(s.EntityID, "://")
	if scheme != "https" && scheme != "http" || host == "" || strings.ContainsAny(s.EntityID, " \"'<>&?#") {
		return fault.Newf(fault.Invalid, op, "entityID %q is not a plain http(s) URL", s.EntityID)
	}
	pairs := []*KeyPair{&s.Main}
	if s.Expired != nil {
		pairs = append(pairs, s.Expired)
	}
	for _, p := range pairs {
		if p.Key == nil || p.Certificate == nil || !p.Key.PublicKey.Equal(p.Certificate.PublicKey) {
			return fault.Newf(fault.Invalid, op, "a key and its certificate do not belong together")
		}
		if p.Key.N.BitLen() < 2048 {
			return fault.Newf(fault.Invalid, op, "RSA key of %d bits; 2048 are the least", p.Key.N.BitLen())
		}
	}
	return nil
}

// Metadata returns the signed metadata to register with the instance, in the
// form of SPID Avviso 29. random is a CSPRNG. The expired certificate, if any,
// comes first: an instance has to try them all.
func (s *SP) Metadata(random io.Reader) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	id, err := NewID(random)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(`<md:EntityDescriptor xmlns:md="` + NSMetadata + `" xmlns:ds="` + NSSignature + `" xmlns:spid="` + NSSPID +
		`" ID="` + id + `" entityID="` + s.EntityID + `">` + SignatureMark +
		`<md:SPSSODescriptor protocolSupportEnumeration="` + NSProtocol + `" AuthnRequestsSigned="true" WantAssertionsSigned="true">`)
	certificates := []*x509.Certificate{s.Main.Certificate}
	if s.Expired != nil {
		certificates = append([]*x509.Certificate{s.Expired.Certificate}, certificates...)
	}
	for _, c := range certificates {
		b.WriteString(`<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` +
			base64.StdEncoding.EncodeToString(c.Raw) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`)
	}
	b.WriteString(`<md:SingleLogoutService Binding="` + BindingPrefix + `HTTP-POST" Location="` + s.SLO() + `"/>`)
	b.WriteString(`<md:NameIDFormat>` + FormatTransient + `</md:NameIDFormat>`)
	for i, first := range []string{"true", "false"} {
		b.WriteString(`<md:AssertionConsumerService Binding="` + BindingPrefix + `HTTP-POST" Location="` + s.ACS(i) +
			`" index="` + strconv.Itoa(i) + `" isDefault="` + first + `"/>`)
	}
	for i, names := range Services {
		b.WriteString(`<md:AttributeConsumingService index="` + strconv.Itoa(i) + `"><md:ServiceName xml:lang="it">` + DisplayName + `</md:ServiceName>`)
		for _, name := range names {
			b.WriteString(`<md:RequestedAttribute Name="` + name + `" NameFormat="` + BasicName + `"/>`)
		}
		b.WriteString(`</md:AttributeConsumingService>`)
	}
	b.WriteString(`</md:SPSSODescriptor><md:Organization>`)
	for _, name := range []string{"OrganizationName", "OrganizationDisplayName"} {
		b.WriteString(`<md:` + name + ` xml:lang="it">` + DisplayName + `</md:` + name + `>`)
	}
	b.WriteString(`<md:OrganizationURL xml:lang="it">` + s.EntityID + `</md:OrganizationURL></md:Organization>` +
		`<md:ContactPerson contactType="other"><md:Extensions><spid:IPACode>verifica</spid:IPACode><spid:Public/></md:Extensions>` +
		`<md:Company>` + DisplayName + `</md:Company><md:EmailAddress>verifica@example.it</md:EmailAddress></md:ContactPerson></md:EntityDescriptor>`)
	doc, err := s.signing(random).Enveloped(b.String())
	if err != nil {
		return nil, fault.New(fault.Internal, "sign the auditor's metadata", err)
	}
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + doc + "\n"), nil
}

// signing returns the usual way to sign.
func (s *SP) signing(random io.Reader) *Signing {
	return &Signing{Key: s.Main.Key, Cert: s.Main.Certificate.Raw, Random: random,
		Algorithm: RSASHA256, Digest: DigestSHA256, C14N: AlgExcC14N}
}

// NewID draws an identifier: "_" and 128 bits in hexadecimal.
func NewID(random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fault.New(fault.Unavailable, "draw identifier", err)
	}
	return "_" + hex.EncodeToString(b[:]), nil
}
