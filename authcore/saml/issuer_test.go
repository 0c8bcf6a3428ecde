package saml

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
	"pgregory.net/rapid"

	"custode/internal/fault"
)

func testIssuer(t testing.TB, change ...func(*IssuerConfig)) *Issuer {
	t.Helper()
	c := IssuerConfig{EntityID: mustEntity(idpEntity), Signer: idpKit().key, Certificate: idpKit().cert, Random: rand.Reader}
	for _, f := range change {
		f(&c)
	}
	i, err := NewIssuer(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func testStatement() Statement {
	return Statement{
		Request: Request{ID: "_r1", SP: mustEntity(spEntity), IssueInstant: kitNow.Add(-time.Minute), Binding: Post, Level: L2, ACS: spEntity + "/acs?a=1&b=2",
			HasAttributes: true, Attributes: []string{"spidCode", "name", "dateOfBirth", "digitalAddress", "expirationDate"}, RelayState: "relay", HasRelayState: true},
		Level: L2, AuthnInstant: kitNow.Add(-time.Second),
		Attributes: []Attribute{{"spidCode", "ABCD123456789A"}, {"name", "D'Ànnúñzio <&> \"Łukasz\""}, {"dateOfBirth", "1980-01-31"}, {"digitalAddress", ""}, {"expirationDate", ""}},
	}
}

func testReply() Reply {
	s := testStatement()
	return s.Request.Reply()
}

// scrub replaces what depends on the test's random keys.
func scrub(doc []byte) []byte {
	for _, name := range []string{"DigestValue", "SignatureValue", "X509Certificate"} {
		doc = regexp.MustCompile(`(<ds:`+name+`>)[^<]*`).ReplaceAll(doc, []byte("$1..."))
	}
	return doc
}

func TestSuccess(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = &countingReader{} })
	signed, err := i.Success(testStatement(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, scrub(signed.XML))
	schemaValid(t, signed.XML, "saml-schema-protocol-2.0.xsd")
	for _, xpath := range []string{"/*", "/*/*[local-name()='Assertion']"} {
		if err := xmlsec(t, signed.XML, idpKit().cert.Raw, xpath); err != nil {
			t.Errorf("%s: %v", xpath, err)
		}
		if xmlsec(t, signed.XML, otherKit().cert.Raw, xpath) == nil {
			t.Errorf("%s verifies with another certificate: the oracle is not asked", xpath)
		}
		if xmlsec(t, bytes.Replace(signed.XML, []byte("1980-01-31"), []byte("1980-01-30"), 1), idpKit().cert.Raw, xpath) == nil {
			t.Errorf("%s verifies although changed", xpath)
		}
	}
	want := Signed{XML: signed.XML, Code: Success, ID: signed.ID, AssertionID: signed.AssertionID, NameID: signed.NameID, IssueInstant: kitNow.Truncate(time.Millisecond),
		ACS: spEntity + "/acs?a=1&b=2", RelayState: "relay", HasRelayState: true}
	if signed.ID == signed.AssertionID || signed.NameID == signed.ID || len(signed.NameID) != 33 || !bytes.Contains(signed.XML, []byte(signed.NameID)) {
		t.Errorf("identifiers %q %q %q", signed.ID, signed.AssertionID, signed.NameID)
	}
	if got := signed; !got.IssueInstant.Equal(want.IssueInstant) || got.ACS != want.ACS || got.RelayState != want.RelayState || got.Code != want.Code || !got.HasRelayState {
		t.Errorf("got %+v", got)
	}
}

func TestSuccessShapes(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = &countingReader{} })
	for name, change := range map[string]func(*Statement){
		"L1 with session": func(s *Statement) { s.Request.Level, s.Level, s.SessionIndex = L1, L1, "_s1" },
		"L1 from a session": func(s *Statement) {
			s.Request.Level, s.Level, s.SessionIndex, s.AuthnInstant = L1, L1, "_s1", kitNow.Add(-25*time.Minute)
		},
		"L1 performed L2": func(s *Statement) { s.Request.Level, s.Level, s.SessionIndex = L1, L2, "_s1" },
		"L3":              func(s *Statement) { s.Request.Level, s.Level = L3, L3 },
		"no attributes": func(s *Statement) {
			s.Request.HasAttributes, s.Request.Attributes, s.Attributes = false, nil, nil
		},
		"service without attributes": func(s *Statement) { s.Request.Attributes, s.Attributes = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := testStatement()
			change(&s)
			signed, err := i.Success(s, kitNow)
			if err != nil {
				t.Fatal(err)
			}
			schemaValid(t, signed.XML, "saml-schema-protocol-2.0.xsd")
			doc := string(signed.XML)
			if strings.Contains(doc, "SessionIndex") != (s.Request.Level == L1) || strings.Contains(doc, "<saml:AttributeStatement>") != (len(s.Attributes) > 0) ||
				!strings.Contains(doc, "<saml:AuthnContextClassRef>"+s.Level.URI()+"<") {
				t.Error(doc)
			}
		})
	}
}

func TestStatementRefused(t *testing.T) {
	i := testIssuer(t)
	for name, change := range map[string]func(*Statement){
		"zero request":           func(s *Statement) { s.Request = Request{} },
		"bad request ID":         func(s *Statement) { s.Request.ID = "1" },
		"no SP":                  func(s *Statement) { s.Request.SP = Request{}.SP },
		"no ACS":                 func(s *Statement) { s.Request.ACS = "" },
		"script ACS":             func(s *Statement) { s.Request.ACS = "javascript:alert(1)" },
		"level too low":          func(s *Statement) { s.Level = L1 },
		"level not better":       func(s *Statement) { s.Request.Comparison = Better },
		"level zero":             func(s *Statement) { s.Level = 0 },
		"level four":             func(s *Statement) { s.Level = 4 },
		"session at L2":          func(s *Statement) { s.SessionIndex = "_s" },
		"no session at L1":       func(s *Statement) { s.Request.Level = L1 },
		"no authentication":      func(s *Statement) { s.AuthnInstant = time.Time{} },
		"level 2 from a session": func(s *Statement) { s.AuthnInstant = kitNow.Add(-10*time.Minute - time.Millisecond) },
		"forced from a session": func(s *Statement) {
			s.Request.Level, s.SessionIndex, s.Request.ForceAuthn, s.AuthnInstant = L1, "_s", true, kitNow.Add(-11*time.Minute)
		},
		"future authentication":   func(s *Statement) { s.AuthnInstant = kitNow.Add(11 * time.Minute) },
		"one attribute less":      func(s *Statement) { s.Attributes = s.Attributes[1:] },
		"other attribute":         func(s *Statement) { s.Attributes[0].Name = "email" },
		"attribute twice":         func(s *Statement) { s.Attributes[0].Name = "name" },
		"attributes not asked":    func(s *Statement) { s.Request.HasAttributes = false },
		"not a date":              func(s *Statement) { s.Attributes[2].Value = "31/01/1980" },
		"control character":       func(s *Statement) { s.Attributes[1].Value = "a\x00b" },
		"escape character":        func(s *Statement) { s.Attributes[1].Value = "a\x1bb" },
		"not UTF-8":               func(s *Statement) { s.Attributes[1].Value = "a\xffb" },
		"noncharacter":            func(s *Statement) { s.Attributes[1].Value = "a\uffffb" },
		"surrogate":               func(s *Statement) { s.Attributes[1].Value = "a\xed\xa0\x80b" },
		"request far in the past": func(s *Statement) { s.Request.IssueInstant = time.Time{} },
		"request far ahead":       func(s *Statement) { s.Request.IssueInstant = kitNow.Add(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			s := testStatement()
			change(&s)
			signed, err := i.Success(s, kitNow)
			if !fault.Is(err, fault.Invalid) || signed.XML != nil {
				t.Errorf("got %v, %s", err, signed.XML)
			}
		})
	}
}

func TestAnomalies(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = &countingReader{} })
	for c := range 40 {
		row, ok := Anomaly(Code(c))
		signed, err := i.Anomaly(Code(c), testReply(), kitNow)
		if !ok || !row.Response || Code(c) == Success {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("code %d: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		doc := string(signed.XML)
		if strings.Contains(doc, "Assertion ") || !strings.Contains(doc, ">"+row.Message+"<") || !strings.Contains(doc, `"`+row.Status+`"`) || signed.Code != Code(c) {
			t.Errorf("code %d: %s", c, doc)
		}
		schemaValid(t, signed.XML, "saml-schema-protocol-2.0.xsd")
	}
	signed, err := i.Anomaly(BadAuthnContext, testReply(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := xmlsec(t, signed.XML, idpKit().cert.Raw, "/*"); err != nil {
		t.Error(err)
	}
}

func TestAnomalyGolden(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = &countingReader{} })
	reply := testReply()
	reply.InResponseTo, reply.RequestIssued = "", time.Time{}
	signed, err := i.Anomaly(BadID, reply, kitNow)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, scrub(signed.XML))
	schemaValid(t, signed.XML, "saml-schema-protocol-2.0.xsd")
	reply.InResponseTo = "no name"
	if _, err := i.Anomaly(BadID, reply, kitNow); !fault.Is(err, fault.Invalid) {
		t.Errorf("malformed InResponseTo: %v", err)
	}
	reply.InResponseTo, reply.ACS = "", "data:text/html,x"
	if _, err := i.Anomaly(BadID, reply, kitNow); !fault.Is(err, fault.Invalid) {
		t.Errorf("not a web ACS: %v", err)
	}
}

func TestIssueInstant(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tc := range []struct{ now, request, want string }{
		{"2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:04Z", "2026-01-02T03:04:05.678Z"},
		{"2026-01-02T03:04:05.6Z", "2026-01-02T03:04:04Z", "2026-01-02T03:04:05.600Z"},
		{"2026-01-02T04:04:05.680+01:00", "2026-01-02T03:04:04Z", "2026-01-02T03:04:05.680Z"},
		{"2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"},
		{"2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:05.6785Z", "2026-01-02T03:04:05.679Z"},
		{"2026-01-02T03:04:05Z", "2026-01-02T03:06:05.1Z", "2026-01-02T03:06:05.100Z"},
	} {
		got := issueInstant(at(tc.now), at(tc.request))
		if FormatInstant(got) != tc.want || got.Before(at(tc.request)) {
			t.Errorf("issueInstant(%s, %s) = %s, want %s", tc.now, tc.request, FormatInstant(got), tc.want)
		}
	}
}

func TestPreparedOnce(t *testing.T) {
	i, other := testIssuer(t), testIssuer(t)
	p, err := i.PrepareSuccess(testStatement(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Sign(p); !fault.Is(err, fault.Internal) {
		t.Errorf("foreign issuer: %v", err)
	}
	if _, err := i.Sign(nil); !fault.Is(err, fault.Internal) {
		t.Errorf("nil: %v", err)
	}
	if _, err := i.Sign(&Prepared{}); !fault.Is(err, fault.Internal) {
		t.Errorf("zero: %v", err)
	}
	if _, err := i.Sign(p); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Sign(p); !fault.Is(err, fault.Conflict) {
		t.Errorf("second time: %v", err)
	}
}

// fakeSigner is a key whose answers tests choose.
type fakeSigner struct {
	crypto.Signer
	sign func(digest []byte) ([]byte, error)
}

func (f fakeSigner) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return f.sign(digest)
}

// TestBadSigner: nothing leaves when the key misbehaves.
func TestBadSigner(t *testing.T) {
	calls := 0
	for name, tc := range map[string]struct {
		sign func([]byte) ([]byte, error)
		kind fault.Kind
	}{
		"fails":      {func([]byte) ([]byte, error) { return nil, fault.New(fault.Reopen, "sign", errors.New("session lost")) }, fault.Reopen},
		"garbage":    {func([]byte) ([]byte, error) { return make([]byte, 256), nil }, fault.Fatal},
		"other key":  {func(d []byte) ([]byte, error) { return otherKit().key.Sign(nil, d, crypto.SHA256) }, fault.Fatal},
		"empty":      {func([]byte) ([]byte, error) { return nil, nil }, fault.Fatal},
		"other data": {func(d []byte) ([]byte, error) { return idpKit().key.Sign(nil, make([]byte, 32), crypto.SHA256) }, fault.Fatal},
		"assertion only": {func(d []byte) ([]byte, error) {
			if calls++; calls == 1 {
				return idpKit().key.Sign(nil, d, crypto.SHA256)
			}
			return make([]byte, 256), nil
		}, fault.Fatal},
	} {
		t.Run(name, func(t *testing.T) {
			i := testIssuer(t, func(c *IssuerConfig) { c.Signer = fakeSigner{idpKit().key, tc.sign} })
			signed, err := i.Success(testStatement(), kitNow)
			if !fault.Is(err, tc.kind) || signed.XML != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestReverify changes documents after signing in ways that signatures alone
// would or would not show.
func TestReverify(t *testing.T) {
	i := testIssuer(t)
	p, err := i.PrepareSuccess(testStatement(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := i.emitResponse(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := reverify(p, doc, i.cert); err != nil {
		t.Fatal(err)
	}
	other, err := i.PrepareSuccess(testStatement(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if reverify(other, doc, i.cert) == nil {
		t.Error("took another response for the prepared one")
	}
	for name, change := range map[string]func(*Prepared){
		"attribute": func(p *Prepared) { p.statement.Attributes[0].Value = "ABCD123456789B" },
		"level":     func(p *Prepared) { p.statement.Level = L3 },
		"session":   func(p *Prepared) { p.statement.SessionIndex = "_s" },
		"name":      func(p *Prepared) { p.nameID = "_other" },
		"audience":  func(p *Prepared) { p.reply.SP = mustEntity("https://other.example.it") },
		"acs":       func(p *Prepared) { p.reply.ACS = "https://other.example.it" },
		"request":   func(p *Prepared) { p.reply.InResponseTo = "_other" },
		"code":      func(p *Prepared) { p.code = Cancelled },
	} {
		s := testStatement()
		changed := &Prepared{issuer: i, code: p.code, reply: p.reply, statement: s, id: p.id, assertionID: p.assertionID, nameID: p.nameID, issued: p.issued}
		if err := reverify(changed, doc, i.cert); err != nil {
			t.Fatal(err)
		}
		change(changed)
		if reverify(changed, doc, i.cert) == nil {
			t.Errorf("%s: difference not seen", name)
		}
	}
	expired := selfSigned(idpKit().key, kitNow.AddDate(-2, 0, 0), kitNow.AddDate(-1, 0, 0))
	if reverify(p, doc, expired) == nil {
		t.Error("expired certificate passed")
	}
}

func TestNewIssuer(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := newSignerKit(1024, kitNow, kitNow.AddDate(1, 0, 0))
	for name, c := range map[string]IssuerConfig{
		"empty":     {},
		"other key": {EntityID: mustEntity(idpEntity), Signer: otherKit().key, Certificate: idpKit().cert, Random: rand.Reader},
		"short":     {EntityID: mustEntity(idpEntity), Signer: short.key, Certificate: short.cert, Random: rand.Reader},
		"ecdsa":     {EntityID: mustEntity(idpEntity), Signer: ec, Certificate: selfSigned(ec, kitNow, kitNow.AddDate(1, 0, 0)), Random: rand.Reader},
	} {
		if _, err := NewIssuer(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i := testIssuer(t, func(c *IssuerConfig) { c.Random = strings.NewReader("short") })
	if _, err := i.Success(testStatement(), kitNow); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no randomness: %v", err)
	}
}

// canonicalBytes canonicalises doc with the library, PrefixList as signed.
func canonicalBytes(t interface{ Fatal(...any) }, doc []byte, prefixes string) []byte {
	d := etree.NewDocument()
	if err := d.ReadFromBytes(doc); err != nil {
		t.Fatal(err)
	}
	out, err := dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList(prefixes).Canonicalize(d.Root())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCanonical: what the emitter writes is what a canonicaliser makes of it,
// whatever the values.
func TestCanonical(t *testing.T) {
	i := testIssuer(t, func(c *IssuerConfig) {
		c.Signer = fakeSigner{idpKit().key, func([]byte) ([]byte, error) { return make([]byte, 256), nil }}
	})
	char := rapid.RuneFrom([]rune("ab &<>\"'\r\n\t\u0085\u2028\u00a0\ud7ff\ue000\ufffd\U0010ffffàŁ漢"))
	value := rapid.OneOf(rapid.StringOfN(char, 0, 20, -1), rapid.StringOf(rapid.Rune()))
	rapid.Check(t, func(t *rapid.T) {
		s := testStatement()
		s.Request.Level, s.Level, s.SessionIndex = L1, L1, value.Draw(t, "session")
		if s.SessionIndex == "" {
			s.SessionIndex = "_"
		}
		s.Attributes[0].Value, s.Attributes[1].Value = value.Draw(t, "value"), value.Draw(t, "value")
		name := value.Draw(t, "name")
		s.Request.Attributes[3], s.Attributes[3].Name = name, name
		p, err := i.PrepareSuccess(s, kitNow)
		if err != nil {
			t.Skip(err)
		}
		doc, err := i.emitResponse(p)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			t.Skip("a value that XML cannot carry")
		}
		if want := canonicalBytes(t, doc, "xs"); !bytes.Equal(doc, want) {
			t.Fatalf("emitted\n%s\ncanonical\n%s", doc, want)
		}
	})
	signed, err := testIssuer(t).Anomaly(TimedOut, testReply(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	if want := canonicalBytes(t, signed.XML, ""); !bytes.Equal(signed.XML, want) {
		t.Errorf("emitted\n%s\ncanonical\n%s", signed.XML, want)
	}
}

// TestHostileValuesSurvive signs and re-verifies values made to break out.
func TestHostileValuesSurvive(t *testing.T) {
	i := testIssuer(t)
	for _, value := range []string{"]]>", "</saml:AttributeValue><x/>", "&amp;#x0;", "a\r\nb\tc\n", "\u2028\u202e", "\U0001f600", `" x="`, " leading and trailing "} {
		s := testStatement()
		s.Attributes[0].Value = value
		signed, err := i.Success(s, kitNow)
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if err := xmlsec(t, signed.XML, idpKit().cert.Raw, "/*/*[local-name()='Assertion']"); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestResponseIsBase64Clean(t *testing.T) {
	signed, err := testIssuer(t).Success(testStatement(), kitNow)
	if err != nil {
		t.Fatal(err)
	}
	values := regexp.MustCompile(`<ds:(?:SignatureValue|DigestValue|X509Certificate)>([^<]*)<`).FindAllSubmatch(signed.XML, -1)
	if len(values) != 6 {
		t.Fatalf("%d base64 values", len(values))
	}
	for _, v := range values {
		if _, err := base64.StdEncoding.Strict().DecodeString(string(v[1])); err != nil || bytes.ContainsAny(v[1], "\r\n ") {
			t.Errorf("%s: %v", v[1], err)
		}
	}
}

func TestLevelAnswers(t *testing.T) {
	for c, want := range map[Comparison][4][4]bool{ // [requested][performed]
		Exact:   {1: {1: true, 2: true, 3: true}, 2: {2: true, 3: true}, 3: {3: true}},
		Minimum: {1: {1: true, 2: true, 3: true}, 2: {2: true, 3: true}, 3: {3: true}},
		Better:  {1: {2: true, 3: true}, 2: {3: true}, 3: {}},
		Maximum: {1: {1: true, 2: true, 3: true}, 2: {1: true, 2: true, 3: true}, 3: {1: true, 2: true, 3: true}},
		9:       {},
	} {
		for requested := range Level(4) {
			for performed := range Level(4) {
				if got := levelAnswers(performed, requested, c); got != want[requested][performed] {
					t.Errorf("comparison %d, requested %d, performed %d: %v", c, requested, performed, got)
				}
			}
		}
	}
}

// TestAuthnInstantIsNeverLater: a fast client can authorise within the
// millisecond of its authentication, and clocks are set back.
func TestAuthnInstantIsNeverLater(t *testing.T) {
	for _, later := range []time.Duration{0, time.Microsecond, 999 * time.Microsecond, time.Second} {
		s := testStatement()
		s.AuthnInstant = kitNow.Add(later)
		signed, err := testIssuer(t).Success(s, kitNow)
		if err != nil {
			t.Fatalf("%v later: %v", later, err)
		}
		if want := `AuthnInstant="` + FormatInstant(signed.IssueInstant) + `"`; !strings.Contains(string(signed.XML), want) {
			t.Errorf("%v later: the Response does not say %s", later, want)
		}
	}
}
