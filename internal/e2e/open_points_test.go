package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// child puts an element before NameIDPolicy or, for Scoping, at the end.
func child(text string) func(*etree.Document) {
	return func(d *etree.Document) {
		part := etree.NewDocument()
		if err := part.ReadFromString(text); err != nil {
			panic(err)
		}
		root := d.Root()
		if part.Root().Tag == "Scoping" {
			root.AddChild(part.Root())
			return
		}
		root.InsertChildAt(root.SelectElement("NameIDPolicy").Index(), part.Root())
	}
}

const (
	protocol  = `xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"`
	assertion = `xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"`
)

// TestOpenPointsAreKeys turns every key of the open points the other way, and sees
// the daemon follow; the usual answers are asked of the shared lab.
func TestOpenPointsAreKeys(t *testing.T) {
	usual := shared(t)
	turned := own(t, lab.Config{Policy: map[string]string{
		"request.lenient_force_authn": "true", "request.lenient_subject": "true", "request.lenient_purpose": "true", "request.lenient_better": "true",
		"request.strict_scoping": "true", "request.replay_page": "true", "attributes.omit_empty": "true", "request.past_skew": "30s", "flow.wrong_passwords": "1",
	}})
	for name, c := range map[string]struct {
		request       spsim.Request
		usual, turned int // anomaly at once; 0: the login begins
	}{
		"ForceAuthn":    {spsim.Request{Level: 2, ForceAuthn: "-"}, 8, 0},
		"Subject":       {spsim.Request{Level: 1, Mutate: child(`<saml:Subject ` + assertion + `><saml:NameID>x</saml:NameID></saml:Subject>`)}, 8, 0},
		"Purpose":       {spsim.Request{Level: 1, Purpose: "Z"}, 8, 0},
		"better than 3": {spsim.Request{Level: 3, Comparison: "better"}, 12, 0},
		"proxy count":   {spsim.Request{Level: 1, Mutate: child(`<samlp:Scoping ` + protocol + ` ProxyCount="1"/>`)}, 0, 8},
		"forty seconds old": {spsim.Request{Level: 1, Mutate: func(d *etree.Document) {
			at := d.Root().SelectAttr("IssueInstant")
			at.Value = before(t, at.Value)
		}}, 0, 13},
	} {
		for l, want := range map[*lab.Lab]int{usual: c.usual, turned: c.turned} {
			v := arrive(t, l, post, c.request)
			if want != 0 {
				v.anomaly(want)
			} else if !v.p.Has("password") {
				t.Errorf("%s: HTTP %d: %s", name, v.p.Status, v.p.Text)
			}
		}
	}

	p := enrol(t, turned)
	v := arrive(t, turned, redirect, spsim.Request{Level: 3, Comparison: "better"})
	v.password(p)
	v.anomaly(20)
	v = arrive(t, turned, redirect, spsim.Request{Level: 1})
	v.submit("password", map[string]string{"username": p.Username, "password": "wrong"})
	v.anomaly(19) // flow.wrong_passwords

	v = arrive(t, turned, redirect, spsim.Request{Level: 1, Service: 2})
	v.password(p)
	v.submit("consent", nil)
	// The service provider is strict about the set: that is what the other default is for.
	if _, err := v.consume(); spsim.CheckOf(err) != "attributes" {
		t.Errorf("attributes without a value: %v", err)
	}
	w := arrive(t, turned, redirect, spsim.Request{Level: 1, ID: v.id})
	if w.p.Status != http.StatusConflict || w.arrived() {
		t.Errorf("sent again: HTTP %d", w.p.Status)
	}
}

// TestTwoSigningCertificates: the next key's certificate is published beside the
// active one, and the check wants both.
func TestTwoSigningCertificates(t *testing.T) {
	l := own(t, lab.Config{})
	text, err := os.ReadFile(filepath.Join(l.Dir, "ceremony.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "  - label: custode/pepper")
	plan := filepath.Join(t.TempDir(), "next.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(plan, strings.NewReplacer("laboratory-2026-1", "laboratory-2027-1", "sign/2026-1", "sign/2027-1").Replace(head))
	if out, err := l.Run(t.Context(), "ceremony", "run", plan, "--out", t.TempDir()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err = os.ReadFile(filepath.Join(l.Dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	policy, file := filepath.Join(t.TempDir(), "policy.yaml"), filepath.Join(t.TempDir(), "idp.xml")
	write(policy, strings.Replace(string(text), "keys:\n", "keys:\n  also_published: [custode/sign/2027-1]\n", 1))
	doc, err := l.Run(t.Context(), "metadata", "show", "--sign", "--policy", policy)
	if err != nil || strings.Count(doc, "<md:KeyDescriptor") != 2 {
		t.Fatalf("%v\n%s", err, doc)
	}
	write(file, doc)
	if out, err := l.Run(t.Context(), "metadata", "verify", file, "--policy", policy); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := l.Run(t.Context(), "metadata", "verify", file); status(t, err) != 65 || !strings.Contains(out+err.Error(), "FAIL published") {
		t.Errorf("two published, one configured: %v\n%s", err, out)
	}
	if out, err := l.Run(t.Context(), "metadata", "verify", "--policy", policy); status(t, err) != 65 || !strings.Contains(out+err.Error(), "FAIL published") {
		t.Errorf("one published, two configured: %v\n%s", err, out)
	}
}

// before returns the instant forty seconds earlier.
func before(t *testing.T, instant string) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339, instant)
	if err != nil {
		t.Fatal(err)
	}
	return at.Add(-40 * time.Second).Format("2006-01-02T15:04:05.000Z")
}
