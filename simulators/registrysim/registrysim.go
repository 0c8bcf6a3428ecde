// Package registrysim is the federation registry as an HTTP service: a synthetic
// federation of any size, made anew from a seed for every answer so that forty
// thousand service providers take no memory, signed as the national registry signs.
//
//	GET /entities?entity_type=SP                      one signed aggregate
//	GET /entities?entity_type=SP&page=3&numMetadata=50  one signed page of it, with the headers
//	                                                  tot-metadata, tot-pages and current-page
//	GET /entities-sp?output=json                      the listing
//
// What it publishes is an [Edition]; [Sim.Publish] makes the next one. Answers have
// ETags. By [Sim.Misbehave] it turns hostile: see [Fault]. The service
// providers' certificates are distinct, but made by changing the serial number of a few real ones: nobody
// checks what they are signed with. It shares no code with the product and is for
// development machines only.
package registrysim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// Config describes a federation.
type Config struct {
	Entities int    // 0: 40 000
	Seed     uint64 // the same seed gives the same service providers
	Now      func() time.Time
}

// Edition is one publication of the registry.
type Edition struct {
	Number     int
	Entities   int              // synthetic ones, the first so many
	Revision   map[int]int      // entities that changed, by index
	Disabled   map[int]bool     // in the listing
	Deleted    map[int]bool     // in the listing
	Extra      [][]byte         // further EntityDescriptors, see Canonical
	ExtraFlags map[string]Flags // of the listing, by entityID
	ValidUntil time.Time
	ID         string // of the aggregate
}

// Flags are the listing's marks of one entity.
type Flags struct{ Disabled, Deleted bool }

// Sim is a registry. It is safe for concurrent use.
type Sim struct {
	cfg    Config
	key    *rsa.PrivateKey
	cert   *x509.Certificate
	others *rsa.PrivateKey // signs in the mode ForeignKey
	pool   []template

	mu       sync.Mutex
	editions []*Edition
	serving  int
	fault    Fault
	signed   map[span]string // signatures made
	requests int
}

// New makes the keys and the first edition, and serves it.
func New(c Config) (*Sim, error) {
	if c.Entities == 0 {
		c.Entities = 40_000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	pool, err := keys()
	if err != nil {
		return nil, err
	}
	s := &Sim{cfg: c, signed: map[span]string{}, key: pool[0], others: pool[1]}
	if s.cert, err = makeCertificate(s.key, "Registro SPID simulato", 1, c.Now()); err != nil {
		return nil, err
	}
	for i, key := range pool[2:] {
		if err := s.addTemplate(key, i); err != nil {
			return nil, err
		}
	}
	s.Publish(func(*Edition) {})
	return s, nil
}

// keys are made once in a process: making them is what takes time. The first
// signs the aggregate, the second is a stranger's, the others are service providers'.
var keys = sync.OnceValues(func() (made [6]*rsa.PrivateKey, err error) {
	for i := range made {
		if made[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return made, err
		}
	}
	return made, nil
})

func makeCertificate(key *rsa.PrivateKey, name string, serial int64, now time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{Country: []string{"IT"}, Organization: []string{"Agenzia simulata"}, CommonName: name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(2, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Certificate is whose key signs the aggregate.
func (s *Sim) Certificate() *x509.Certificate { return s.cert }

// CertificatePEM is the same for a file.
func (s *Sim) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
}

// Publish makes the next edition from the current one and serves it.
func (s *Sim) Publish(change func(*Edition)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &Edition{Entities: s.cfg.Entities}
	if n := len(s.editions); n > 0 {
		last := *s.editions[n-1]
		e = &last
		e.Revision, e.Disabled, e.Deleted = copyOf(last.Revision), copyOf(last.Disabled), copyOf(last.Deleted)
		e.ExtraFlags = copyOf(last.ExtraFlags)
	} else {
		e.Revision, e.Disabled, e.Deleted, e.ExtraFlags = map[int]int{}, map[int]bool{}, map[int]bool{}, map[string]Flags{}
	}
	e.Number = len(s.editions) + 1
	e.ID = fmt.Sprintf("_edition-%d", e.Number)
	e.ValidUntil = s.cfg.Now().Add(7*24*time.Hour + time.Duration(e.Number)*time.Second).Truncate(time.Second)
	change(e)
	s.editions = append(s.editions, e)
	s.serving = e.Number
}

func copyOf[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Serve serves the edition of that number again: a replay.
func (s *Sim) Serve(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = number
}

// Misbehave sets the fault of all answers from now on.
func (s *Sim) Misbehave(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests returns how many requests came.
func (s *Sim) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Sim) current() (*Edition, Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	return s.editions[s.serving-1], s.fault
}

// Canonical returns an EntityDescriptor's document in the form that Extra
// needs: exclusive canonical, so that it can stand in the aggregate as it is.
func Canonical(document []byte) ([]byte, error) {
	d := etree.NewDocument()
	if err := d.ReadFromBytes(document); err != nil {
		return nil, err
	}
	return dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("").Canonicalize(d.Root())
}

// span is a part of an edition: entities from up to to, the extra ones counted last.
type span struct{ edition, from, to int }

func (e *Edition) size() int { return e.Entities + len(e.Extra) }

// rootTag is in canonical form. The default namespace leaves the prefix md to
// each entity.
func (e *Edition) rootTag(p span) string {
	return fmt.Sprintf(`<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" ID="%s-%d-%d" Name="https://registry.example.it" validUntil="%s">`,
		e.ID, p.from, p.to, e.ValidUntil.UTC().Format(time.RFC3339))
}

const rootEnd = "\n</EntitiesDescriptor>"

// body calls write with the canonical octets of the span's entities.
func (s *Sim) body(e *Edition, p span, write func([]byte) error) error {
	buf := make([]byte, 0, 16<<10)
	for i := p.from; i < p.to; i++ {
		buf = append(buf[:0], '\n')
		if i < e.Entities {
			buf = s.appendEntity(buf, i, e.Revision[i])
		} else {
			buf = append(buf, e.Extra[i-e.Entities]...)
		}
		if err := write(buf); err != nil {
			return err
		}
	}
	return nil
}

// signature returns the ds:Signature of a span, made once.
func (s *Sim) signature(e *Edition, p span, foreign bool) (string, error) {
	s.mu.Lock()
	made, ok := s.signed[p]
	s.mu.Unlock()
	if ok && !foreign {
		return made, nil
	}
	h := sha256.New()
	h.Write([]byte(e.rootTag(p)))
	if err := s.body(e, p, func(b []byte) error { h.Write(b); return nil }); err != nil {
		return "", err
	}
	h.Write([]byte(rootEnd))
	info := fmt.Sprintf(`<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod>`+
		`<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod><ds:Reference URI="#%s-%d-%d"><ds:Transforms>`+
		`<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>`+
		`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>%s</ds:DigestValue></ds:Reference></ds:SignedInfo>`,
		e.ID, p.from, p.to, base64.StdEncoding.EncodeToString(h.Sum(nil)))
	key := s.key
	if foreign {
		key = s.others
	}
	sum := sha256.Sum256([]byte(info))
	value, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	text := `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` + info + "<ds:SignatureValue>\n" + base64.StdEncoding.EncodeToString(value) +
		"\n</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>" + base64.StdEncoding.EncodeToString(s.cert.Raw) +
		"</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>"
	if !foreign {
		s.mu.Lock()
		s.signed[p] = text
		s.mu.Unlock()
	}
	return text, nil
}

// Handler is the service.
func (s *Sim) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /entities", s.serveAggregate)
	mux.HandleFunc("GET /entities-sp", s.serveListing)
	return mux
}
