package web

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/authcore/saml"
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
			return room.handOver(t.Context(), request{lang: lang}, testSigned(code), displayName(names, lang, ""), saml.L2)
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
		viewPage("method-none", authcore.StepMethod, func(v *authcore.View) { v.Methods = nil }),
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
				Reply: &saml.Reply{SP: mustEntity(t, "https://sp.example.it")}, Err: errors.New("cause")})
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
	return list
}

func TestGoldenPages(t *testing.T) {
	for _, p := range allPages() {
		for _, lang := range []string{italian, english} {
			a := p.show(t, newRoom(t, nil), lang)
			got := fmt.Sprintf("%d %s\n%s", a.status, a.contentType, regexp.MustCompile(`-[0-9a-f]{12}\.`).ReplaceAll(a.body, []byte("-HASH.")))
			file := filepath.Join("testdata", "golden", p.name+"."+lang+".html")
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
				t.Errorf("%s in %s (-want +got):\n%s", p.name, lang, diff)
			}
		}
	}
}

// TestPagesKeepTheRules checks every page for what no page may have or lack.
func TestPagesKeepTheRules(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\son[a-z]+=|\sstyle=|javascript:[^a]|<script>|https?://[^"]*\.(?:css|js|woff2?|png|svg)`)
	for _, p := range allPages() {
		for _, lang := range []string{italian, english} {
			a := p.show(t, newRoom(t, nil), lang)
			body := string(a.body)
			if !strings.Contains(body, `<html lang="`+lang+`">`) || strings.Count(body, "<h1>") != 1 || !strings.Contains(body, `id="main"`) {
				t.Errorf("%s in %s: language, heading or main is wrong", p.name, lang)
			}
			if m := inline.FindString(body); m != "" {
				t.Errorf("%s: %q in the page", p.name, m)
			}
			for _, hostile := range []string{"<script>alert", "<Figli>", "<City>", `odd"><b>`, "ZgotmplZ", "%!"} {
				if strings.Contains(body, hostile) {
					t.Errorf("%s: %q in the page", p.name, hostile)
				}
			}
			if strings.Contains(body, `class="steps"`) && !strings.Contains(body, `value="cancel"`) {
				t.Errorf("%s in %s cannot be cancelled", p.name, lang)
			}
			if strings.Contains(body, `class="steps"`) || strings.Contains(body, `id="handover"`) && p.name != "temporary-refused" {
				for _, want := range []string{"SPID ", map[string]string{italian: html.EscapeString(spName), english: "Sant&#39;Agata &lt;City&gt;"}[lang]} {
					if !strings.Contains(body, want) {
						t.Errorf("%s in %s: no %q", p.name, lang, want)
					}
				}
			}
		}
	}
}

func TestCataloguesHaveTheSameKeys(t *testing.T) {
	verbs := regexp.MustCompile(`%[a-z]`)
	used := map[string]bool{}
	for k, v := range textsIT {
		en, ok := textsEN[k]
		if !ok || en == "" || v == "" {
			t.Errorf("%q is missing in a language", k)
		}
		if !reflect.DeepEqual(verbs.FindAllString(v, -1), verbs.FindAllString(en, -1)) {
			t.Errorf("%q has other verbs in English", k)
		}
	}
	for k := range textsEN {
		if _, ok := textsIT[k]; !ok {
			t.Errorf("%q is missing in Italian", k)
		}
	}
	// A text that no source names is dead, but for families of computed keys.
	family := regexp.MustCompile(`^(step\.\d|month\.\d+|attribute\.|message\.\w+\.(title|text)$|\w+\.title$)`)
	for _, glob := range []string{"*.go", "templates/*.html"} {
		files, _ := filepath.Glob(glob)
		for _, f := range files {
			if strings.HasPrefix(f, "catalogue") || strings.HasSuffix(f, "_test.go") {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for k := range textsIT {
				used[k] = used[k] || strings.Contains(string(b), `"`+k+`"`)
			}
		}
	}
	for k := range textsIT {
		if !used[k] && !family.MatchString(k) {
			t.Errorf("%q is used nowhere", k)
		}
	}
}

func TestDisplayName(t *testing.T) {
	names := map[string]string{"de": "Amt", "fr": "Mairie"}
	if got := displayName(names, english, "x"); got != "Amt" {
		t.Errorf("%q", got)
	}
	names["it"] = "Comune"
	if got := displayName(names, english, "x"); got != "Comune" {
		t.Errorf("%q", got)
	}
	if got := displayName(nil, english, "https://sp.example.it"); got != "https://sp.example.it" {
		t.Errorf("%q", got)
	}
}
