package conformance

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
	"custode/internal/fault"
)

func rule(t *testing.T, id string) catalogue.Rule {
	t.Helper()
	for _, r := range catalogue.All() {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("no rule %s", id)
	return catalogue.Rule{}
}

func swap(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

// instances are instances that tell the truth, one a kind of answer.
var instances = map[string]int{"valid": 0, "issuer-unknown": 10, "destination-missing": 14, "context-english": 12, "issuer-page-en": 10, "level-1": 1, "logout-unknown-session": catalogue.PartialLogout, "logout-xsw-3": catalogue.Refused}

func TestHonestInstance(t *testing.T) {
	for id, code := range instances {
		for _, by := range []request.Binding{request.Redirect, request.Post} {
			t.Run(id+"/"+string(by), func(t *testing.T) {
				f := newFake(t, code, lies{})
				r := f.auditor().Run(t.Context(), rule(t, id), by)
				if r.Seen == "does not concern this binding" {
					return
				}
				if r.Verdict != Pass || r.Seen == "" {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// TestAuditorNoticesLies: each way in which an instance can be wrong makes the
// rule fail, and the fault names it.
func TestAuditorNoticesLies(t *testing.T) {
	responder := strings.NewReplacer("status:Requester", "status:Responder").Replace
	for name, c := range map[string]struct {
		rule string
		lie  lies
		want string
	}{
		"login begins instead":     {"issuer-unknown", lies{}, "HTTP 200, want 403"},
		"page instead of login":    {"valid", lies{status: 403}, "want the credentials page"},
		"no name of the service":   {"valid", lies{page: swap(request.DisplayName, "")}, "does not name the service"},
		"no level":                 {"valid", lies{page: swap("SPID 2", "")}, "does not show level 2"},
		"no way out":               {"valid", lies{page: swap(`value="cancel"`, `value="x"`)}, "no way to cancel"},
		"other language":           {"valid", lies{page: swap(`lang="it"`, `lang="en"`)}, `in "en"`},
		"other sentence":           {"issuer-unknown", lies{page: swap("non corretto", "non  buono")}, "does not say"},
		"letter missing":           {"issuer-unknown", lies{page: swap("Formato", "formato")}, "does not say"},
		"other status":             {"issuer-unknown", lies{status: 400}, "HTTP 400, want 403"},
		"other anomaly":            {"issuer-unknown", lies{page: swap("n. 10", "n. 4")}, "tells anomaly 4, want 10"},
		"no English":               {"issuer-page-en", lies{page: swap("The format of", "Format of")}, "English page does not say"},
		"no Italian on English":    {"issuer-page-en", lies{page: swap("Formato", "Format")}, "does not say"},
		"page in place of reply":   {"destination-missing", lies{page: swap("SAMLResponse", "x")}, "no Response"},
		"status pair":              {"destination-missing", lies{response: responder}, `status "urn:oasis:names:tc:SAML:2.0:status:Responder"`},
		"second status":            {"destination-missing", lies{response: swap("RequestUnsupported", "RequestDenied")}, "second-level status"},
		"misprinted status":        {"destination-missing", lies{response: swap("status:Req", "statuss:Req")}, "status"},
		"message":                  {"destination-missing", lies{response: swap("nr14", "nr16")}, `StatusMessage "ErrorCode nr16"`},
		"message with blanks":      {"destination-missing", lies{response: swap("ErrorCode nr14", " ErrorCode nr14")}, "StatusMessage"},
		"unsigned":                 {"destination-missing", lies{unsigned: true}, "not signed"},
		"signed by nobody":         {"destination-missing", lies{sign: func(s *request.Signing) { s.Key = keys()[2].Key }}, "does not fit any certificate"},
		"its own certificate":      {"destination-missing", lies{sign: func(s *request.Signing) { s.Key, s.Cert = keys()[2].Key, keys()[2].Certificate.Raw }}, "does not fit any certificate"},
		"sha-1":                    {"destination-missing", lies{sign: func(s *request.Signing) { s.Algorithm = request.RSASHA1 }}, "signature algorithm"},
		"sha-1 digest":             {"destination-missing", lies{sign: func(s *request.Signing) { s.Digest = request.DigestSHA1 }}, "digest algorithm"},
		"inclusive form":           {"destination-missing", lies{sign: func(s *request.Signing) { s.C14N = request.AlgC14N }}, "canonical form"},
		"empty reference":          {"destination-missing", lies{sign: func(s *request.Signing) { s.Reference = request.WholeDocument }}, "refers to"},
		"changed after signing":    {"destination-missing", lies{signed: swap("<samlp:Status>", "<samlp:Status><x/>")}, "digest does not fit"},
		"signed value changed":     {"destination-missing", lies{signed: swap("<ds:DigestValue>", "<ds:DigestValue>A")}, "digest"},
		"form's address":           {"destination-missing", lies{form: func(f *fakeForm) { f.action = "https://attacker.example.org/" }}, "goes to"},
		"form's method":            {"destination-missing", lies{form: func(f *fakeForm) { f.method = "get" }}, "travels by"},
		"RelayState altered":       {"destination-missing", lies{form: func(f *fakeForm) { f.relay += " " }}, "RelayState"},
		"RelayState unescaped":     {"destination-missing", lies{form: func(f *fakeForm) { f.relay = strings.ReplaceAll(f.relay, "%2F", "/") }}, "RelayState"},
		"RelayState dropped":       {"destination-missing", lies{form: func(f *fakeForm) { f.hasRelay = false }}, "RelayState"},
		"empty RelayState dropped": {"relay-empty", lies{form: func(f *fakeForm) { f.hasRelay = false }}, "RelayState"},
		"RelayState invented":      {"relay-absent", lies{form: func(f *fakeForm) { f.relay, f.hasRelay = "x", true }}, "RelayState"},
		"Destination":              {"destination-missing", lies{response: swap("/acs/0", "/acs/1")}, "Destination"},
		"other ACS":                {"destination-missing", lies{form: func(f *fakeForm) { f.action = strings.Replace(f.action, "/0", "/1", 1) }}, "goes to"},
		"InResponseTo":             {"destination-missing", lies{response: swap(`InResponseTo="_`, `InResponseTo="_0`)}, "InResponseTo"},
		"no InResponseTo":          {"destination-missing", lies{response: swap(`InResponseTo=`, `x=`)}, "InResponseTo"},
		"InResponseTo of nothing":  {"id-missing", lies{}, "although the request has no usable ID"},
		"no issuer": {"destination-missing", lies{response: func(s string) string {
			i := strings.Index(s, "<saml:Issuer")
			e := strings.Index(s, request.SignatureMark)
			return s[:i] + s[e:]
		}}, "Response Issuer"},
		"other issuer":          {"destination-missing", lies{response: swap("http://127", "http://128")}, "Response Issuer"},
		"issuer's format":       {"destination-missing", lies{response: swap(":entity", ":unspecified")}, "Issuer Format"},
		"assertion in an error": {"destination-missing", lies{response: swap("@", "<saml:Assertion/>")}, "error Response with an assertion"},
		"encrypted assertion":   {"destination-missing", lies{response: swap("@", "<saml:EncryptedAssertion/>")}, "encrypted"},
		"Version":               {"destination-missing", lies{response: swap(`Version="2.0"`, `Version="2"`)}, "Version"},
		"seconds only": {"destination-missing", lies{response: func(s string) string {
			return s[:strings.Index(s, "IssueInstant=")+33] + "Z" + s[strings.Index(s, "IssueInstant=")+38:]
		}}, "milliseconds"},
		"earlier than request":   {"destination-missing", lies{response: at("IssueInstant", -10*time.Second)}, "before the request's"},
		"future":                 {"destination-missing", lies{response: at("IssueInstant", 10*time.Second)}, "is not now"},
		"no reply but a Request": {"destination-missing", lies{response: func(s string) string { return strings.ReplaceAll(s, "samlp:Response", "samlp:Request") }}, "no Response but"},
		"malformed ID":           {"destination-missing", lies{response: swap(`ID="_r`, `ID="1r`)}, "Response"},
		"slow":                   {"destination-missing", lies{delay: 700 * time.Millisecond}, "took"},
		"no page before 12":      {"context-english", lies{page: swap("Autenticazione SPID non conforme", "")}, "does not say"},

		"bare assertion":          {"level-1", lies{bare: true}, "Assertion: not signed"},
		"audience":                {"level-1", lies{assertion: swap("<saml:Audience>", "<saml:Audience>x")}, "Audience"},
		"recipient":               {"level-1", lies{assertion: swap("/acs/0", "/acs/1")}, "Recipient"},
		"confirmed other request": {"level-1", lies{assertion: swap(`InResponseTo="`, `InResponseTo="_`)}, "InResponseTo of the confirmation"},
		"confirmation NotBefore":  {"level-1", lies{assertion: swap("Recipient=", `NotBefore="`+"2020-01-01T00:00:00.000Z"+`" Recipient=`)}, "NotBefore in SubjectConfirmationData"},
		"bearer":                  {"level-1", lies{assertion: swap("cm:bearer", "cm:sender")}, "bearer"},
		"NameID":                  {"level-1", lies{assertion: swap(":transient", ":persistent")}, "NameID"},
		"NameID's qualifier":      {"level-1", lies{assertion: swap("NameQualifier=", "x=")}, "NameID"},
		"assertion's issuer":      {"level-1", lies{assertion: swap(` Format="`+request.FormatEntity+`"`, "")}, "Assertion Issuer"},
		"no session":              {"level-1", lies{assertion: swap("SessionIndex=", "x=")}, "SessionIndex"},
		"other level":             {"level-1", lies{assertion: swap("SpidL1", "SpidL2")}, "AuthnContextClassRef"},
		"old level name":          {"level-1", lies{assertion: swap(request.LevelPrefix, "urn:oasis:names:tc:SAML:2.0:ac:classes:SpidL")}, "AuthnContextClassRef"},
		"attribute too many": {"level-1", lies{assertion: func(s string) string {
			i := strings.Index(s, "<saml:Attribute ")
			e := strings.Index(s, "</saml:AttributeStatement>")
			return s[:e] + strings.Replace(s[i:e], "fiscalNumber", "name", 1) + s[e:]
		}}, "want exactly"},
		"attribute missing": {"level-1", lies{assertion: func(s string) string {
			i := strings.Index(s, "<saml:Attribute ")
			e := strings.Index(s, "</saml:AttributeStatement>")
			return s[:i] + s[e:]
		}}, "want exactly"},
		"untyped value":     {"level-1", lies{assertion: swap("xs:string", "xs:token")}, "of type"},
		"fiscal number":     {"level-1", lies{assertion: swap("TINIT-", "")}, "prefix"},
		"blanks in a value": {"level-1", lies{assertion: swap("TINIT-X<", "TINIT-X \n<")}, "white space"},
		"over already":      {"level-1", lies{assertion: at("Conditions NotBefore", time.Minute)}, "Conditions NotBefore"},
		"order": {"level-1", lies{assertion: func(s string) string {
			i := strings.Index(s, "<saml:AttributeStatement>")
			e := strings.Index(s, "</saml:Assertion>")
			a := strings.Index(s, "<saml:AuthnStatement")
			return s[:a] + s[i:e] + s[a:i] + s[e:]
		}}, "out of order"},
		"logout refused":      {"logout-unknown-session", lies{status: 403, page: swap("SAMLResponse", "x")}, "no LogoutResponse"},
		"logout taken":        {"logout-xsw-1", lies{}, "want HTTP 403"},
		"logout status":       {"logout-unknown-session", lies{response: swap("PartialLogout", "RequestDenied")}, "want Requester/PartialLogout"},
		"logout unsigned":     {"logout-unknown-session", lies{unsigned: true}, "not signed"},
		"logout elsewhere":    {"logout-unknown-session", lies{form: func(f *fakeForm) { f.action += "/x" }}, "goes to"},
		"logout destination":  {"logout-unknown-session", lies{response: swap("/slo", "/slo2")}, "Destination"},
		"logout RelayState":   {"logout-unknown-session", lies{form: func(f *fakeForm) { f.hasRelay = false }}, "RelayState"},
		"logout InResponseTo": {"logout-unknown-session", lies{response: swap(`InResponseTo="`, `InResponseTo="_`)}, "InResponseTo"},
		"logout issuer":       {"logout-unknown-session", lies{response: swap("NameQualifier=", "x=")}, "LogoutResponse Issuer"},
		"two assertions":      {"level-1", lies{response: swap("@", "@<saml:Assertion/>")}, "2 assertions"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rule(t, c.rule)
			code := r.Want.On(request.Post).Code
			switch {
			case name == "login begins instead":
				code = 0
			case name == "logout taken":
				code = catalogue.PartialLogout
			}
			got := newFake(t, code, c.lie).auditor().Run(t.Context(), r, request.Post)
			if got.Verdict != Fail || !strings.Contains(strings.Join(got.Faults, "\n"), c.want) {
				t.Errorf("verdict %s, want a fault with %q\nseen %s\n%s", got.Verdict, c.want, got.Seen, strings.Join(got.Faults, "\n"))
			}
		})
	}
}

// at shifts the first instant after a name.
func at(name string, d time.Duration) func(string) string {
	return func(s string) string {
		i := strings.Index(s, name+`="`) + len(name) + 2
		return s[:i] + instant(d) + s[i+len(instant(0)):]
	}
}

func TestIdentifierUsedTwice(t *testing.T) {
	f := newFake(t, 14, lies{response: func(s string) string { return strings.Replace(s, `ID="_r2"`, `ID="_r1"`, 1) }})
	a, r := f.auditor(), rule(t, "destination-missing")
	if got := a.Run(t.Context(), r, request.Post); got.Verdict != Pass {
		t.Fatalf("%+v", got)
	}
	if got := a.Run(t.Context(), r, request.Post); got.Verdict != Fail || !strings.Contains(strings.Join(got.Faults, " "), "used before") {
		t.Errorf("%+v", got)
	}
}

func TestReservedCodes(t *testing.T) {
	f := newFake(t, 14, lies{response: swap("nr14", "nr24")})
	a := f.auditor()
	if got := a.Reserved(); got.Verdict != Pass {
		t.Errorf("%+v", got)
	}
	a.Run(t.Context(), rule(t, "destination-missing"), request.Post)
	if got := a.Reserved(); got.Verdict != Fail || len(got.Faults) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSkipsSayWhy(t *testing.T) {
	a := newFake(t, 0, lies{}).auditor(func(c *Config) { c.Subject = nil })
	for _, id := range []string{"level-1", "level-2", "suspended", "timed-out", "signature-expired", "signature-other-sp"} {
		if got := a.Run(t.Context(), rule(t, id), request.Post); got.Verdict != Skip || !strings.Contains(got.Seen, "(--") {
			t.Errorf("%s: %+v", id, got)
		}
	}
	if got := a.Run(t.Context(), rule(t, "xsw-1"), request.Redirect); got.Verdict != Skip {
		t.Errorf("%+v", got)
	}
}

func TestReport(t *testing.T) {
	f := newFake(t, 14, lies{response: swap("nr14", "nr16")})
	a := f.auditor()
	report := a.Report()
	for _, id := range []string{"destination-missing", "acs-none", "level-2"} {
		report.Add(a.Run(t.Context(), rule(t, id), request.Post))
	}
	if report.Passed != 1 || report.Failed != 1 || report.Skipped != 1 || !strings.Contains(report.Summary(), "1 failed") {
		t.Errorf("%s", report.Summary())
	}
	line := report.Results[0].Line()
	for _, want := range []string{"FAIL", "destination-missing/post", "row 14", "nr16"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	var b bytes.Buffer
	if err := report.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Results) != 3 || back.Results[0].Verdict != Fail || back.EntityID != f.url {
		t.Errorf("%v %+v", err, back)
	}
	if strings.Contains(b.String(), "secret") {
		t.Error("the report has the subject's password")
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{URL: "https://idp.example.it", SP: request.SP{EntityID: auditorEntity, Main: keys()[1]}}
	for name, change := range map[string]func(*Config){
		"no URL":        func(c *Config) { c.URL = "" },
		"ftp":           func(c *Config) { c.URL = "ftp://x" },
		"no entity":     func(c *Config) { c.SP.EntityID = "" },
		"entity":        func(c *Config) { c.SP.EntityID = `https://x.example.it/"` },
		"no key":        func(c *Config) { c.SP.Main.Key = nil },
		"another's key": func(c *Config) { c.SP.Main.Key = keys()[2].Key },
		"negative pace": func(c *Config) { c.Pace = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func TestOpenJudgesMetadata(t *testing.T) {
	if err := func() error {
		a, err := New(Config{URL: "http://127.0.0.1:1", SP: request.SP{EntityID: auditorEntity, Main: keys()[1]}})
		if err != nil {
			t.Fatal(err)
		}
		return a.Open(t.Context())
	}(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	good := newFake(t, 0, lies{}).metadata()
	for name, doc := range map[string]string{
		"changed": strings.Replace(good, "/sso", "/other", 1), "cut": good[:len(good)/2], "no role": strings.ReplaceAll(good, "IDPSSODescriptor", "SPSSODescriptor"),
		"one binding": strings.Replace(good, "HTTP-POST", "HTTP-Artifact", 1),
	} {
		if _, err := request.ReadIDP(doc); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := request.ReadIDP(good); err != nil {
		t.Error(err)
	}
}
