package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
)

// npmDir holds the service providers built on libraries that we did not write.
const npmDir = "npm"

// outsider starts one of npmDir's service providers and returns its base URL.
func outsider(t *testing.T, script string, args ...string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(npmDir, "node_modules", ".package-lock.json")); err != nil {
		t.Fatalf("the npm packages are missing: run make deps (%v)", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	cmd.Dir = npmDir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("node is missing: install the Debian packages nodejs and npm (make deps): %v", err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	var ready struct {
		Base string `json:"base"`
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		t.Fatalf("%s did not start: %v\n%s", script, err, errs.String())
	}
	if _, err := url.Parse(ready.Base); err != nil || ready.Base == "" {
		t.Fatalf("%s said %+v", script, ready)
	}
	return ready.Base
}

// idpMetadata writes the lab's published metadata into a file.
func idpMetadata(t *testing.T, l *lab.Lab) string {
	t.Helper()
	meta, err := browsersim.New(nil).Get(l.IdP + "/metadata")
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "idp.xml", []byte(meta.Body))
}

// register puts the service provider's own metadata into the lab's registry.
func register(t *testing.T, l *lab.Lab, name, base string) {
	t.Helper()
	m, err := browsersim.New(nil).Get(base + "/metadata")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.RegisterSP(name, []byte(m.Body)); err != nil {
		t.Fatal(err)
	}
}

// verdict is what the service providers say of a message.
type verdict struct {
	OK        bool           `json:"ok"`
	Error     string         `json:"error"`
	Profile   map[string]any `json:"profile"`
	LoggedOut bool           `json:"loggedOut"`
}

// verdict reads the page as a service provider's verdict, which must be good.
func (v *visit) verdict() verdict {
	v.t.Helper()
	var got verdict
	if err := json.Unmarshal([]byte(v.p.Body), &got); err != nil || v.p.Status != http.StatusOK || !got.OK {
		v.t.Fatalf("the service provider refuses: HTTP %d %s %v", v.p.Status, v.p.Body, err)
	}
	return got
}

// TestPassportSPID logs in at a service provider built on passport-spid, a
// strict library that evaluates Comparison itself, by both bindings at both
// levels, asking for exactly or at least the level.
func TestPassportSPID(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	file := idpMetadata(t, l)
	type sp struct {
		name, binding string
		level         int
		base          string
	}
	var sps []sp
	for _, b := range []string{"HTTP-POST", "HTTP-Redirect"} {
		for level := 1; level <= 2; level++ {
			for _, comparison := range []string{"exact", "minimum"} {
				s := sp{name: fmt.Sprintf("%s/L%d/%s", b, level, comparison), binding: b, level: level}
				s.base = outsider(t, "passport.js", "--idp-metadata", file, "--binding", b, "--level", fmt.Sprint(level), "--comparison", comparison)
				register(t, l, fmt.Sprintf("passport-%d", len(sps)), s.base)
				sps = append(sps, s)
			}
		}
	}
	restart(t, l)
	for _, s := range sps {
		t.Run(s.name, func(t *testing.T) {
			v := &visit{t: t, l: l, b: browsersim.New(nil)}
			v.to(v.b.Get(s.base + "/login"))
			if s.binding == "HTTP-POST" {
				v.submit("", nil) // the SP's auto-submit form
			}
			v.password(enrol(t, l))
			if s.level == 2 {
				v.sms()
				v.code(v.inbox(1))
			}
			v.submit("consent", nil)
			if !v.arrived() {
				t.Fatalf("no Response: %s", v.p.Text)
			}
			v.submit("", nil)
			if got := v.verdict(); fmt.Sprint(got.Profile["fiscalNumber"]) != v.who.Attributes["fiscalNumber"] {
				t.Errorf("profile %v", got.Profile)
			}
		})
	}
}

// TestNodeSAML: a general SAML library, strict about signatures, audience,
// times without skew and InResponseTo, accepts our Responses and exchanges
// single-logout messages with us: it asks for a logout and is asked for one, by
// Redirect and by POST.
func TestNodeSAML(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	file := idpMetadata(t, l)
	sps := map[string]string{}
	for _, by := range []string{"HTTP-Redirect", "HTTP-POST"} {
		sps[by] = outsider(t, "nodesaml.js", "--idp-metadata", file, "--slo", by)
		register(t, l, "nodesaml-"+by, sps[by])
	}
	restart(t, l)
	for _, c := range []struct{ asks, asked string }{{"HTTP-Redirect", "HTTP-POST"}, {"HTTP-POST", "HTTP-Redirect"}} {
		t.Run(c.asks+" asks "+c.asked, func(t *testing.T) {
			v := &visit{t: t, l: l, b: browsersim.New(nil)}
			v.to(v.b.Get(sps[c.asks] + "/login"))
			v.password(enrol(t, l))
			v.submit("consent", nil)
			v.submit("", nil)
			if got := v.verdict(); fmt.Sprint(got.Profile["fiscalNumber"]) != v.who.Attributes["fiscalNumber"] {
				t.Errorf("profile %v", got.Profile)
			}
			v.to(v.b.Get(sps[c.asked] + "/login")) // in the session: consent only
			v.submit("consent", nil)
			v.submit("", nil)
			v.verdict()
			v.to(v.b.Get(sps[c.asks] + "/logout"))
			for strings.HasPrefix(v.p.URL.String(), l.IdP) { // the chain of pages, as without scripts
				v.submit("", nil)
			}
			if !strings.HasPrefix(v.p.URL.String(), sps[c.asks]) || !v.verdict().LoggedOut {
				t.Errorf("the chain ends at %s with %s", v.p.URL, v.p.Body)
			}
			v.to(v.b.Get(sps[c.asked] + "/state"))
			var state struct {
				LoggedIn bool `json:"loggedIn"`
				Requests int  `json:"requests"`
			}
			if err := json.Unmarshal([]byte(v.p.Body), &state); err != nil || state.LoggedIn || state.Requests != 1 {
				t.Errorf("the other service provider: %s, %v", v.p.Body, err)
			}
			v.to(v.b.Get(sps[c.asks] + "/login"))
			if !v.p.Has("password") {
				t.Errorf("the session outlives the logout: %.200s", v.p.Text)
			}
		})
	}
}
