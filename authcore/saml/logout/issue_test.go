package logout

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"custode/authcore/saml"
	"custode/authcore/saml/query"
	"custode/internal/fault"
)

var (
	spEndpoints = map[saml.Binding]saml.Endpoint{
		saml.Redirect: {Binding: saml.Redirect, Location: spSLO + "?a=b", ResponseLocation: spSLO + "/answer"},
		saml.Post:     {Binding: saml.Post, Location: spSLO},
		saml.SOAP:     {Binding: saml.SOAP, Location: spSLO + "/soap"},
	}
	ended = Ended{ID: "_ours", NameID: goodName, SessionIndex: goodIndex}
)

// asSP reads one of our messages as a service provider would: with a reader
// whose peer is the identity provider.
func asSP(t *testing.T) *Reader {
	t.Helper()
	var locations []string
	for _, e := range spEndpoints {
		locations = append(locations, e.Location, e.ResponseLocation)
	}
	r, err := NewReader(ReaderConfig{EntityID: entity(spEntity), Locations: locations, SPs: spMap{
		idpEntity: {EntityID: entity(idpEntity), Certificates: []*x509.Certificate{idpKit().cert}}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func deliver(t *testing.T, m Message) (Verified, error) {
	t.Helper()
	r := asSP(t)
	switch m.Binding {
	case saml.Redirect:
		u, err := url.Parse(m.Location)
		if err != nil {
			t.Fatal(err)
		}
		return r.Redirect([]byte(u.RawQuery), kitNow)
	case saml.Post:
		return r.Post(m.Parameter, b64(string(m.XML)), []byte(m.RelayState), m.HasRelayState, kitNow)
	}
	if m.Parameter == query.Response {
		return r.SOAPAnswer(m.XML, kitNow)
	}
	return r.SOAP(m.XML, kitNow)
}

func TestOurMessages(t *testing.T) {
	i := testIssuer(t)
	for binding, to := range spEndpoints {
		m, err := i.Request(to, ended, kitNow)
		if err != nil {
			t.Fatal(err)
		}
		v, err := deliver(t, m)
		q, ok := v.Request()
		if err != nil || !ok || q.NameID != goodName || q.ID != "_ours" || len(q.SessionIndexes) != 1 || q.SessionIndexes[0] != goodIndex {
			t.Errorf("request by %d: %+v, %v", binding, q, err)
		}
		judge(t, m)
		for _, partial := range []bool{false, true} {
			m, err := i.Response(to, Reply{InResponseTo: "_q1", Partial: partial, RelayState: "r&=è", HasRelayState: true}, kitNow)
			if err != nil {
				t.Fatal(err)
			}
			v, err := deliver(t, m)
			p, ok := v.Response()
			if err != nil || !ok || p.InResponseTo != "_q1" || p.Success() == partial {
				t.Errorf("response by %d: %+v, %v", binding, p, err)
			}
			if partial && (p.Status != "urn:oasis:names:tc:SAML:2.0:status:Requester" || p.SubStatus != "urn:oasis:names:tc:SAML:2.0:status:PartialLogout") {
				t.Errorf("partial logout is %s, %s", p.Status, p.SubStatus)
			}
			if to.ResponseLocation != "" && !strings.HasPrefix(m.Location, to.ResponseLocation+"?") {
				t.Errorf("answer goes to %s", m.Location)
			}
			judge(t, m)
		}
	}
}

// TestSOAPAnswerHasNoDestination: the answer to a SOAP request of an SP that
// publishes no SOAP endpoint of its own.
func TestSOAPAnswerHasNoDestination(t *testing.T) {
	m, err := testIssuer(t).Response(saml.Endpoint{Binding: saml.SOAP}, Reply{InResponseTo: "_q1"}, kitNow)
	if err != nil || strings.Contains(string(m.XML), "Destination") {
		t.Fatalf("%s, %v", m.XML, err)
	}
	if _, err := deliver(t, m); err != nil {
		t.Error(err)
	}
	judge(t, m)
}

func TestUnsendable(t *testing.T) {
	i := testIssuer(t)
	for name, c := range map[string]struct {
		to saml.Endpoint
		e  Ended
	}{
		"plain http": {saml.Endpoint{Binding: saml.Post, Location: "http://sp.example.it/slo"}, ended},
		"no name":    {spEndpoints[saml.Post], Ended{ID: "_a", SessionIndex: "_s"}},
		"no index":   {spEndpoints[saml.Post], Ended{ID: "_a", NameID: "_n"}},
		"no ID":      {spEndpoints[saml.Post], Ended{NameID: "_n", SessionIndex: "_s"}},
		"character":  {spEndpoints[saml.Post], Ended{ID: "_a", NameID: "\x00", SessionIndex: "_s"}},
		"binding":    {saml.Endpoint{Location: spSLO}, ended},
	} {
		if _, err := i.Request(c.to, c.e, kitNow); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := i.Response(spEndpoints[saml.Post], Reply{InResponseTo: "1"}, kitNow); !fault.Is(err, fault.Invalid) {
		t.Errorf("request identifier: %v", err)
	}
}

// liar signs something else than it is asked to.
type liar struct{ crypto.Signer }

func (l liar) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	wrong := append([]byte(nil), digest...)
	wrong[0] ^= 1
	return l.Signer.Sign(random, wrong, o)
}

type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fault.New(fault.Unavailable, "sign", errors.New("token gone"))
}

func TestBadSigner(t *testing.T) {
	for kind, signer := range map[fault.Kind]crypto.Signer{fault.Fatal: liar{idpKit().key}, fault.Unavailable: broken{idpKit().key}} {
		i, err := NewIssuer(saml.IssuerConfig{EntityID: entity(idpEntity), Signer: signer, Certificate: idpKit().cert, Random: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		for binding, to := range spEndpoints {
			if _, err := i.Request(to, ended, kitNow); !fault.Is(err, kind) {
				t.Errorf("binding %d: %v, want %v", binding, err, kind)
			}
		}
	}
}

// judge asks programs that share nothing with the product: xmlsec1 for the
// signature, xmllint for the schema.
func judge(t *testing.T, m Message) {
	t.Helper()
	doc := m.XML
	if m.Binding == saml.SOAP {
		doc = []byte(strings.TrimSuffix(strings.TrimPrefix(string(doc), envelopeHead), envelopeTail))
	}
	dir := t.TempDir()
	file, whole, cert := filepath.Join(dir, "doc.xml"), filepath.Join(dir, "whole.xml"), filepath.Join(dir, "cert.pem")
	for path, b := range map[string][]byte{file: doc, whole: m.XML, cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: idpKit().cert.Raw})} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m.Binding != saml.Redirect {
		run(t, nil, "xmlsec1", "xmlsec1", "--verify", "--enabled-key-data", "rsa", "--id-attr:ID", nsProtocol+":LogoutRequest",
			"--id-attr:ID", nsProtocol+":LogoutResponse", "--node-xpath", "//*[local-name()='Signature']", "--pubkey-cert-pem", cert, whole)
	}
	catalog, err := filepath.Abs("../testdata/schema/catalog.xml")
	if err != nil {
		t.Fatal(err)
	}
	xsd := "/usr/share/xml/opensaml/saml-schema-protocol-2.0.xsd"
	if _, err := os.Stat(xsd); err != nil {
		t.Fatalf("%v: apt-get install opensaml-schemas xmltooling-schemas", err)
	}
	run(t, []string{"XML_CATALOG_FILES=" + catalog}, "xmllint", "libxml2-utils", "--nonet", "--noout", "--schema", xsd, file)
}

func run(t *testing.T, env []string, name, debian string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install %s", name, debian)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}
