package attest_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/certlog/cades"
	"custode/internal/certlog/certlogtest"
	"custode/internal/certlog/notary"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

const subject = "ABCD0000000001"

var noon = time.Now().UTC().Truncate(time.Millisecond)

func access(i int, who string) attest.Access {
	return attest.Access{At: noon.Add(time.Duration(i) * time.Second), Code: 1, SPIDCode: who, Level: 2, Credentials: []string{"password", "sms"},
		SPName: "Comune di <Prova> & C.", Requested: []string{"name", "familyName"},
		Request:  attest.Message{ID: fmt.Sprintf("_q%d", i), Issuer: "https://sp.example", XML: fmt.Appendf(nil, "<AuthnRequest n='%d'/>\r\n", i)},
		Response: attest.Message{ID: fmt.Sprintf("_r%d", i), Issuer: "https://idp.example", XML: fmt.Appendf(nil, "<Response n='%d'/>", i)},
		Build:    "test"}
}

type scene struct {
	t     *testing.T
	dir   string
	tsa   *tsasim.TSA
	notar *notary.Notary
	log   *certlog.Log
}

// newScene is a log with three segments: accesses 0 to 8, every third one the subject's.
func newScene(t *testing.T) *scene {
	t.Helper()
	authority, err := tsasim.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = authority.Close() })
	s := &scene{t: t, dir: t.TempDir(), tsa: authority, notar: certlogtest.Notary(t, authority)}
	s.log, err = certlog.Open(t.Context(), certlog.Config{Name: "transactions", FS: certlog.Dir(s.dir), Keys: certlogtest.Keys{}, Sealer: s.notar,
		Age: time.Hour, Size: 1 << 20, Now: time.Now, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.log.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	for i := range 9 {
		who := subject
		if i%3 > 0 {
			who = fmt.Sprintf("ABCD%010d", 100+i)
		}
		data, err := access(i, who).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.log.Append(t.Context(), certlog.Record{Tag: who, Data: data}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			if err := s.log.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func (s *scene) judge() *notary.Notary {
	return &notary.Notary{Pinned: s.notar.Pinned, Roots: s.notar.Roots}
}

func (s *scene) make(q attest.Question) ([]byte, attest.Statement) {
	s.t.Helper()
	r, err := certlog.NewReader(certlog.Dir(s.dir), s.notar)
	if err != nil {
		s.t.Fatal(err)
	}
	m := attest.Maker{Reader: r, Keys: certlogtest.Keys{}, Sealer: s.notar, Seals: s.notar.Pinned, TSA: []*x509.Certificate{s.tsa.Root},
		Provider: "https://idp.example", Now: time.Now, Sealed: r.Sealed, Beside: s.notar.SealDetached}
	var out bytes.Buffer
	st, err := m.Make(s.t.Context(), &out, q)
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Bytes(), st
}

func (s *scene) verify(z []byte) (attest.Verdict, error) {
	return attest.Verify(bytes.NewReader(z), int64(len(z)), s.judge())
}

func whole() attest.Question {
	return attest.Question{SPIDCode: subject, Name: "Ada Prova", From: noon.Add(-time.Hour), To: noon.Add(time.Hour)}
}

func TestAttestation(t *testing.T) {
	s := newScene(t)
	z, _ := s.make(whole())
	v, err := s.verify(z)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Accesses) != 3 || v.Sealed.IsZero() || v.Statement.Size != 9 {
		t.Fatalf("%d accesses, %+v", len(v.Accesses), v.Statement.Records)
	}
	for i, p := range v.Accesses {
		if p.Seq != uint64(3*i) || string(p.Access.Request.XML) != fmt.Sprintf("<AuthnRequest n='%d'/>\r\n", 3*i) || p.Stamped.IsZero() {
			t.Errorf("access %d: %+v", i, p)
		}
	}
	files := contents(t, z)
	if html := string(files["report.html"]); !strings.Contains(html, "Comune di &lt;Prova&gt; &amp; C.") || strings.Contains(html, "<Prova>") {
		t.Errorf("the report does not escape:\n%s", html)
	}
	for name := range files {
		if strings.Contains(string(files[name]), "ABCD000000010") {
			t.Errorf("%s speaks of another subject", name)
		}
	}
	if !bytes.HasPrefix(files["report.pdf"], []byte("%PDF-")) {
		t.Error("no PDF")
	}
	// A part of the interval.
	q := whole()
	q.From, q.To = noon.Add(2*time.Second), noon.Add(4*time.Second)
	part, _ := s.make(q)
	if v, err := s.verify(part); err != nil || len(v.Accesses) != 1 || v.Accesses[0].Seq != 3 {
		t.Errorf("part: %+v, %v", v, err)
	}
	// Nobody's accesses are attested too.
	q = whole()
	q.SPIDCode = "ABCD9999999999"
	none, _ := s.make(q)
	if v, err := s.verify(none); err != nil || len(v.Accesses) != 0 {
		t.Errorf("none: %+v, %v", v, err)
	}
	if !strings.Contains(string(contents(t, none)["report.html"]), "non risulta alcuna autenticazione") {
		t.Error("the negative report does not say so")
	}
}

func contents(t *testing.T, z []byte) map[string][]byte {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(z), int64(len(z)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func rezip(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, octets := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(octets); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestEveryFileCounts changes, removes and adds files.
func TestEveryFileCounts(t *testing.T) {
	s := newScene(t)
	z, _ := s.make(whole())
	good := contents(t, z)
	if _, err := s.verify(rezip(t, good)); err != nil {
		t.Fatalf("packed again: %v", err)
	}
	for name := range good {
		if name == "attestation.sig" || name == "attestation.tst" {
			continue // for openssl only: what they say is in attestation.p7m
		}
		for what, change := range map[string]func(map[string][]byte){
			"changed": func(f map[string][]byte) {
				b := bytes.Clone(f[name])
				b[len(b)/2] ^= 1
				f[name] = b
			},
			"removed": func(f map[string][]byte) { delete(f, name) },
		} {
			bad := contents(t, z)
			change(bad)
			if _, err := s.verify(rezip(t, bad)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	good["extra"] = []byte("x")
	if _, err := s.verify(rezip(t, good)); !fault.Is(err, fault.Invalid) {
		t.Errorf("added: %v", err)
	}
}

// TestProviderCannotInvent lets the provider, with its own seal, state other
// things than it logged.
func TestProviderCannotInvent(t *testing.T) {
	s := newScene(t)
	for name, c := range map[string]struct {
		change func(files map[string][]byte, st *attest.Statement)
		want   string
	}{
		"another response": {func(f map[string][]byte, _ *attest.Statement) {
			f["records/3.response.xml"] = []byte("<Response n='other'/>")
		}, "not what was logged"},
		"another record": {func(f map[string][]byte, _ *attest.Statement) {
			f["records/3.json"] = bytes.Replace(f["records/3.json"], []byte(`"code":1`), []byte(`"code":2`), 1)
		}, "not what was logged"},
		"another leaf": {func(f map[string][]byte, _ *attest.Statement) {
			f["proofs/3.json"] = bytes.Replace(f["proofs/3.json"], []byte(`"leaf": "`), []byte(`"leaf": "AAAA`), 1)
		}, "not in the tree"},
		"another key": {func(f map[string][]byte, _ *attest.Statement) {
			i := bytes.Index(f["proofs/3.json"], []byte(`"key": "`)) + 8
			b := bytes.Clone(f["proofs/3.json"])
			b[i] = "01"[(b[i]&1)^1]
			f["proofs/3.json"] = b
		}, "does not commit to this key"},
		"another's access": {func(f map[string][]byte, st *attest.Statement) { st.SPIDCode = "ABCD0000000001X"; _ = f }, "about another subject"},
		"another interval": {func(_ map[string][]byte, st *attest.Statement) { st.To = noon.Add(time.Second) }, "outside the interval"},
		"record elsewhere": {func(f map[string][]byte, st *attest.Statement) {
			for _, n := range []string{"records/%d.json", "records/%d.request.xml", "records/%d.response.xml", "proofs/%d.json"} {
				f[fmt.Sprintf(n, 4)] = f[fmt.Sprintf(n, 3)]
				delete(f, fmt.Sprintf(n, 3))
			}
			st.Records[1] = 4
		}, "no proof of it"},
	} {
		z, st := s.make(whole())
		files := contents(t, z)
		c.change(files, &st)
		s.reseal(files, st)
		if _, err := s.verify(rezip(t, files)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something about %q", name, err, c.want)
		}
	}
}

// TestDateIsProved: an attestation whose time-stamp was taken off, or is of another
// day than it says, is none.
func TestDateIsProved(t *testing.T) {
	s := newScene(t)
	z, st := s.make(whole())
	files := contents(t, z)
	payload, err := s.notar.Open(files["attestation.p7m"])
	if err != nil {
		t.Fatal(err)
	}
	if files["attestation.p7m"], err = s.notar.Seal(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	if _, err := s.verify(rezip(t, files)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no time-stamp of that time") {
		t.Errorf("without a time-stamp: %v", err)
	}
	st.Made = st.Made.AddDate(-1, 0, 0)
	s.reseal(files, st)
	if _, err := s.verify(rezip(t, files)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no time-stamp of that time") {
		t.Errorf("back-dated: %v", err)
	}
}

// TestPDFSeal: the seal beside the PDF is for that PDF, and by that certificate.
func TestPDFSeal(t *testing.T) {
	s := newScene(t)
	z, _ := s.make(whole())
	files := contents(t, z)
	pdf, seal := files["report.pdf"], files["report.pdf.p7s"]
	got, err := cades.OpenDetached(seal, pdf, s.notar.Pinned...)
	if err != nil || got.Token == nil {
		t.Fatalf("%+v, %v", got, err)
	}
	bad := append(bytes.Clone(pdf), '\n')
	for name, err := range map[string]error{
		"another PDF":  second(cades.OpenDetached(seal, bad, s.notar.Pinned...)),
		"another seal": second(cades.OpenDetached(seal, pdf, certlogtest.Notary(t, s.tsa).Pinned...)),
		"no PDF":       second(cades.OpenDetached(seal, nil, s.notar.Pinned...)),
		"as if whole":  second(cades.Open(seal, s.notar.Pinned...)),
		"enveloping":   second(cades.OpenDetached(files["attestation.p7m"], pdf, s.notar.Pinned...)),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestOutsideJudges: openssl and the stand-alone program accept.
func TestOutsideJudges(t *testing.T) {
	s := newScene(t)
	z, _ := s.make(whole())
	dir := t.TempDir()
	for name, octets := range contents(t, z) {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), octets, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.zip"), z, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(want, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	for _, base := range []string{"attestation", "checkpoints/1", "checkpoints/3"} {
		run("uccessful", "openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", base+".p7m", "-CAfile", "certificates/seal-1.pem", "-purpose", "any", "-out", "out")
		run("Verification: OK", "openssl", "ts", "-verify", "-token_in", "-in", base+".tst", "-data", base+".sig", "-CAfile", "certificates/tsa-1.pem")
	}
	run("uccessful", "openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", "report.pdf.p7s", "-content", "report.pdf",
		"-CAfile", "certificates/seal-1.pem", "-purpose", "any", "-out", "out")
	bin := filepath.Join(t.TempDir(), "custode-verify")
	if out, err := exec.Command("go", "build", "-o", bin, "custode/cmd/custode-verify").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run("VERIFIED", bin, "--seal", "certificates/seal-1.pem", "--tsa", "certificates/tsa-1.pem", "a.zip")
	run("9 records", bin, "--seal", "certificates/seal-1.pem", "--tsa", "certificates/tsa-1.pem", "--witness", s.dir, s.dir)
	cmd := exec.Command(bin, "--seal", "certificates/tsa-1.pem", "--tsa", "certificates/tsa-1.pem", filepath.Join(dir, "a.zip"))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "NOT VERIFIED") {
		t.Errorf("another seal: %v\n%s", err, out)
	}
}

func TestRecordForm(t *testing.T) {
	a := access(1, subject)
	a.Request.XML = []byte("\x00\xff not even text")
	data, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := attest.ParseAccess(data)
	if err != nil || !bytes.Equal(got.Request.XML, a.Request.XML) || got.SPName != a.SPName || !got.At.Equal(a.At) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range data {
		if _, err := attest.ParseAccess(data[:i]); !fault.Is(err, fault.Invalid) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := attest.ParseAccess(append(data, 0)); !fault.Is(err, fault.Invalid) {
		t.Errorf("followed: %v", err)
	}
}

func FuzzParseAccess(f *testing.F) {
	data, err := access(1, subject).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := attest.ParseAccess(b)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is read and written as %q, %v", b, again, err)
		}
	})
}
