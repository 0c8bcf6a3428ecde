// Package logout is the messages of SAML single logout as SPID uses them
// (SAML Core 3.7, Profiles 4.4; SPID technical rules, single logout; Avviso 3):
// LogoutRequest and LogoutResponse over HTTP-Redirect, HTTP-POST and SOAP, read
// and verified, written and signed.
//
// A [Reader] turns received octets into a [Verified] message, the only proof
// that a registered service provider signed it; its values are read from the
// verified octets and nowhere else, under the same limits and signature rules as
// an AuthnRequest. An [Issuer] emits our own messages in canonical form, signs
// them (the element for HTTP-POST and SOAP, the query for HTTP-Redirect) and
// verifies what it signed before handing it out.
//
// It knows messages, not sessions: whose session a NameID means, who is told of
// its end and in which order is authcore/session's work. It has no network, no
// clock and no storage. Imported by authcore/session and authcore/web.
package logout

import (
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/xmldoc"
	"custode/internal/id"
)

const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsAsync     = "urn:oasis:names:tc:SAML:2.0:protocol:ext:async-slo"
	nsSOAP      = "http://schemas.xmlsoap.org/soap/envelope/" // SOAP 1.1

	formatEntity    = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	formatTransient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"

	statusSuccess   = "urn:oasis:names:tc:SAML:2.0:status:Success"
	statusRequester = "urn:oasis:names:tc:SAML:2.0:status:Requester"
	statusPartial   = "urn:oasis:names:tc:SAML:2.0:status:PartialLogout"
)

// MaxMessage is the largest message taken in, octets after decoding.
const MaxMessage = 64 << 10

var bounds = xmldoc.Bounds{Bytes: MaxMessage, Depth: 16, Attrs: 64, Elements: 256, Declarations: 64}

// maxIndexes is how many SessionIndex elements a request may carry; one names
// one session, and a person has few.
const maxIndexes = 16

// Request is what a verified LogoutRequest says.
type Request struct {
	ID      string
	SP      id.EntityID
	Binding saml.Binding
	NameID  string // trimmed; its qualifiers are not looked at
	// SessionIndexes names the sessions; none means all of the NameID's.
	SessionIndexes []string
	// Asynchronous: the SP wants no LogoutResponse (SAML V2.0 Asynchronous
	// Single Logout Profile Extension).
	Asynchronous  bool
	RelayState    string
	HasRelayState bool
}

// Response is what a verified LogoutResponse says.
type Response struct {
	ID           string
	SP           id.EntityID
	InResponseTo string
	Status       string // top status code
	SubStatus    string // "" when absent
}

// Success reports whether the SP says that it ended its session whole. Plain
// SAML's partial logout has the top status Success too.
func (r Response) Success() bool { return r.Status == statusSuccess && r.SubStatus == "" }

// Verified is the proof that a message was signed by the SP it names. The zero
// value holds none.
type Verified struct {
	request  *Request
	response *Response
}

// Request returns the LogoutRequest, if it is one.
func (v Verified) Request() (Request, bool) {
	if v.request == nil {
		return Request{}, false
	}
	return *v.request, true
}

// Response returns the LogoutResponse, if it is one.
func (v Verified) Response() (Response, bool) {
	if v.response == nil {
		return Response{}, false
	}
	return *v.response, true
}

// Message is one of ours, signed and re-verified, ready to leave.
type Message struct {
	ID      string
	Binding saml.Binding
	// Location is where it goes; for HTTP-Redirect with the signed query.
	Location string
	// Parameter is the form field of HTTP-POST: SAMLRequest or SAMLResponse.
	Parameter string
	XML       []byte // the document; for SOAP the whole envelope
	// RelayState is what HTTP-POST sends beside it; in Location for
	// HTTP-Redirect, without meaning for SOAP.
	RelayState    string
	HasRelayState bool
}

// Ended is a session that a service provider is told the end of.
type Ended struct {
	ID           string // of the LogoutRequest; see Issuer.NewID
	NameID       string // that this SP was given
	SessionIndex string
}

// Reply addresses a LogoutResponse.
type Reply struct {
	InResponseTo  string
	Partial       bool // else Success
	RelayState    string
	HasRelayState bool
}

// life is how long our LogoutRequest may be acted on (NotOnOrAfter).
const life = 5 * time.Minute
