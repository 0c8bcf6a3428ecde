package certlogtest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"custode/internal/certlog/cades"
	"custode/internal/certlog/notary"
	"custode/simulators/tsasim"
)

// Graft puts a token beside the seal that an honest client would refuse: the
// authority's under its fault, or the one of the seal from.
func Graft(t *testing.T, n *notary.Notary, authority *tsasim.TSA, sealed []byte, mislead func(*tsasim.TSA), from []byte) []byte {
	t.Helper()
	s, err := cades.Open(sealed, n.Pinned...)
	if err != nil {
		t.Fatal(err)
	}
	var token []byte
	if from != nil {
		other, err := cades.Open(from, n.Pinned...)
		if err != nil {
			t.Fatal(err)
		}
		token = other.Token
	} else {
		mislead(authority)
		sum := sha256.Sum256(s.Signature)
		q, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		c := http.Client{Timeout: 5 * time.Second}
		res, err := c.Post(authority.URL, "application/timestamp-query", bytes.NewReader(q))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		ts, err := timestamp.ParseResponse(answer)
		if err != nil {
			t.Fatal(err)
		}
		token = ts.RawToken
	}
	out, err := cades.Attach(sealed, token)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
