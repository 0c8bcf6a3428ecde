package registry

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"custode/authcore/saml"
	"custode/internal/fault"
)

var _ saml.SPs = (*Registry)(nil)

func vector(t testing.TB, port int) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("passport-spid-metadata_port%d.xml", port)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// author signs metadata of made-up service providers.
type author struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

var newAuthor = sync.OnceValue(func() author {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return author{key, cert}
})

// metadata takes a vector's place under another entityID.
func (a author) metadata(t testing.TB, entityID string) []byte {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromBytes(vector(t, 4201)); err != nil {
		t.Fatal(err)
	}
	root := d.Root()
	root.RemoveChild(root.SelectElement("Signature"))
	root.CreateAttr("entityID", entityID)
	ctx, err := dsig.NewSigningContext(a.key, [][]byte{a.cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := ctx.ConstructSignature(root, true)
	if err != nil {
		t.Fatal(err)
	}
	root.InsertChildAt(0, sig)
	out, err := d.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.xml", vector(t, 4201))
	put(t, dir, "b.xml", vector(t, 4202))
	put(t, dir, "broken.xml", vector(t, 4203)[:900])
	put(t, dir, "changed.xml", bytes.Replace(vector(t, 4203), []byte("/login/cb"), []byte("/evil/cb"), 1))
	put(t, dir, "empty.xml", nil)
	put(t, dir, "huge.xml", bytes.Repeat([]byte(" "), saml.MaxSPMetadata+1))
	put(t, dir, "notes.txt", []byte("not metadata"))
	put(t, dir, ".hidden.xml", []byte("half written"))
	if err := os.Mkdir(filepath.Join(dir, "dir.xml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.xml")); err != nil {
		t.Fatal(err)
	}
	r, report, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var rejected []string
	for _, x := range report.Rejected {
		if x.Err == nil {
			t.Errorf("%s without a reason", x.File)
		}
		rejected = append(rejected, x.File)
	}
	if got, want := fmt.Sprint(rejected), "[broken.xml changed.xml dir.xml empty.xml huge.xml link.xml]"; got != want {
		t.Errorf("rejected %s, want %s", got, want)
	}
	if report.Loaded != 2 || r.Len() != 2 {
		t.Errorf("loaded %d", report.Loaded)
	}
	sp, ok := r.Lookup("http://localhost:4201")
	if !ok || sp.EntityID.String() != "http://localhost:4201" {
		t.Errorf("lookup: %v %v", sp, ok)
	}
	// The recorded SPs share a certificate.
	if other, _ := r.Lookup("http://localhost:4202"); other.Certificates[0] != sp.Certificates[0] {
		t.Error("two copies of one certificate")
	}
	for _, absent := range []string{"", "http://localhost:4203", "http://localhost:4201/", "HTTP://localhost:4201"} {
		if _, ok := r.Lookup(absent); ok {
			t.Errorf("found %q", absent)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "absent"), Options{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("absent directory: %v", err)
	}
	if _, _, err := Load(t.TempDir(), Options{MaxShrinkPercent: 101}); !fault.Is(err, fault.Invalid) {
		t.Errorf("percentage: %v", err)
	}
	r, report, err := Load(t.TempDir(), Options{})
	if err != nil || report.Loaded != 0 || r.Len() != 0 {
		t.Errorf("empty directory: %v %+v", err, report)
	}
}

func TestDuplicates(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.xml", vector(t, 4201))
	put(t, dir, "b.xml", vector(t, 4201))
	put(t, dir, "c.xml", vector(t, 4202))
	r, report, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Lookup("http://localhost:4201"); ok {
		t.Error("an entityID claimed twice was accepted")
	}
	if report.Loaded != 1 || len(report.Rejected) != 2 || !fault.Is(report.Rejected[0].Err, fault.Conflict) {
		t.Errorf("report %+v", report)
	}
	if err := os.Remove(filepath.Join(dir, "a.xml")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Lookup("http://localhost:4201"); !ok {
		t.Error("not accepted after the second claim is gone")
	}
}

func TestPinned(t *testing.T) {
	dir := t.TempDir()
	a := newAuthor()
	put(t, dir, "a.xml", a.metadata(t, "https://a.example.it"))
	put(t, dir, "b.xml", vector(t, 4202))
	r, report, err := Load(dir, Options{Pinned: []*x509.Certificate{a.cert}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Lookup("https://a.example.it"); !ok || report.Loaded != 1 || report.Rejected[0].File != "b.xml" {
		t.Errorf("report %+v", report)
	}
	if _, report, err = Load(dir, Options{}); err != nil || report.Loaded != 1 || report.Rejected[0].File != "a.xml" {
		t.Errorf("without pin: %v %+v", err, report)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	a := newAuthor()
	o := Options{Pinned: []*x509.Certificate{a.cert}}
	name := func(i int) string { return fmt.Sprintf("https://sp%d.example.it", i) }
	for i := range 12 {
		put(t, dir, fmt.Sprintf("%02d.xml", i), a.metadata(t, name(i)))
	}
	r, _, err := Load(dir, o)
	if err != nil || r.Len() != 12 {
		t.Fatal(err, r.Len())
	}
	kept, _ := r.Lookup(name(0))

	// A broken replacement takes one SP out and leaves the others.
	put(t, dir, "01.xml", []byte("<broken"))
	put(t, dir, "02.xml", a.metadata(t, "https://new.example.it"))
	report, err := r.Reload()
	if err != nil || report.Loaded != 11 || len(report.Rejected) != 1 {
		t.Fatalf("%v %+v", err, report)
	}
	if _, ok := r.Lookup(name(1)); ok {
		t.Error("the SP of a broken file is still there")
	}
	if _, ok := r.Lookup(name(2)); ok {
		t.Error("the replaced SP is still there")
	}
	if _, ok := r.Lookup("https://new.example.it"); !ok {
		t.Error("the new SP is not there")
	}
	if again, _ := r.Lookup(name(0)); again != kept {
		t.Error("an unchanged file was parsed again")
	}

	// An accident empties the directory: the last good set goes on.
	for i := range 8 {
		if err := os.Remove(filepath.Join(dir, fmt.Sprintf("%02d.xml", i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Reload(); !fault.Is(err, fault.Conflict) || r.Len() != 11 {
		t.Errorf("shrunk to %d: %v", r.Len(), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reload(); !fault.Is(err, fault.Unavailable) || r.Len() != 11 {
		t.Errorf("directory gone: %d, %v", r.Len(), err)
	}
}

// TestConcurrent lets the race detector watch lookups during reloads.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.xml", vector(t, 4201))
	r, _, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if _, ok := r.Lookup("http://localhost:4201"); !ok {
					t.Error("lost during a reload")
					return
				}
			}
		})
	}
	for range 20 {
		if _, err := r.Reload(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func BenchmarkLookup(b *testing.B) {
	dir := b.TempDir()
	put(b, dir, "a.xml", vector(b, 4201))
	r, _, err := Load(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.Lookup("http://localhost:4201"); !ok {
			b.Fatal("not found")
		}
	}
}
