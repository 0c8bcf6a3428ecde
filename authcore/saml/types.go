// Package saml is SAML 2.0 as the SPID technical rules profile it: decode,
// verify, build, sign. Bytes and values only: no network, no clock (times are
// parameters), no storage.
//
// Inbound, a [Verifier] turns received octets into a [VerifiedRequest], the
// only proof that an AuthnRequest was signed by the service provider it names;
// its values are read from the verified bytes and nowhere else. Outbound, an
// [Issuer] emits Response, Assertion and metadata directly in canonical form
// (exclusive C14N), signs them with a crypto.Signer and verifies what it signed
// before handing it out.
//
// It is not a general SAML library: what SPID does not use is refused. The
// XML underneath is authcore/saml/xmldoc. Imported by authcore,
// authcore/registry and authcore/web.
package saml

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"custode/authcore/saml/xmldoc"
	"custode/internal/id"
)

// Level is a SPID level of assurance, 1 to 3 (ISO/IEC 29115 LoA 2 to 4).
type Level uint8

// The levels.
const (
	L1 Level = 1
	L2 Level = 2
	L3 Level = 3
)

// The XML namespaces of SPID documents.
const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsMetadata  = "urn:oasis:names:tc:SAML:2.0:metadata"
	nsSPID      = "https://spid.gov.it/saml-extensions"
	nsXS        = "http://www.w3.org/2001/XMLSchema"
	nsXSI       = "http://www.w3.org/2001/XMLSchema-instance"
)

// MaxSPMetadata is the largest metadata document of one SP, octets.
const MaxSPMetadata = 1 << 20

// The largest documents taken in or read back.
var (
	requestBounds  = xmldoc.Bounds{Bytes: 64 << 10, Depth: 16, Attrs: 64, Elements: 256, Declarations: 64}
	responseBounds = xmldoc.Bounds{Bytes: 512 << 10, Depth: 16, Attrs: 16, Elements: 1024, Declarations: 256}
	// Service providers write comments in metadata by hand; they never reach
	// the canonical form from which the values are read.
	metadataBounds = xmldoc.Bounds{Bytes: MaxSPMetadata, Depth: 24, Attrs: 64, Elements: 32 << 10, Declarations: 4 << 10, Comments: true}
)

// levelURI is the AuthnContextClassRef without its digit (SPID Avviso 5).
const levelURI = "https://www.spid.gov.it/SpidL"

// URI returns the AuthnContextClassRef of the level.
func (l Level) URI() string { return fmt.Sprintf("%s%d", levelURI, uint8(l)) }

// Binding is the SAML binding a request arrived by.
type Binding uint8

// The bindings of a SPID AuthnRequest, and SOAP.
const (
	Redirect Binding = 1 // urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect
	Post     Binding = 2 // urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST
	SOAP     Binding = 3 // urn:oasis:names:tc:SAML:2.0:bindings:SOAP; single logout only
)

// Comparison is RequestedAuthnContext/@Comparison (SAML Core 3.3.2.2.1).
type Comparison uint8

// The comparisons; Exact is SAML's default when the attribute is absent.
const (
	Exact Comparison = iota
	Minimum
	Better
	Maximum
)

// SP is what the metadata of one service provider says, as far as an identity
// provider needs it. It is a read-only snapshot.
type SP struct {
	EntityID     id.EntityID
	DisplayName  map[string]string   // OrganizationDisplayName by xml:lang
	Certificates []*x509.Certificate // KeyDescriptor use="signing" or without use
	ACS          []ACS               // HTTP-POST AssertionConsumerService only, by index
	Services     []AttributeService  // by index
	SLO          []Endpoint          // SingleLogoutService, usable ones in document order
	ValidUntil   time.Time           // EntityDescriptor/@validUntil, zero for none
}

// ACS is an AssertionConsumerService endpoint.
type ACS struct {
	Index    uint16
	Location string
	Default  bool
}

// AttributeService is an AttributeConsumingService.
type AttributeService struct {
	Index      uint16
	Name       map[string]string // ServiceName by xml:lang
	Attributes []string          // RequestedAttribute/@Name, document order
}

// Name returns OrganizationDisplayName in lang, else in Italian, else in
// English, else in the first language by name, else the entityID: the
// requester's name that pages must show.
func (sp *SP) Name(lang string) string {
	for _, l := range []string{lang, "it", "en"} {
		if n := sp.DisplayName[l]; n != "" {
			return n
		}
	}
	for _, l := range slices.Sorted(maps.Keys(sp.DisplayName)) {
		return sp.DisplayName[l]
	}
	return sp.EntityID.String()
}

// Request is what a verified AuthnRequest asks, as plain data that a flow can
// keep. Only Verifier fills it in.
type Request struct {
	ID            string // AuthnRequest/@ID, an NCName
	SP            id.EntityID
	IssueInstant  time.Time // UTC
	Binding       Binding
	Level         Level // requested
	Comparison    Comparison
	ForceAuthn    bool
	ACS           string   // where the Response goes: a Location of the SP's metadata
	HasAttributes bool     // an AttributeConsumingServiceIndex was given
	Attributes    []string // names of that service, metadata order
	RelayState    string   // octets as received, percent-decoded once
	HasRelayState bool
	Purpose       string // spid:Purpose: "", P, LP, PG, PF or PX (SPID Avviso 18)
	Raw           []byte // the AuthnRequest document as verified
}

// Reply returns where and to what an answer to the request goes.
func (r *Request) Reply() Reply {
	return Reply{SP: r.SP, ACS: r.ACS, InResponseTo: r.ID, RequestIssued: r.IssueInstant,
		RelayState: r.RelayState, HasRelayState: r.HasRelayState}
}

// VerifiedRequest is the proof that a request was verified against the
// registered certificates of the SP it names. Its zero value holds no request.
type VerifiedRequest struct {
	request Request
	sp      *SP
}

// Request returns the verified values.
func (v VerifiedRequest) Request() Request { return v.request }

// SP returns the metadata snapshot the request was verified against, nil for
// the zero value.
func (v VerifiedRequest) SP() *SP { return v.sp }

// Reply addresses a Response. ACS comes from the SP's metadata, never from the
// message alone. InResponseTo is "" when the request had no usable ID.
type Reply struct {
	SP            id.EntityID
	ACS           string
	InResponseTo  string
	RequestIssued time.Time // zero when unusable
	RelayState    string
	HasRelayState bool
}

// Refusal is the error of a request that breaks a rule. Reply is nil when the
// table prescribes a page for the person (codes 2 to 7 and 10), else it says
// where the signed error Response goes.
type Refusal struct {
	Code   Code
	Reply  *Reply
	SPName map[string]string // the SP's OrganizationDisplayName by xml:lang, with a Reply; not modified
	Err    error             // private cause
}

// Error names the anomaly and its cause, for logs.
func (r *Refusal) Error() string { return fmt.Sprintf("anomaly %d: %v", r.Code, r.Err) }

// Unwrap returns the private cause.
func (r *Refusal) Unwrap() error { return r.Err }

// Attribute is one SPID attribute to be asserted. An empty Value is sent as an
// empty AttributeValue (the attribute set must match the request one to one).
type Attribute struct {
	Name  string
	Value string
}

// Statement is what a success Response asserts.
type Statement struct {
	Request      Request
	Level        Level     // really performed
	AuthnInstant time.Time // when the subject authenticated
	SessionIndex string    // required for a level 1 request, else must be ""
	Attributes   []Attribute
	Omitted      []string // requested names that are left out on purpose
}

// Signed is a Response ready to leave: signed and re-verified.
type Signed struct {
	XML           []byte // the Response document
	Code          Code   // 1 for success, else the anomaly it reports
	ID            string // Response/@ID
	AssertionID   string // "" in an error Response
	NameID        string // "" in an error Response
	IssueInstant  time.Time
	ACS           string
	RelayState    string
	HasRelayState bool
}
