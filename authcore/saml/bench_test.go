package saml

import (
	"testing"
	"time"
)

func BenchmarkVerifyRedirect(b *testing.B) {
	v, query := vectorVerifier(b), vectorQuery(b, 2)
	now := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Redirect(query, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyPost(b *testing.B) {
	v, field := vectorVerifier(b), b64(vectorPost(b, 2))
	now := time.Date(2026, 11, 21, 19, 5, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Post(field, nil, false, now); err != nil {
			b.Fatal(err)
		}
	}
}

// benchStatement has eight attributes, like a common SPID request.
func benchStatement() Statement {
	s := testStatement()
	s.Attributes = []Attribute{{"spidCode", "ABCD123456789A"}, {"name", "Mario"}, {"familyName", "Rossi"}, {"fiscalNumber", "TINIT-RSSMRA80A01H501U"},
		{"dateOfBirth", "1980-01-01"}, {"email", "mario.rossi@example.it"}, {"mobilePhone", "3401234567"}, {"address", "via Listz 21 00144 Roma"}}
	s.Request.Attributes = nil
	for _, a := range s.Attributes {
		s.Request.Attributes = append(s.Request.Attributes, a.Name)
	}
	return s
}

// BenchmarkEmitNullSigner is the cost of the XML alone.
func BenchmarkEmitNullSigner(b *testing.B) {
	null := make([]byte, 256)
	i := testIssuer(b, func(c *IssuerConfig) {
		c.Signer = fakeSigner{idpKit().key, func([]byte) ([]byte, error) { return null, nil }}
	})
	s := benchStatement()
	b.ReportAllocs()
	for b.Loop() {
		p, err := i.PrepareSuccess(s, kitNow)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := i.emitResponse(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReverify is the cost of reading back what was signed.
func BenchmarkReverify(b *testing.B) {
	i := testIssuer(b)
	p, err := i.PrepareSuccess(benchStatement(), kitNow)
	if err != nil {
		b.Fatal(err)
	}
	doc, err := i.emitResponse(p)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ReportMetric(float64(len(doc)), "octets")
	for b.Loop() {
		if err := reverify(p, doc, i.cert); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSuccess is the whole, with an RSA-2048 key in software.
func BenchmarkSuccess(b *testing.B) {
	i, s := testIssuer(b), benchStatement()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Success(s, kitNow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseSPMetadata(b *testing.B) {
	doc := readFile(b, "vectors", "passport-spid-metadata_port4201.xml")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSPMetadata(doc); err != nil {
			b.Fatal(err)
		}
	}
}
