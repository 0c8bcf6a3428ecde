// Package spsim is a simulated SPID service provider: the fictitious
// municipality that asks our identity provider to authenticate people. The
// demonstration (its web site is the package site), the end-to-end tests and
// the load driver talk to the product through it.
//
// It has two faces. As an honest SP it publishes signed metadata, builds
// AuthnRequests for both bindings and judges Responses more strictly than any
// SP met in production: every rule of the SPID technical rules that an SP can
// observe is a named check, the clock skew is zero, both signatures are
// mandatory, and the first broken rule refuses the login. As a hostile SP it
// sends requests that are broken on purpose (see Request): unsigned, signed
// with a stranger's key, changed after signing, replayed, with parameters
// missing or doubled, or changed at will before they are signed.
//
// It is not an SP for production: keys live in memory, nothing is persisted,
// single logout is package slo.
//
// Formats: SAML 2.0 over HTTP-Redirect and HTTP-POST, XML signatures with
// RSA-SHA256 and exclusive canonicalisation, times in UTC with milliseconds.
// Like every simulator it shares no code with the product and imports none of
// its packages; that is what makes its verdict worth something. Tests and
// development binaries may import it, the daemon may not.
package spsim

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// The namespaces and names of SAML 2.0 and SPID used on the wire.
const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsMetadata  = "urn:oasis:names:tc:SAML:2.0:metadata"
	nsSignature = "http://www.w3.org/2000/09/xmldsig#"
	nsSpid      = "https://spid.gov.it/saml-extensions"
	nsXSI       = "http://www.w3.org/2001/XMLSchema-instance"
	nsXS        = "http://www.w3.org/2001/XMLSchema"

	bindingPost     = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
	bindingRedirect = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
	bindingSOAP     = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"

	formatEntity    = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	formatTransient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"

	levelPrefix  = "https://www.spid.gov.it/SpidL"
	statusPrefix = "urn:oasis:names:tc:SAML:2.0:status:"
)

var logoutBindings = map[string]string{"soap": bindingSOAP, "redirect": bindingRedirect, "post": bindingPost}

// instantLayout is the only time format SPID peers all accept: UTC, a literal
// Z, exactly three fractional digits.
const instantLayout = "2006-01-02T15:04:05.000Z"

const (
	maxResponse       = 512 << 10        // bytes of base64 accepted by Consume
	maxIdPMetadata    = 1 << 20          // bytes
	metadataWait      = 10 * time.Second // for the IdP's metadata
	defaultRequestTTL = 15 * time.Minute // how long an answer to a request is awaited
	defaultMaxPending = 1 << 16          // requests remembered
)

// Config says who the service provider is and whom it trusts. The zero value
// of every field but BaseURL has a usable default.
type Config struct {
	// BaseURL is where the SP's site is reachable, scheme and host and
	// optional path, without a final slash. Mandatory.
	BaseURL string
	// EntityID defaults to BaseURL.
	EntityID string

	// IdPMetadata is the identity provider's signed metadata. When it is nil,
	// Open fetches it from IdPMetadataURL.
	IdPMetadata    []byte
	IdPMetadataURL string
	// MetadataSigners are certificates that may sign the IdP's metadata
	// besides the signing certificates listed in it (a federation's key).
	MetadataSigners []*x509.Certificate

	// Key and Certificate (DER) sign requests and metadata. When both are nil
	// an RSA-2048 key and a self-signed certificate with a SPID subject are
	// made. Given must be both or none.
	Key         *rsa.PrivateKey
	Certificate []byte

	// OrganizationDisplayName is what an IdP shows to the person; it defaults
	// to "Comune di Prova Alta".
	OrganizationDisplayName string
	// AttributeSets maps the index of an AttributeConsumingService to the
	// attribute names it requests. The default has three sets: 0 for the
	// demonstration, 1 with the fiscal number only, 2 with every SPID name.
	AttributeSets map[int][]string

	// LogoutBindings (soap, redirect, post; default all) are what package slo speaks.
	LogoutBindings []string

	// Skew is tolerated when times are compared with Now; the default is none.
	Skew time.Duration
	// RequestTTL is how long an answer to a request is accepted (15 minutes).
	RequestTTL time.Duration
	// MaxPending bounds the requests remembered; the oldest is dropped first.
	MaxPending int

	// Now is the clock, time.Now by default.
	Now func() time.Time
	// Rand is the source of keys and identifiers, crypto/rand by default.
	Rand io.Reader
}

// SP is one service provider. Its methods may be used concurrently.
type SP struct {
	cfg      Config
	key      *rsa.PrivateKey
	cert     []byte
	stranger func() (*rsa.PrivateKey, error) // signs for Request.OtherKey
	metadata []byte

	requests *requestBook

	mu  sync.Mutex
	idp *IdP
}

// New builds a service provider; it makes keys and signs the metadata but
// opens nothing. It fails on an unusable Config, and on IdP metadata that
// ParseIdPMetadata refuses.
func New(cfg Config) (*SP, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	sp := &SP{
		cfg:      cfg,
		key:      cfg.Key,
		cert:     cfg.Certificate,
		requests: newRequestBook(cfg.MaxPending),
	}
	var err error
	if sp.key == nil {
		if sp.key, sp.cert, err = makeKeyPair(cfg); err != nil {
			return nil, fmt.Errorf("make the SP's key pair: %w", err)
		}
	}
	sp.stranger = sync.OnceValues(func() (*rsa.PrivateKey, error) {
		return rsa.GenerateKey(cfg.Rand, 2048)
	})
	if sp.metadata, err = sp.buildMetadata(); err != nil {
		return nil, fmt.Errorf("build the SP's metadata: %w", err)
	}
	if cfg.IdPMetadata != nil {
		if err := sp.SetIdPMetadata(cfg.IdPMetadata); err != nil {
			return nil, err
		}
	}
	return sp, nil
}

func (c *Config) fill() error {
	u, err := url.Parse(c.BaseURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") ||
		u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(c.BaseURL, "/") {
		return fmt.Errorf("base URL %q: want http(s)://host[/path] without a final slash", c.BaseURL)
	}
	if (c.Key == nil) != (c.Certificate == nil) {
		return errors.New("key and certificate: want both or none")
	}
	if c.EntityID == "" {
		c.EntityID = c.BaseURL
	}
	if c.OrganizationDisplayName == "" {
		c.OrganizationDisplayName = "Comune di Prova Alta"
	}
	if c.AttributeSets == nil {
		c.AttributeSets = defaultAttributeSets()
	}
	c.AttributeSets = maps.Clone(c.AttributeSets)
	for index, set := range c.AttributeSets {
		if index < 0 || index > 65535 || len(set) == 0 {
			return fmt.Errorf("attribute set %d: want an index of 0..65535 and at least one name", index)
		}
	}
	if c.LogoutBindings == nil {
		c.LogoutBindings = []string{"soap", "redirect", "post"}
	}
	if c.RequestTTL <= 0 {
		c.RequestTTL = defaultRequestTTL
	}
	if c.MaxPending <= 0 {
		c.MaxPending = defaultMaxPending
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return nil
}

func defaultAttributeSets() map[int][]string {
	all := make([]string, 0, len(attributeTable))
	for _, a := range attributeTable {
		all = append(all, a.name)
	}
	return map[int][]string{
		0: {"spidCode", "name", "familyName", "fiscalNumber", "dateOfBirth", "placeOfBirth", "gender", "email", "mobilePhone"},
		1: {"fiscalNumber"},
		2: all,
	}
}

// Open makes sure the IdP's metadata is known: it fetches IdPMetadataURL when
// nothing was configured or set before. It is safe to call more than once.
func (sp *SP) Open(ctx context.Context) error {
	if _, err := sp.IdP(); err == nil {
		return nil
	}
	if sp.cfg.IdPMetadataURL == "" {
		return errors.New("open the SP: neither IdP metadata nor their URL is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, metadataWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, sp.cfg.IdPMetadataURL, nil)
	if err != nil {
		return fmt.Errorf("fetch IdP metadata: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch IdP metadata: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch IdP metadata from %s: status %d", sp.cfg.IdPMetadataURL, res.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxIdPMetadata+1))
	if err != nil {
		return fmt.Errorf("fetch IdP metadata: %w", err)
	}
	return sp.SetIdPMetadata(raw)
}

// SetIdPMetadata checks raw with ParseIdPMetadata and trusts it from now on.
func (sp *SP) SetIdPMetadata(raw []byte) error {
	idp, err := ParseIdPMetadata(raw, sp.cfg.Now(), sp.cfg.MetadataSigners...)
	if err != nil {
		return fmt.Errorf("read IdP metadata: %w", err)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.idp = idp
	return nil
}

// IdP returns the trusted identity provider, or an error when its metadata is
// not known yet. The value is shared and must not be changed.
func (sp *SP) IdP() (*IdP, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.idp == nil {
		return nil, errors.New("the IdP's metadata is not known yet: call Open or SetIdPMetadata")
	}
	return sp.idp, nil
}

// EntityID returns the SP's entityID.
func (sp *SP) EntityID() string { return sp.cfg.EntityID }

// Config returns the configuration with its defaults filled in, for the site.
// Its maps and slices are shared and must not be changed.
func (sp *SP) Config() Config { return sp.cfg }

// Metadata returns the SP's signed metadata, the same bytes for the SP's life.
func (sp *SP) Metadata() []byte { return slices.Clone(sp.metadata) }

// Certificate returns the DER bytes of the certificate that verifies requests.
func (sp *SP) Certificate() []byte { return slices.Clone(sp.cert) }

// ACS returns the URL of the assertion consumer service with index 0 or 1;
// 0 is the default one.
func (sp *SP) ACS(index int) string {
	if index == 1 {
		return sp.cfg.BaseURL + "/acs/1"
	}
	return sp.cfg.BaseURL + "/acs"
}
