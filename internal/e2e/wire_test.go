package e2e

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
	"custode/simulators/spsim/catalogue"
)

// company makes a person's identity a legal person's.
func company(p *lab.Person) {
	p.Type = "legal"
	for _, n := range []string{"name", "familyName", "gender", "dateOfBirth", "placeOfBirth", "countyOfBirth", "fiscalNumber", "idCard"} {
		delete(p.Attributes, n)
	}
	p.Attributes["companyName"], p.Attributes["registeredOffice"] = "Prova S.r.l.", "via Listz 21 00144 Roma"
	p.Attributes["ivaCode"], p.Attributes["companyFiscalNumber"] = "VATIT-12345678903", "TINIT-12345678903"
}

// TestIdentityTypesOnTheWire: a legal person answers the Purpose LP and no other
// request; a citizen the other way round. Who is of the wrong type learns so after
// the second factor.
func TestIdentityTypesOnTheWire(t *testing.T) {
	l := shared(t)
	firm, citizen := enrol(t, l, company), enrol(t, l)
	for _, c := range []struct {
		who     lab.Person
		purpose string
		level   int
		ok      bool
	}{
		{firm, "LP", 2, true}, {firm, "PX", 1, true}, {firm, "P", 1, false}, {firm, "", 1, false}, {firm, "PG", 2, false},
		{citizen, "", 1, true}, {citizen, "LP", 2, false}, {citizen, "PX", 1, false},
	} {
		v := arrive(t, l, post, spsim.Request{Level: c.level, Purpose: c.purpose, Service: 2, RelayState: "r"})
		v.password(c.who)
		if c.level == 2 {
			v.sms()
			v.code(v.inbox(1))
		}
		if !c.ok {
			v.anomaly(30)
			continue
		}
		v.submit("consent", nil)
		got, err := v.consume()
		if err != nil {
			t.Fatalf("purpose %q: %v", c.purpose, err)
		}
		if c.purpose == "LP" && (got.Attributes["companyName"] != "Prova S.r.l." || got.Attributes["name"] != "") {
			t.Errorf("attributes %v", got.Attributes)
		}
	}
}

// TestRequestSentAgain: an answered request gets anomaly 11, never a second
// success, whichever browser sends it.
func TestRequestSentAgain(t *testing.T) {
	l := shared(t)
	p := enrol(t, l)
	if err := l.SP.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	to, id, err := l.SP.RedirectURL(spsim.Request{Level: 1, RelayState: "again & again"})
	if err != nil {
		t.Fatal(err)
	}
	v := &visit{t: t, l: l, b: browsersim.New(nil)}
	v.to(v.b.Get(to))
	v.password(p)
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*browsersim.Browser{v.b, browsersim.New(nil)} {
		page, err := b.Get(to)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(page.Field("SAMLResponse"))
		if err != nil || page.Status != 200 || page.Field("RelayState") != "again & again" ||
			!strings.Contains(string(raw), "ErrorCode nr11") || !strings.Contains(string(raw), `InResponseTo="`+id+`"`) || strings.Contains(string(raw), "Assertion ") {
			t.Errorf("HTTP %d, %v: %s", page.Status, err, raw)
		}
	}
}

// TestMetadataCommands: what is published keeps the rules, and the check can fail.
func TestMetadataCommands(t *testing.T) {
	l := shared(t)
	doc, err := l.Run(t.Context(), "metadata", "show")
	if err != nil {
		t.Fatal(err)
	}
	page, err := browsersim.New(nil).Get(l.IdP + "/metadata")
	if err != nil || strings.TrimSpace(doc) != strings.TrimSpace(string(page.Body)) {
		t.Errorf("shown is not what is published: %v", err)
	}
	file := filepath.Join(t.TempDir(), "idp.xml")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {file}, {l.IdP + "/metadata"}} {
		out, err := l.Run(t.Context(), append([]string{"metadata", "verify"}, args...)...)
		if err != nil || strings.Contains(out, "FAIL") || strings.Count(out, "ok ") < 16 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if err := os.WriteFile(file, []byte(strings.Replace(doc, "/sso/post", "/sso/pest", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := l.Run(t.Context(), "metadata", "verify", file)
	if status(t, err) != 65 || !strings.Contains(out+err.Error(), "FAIL signature") {
		t.Errorf("changed: %v\n%s", err, out)
	}
	signed, err := l.Run(t.Context(), "metadata", "show", "--sign")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Run(t.Context(), "metadata", "verify", file); err != nil {
		t.Errorf("signed anew: %v\n%s", err, out)
	}
}

// TestResponsesKeepTheCatalogue holds what really left against every rule of the
// federation's list: both bindings, levels, sets of attributes, and anomalies.
func TestResponsesKeepTheCatalogue(t *testing.T) {
	l := shared(t)
	p, other := enrol(t, l), enrol(t, l)
	audit := func(name string, v *visit) {
		t.Helper()
		if !v.arrived() {
			t.Fatalf("%s: no Response: %s", name, v.p.Text)
		}
		e, err := l.SP.Evidence("", v.p.Field("SAMLResponse"), v.p.Field("RelayState"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		findings := catalogue.Audit(e)
		for _, f := range findings {
			if f.Err != nil {
				t.Errorf("%s: case %s, %s: %v", name, f.Cases, f.Rule, f.Err)
			}
		}
		if len(findings) < 18 {
			t.Errorf("%s: only %d rules asked", name, len(findings))
		}
	}
	for name, r := range map[string]spsim.Request{
		"level 1":            {Level: 1},
		"level 1, better":    {Level: 1, Comparison: "better"},
		"level 2, exact":     {Level: 2, Comparison: "exact", ACSIndex: 1, ACSByURL: true},
		"every attribute":    {Level: 1, Service: 2},
		"no attributes":      {Level: 1, NoAttributes: true},
		"level 3 at maximum": {Level: 3, Comparison: "maximum"},
	} {
		for _, by := range []binding{redirect, post} {
			r.RelayState = "relay <&> " + name
			v := arrive(t, l, by, r)
			v.password(p)
			if v.p.Has("method") {
				v.sms()
				v.code(v.inbox(1))
			}
			v.submit("consent", nil)
			audit(name+" "+string(by), v)
		}
	}
	for name, end := range map[string]func(*visit){
		"nr25": func(v *visit) { v.submit("cancel", nil) },
		"nr22": func(v *visit) { v.password(p); v.submit("refuse", nil) },
		"nr19": func(v *visit) {
			for range 3 {
				v.submit("password", map[string]string{"username": other.Username, "password": "x"})
			}
		},
	} {
		v := arrive(t, l, redirect, spsim.Request{Level: 1, RelayState: name})
		end(v)
		audit(name, v)
	}
	for name, r := range map[string]spsim.Request{
		"nr12": {Comparison: "best"},
		"nr14": {Destination: "https://elsewhere.example"},
		"nr08": {ForceAuthn: "-"},
		"nr16": {ACSIndex: 1, Mutate: func(d *etree.Document) { d.Root().CreateAttr("AssertionConsumerServiceIndex", "9") }},
	} {
		r.RelayState = name
		audit(name, arrive(t, l, post, r))
	}
}
