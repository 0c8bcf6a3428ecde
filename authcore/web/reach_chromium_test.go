package web

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/valyala/fasthttp"

	"custode/authcore/web/words"
)

var screenshots = flag.String("screenshots", "", "directory for screenshots of the pages")

// pageServer serves /page/<name>/<lang> as the Server would.
func pageServer(t *testing.T) *httptest.Server {
	room := newRoom(t, withLinks)
	pages := map[string]shownPage{}
	for _, p := range allPages() {
		pages[p.name] = p
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a answer
		if f := strings.Split(r.URL.Path, "/"); f[1] == "page" {
			a = pages[f[2]].show(t, room, f[3])
			// Held back, or the hand-over would be gone before it is audited.
			a.csp = strings.ReplaceAll(a.csp, "script-src 'nonce-", "script-src 'nonce-not-")
		} else {
			_, a = room.route(r.Context(), request{method: "GET", path: r.URL.Path})
		}
		var h fasthttp.ResponseHeader
		room.setHeaders(&h, a)
		for k, v := range h.All() {
			if len(v) > 0 && string(k) != "Content-Length" {
				w.Header().Set(string(k), string(v))
			}
		}
		w.Header().Set("Content-Type", a.contentType)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	}))
}

// audit has axe-core look at the page that is open.
func audit(t *testing.T, ctx context.Context, axe string) string {
	t.Helper()
	eval[bool](t, ctx, axe+";true")
	return eval[string](t, ctx, `axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
		.then(r => [...r.violations.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.html).join(" | ")),
			...(r.passes.length < 10 ? ["only " + r.passes.length + " rules ran"] : [])].join("\n"))`, chromedp.EvalAwaitPromise)
}

// media emulates media features: pairs of name and value.
func media(t *testing.T, ctx context.Context, pairs ...string) {
	t.Helper()
	var features []*emulation.MediaFeature
	for i := 0; i+1 < len(pairs); i += 2 {
		features = append(features, &emulation.MediaFeature{Name: pairs[i], Value: pairs[i+1]})
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatal(err)
	}
}

func loadAxe(t *testing.T) string {
	t.Helper()
	axe, err := os.ReadFile("../../internal/e2e/npm/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("no axe-core: run make deps: %v", err)
	}
	return string(axe)
}

// measure tells what runs over the edge, is too low to hit, or is cut off.
func measure(t *testing.T, ctx context.Context) string {
	t.Helper()
	return eval[string](t, ctx, `[
		...(document.documentElement.scrollWidth > innerWidth ? [(document.documentElement.scrollWidth - innerWidth) + " pixels too wide"] : []),
		...[...document.querySelectorAll("button, .langs a, input:not([type=hidden]):not([type=radio])")]
			.filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => "lower than 44 pixels: " + e.outerHTML)].join("; ")`)
}

// TestPagesInChromium opens every page in every language with the headers it is
// served with, and measures it on a narrow phone (320 pixels: also a desk at
// 400 %); in Italian on a desk too, in German, whose words are the longest, with
// letters of twice the size. axe-core audits each shape of page once per
// language: pages of one shape have the same elements, classes and attributes and
// differ in words only. In Italian it audits the wide and the dark pages too.
func TestPagesInChromium(t *testing.T) {
	ctx := chromium(t, 4*time.Minute)
	axe := loadAxe(t)
	srv := pageServer(t)
	defer srv.Close()
	audited := map[string]bool{}
	media(t, ctx, "prefers-reduced-motion", "reduce")
	check := func(p shownPage, lang, how string, audits bool) {
		t.Helper()
		name := fmt.Sprintf("%s.%s.%s", p.name, lang, how)
		if found := measure(t, ctx); found != "" {
			t.Errorf("%s: %s", name, found)
		}
		if audits {
			shape := lang + how + eval[string](t, ctx, `[...document.querySelectorAll("*")].map(e => [e.tagName, e.className, ...e.getAttributeNames()]).join("\n")`)
			if !audited[shape] {
				audited[shape] = true
				if found := audit(t, ctx, axe); found != "" {
					t.Errorf("%s: %s", name, found)
				}
			}
		}
		if *screenshots != "" {
			png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range allPages() {
		for _, l := range words.Languages() {
			act(t, ctx, chromedp.EmulateViewport(320, 640), chromedp.Navigate(srv.URL+"/page/"+p.name+"/"+l.Tag))
			check(p, l.Tag, "320", true)
			switch l.Tag {
			case words.Italian:
				media(t, ctx, "prefers-color-scheme", "dark", "prefers-reduced-motion", "reduce")
				check(p, l.Tag, "dark", true)
				media(t, ctx, "prefers-reduced-motion", "reduce") // or axe-core sees colours on their way back
				act(t, ctx, chromedp.EmulateViewport(1280, 740))
				check(p, l.Tag, "1280", true)
			case words.German: // of the longest words
				act(t, ctx, chromedp.EmulateViewport(640, 740))
				eval[bool](t, ctx, `document.documentElement.style.fontSize = "200%"; true`)
				check(p, l.Tag, "200%", false)
			}
		}
	}
	t.Logf("%d audits", len(audited))
}

// TestVersionsInChromium switches the language of a page that cannot be fetched
// again (its policy lets no script run): text, focus and the form stay whole.
func TestVersionsInChromium(t *testing.T) {
	ctx := chromium(t, time.Minute)
	axe := loadAxe(t)
	srv := pageServer(t)
	defer srv.Close()
	const shown = `[...document.querySelectorAll("h1, main p[lang=it], button, footer")].filter(e => e.checkVisibility()).map(e => e.innerText.split("\n")[0]).join("|")`
	act(t, ctx, chromedp.EmulateViewport(320, 640), chromedp.Navigate(srv.URL+"/page/temporary-23/it"))
	for _, step := range []struct{ click, lang, want string }{
		{"", "", "Accesso non riuscito|Continua|Non comunicare"},
		{"DEU", "de", "Anmeldung nicht erfolgreich|Credenziali sospese o revocate|Weiter|Geben Sie"},
		{"SLV", "sl", "Prijava ni uspela|Credenziali sospese o revocate|Nadaljuj|Gesla"},
		{"ITA", "it", "Accesso non riuscito|Continua|Non comunicare"},
		{"ENG", "en", "Login failed|Credenziali sospese o revocate|Continue|Never give"},
	} {
		if step.click != "" {
			find := `[...document.querySelectorAll(".langs a")].find(a => a.checkVisibility() && a.innerText.startsWith("` + step.click + `"))`
			eval[bool](t, ctx, find+`.focus(); true`)
			act(t, ctx, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#lang-"+step.lang+":target h1"))
		}
		if got := eval[string](t, ctx, shown); !strings.HasPrefix(got, step.want) {
			t.Errorf("after %q the page shows %q, want %q", step.click, got, step.want)
		}
		if found := measure(t, ctx) + audit(t, ctx, axe); found != "" {
			t.Errorf("after %q: %s", step.click, found)
		}
	}
	// The skip link of a version stays in it.
	eval[bool](t, ctx, `[...document.querySelectorAll(".skip")].find(a => a.checkVisibility()).focus(); true`)
	act(t, ctx, chromedp.KeyEvent(kb.Enter))
	if got := eval[string](t, ctx, `location.hash + " " + document.activeElement.id + " " + `+shown); !strings.HasPrefix(got, "#main-en main-en Login failed|") {
		t.Errorf("after the skip link: %q", got)
	}
	if got := eval[string](t, ctx, `(b => b.form.id + " " + b.form.elements.length + " " + b.form.action)([...document.querySelectorAll("button")].find(b => b.checkVisibility()))`); !strings.HasPrefix(got, "handover ") || !strings.HasSuffix(got, "https://sp.example.it/acs?x=1&y=2") {
		t.Errorf("the button sends %q", got)
	}
}

// tabTo presses Tab until the focus is on the selected element, and returns the
// stops on the way. Each stop must be seen: drawn, on the screen, with an
// outline.
func tabTo(t *testing.T, ctx context.Context, selector string) []string {
	t.Helper()
	var stops []string
	for range 40 {
		act(t, ctx, chromedp.KeyEvent(kb.Tab))
		stop := eval[[]string](t, ctx, `(e => {
			if (!e || e === document.body) return ["", "", "nowhere"];
			const r = e.getBoundingClientRect(), s = getComputedStyle(e);
			const seen = r.width > 0 && r.height > 0 && r.right > 0 && r.left < innerWidth && r.bottom > 0 && r.top < innerHeight;
			return [e.matches(`+fmt.Sprintf("%q", selector)+`) ? "there" : "", (e.innerText || e.name || e.id).replaceAll("\n", " "),
				!seen ? "not on the screen" : s.outlineStyle === "none" || parseFloat(s.outlineWidth) < 2 ? "no outline" : ""];
		})(document.activeElement)`)
		if stop[2] != "" {
			t.Fatalf("after %q: the focus is %s on %q", stops, stop[2], stop[1])
		}
		stops = append(stops, stop[1])
		if stop[0] != "" {
			return stops
		}
	}
	t.Fatalf("Tab does not reach %s: %q", selector, stops)
	return nil
}

// TestKeyboardInChromium logs in with nothing but keys, and without scripts,
// changing the language on the way.
func TestKeyboardInChromium(t *testing.T) {
	ctx, _, login, _, sp, acs := loginRoom(t, false, false)
	press := func(keys string) { follow(t, ctx, chromedp.KeyEvent(keys)) }
	write := func(keys string) { act(t, ctx, chromedp.KeyEvent(keys)) }
	title := func(want string) {
		t.Helper()
		if got := eval[string](t, ctx, `document.title`); got != want {
			t.Errorf("title %q, want %q", got, want)
		}
	}
	act(t, ctx, chromedp.EmulateViewport(640, 480), chromedp.Navigate(sp))
	follow(t, ctx, chromedp.Click("#go"))
	stops := tabTo(t, ctx, "button[value=cancel]")
	if want := []string{"Vai al contenuto principale", "ITA – Italiano", "ENG – English", "DEU – Deutsch", "SLV – Slovenščina", "username", "password", "Entra con SPID", "Annulla"}; !slices.Equal(stops, want) {
		t.Errorf("the order of the focus is %q", stops)
	}
	act(t, ctx, chromedp.Reload())
	tabTo(t, ctx, ".langs a[lang=de]")
	press(kb.Enter)
	title("Mit SPID anmelden (Schritt 1 von 4) – " + spName + " – Custode")
	tabTo(t, ctx, ".skip")
	write(kb.Enter)
	if stops := tabTo(t, ctx, "#username"); len(stops) != 1 {
		t.Errorf("from the skip link to the first field: %q", stops)
	}
	write("mario")
	tabTo(t, ctx, "#password")
	write("wrong")
	press(kb.Enter)
	title("Achtung: Mit SPID anmelden (Schritt 1 von 4) – " + spName + " – Custode")
	tabTo(t, ctx, ".notice a")
	write(kb.Enter) // leads to the field
	if got := eval[string](t, ctx, `document.activeElement.id + "/" + document.activeElement.getAttribute("aria-describedby")`); got != "username/notice" {
		t.Errorf("the error leads to %q", got)
	}
	write("mario")
	tabTo(t, ctx, "#password")
	write("right èà+")
	press(kb.Enter)
	tabTo(t, ctx, "button[value=method]")
	press(" ")
	tabTo(t, ctx, "#code")
	write("123456")
	press(kb.Enter)
	tabTo(t, ctx, "button[value=consent]")
	press(" ")
	tabTo(t, ctx, "button[form=handover]")
	press(kb.Enter)
	act(t, ctx, chromedp.WaitVisible("#in"))
	if got := <-acs; len(got.form["SAMLResponse"]) != 1 || len(login.answers) != 5 {
		t.Errorf("arrived %v after %q", got.form, login.answers)
	}
}
