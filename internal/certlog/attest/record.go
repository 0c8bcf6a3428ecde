// Package attest makes and verifies attestations: what a subject may take away
// about their own accesses (operating manual, section 12.2), so that anybody can
// check it years later without the appliance.
//
// An attestation is a ZIP file. attestation.p7m is a sealed statement
// (Statement): whose accesses, in which interval, how many there are and that
// none was left out, with the SHA-256 of every other file. For record N of the
// log there are
//
//	records/N.json          the record as it was logged (Access)
//	records/N.request.xml   the AuthnRequest as the service provider sent it
//	records/N.response.xml  the Response as we sent it
//	proofs/N.json           the leaf, the key that opens it, and its way to the root (Proof)
//
// and for each segment M that holds one, checkpoints/M.p7m (CAdES-T), beside
// certificates/, README.txt with the openssl commands, and report.html and report.pdf
// for people, the latter with a detached seal (report.pdf.p7s, CAdES-T). Beside each .p7m stand its signature (.sig) and token (.tst).
//
// The seal proves who states; the checkpoints prove that each access was logged
// before the time-stamp and not changed since. That none was left out is the
// provider's sealed word: only the holder of the HSM, or of the escrow key, can
// search the log.
//
// internal/certlog and its sub-packages are all it needs; cmd/custode and
// cmd/custode-verify import it.
package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"time"

	"custode/internal/certlog"
	"custode/internal/fault"
)

// Access is one record of the transaction register: the triple of subject's
// spidCode, AuthnRequest and Response, and what was extracted from them
// (technical rules, chapter on the register). JSON; times are UTC.
type Access struct {
	Format      int       `json:"format"` // 1
	At          time.Time `json:"at"`     // when the Response was made
	Code        int       `json:"code"`   // of the anomaly table; 1 is success
	SPIDCode    string    `json:"spidCode,omitempty"`
	Level       int       `json:"level,omitempty"` // performed, 1 to 3
	Credentials []string  `json:"credentials,omitempty"`
	SPName      string    `json:"spName,omitempty"`
	Requested   []string  `json:"requestedAttributes,omitempty"`
	Request     Message   `json:"request"`
	Response    Message   `json:"response"`
	Assertion   Assertion `json:"assertion,omitzero"`
	Build       string    `json:"build"` // of the appliance
}

// Message is a SAML message and what was extracted from it.
type Message struct {
	ID           string       `json:"id"`
	IssueInstant time.Time    `json:"issueInstant,omitzero"`
	Issuer       string       `json:"issuer"`
	SHA256       certlog.Hash `json:"sha256"` // of XML; set by Encode
	XML          []byte       `json:"-"`      // byte-exact
}

// Assertion is what was extracted from the Response's assertion, if it has one.
type Assertion struct {
	ID            string `json:"id"`
	Subject       string `json:"subject"` // the NameID
	NameQualifier string `json:"nameQualifier"`
}

// A record's octets are three parts, each after its length in 4 octets,
// big-endian: the JSON of Access, the request's XML and the response's. XML
// inside JSON would have to be encoded, and then hardly compresses.

// Encode returns the record's octets.
func (a Access) Encode() ([]byte, error) {
	head, err := a.head()
	if err != nil {
		return nil, fault.New(fault.Internal, "encode access record", err)
	}
	var out []byte
	for _, part := range [][]byte{head, a.Request.XML, a.Response.XML} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out, nil
}

// head returns the JSON part.
func (a Access) head() ([]byte, error) {
	a.Format = 1
	a.Request.SHA256, a.Response.SHA256 = sha256.Sum256(a.Request.XML), sha256.Sum256(a.Response.XML)
	return json.Marshal(a)
}

// ParseAccess reads what Encode makes; anything else is fault.Invalid.
func ParseAccess(data []byte) (Access, error) {
	const op = "read access record"
	var parts [3][]byte
	for i := range parts {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return Access{}, fault.Newf(fault.Invalid, op, "part %d is cut", i+1)
		}
		n := 4 + int(binary.BigEndian.Uint32(data))
		parts[i], data = data[4:n], data[n:]
	}
	var a Access
	if err := decode(parts[0], &a); err != nil || a.Format != 1 || len(data) > 0 {
		return Access{}, fault.Newf(fault.Invalid, op, "not of format 1: %v", err)
	}
	a.Request.XML, a.Response.XML = parts[1], parts[2]
	if again, err := a.head(); err != nil || !bytes.Equal(again, parts[0]) {
		return Access{}, fault.Newf(fault.Invalid, op, "the parts do not fit one another")
	}
	return a, nil
}

// Statement is the payload of attestation.p7m.
type Statement struct {
	Format    int        `json:"format"` // 1
	Provider  string     `json:"provider"`
	Log       certlog.ID `json:"log"`
	SPIDCode  string     `json:"spidCode"`
	From      time.Time  `json:"from"` // included
	To        time.Time  `json:"to"`   // excluded
	Made      time.Time  `json:"made"`
	Records   []uint64   `json:"records"`             // in order; empty: no access was logged
	Size      uint64     `json:"size"`                // records in the log when it was made
	Destroyed []uint64   `json:"destroyed,omitempty"` // segments of the interval whose records are no longer kept
	Files     []File     `json:"files"`               // all others in the ZIP, sorted by name
}

// File names a file of the attestation.
type File struct {
	Name   string       `json:"name"`
	SHA256 certlog.Hash `json:"sha256"`
}

// Proof is proofs/N.json.
type Proof struct {
	Seq     uint64            `json:"seq"`
	Segment uint64            `json:"segment"`
	Leaf    []byte            `json:"leaf"` // commitment, ciphertext, tag
	Key     certlog.RecordKey `json:"key"`
	Path    []certlog.Hash    `json:"path"` // RFC 6962, section 2.1.1, to the root of checkpoints/M.p7m
}

func decode(data []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if dec.More() {
		return fault.Newf(fault.Invalid, "read JSON", "more than one value")
	}
	return nil
}
