package registrysim

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
)

// template is a real certificate whose serial number is replaced.
type template struct {
	der    []byte
	serial int // where it stands
}

const serialMark = 0x5a5a5a5a5a5a5a5a

func (s *Sim) addTemplate(key *rsa.PrivateKey, i int) error {
	cert, err := makeCertificate(key, fmt.Sprintf("Ente simulato %d", i), serialMark, s.cfg.Now())
	if err != nil {
		return err
	}
	at := bytes.Index(cert.Raw, big.NewInt(serialMark).Bytes())
	if at < 0 {
		return errors.New("no serial number in the certificate")
	}
	s.pool = append(s.pool, template{cert.Raw, at})
	return nil
}

// certificate returns the base64 of owner's certificate.
func (s *Sim) certificate(owner int) string {
	t := s.pool[owner%len(s.pool)]
	der := bytes.Clone(t.der)
	binary.BigEndian.PutUint64(der[t.serial:], 0x10_0000_0000_0000+uint64(owner)) // stays a positive number of eight octets
	der[t.serial] = 0x11
	return base64.StdEncoding.EncodeToString(der)
}

const aggregators = 60

var profiles = []string{"pub-ag-full", "pub-ag-lite", "pri-ag-full", "pri-ag-lite", "pub-op-full", "pub-op-lite"}

// EntityID names the synthetic service provider of that index: of seven, one
// is a service provider of its own and six are aggregated (Avviso 19).
func EntityID(i int) string {
	if i%7 == 0 {
		return fmt.Sprintf("https://servizi%d.ente.example.it/spid", i)
	}
	a := i % aggregators
	return fmt.Sprintf("https://aggregatore%d.example.it/%s/comune-%d", a, profiles[a%len(profiles)], i)
}

var attributeNames = []string{
	"spidCode", "name", "familyName", "fiscalNumber", "dateOfBirth", "placeOfBirth", "countyOfBirth", "gender", "email", "mobilePhone",
	"address", "digitalAddress", "companyName", "registeredOffice", "ivaCode", "idCard", "expirationDate",
}

// appendEntity appends the canonical EntityDescriptor.
func (s *Sim) appendEntity(b []byte, i, revision int) []byte {
	r := rand.New(rand.NewPCG(s.cfg.Seed, uint64(i)))
	id, own := EntityID(i), i%7 == 0
	owner := i
	if !own {
		owner = 1_000_000 + i%aggregators
	}
	b = fmt.Appendf(b, `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" ID="_%08x-%d" entityID="%s">`, r.Uint32(), revision, id)
	b = append(b, `<md:SPSSODescriptor AuthnRequestsSigned="true" WantAssertionsSigned="true" protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">`...)
	b = s.appendKey(b, owner)
	if own && i%5 == 0 { // in the middle of a roll-over
		b = s.appendKey(b, 2_000_000+i)
	}
	b = fmt.Appendf(b, `<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="%[1]s/slo"></md:SingleLogoutService>`+
		`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="%[1]s/slo" ResponseLocation="%[1]s/slo/esito"></md:SingleLogoutService>`+
		`<md:NameIDFormat>urn:oasis:names:tc:SAML:2.0:nameid-format:transient</md:NameIDFormat>`, id)
	for n := range 1 + r.IntN(3) {
		fallback := ""
		if n == 0 {
			fallback = ` isDefault="true"`
		}
		b = fmt.Appendf(b, `<md:AssertionConsumerService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="%s/acs/%d" index="%d"%s></md:AssertionConsumerService>`, id, n, n, fallback)
	}
	for n := range 1 + r.IntN(4) {
		b = fmt.Appendf(b, `<md:AttributeConsumingService index="%d"><md:ServiceName xml:lang="it">Sportello telematico n. %d</md:ServiceName><md:ServiceName xml:lang="en">Online desk no. %d</md:ServiceName>`, n, n, n)
		for _, name := range attributeNames[:3+r.IntN(len(attributeNames)-3)] {
			b = fmt.Appendf(b, `<md:RequestedAttribute Name="%s"></md:RequestedAttribute>`, name)
		}
		b = append(b, `</md:AttributeConsumingService>`...)
	}
	b = append(b, `</md:SPSSODescriptor>`...)
	b = s.appendOrganization(b, i, id)
	return append(b, `</md:EntityDescriptor>`...)
}

func (s *Sim) appendKey(b []byte, owner int) []byte {
	b = append(b, `<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>`...)
	return append(append(b, s.certificate(owner)...), `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`...)
}

func organization(i int) string {
	if i%7 == 0 {
		return fmt.Sprintf("Città dell'Ente n. %d", i)
	}
	return fmt.Sprintf("Comune di Prova n. %d", i)
}

func (s *Sim) appendOrganization(b []byte, i int, id string) []byte {
	b = append(b, `<md:Organization>`...)
	for _, part := range []string{"OrganizationName", "OrganizationDisplayName"} {
		b = fmt.Appendf(b, `<md:%[1]s xml:lang="it">%[2]s</md:%[1]s><md:%[1]s xml:lang="en">Municipality &amp; body no. %[3]d</md:%[1]s>`, part, organization(i), i)
	}
	b = fmt.Appendf(b, `<md:OrganizationURL xml:lang="it">%[1]s</md:OrganizationURL><md:OrganizationURL xml:lang="en">%[1]s</md:OrganizationURL></md:Organization>`, id)
	const spid = ` xmlns:spid="https://spid.gov.it/saml-extensions"`
	if i%7 == 0 {
		return fmt.Appendf(b, `<md:ContactPerson contactType="other"><md:Extensions><spid:IPACode%[1]s>c_%[2]d</spid:IPACode><spid:Public%[1]s></spid:Public></md:Extensions>`+
			`<md:EmailAddress>spid@ente%[2]d.example.it</md:EmailAddress><md:TelephoneNumber>+390600000000</md:TelephoneNumber></md:ContactPerson>`, spid, i)
	}
	a := i % aggregators
	light := ""
	if strings.HasSuffix(profiles[a%len(profiles)], "lite") {
		light = fmt.Sprintf(`<spid:KeyDescriptor%s use="spid:validation"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>%s</ds:X509Certificate></ds:X509Data></ds:KeyInfo></spid:KeyDescriptor>`,
			spid, s.certificate(3_000_000+a))
	}
	return fmt.Appendf(b, `<md:ContactPerson%[1]s contactType="other" spid:entityType="spid:aggregator"><md:Extensions><spid:VATNumber>IT%011[2]d</spid:VATNumber>`+
		`<spid:PublicServicesFullAggregator></spid:PublicServicesFullAggregator>%[3]s</md:Extensions><md:Company>Aggregatore %[2]d S.p.A.</md:Company><md:EmailAddress>spid@aggregatore%[2]d.example.it</md:EmailAddress></md:ContactPerson>`+
		`<md:ContactPerson%[1]s contactType="other" spid:entityType="spid:aggregated"><md:Extensions><spid:IPACode>c_%[4]d</spid:IPACode><spid:Public></spid:Public></md:Extensions></md:ContactPerson>`,
		spid, a, strings.ReplaceAll(light, spid, ""), i)
}

// Hostile returns EntityDescriptors for Edition.Extra that no reader may choke
// on, by what is wrong with them.
func (s *Sim) Hostile() map[string][]byte {
	good := string(s.appendEntity(nil, 7_000_007, 0))
	id := EntityID(7_000_007)
	change := func(name string, pairs ...string) []byte {
		pairs = append(pairs, `entityID="`+id, `entityID="https://`+name+`.hostile.example.it`)
		return []byte(strings.NewReplacer(pairs...).Replace(good))
	}
	return map[string][]byte{
		"script":      change("script", organization(7_000_007), "&lt;script&gt;alert('x')&lt;/script&gt;\u202egnp.exe\u0085\u009b31mrosso"),
		"certificate": change("certificate", s.certificate(7_000_007), "%%%%"),
		"acs":         change("acs", "HTTP-POST", "PAOS"),
		"javascript":  change("javascript", `Location="`+id+`/acs/0"`, `Location="javascript:alert(1)"`),
		"role":        change("role", "SPSSODescriptor", "IDPSSODescriptor"),
		"giant":       change("giant", organization(7_000_007), strings.Repeat("lungo ", 400_000)),
		"deep":        change("deep", "<md:Organization>", "<md:Organization>"+strings.Repeat("<md:x>", 60)+strings.Repeat("</md:x>", 60)),
		"unnamed":     []byte(strings.Replace(good, ` entityID="`+id+`"`, "", 1)),
		"blank":       []byte(strings.Replace(good, id+`"`, `not an URI &#x9;\u001b"`, 1)),
	}
}
