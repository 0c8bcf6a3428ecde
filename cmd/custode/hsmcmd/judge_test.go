package hsmcmd

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/hsm/worker"
	"custode/hsm/worker/judge"
	"custode/internal/certlog/cades"
	"custode/internal/config"
	"custode/internal/id"
)

// recorder signs as a worker would, and keeps what it was asked.
type recorder struct {
	*rsa.PrivateKey
	t     *testing.T
	asked []asked
}

type asked struct{ octets, content []byte }

func (r *recorder) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	r.t.Error("a digest was to be signed")
	return nil, io.EOF
}

func (r *recorder) SignMessage(_ io.Reader, octets []byte, opts crypto.SignerOpts) ([]byte, error) {
	var content []byte
	if about, ok := opts.(interface{ Content() []byte }); ok {
		content = about.Content()
	}
	r.asked = append(r.asked, asked{slices.Clone(octets), slices.Clone(content)})
	digest := sha256.Sum256(octets)
	return r.PrivateKey.Sign(nil, digest[:], crypto.SHA256)
}

func entity(s string) id.EntityID {
	e, err := id.ParseEntityID(s)
	if err != nil {
		panic(err)
	}
	return e
}

// TestJudgeKnowsTheProduct: what the issuers of this product ask to be signed is recognised, each for what it is,
// and no octet of it can be another.
func TestJudgeKnowsTheProduct(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{PrivateKey: key, t: t}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	cfg := saml.IssuerConfig{EntityID: entity("https://idp.example.it"), Signer: r, Certificate: cert, Random: rand.Reader}
	issuer, err := saml.NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := logout.NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const sp = "https://sp.example.it"
	request := saml.Request{ID: "_r1", SP: entity(sp), IssueInstant: now.Add(-time.Minute), Binding: saml.Post, Level: saml.L2, ACS: sp + "/acs?a=1&b=2",
		HasAttributes: true, Attributes: []string{"name"}}
	it := func(s string) map[string]string { return map[string]string{"it": s} }
	ended := logout.Ended{ID: "_ours", NameID: "_n", SessionIndex: "_s"}
	end := func(b saml.Binding) saml.Endpoint { return saml.Endpoint{Binding: b, Location: sp + "/slo?a=b"} }
	for _, c := range []struct {
		name string
		do   func() error
		want []judge.Kind
	}{
		{"success", func() error {
			_, err := issuer.Success(saml.Statement{Request: request, Level: saml.L2, AuthnInstant: now.Add(-time.Second),
				Attributes: []saml.Attribute{{Name: "name", Value: "D'Ànnú <&> \"Łukasz\" ID=\"_x\""}}}, now)
			return err
		}, []judge.Kind{judge.Assertion, judge.Response}},
		{"anomaly", func() error { _, err := issuer.Anomaly(19, request.Reply(), now); return err }, []judge.Kind{judge.Response}},
		{"metadata", func() error {
			_, err := issuer.Metadata(saml.MetadataConfig{
				SSO: []saml.Endpoint{{Binding: saml.Redirect, Location: sp}, {Binding: saml.Post, Location: sp}}, SLO: []saml.Endpoint{{Binding: saml.Post, Location: sp}},
				Organization: saml.Organization{Name: it("n"), DisplayName: it("d"), URL: it(sp)}})
			return err
		}, []judge.Kind{judge.Metadata}},
		{"logout request", func() error { _, err := messages.Request(end(saml.Post), ended, now); return err }, []judge.Kind{judge.Logout}},
		{"logout request by SOAP", func() error { _, err := messages.Request(end(saml.SOAP), ended, now); return err }, []judge.Kind{judge.Logout}},
		{"logout request by redirect", func() error { _, err := messages.Request(end(saml.Redirect), ended, now); return err }, []judge.Kind{judge.Query}},
		{"logout response", func() error {
			_, err := messages.Response(end(saml.Post), logout.Reply{InResponseTo: "_r"}, now)
			return err
		}, []judge.Kind{judge.Logout}},
		{"logout response by redirect", func() error {
			_, err := messages.Response(end(saml.Redirect), logout.Reply{InResponseTo: "_r", RelayState: "a b&c=\"d\"", HasRelayState: true}, now)
			return err
		}, []judge.Kind{judge.Query}},
		{"seal", func() error { _, err := cades.Sign([]byte("checkpoint"), r, cert); return err }, []judge.Kind{judge.CMS}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.asked = nil
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			if len(r.asked) != len(c.want) {
				t.Fatalf("%d signatures, want %d", len(r.asked), len(c.want))
			}
			for i, a := range r.asked {
				if kind, err := judge.Octets(a.octets, a.content); err != nil || kind != c.want[i] {
					t.Errorf("%d: %v, %v, want %v", i, kind, err, c.want[i])
				}
				damage(t, a)
			}
		})
	}
}

// damage flips a bit of each octet. Where an octet is a value that nobody judges (the message in a query, a
// digest in a seal, a time), another value may pass; the kind may not change.
func damage(t *testing.T, a asked) {
	t.Helper()
	was, _ := judge.Octets(a.octets, a.content)
	for i := range a.octets {
		other := slices.Clone(a.octets)
		other[i] ^= 1
		kind, err := judge.Octets(other, a.content)
		if err == nil && (kind != was || was != judge.Query && was != judge.CMS) {
			t.Errorf("octet %d of %d changed: %s became %s", i, len(other), was, kind)
		}
	}
	for i := range a.content {
		other := slices.Clone(a.content)
		other[i] ^= 1
		if kind, err := judge.Octets(a.octets, other); err == nil {
			t.Errorf("octet %d of the element changed: %s", i, kind)
		}
	}
	for _, octets := range [][]byte{a.octets[1:], a.octets[:len(a.octets)-1], append(slices.Clone(a.octets), 0), append(slices.Clone(a.octets), a.octets...)} {
		if kind, err := judge.Octets(octets, a.content); err == nil {
			t.Errorf("cut or longer: %s", kind)
		}
	}
}

// TestAllowed: each key of the policy has its uses and no other.
func TestAllowed(t *testing.T) {
	keys := &config.Keys{Sign: label("a/sign"), Pepper: label("a/pepper"), Codes: label("a/codes"), Outbox: label("a/outbox"), Seal: label("a/seal"), Log: label("a/log"),
		Seed: label("a/seed"), Bind: label("a/bind"), Records: label("a/records"), EarlierSeed: []id.KeyLabel{label("a/seed-0")},
		EarlierLog: []id.KeyLabel{label("a/log-0")}, AlsoPublished: []id.KeyLabel{label("a/sign-0")}}
	all := allowed(keys)
	for name, l := range map[string]id.KeyLabel{"SAML": keys.Sign, "old": keys.AlsoPublished[0]} {
		if all[l]&^worker.UsePublic&worker.Signs(judge.CMS) != 0 {
			t.Errorf("the %s key may sign a seal", name)
		}
	}
	// The file may name the next key while the daemon still signs with this one.
	if all[keys.Seal] != worker.Signs(judge.CMS) || all[keys.AlsoPublished[0]] != all[keys.Sign] || len(all) != 12 {
		t.Errorf("%+v", all)
	}
	for _, k := range []judge.Kind{judge.Assertion, judge.Response, judge.Logout, judge.Metadata, judge.Query} {
		if all[keys.Sign]&worker.Signs(k) != worker.Signs(k) {
			t.Errorf("the SAML key may not sign %s", k)
		}
	}
}
