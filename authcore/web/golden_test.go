package web

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

var update = flag.Bool("update", false, "write the golden pages instead of comparing them")

func unhtml(s string) string { return html.UnescapeString(s) }

// shownPage is one page in one state.
type shownPage struct {
	name string
	show func(t testing.TB, room *testRoom, lang string) answer
}

func viewPage(name string, step authcore.Step, change func(*authcore.View)) shownPage {
	return shownPage{name, func(t testing.TB, room *testRoom, lang string) answer {
		room.logins.view = func(context.Context, id.FlowID, authcore.Visitor) (authcore.Outcome, error) {
			v := testView(t, step)
			if change != nil {
				change(v)
			}
			return authcore.Outcome{View: v}, nil
		}
		_, cookie := testSecret(t, mustFlow(t, testFlowText))
		_, a := room.route(t.Context(), request{method: "GET", path: "/flow/" + testFlowText, cookies: cookie, lang: lang})
		return a
	}}
}

func failPage(name string, err error) shownPage {
	return shownPage{name, func(t testing.TB, room *testRoom, lang string) answer {
		return room.failure(t.Context(), request{lang: lang, peer: testPeer}, err)
	}}
}

func noted(n authcore.Notice) func(*authcore.View) {
	return func(v *authcore.View) { v.Notice, v.AttemptsLeft, v.RetryAfter = n, 2, 45*time.Second }
}

// allPages is every page in every state that looks different.
func allPages() []shownPage {
	signed := func(code saml.Code) func(testing.TB, *testRoom, string) answer {
		return func(t testing.TB, room *testRoom, lang string) answer {
			names := testView(t, authcore.StepConsent).SPName
			return room.handOver(t.Context(), request{lang: lang}, authcore.Outcome{Response: testSigned(code), Proof: recorded{}}, spNames{names, ""}, saml.L2)
		}
	}
	at := func(method, path string) func(testing.TB, *testRoom, string) answer {
		return func(t testing.TB, room *testRoom, lang string) answer {
			_, a := room.route(t.Context(), request{method: method, path: path, lang: lang})
			return a
		}
	}
	list := []shownPage{
		viewPage("credentials", authcore.StepCredentials, nil),
		viewPage("credentials-wrong", authcore.StepCredentials, noted(authcore.NoticeWrongCredentials)),
		viewPage("credentials-wait", authcore.StepCredentials, noted(authcore.NoticeWait)),
		viewPage("credentials-busy", authcore.StepCredentials, noted(authcore.NoticeBusy)),
		viewPage("credentials-level1", authcore.StepCredentials, func(v *authcore.View) { v.Level = saml.L1 }),
		viewPage("method", authcore.StepMethod, nil),
		viewPage("method-none", authcore.StepMethod, func(v *authcore.View) { v.Ways = nil }),
		viewPage("method-all", authcore.StepMethod, func(v *authcore.View) { v.Ways = testWays() }),
		viewPage("method-blocked", authcore.StepMethod, func(v *authcore.View) { v.Ways, v.Notice = testWays(), authcore.NoticeBlockedMethod }),
		viewPage("code-token", authcore.StepCode, func(v *authcore.View) {
			v.Way, v.CanResend, v.CanChange, v.Notice = testWays()[1], false, true, authcore.NoticeRepeatedCode
		}),
		viewPage("code-app", authcore.StepCode, func(v *authcore.View) { v.Way, v.CanResend = testWays()[4], false }),
		viewPage("code-push", authcore.StepCode, func(v *authcore.View) {
			v.Way, v.CanChange = testWays()[3], true
			v.Way.Number = "47"
		}),
		viewPage("consent-token", authcore.StepConsent, func(v *authcore.View) { v.Way = testWays()[1] }),
		viewPage("consent-push", authcore.StepConsent, func(v *authcore.View) { v.Way = testWays()[3] }),
		viewPage("credentials-last", authcore.StepCredentials, func(v *authcore.View) { v.Notice, v.AttemptsLeft = authcore.NoticeWrongCredentials, 1 }),
		viewPage("credentials-ending", authcore.StepCredentials, func(v *authcore.View) { v.Deadline = testNow.Add(59 * time.Second) }),
		viewPage("code", authcore.StepCode, nil),
		viewPage("code-wrong", authcore.StepCode, noted(authcore.NoticeWrongCode)),
		viewPage("code-last", authcore.StepCode, func(v *authcore.View) { v.Notice, v.AttemptsLeft = authcore.NoticeWrongCode, 1 }),
		viewPage("code-malformed", authcore.StepCode, noted(authcore.NoticeMalformedCode)),
		viewPage("code-expired", authcore.StepCode, noted(authcore.NoticeExpiredCode)),
		viewPage("code-used", authcore.StepCode, noted(authcore.NoticeUsedCode)),
		viewPage("code-sent", authcore.StepCode, noted(authcore.NoticeCodeSent)),
		viewPage("code-toomany", authcore.StepCode, func(v *authcore.View) { v.Notice, v.CanResend = authcore.NoticeTooManyCodes, false }),
		viewPage("consent", authcore.StepConsent, nil),
		viewPage("consent-first-none", authcore.StepConsent, func(v *authcore.View) { v.Attributes, v.LastLogin = nil, time.Time{} }),
		{"handover", signed(saml.Success)}, {"temporary-12", signed(saml.BadAuthnContext)}, {"temporary-23", signed(saml.NotActive)},
		{"temporary-refused", func(t testing.TB, room *testRoom, lang string) answer {
			room.logins.refuse = func(r *saml.Refusal) (saml.Signed, error) { return *testSigned(r.Code), nil }
			return room.failure(t.Context(), request{lang: lang, peer: testPeer}, &saml.Refusal{Code: saml.BadAuthnContext,
				Reply: &saml.Reply{SP: mustEntity(t, "https://sp.example.it")}, SPName: map[string]string{"it": "Comune di Prova", "de": "Testgemeinde"}, Err: errors.New("cause")})
		}},
		{"home", at("GET", "/")}, {"notfound", at("GET", "/x")}, {"method-not-allowed", at("POST", "/")},
		{"forged", at("POST", "/flow/"+testFlowText)}, {"browser", at("GET", "/flow/"+testFlowText)},
		failPage("unknown", fault.New(fault.NotFound, "x", nil)), failPage("finished", fault.New(fault.Conflict, "x", nil)),
		failPage("expired", fault.New(fault.Expired, "x", nil)), failPage("bad", fault.New(fault.Invalid, "x", nil)),
		failPage("wait", fault.New(fault.Exhausted, "x", nil)), failPage("busy", fault.New(fault.Busy, "x", nil)),
	}
	for _, c := range []saml.Code{2, 3, 4, 5, 6, 7, 10} {
		list = append(list, failPage(fmt.Sprintf("anomaly-%02d", c), &saml.Refusal{Code: c, Err: errors.New("cause")}))
	}
	for d := authcore.DeliveryUnknown; d <= authcore.DeliveryUncertain; d++ {
		list = append(list, viewPage(fmt.Sprintf("code-delivery-%d", d), authcore.StepCode, func(v *authcore.View) { v.Delivery = d }))
	}
	return append(list, sessionPages()...)
}

// visible is the text that a page shows in its chosen language, line by line.
func visible(body string) string {
	title := between0(body, "<title>", "</title>")
	if _, chosen, ok := strings.Cut(body, `<div class="version chosen"`); ok {
		chosen, _, _ = strings.Cut(chosen, `<div class="version other"`)
		_, body, _ = strings.Cut(chosen, ">")
	} else {
		_, body, _ = strings.Cut(body, "<body>")
	}
	body = regexp.MustCompile(`</(?:p|li|h1|h2|dt|dd|label|legend|button|a)>`).ReplaceAllString(body, "\n")
	body = unhtml(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
	return title + "\n" + strings.TrimSpace(regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(body, "\n")) + "\n"
}

func between0(s, a, b string) string {
	_, rest, _ := strings.Cut(s, a)
	v, _, _ := strings.Cut(rest, b)
	return unhtml(v)
}

// TestGoldenPages keeps each page whole in Italian, and its text in the other
// languages: TestLanguagesHaveOneShape says that the rest is the same.
func TestGoldenPages(t *testing.T) {
	for _, p := range allPages() {
		for _, l := range words.Languages() {
			a := p.show(t, newRoom(t, nil), l.Tag)
			got := fmt.Sprintf("%d %s\n%s", a.status, a.contentType, regexp.MustCompile(`-[0-9a-f]{12}\.`).ReplaceAll(a.body, []byte("-HASH.")))
			file := filepath.Join("testdata", "golden", p.name+".it.html")
			if l.Tag != words.Italian {
				file = filepath.Join("testdata", "golden", p.name+"."+l.Tag+".txt")
				got = visible(string(a.body))
			}
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s in %s (-want +got):\n%s", p.name, l.Tag, diff)
			}
		}
	}
}

// shapeOf is the document's elements with their attributes' names, and the
// values of those that do not hang on the language.
func shapeOf(body string) string {
	body = regexp.MustCompile(`(?s)<div class="version other".*?</footer>\s*</div>`).ReplaceAllString(body, "<other-version>")
	body = regexp.MustCompile(`<p lang="it">`).ReplaceAllString(body, "<p>")
	var shape []string
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(body, -1) {
		if strings.HasPrefix(tag, "<bdi") {
			tag = "<bdi>" // the name may be in another language than the page
		}
		tag = regexp.MustCompile(`(lang|title|aria-label)="[^"]*"`).ReplaceAllString(tag, `$1`)
		tag = strings.ReplaceAll(tag, ` aria-current="true"`, "")
		shape = append(shape, regexp.MustCompile(`#?lang-[a-z]{2}|lang=[a-z]{2}`).ReplaceAllString(tag, "lang-xx"))
	}
	return strings.Join(shape, "\n")
}

func TestLanguagesHaveOneShape(t *testing.T) {
	for _, p := range allPages() {
		if strings.HasPrefix(p.name, "anomaly-") || strings.HasPrefix(p.name, "temporary-") {
			continue // in Italian the prescribed sentence needs no translation below it
		}
		want := shapeOf(string(p.show(t, newRoom(t, nil), words.Italian).body))
		for _, l := range words.Languages() {
			if diff := cmp.Diff(want, shapeOf(string(p.show(t, newRoom(t, nil), l.Tag).body))); diff != "" {
				t.Errorf("%s in %s (-Italian +%s):\n%s", p.name, l.Tag, l.Name, diff)
			}
		}
	}
}

// TestPagesKeepTheRules checks every page for what no page may have or lack.
func TestPagesKeepTheRules(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\son[a-z]+=|\sstyle=|javascript:[^a]|<script>|https?://[^"]*\.(?:css|js|woff2?|png|svg)`)
	foreign := regexp.MustCompile(`(?:href|src|action|formaction|content|poster|data)="((?:[a-z]+:)?//[^"]*)"`)
	names := map[string]string{words.Italian: html.EscapeString(spName), words.English: "Sant&#39;Agata &lt;City&gt;",
		words.German: html.EscapeString(spName), words.Slovene: html.EscapeString(spName)}
	for _, p := range allPages() {
		for _, l := range words.Languages() {
			room := newRoom(t, withLinks)
			a := p.show(t, room, l.Tag)
			body := string(a.body)
			versions := 1
			if strings.Contains(body, `class="version chosen"`) {
				versions = len(words.Languages())
			}
			if !strings.Contains(body, `<html lang="`+l.Tag+`">`) || strings.Count(body, "<h1>") != versions || strings.Count(body, ` id="main"`) != 1 ||
				strings.Count(body, "<main ") != versions || a.language != l.Tag {
				t.Errorf("%s in %s: language, heading or main is wrong", p.name, l.Tag)
			}
			if n := strings.Count(body, `class="lang-nav"`); n != versions || strings.Count(body, `aria-current="true"`) != versions {
				t.Errorf("%s in %s: %d language switches for %d versions", p.name, l.Tag, n, versions)
			}
			if m := inline.FindString(body); m != "" {
				t.Errorf("%s: %q in the page", p.name, m)
			}
			for _, m := range foreign.FindAllStringSubmatch(body, -1) {
				if m[1] != "https://sp.example.it/acs?x=1&amp;y=2" && !strings.HasPrefix(m[1], "https://www.example.it/") {
					t.Errorf("%s in %s leads to %q", p.name, l.Tag, m[1])
				}
			}
			for _, out := range regexp.MustCompile(`<a [^>]*https:[^>]*>`).FindAllString(body, -1) {
				if !strings.Contains(out, `rel="noopener noreferrer"`) || strings.Contains(out, "{lang}") {
					t.Errorf("%s: %q", p.name, out)
				}
			}
			if strings.Contains(body, `name="token"`) && strings.Contains(body, `method="get"`) {
				t.Errorf("%s sends a token in an address", p.name)
			}
			for _, hostile := range []string{"<script>alert", "<Figli>", "<City>", `odd"><b>`, "ZgotmplZ", "%!"} {
				if strings.Contains(body, hostile) {
					t.Errorf("%s: %q in the page", p.name, hostile)
				}
			}
			if strings.Contains(body, `class="steps"`) && !strings.Contains(body, `value="cancel"`) {
				t.Errorf("%s in %s cannot be cancelled", p.name, l.Tag)
			}
			if strings.Contains(body, `class="steps"`) || strings.Contains(body, `id="handover"`) && p.name != "temporary-refused" {
				for _, want := range []string{"SPID ", names[l.Tag]} {
					if !strings.Contains(body, want) {
						t.Errorf("%s in %s: no %q", p.name, l.Tag, want)
					}
				}
				if title := between0(body, "<title>", "</title>"); !strings.Contains(title, unhtml(names[l.Tag])) {
					t.Errorf("%s in %s: the title %q does not name the service", p.name, l.Tag, title)
				}
			}
			ids := map[string]bool{}
			for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(body, -1) {
				if ids[m[1]] {
					t.Errorf("%s: id %q comes twice", p.name, m[1])
				}
				ids[m[1]] = true
			}
			for _, m := range regexp.MustCompile(` (?:for|aria-describedby|form|href)="(#[^"]*|[^"#/:]*)"`).FindAllStringSubmatch(body, -1) {
				for _, ref := range strings.Fields(m[1]) {
					if !ids[strings.TrimPrefix(ref, "#")] {
						t.Errorf("%s in %s refers to %q, which is not there", p.name, l.Tag, ref)
					}
				}
			}
		}
	}
}

// withLinks configures every link there is.
func withLinks(c *Config) {
	c.Name = "Esempio <ID>"
	c.Links = Links{ForgottenUsername: "https://www.example.it/{lang}/nome", ForgottenPassword: "https://www.example.it/{lang}/password",
		Register: "https://www.example.it/registrazione", Help: "https://www.example.it/{lang}/aiuto", Privacy: "https://www.example.it/privacy",
		Accessibility: "https://www.example.it/accessibilita", AboutSPID: "https://www.example.it/spid"}
}

func TestLinks(t *testing.T) {
	room := newRoom(t, withLinks)
	body := string(viewPage("", authcore.StepCredentials, nil).show(t, room, words.German).body)
	for _, want := range []string{`<a href="https://www.example.it/de/password" target="_blank" rel="noopener noreferrer">Passwort vergessen?`,
		`<strong>Esempio &lt;ID&gt;</strong>`, `<nav aria-label="Nützliche Links">`, `href="https://www.example.it/accessibilita"`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	for _, bad := range []string{"http://www.example.it/", "javascript:alert(1)", "/aiuto", "https://", "https://a@www.example.it/", "https://www.example.it/ x", "https://www.example.it/\x00"} {
		if err := (Links{Help: bad}).check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestEverySentenceIsUsed: what no source names is dead, but for families of
// computed keys.
func TestEverySentenceIsUsed(t *testing.T) {
	used := ""
	for _, glob := range []string{"*.go", "templates/*.html"} {
		files, _ := filepath.Glob(glob)
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			used += string(b)
		}
	}
	for c := range saml.Code(40) {
		row, _ := saml.Anomaly(c)
		used += strconv.Quote(row.PageIT) + strconv.Quote(row.AdviceIT)
	}
	family := regexp.MustCompile(`^(step\.\d|message\.\w+\.(title|text)|\w+\.title|(month|attribute|gender|card|date)\..*|date|abroad|code\.lead(\.\w+)?|consent\.used|(used|method|method\.help)\.(sms|token|app|push))$`)
	for _, k := range words.Keys() {
		if !strings.Contains(used, strconv.Quote(k)) && !family.MatchString(k) {
			t.Errorf("%q is used nowhere", k)
		}
	}
}

func TestServiceName(t *testing.T) {
	for _, c := range []struct {
		names          map[string]string
		lang, want, in string
	}{
		{map[string]string{"de": "Amt", "fr": "Mairie"}, "en", "Amt", "de"},
		{map[string]string{"de": "Amt", "fr": "Mairie", "it": "Comune"}, "en", "Comune", "it"},
		{map[string]string{"de-it": "Amt", "it": "Comune"}, "de", "Amt", "de-it"},
		{map[string]string{"": "Comune"}, "sl", "Comune", ""},
		{map[string]string{`"><b>`: "Comune"}, "sl", "Comune", ""},
		{map[string]string{"it": "\u202e \u200b", "en": "City"}, "it", "City", "en"},
		{map[string]string{"it": "\u2066\u2069"}, "it", "https://sp.example.it", ""},
		{nil, "en", "https://sp.example.it", ""},
	} {
		if got, in := (spNames{c.names, "https://sp.example.it"}).name(c.lang); got != c.want || in != c.in {
			t.Errorf("%v in %s: %q in %q", c.names, c.lang, got, in)
		}
	}
}

// TestHostileText shows names and values that try to break out of their place.
func TestHostileText(t *testing.T) {
	long := strings.Repeat("Amministrazione ", 1000)
	for name, evil := range map[string]string{
		"markup": `</bdi></strong><script>alert(1)</script><img src=x onerror=alert(1)>`, "attribute": `" onfocus="alert(1)" x="`, "template": "{{.Token}}",
		"right to left": "\u202eonumoC\u202c", "isolate": "Comune\u2067\u2067\u2067", "arabic": "بلدية", "long": long, "one word": strings.Repeat("x", 5000),
		"marks": "C" + strings.Repeat("\u0301", 500), "lines": "a\r\n\tb\u2028c\x00d\x1b[31m", "entity": "&lt;b&gt;&#x202e;", "not UTF-8": "\xff\xfe<b>",
	} {
		for _, step := range []authcore.Step{authcore.StepCredentials, authcore.StepConsent} {
			room := newRoom(t, nil)
			a := viewPage("", step, func(v *authcore.View) {
				v.SPName = map[string]string{"it": evil}
				v.Attributes = []saml.Attribute{{Name: "name", Value: evil}, {Name: evil, Value: "x"}, {Name: "idCard", Value: evil}}
			}).show(t, room, words.Italian)
			body := string(a.body)
			if a.status != 200 || !utf8.ValidString(body) {
				t.Fatalf("%s: %d", name, a.status)
			}
			clean := string(viewPage("", step, func(v *authcore.View) {
				v.SPName = map[string]string{"it": "Comune"}
				v.Attributes = []saml.Attribute{{Name: "name", Value: "x"}, {Name: "x", Value: "x"}, {Name: "idCard", Value: "x"}}
			}).show(t, room, words.Italian).body)
			if diff := cmp.Diff(shapeOf(clean), shapeOf(body)); diff != "" {
				t.Errorf("%s changes the page's shape: %s", name, diff)
			}
			for _, bad := range "\u202e\u202c\u2067\x00\x1b\u2028" {
				if strings.ContainsRune(body, bad) {
					t.Errorf("%s: %U in the page", name, bad)
				}
			}
			if shown := between0(body, "<strong><bdi", "</bdi>"); step == authcore.StepCredentials && utf8.RuneCountInString(shown) > 130 {
				t.Errorf("%s: a name of %d characters", name, utf8.RuneCountInString(shown))
			}
			if strings.Contains(body, "\u0301\u0301\u0301") && step == authcore.StepCredentials {
				t.Errorf("%s: a heap of marks", name)
			}
		}
	}
	room := newRoom(t, nil)
	a := viewPage("", authcore.StepCredentials, func(v *authcore.View) { v.SPName = map[string]string{"it": "بلدية"} }).show(t, room, words.Italian)
	if title := between0(string(a.body), "<title>", "</title>"); title != "Entra con SPID (passo 1 di 4) – \u2068بلدية\u2069 – Custode" {
		t.Errorf("title %q", title)
	}
}

// TestMessagesLeadBack: a page that interrupts a flow leads back to it, where it
// can go on or be cancelled; one that ended it, or another browser's, does not.
func TestMessagesLeadBack(t *testing.T) {
	room := newRoom(t, nil)
	_, cookie := testSecret(t, mustFlow(t, testFlowText))
	link := `<a href="/flow/` + testFlowText + `">`
	for kind, want := range map[fault.Kind]bool{fault.Busy: true, fault.Exhausted: true, fault.Invalid: true, fault.Conflict: false, fault.Expired: false, fault.NotFound: false, fault.Denied: false} {
		for _, cookies := range []string{cookie, ""} {
			a := room.failure(t.Context(), request{path: "/flow/" + testFlowText, cookies: cookies, lang: words.Italian}, fault.New(kind, "x", nil))
			if got := strings.Contains(string(a.body), link); got != (want && cookies != "") {
				t.Errorf("%v with cookie %t: link %t", kind, cookies != "", got)
			}
		}
	}
}
