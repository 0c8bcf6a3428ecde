package catalogue

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/conformance/request"
)

// TestTable compares our copy of the table of anomalies with the machine-readable
// one, and its English sentences with the product's document.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("testdata/errors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n")[1:] {
		f := append(strings.Split(line, "\t"), make([]string, 11)...)
		code, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatal(err)
		}
		row, ok := Table[code]
		if f[2] == "never emitted" {
			if ok {
				t.Errorf("row %d is reserved", code)
			}
			continue
		}
		seen[code] = true
		sentence := f[9]
		if strings.HasPrefix(sentence, "(") {
			sentence = "" // a remark
		}
		got := fmt.Sprintf("%d %v %d %q %q %q %q", row.Code, row.Response, row.HTTP, row.Status, row.Sub, row.Message(), row.PageIT)
		want := fmt.Sprintf("%d %v %s %q %q %q %q", code, f[4] == "response", f[5], strings.TrimPrefix(f[6], StatusPrefix), strings.TrimPrefix(f[7], StatusPrefix), f[8], sentence)
		if got != want {
			t.Errorf("row %d: %s, want %s", code, got, want)
		}
		if (row.PageEN == "") != (row.PageIT == "") || !strings.Contains(string(document), row.PageEN) {
			t.Errorf("row %d: the English sentence is not the one of docs/errors.md", code)
		}
	}
	for code := range Table {
		if !seen[code] {
			t.Errorf("row %d is not in the table", code)
		}
	}
}

// TestRulesAreComplete: each has what a report needs, and every row that a
// request can reach has rules for both bindings it exists in.
func TestRulesAreComplete(t *testing.T) {
	ids := map[string]bool{}
	rows := map[string]bool{}
	for _, r := range All() {
		for _, by := range r.Bindings {
			key := r.ID + "/" + string(by)
			if ids[key] {
				t.Errorf("%s twice", key)
			}
			ids[key] = true
			code := r.Want.On(by).Code
			if _, ok := Table[code]; !ok && code != 0 && code != Refused && code != LoggedOut && code != PartialLogout {
				t.Errorf("%s wants %d", key, code)
			}
			rows[fmt.Sprint(code, by)] = true
		}
		if r.ID == "" || r.Source == "" || r.Title == "" || len(r.Bindings) == 0 || strings.ContainsAny(r.ID, " \t\n/") {
			t.Errorf("incomplete rule %+v", r)
		}
	}
	for code := range Table {
		for _, by := range both {
			// 2 and 3 need a broken instance.
			if code < 4 && code > 1 || code == 5 && by == request.Post || code == 7 && by == request.Redirect {
				continue
			}
			if !rows[fmt.Sprint(code, by)] {
				t.Errorf("no rule for row %d by %s", code, by)
			}
		}
	}
}

var pair = sync.OnceValues(func() (request.KeyPair, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return request.KeyPair{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return request.KeyPair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return request.KeyPair{Key: key, Certificate: cert}, err
})

func newMessage(t *testing.T, by request.Binding) *request.Message {
	t.Helper()
	p, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	sp := &request.SP{EntityID: "https://verifica.example.it", Main: p, Expired: &p}
	idp := &request.IDP{EntityID: "https://idp.example.it", SSO: map[request.Binding]string{request.Redirect: "https://idp.example.it/sso/redirect", request.Post: "https://idp.example.it/sso/post"},
		SLO: map[request.Binding]string{request.Redirect: "https://idp.example.it/slo/redirect", request.Post: "https://idp.example.it/slo/post"}}
	m, err := request.NewMessage(by, sp, idp, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m.Other, m.Stranger = "https://other.example.it", pair
	return m
}

// TestChangesFit: every rule makes a request, and one that differs from the
// usual one unless it is about the usual one. What is refused for its content
// must carry a good signature, or it is refused for another reason.
func TestChangesFit(t *testing.T) {
	for _, r := range All() {
		for _, by := range r.Bindings {
			t.Run(r.ID+"/"+string(by), func(t *testing.T) {
				m := newMessage(t, by)
				before := *m
				if r.Change != nil {
					r.Change(m)
					if m.Text == before.Text && m.ID == before.ID && m.Issued.Equal(before.Issued) && m.Raw == nil && m.Tamper == nil && m.Wire == nil && m.Send == nil &&
						m.Query == nil && m.Pack == nil && m.Relay == before.Relay && m.HasRelay == before.HasRelay && !strings.HasPrefix(r.ID, "signature-") && !strings.HasPrefix(r.ID, "xmlsig-") &&
						r.ID != "context-minimum-2" && m.Language == before.Language && m.To == before.To {
						t.Error("the rule changes nothing")
					}
				}
				h, err := m.HTTP()
				if err != nil {
					t.Fatal(err)
				}
				code := r.Want.On(by).Code
				if by == request.Post && (code == 0 || code == PartialLogout || code == LoggedOut || Table[code].Response) && h.Method == http.MethodPost && m.Raw == nil {
					goodSignature(t, m, h)
				}
			})
		}
	}
}

func goodSignature(t *testing.T, m *request.Message, h *http.Request) {
	t.Helper()
	if err := h.ParseForm(); err != nil {
		t.Fatal(err)
	}
	doc, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(h.PostForm.Get("SAMLRequest")), ""))
	if err != nil {
		t.Fatal(err)
	}
	root, err := request.Parse(string(doc))
	if err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	if id := root.Get("ID"); !request.IsNCName(id) || m.Sign.Reference == request.WholeDocument || m.Sign.Digest == request.DigestSHA384Odd {
		return // Verify judges instances, which have an identifier and spell rightly
	}
	if err := request.Verify(root, []*x509.Certificate{m.SP.Main.Certificate}); err != nil {
		t.Errorf("%v: %.200s", err, doc)
	}
}

// TestExpectationsReadWell: what a report says is wanted.
func TestExpectationsReadWell(t *testing.T) {
	for want, e := range map[string]Expect{
		"the login begins":     {},
		"a refusal (HTTP 4xx)": {Code: Refused},
		"HTTP 409":             {Code: Refused, Status: 409},
		"HTTP 403, «Formato richiesta non ricevibile - Contattare il gestore del servizio»": {Code: 6},
		"HTTP 200, Response Requester/RequestDenied ErrorCode nr13 to ACS 1":                {Code: 13, ACS: 1},
		"HTTP 200, Response Requester ErrorCode nr08 to ACS 0":                              {Code: 8},
	} {
		if got := e.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestRequestsAreFresh: two requests of one rule share no identifier.
func TestRequestsAreFresh(t *testing.T) {
	a, b := newMessage(t, request.Post), newMessage(t, request.Post)
	if a.ID == b.ID {
		t.Error("the same identifier twice")
	}
	r, err := a.HTTP()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(body), "RelayState=stato+%22%3C%26%3E%27") {
		t.Errorf("%v %s", err, body)
	}
}
