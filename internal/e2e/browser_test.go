package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"custode/simulators/lab"
)

// -screens rewrites docs/screens with what the browser shows.
var screens = flag.Bool("screens", false, "write the screenshots to docs/screens")

// widths are a phone and a desktop.
var widths = []struct {
	name          string
	width, height int64
}{{"phone", 360, 740}, {"desktop", 1280, 800}}

// tab is a Chromium tab that looks at every page it comes to.
type tab struct {
	t     *testing.T
	ctx   context.Context
	open  context.Context // without the test's deadline: what the page says is wanted after it, too
	width string
	axe   string // the axe-core script
	shots int
}

// chromium is a browser with an empty profile. One for each tab: a profile that
// two tests share carries the first one's session into the second as soon as the
// browser has written its cookies, which it does every 30 s.
func chromium(t *testing.T) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("accept-lang", "it"), chromedp.DisableGPU)
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	if _, err := os.Stat("/usr/bin/chromium"); err != nil {
		t.Fatalf("install the Debian package chromium (make deps): %v", err)
	}
	opts = append(opts, chromedp.ExecPath("/usr/bin/chromium"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	return ctx
}

func newTab(t *testing.T, width string, w, h int64) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium(t))
	t.Cleanup(cancel)
	open := ctx
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	axe, err := os.ReadFile(filepath.Join("npm", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("axe-core is missing: run make deps (%v)", err)
	}
	b := &tab{t: t, ctx: ctx, open: open, width: width, axe: string(axe)}
	b.do(chromedp.EmulateViewport(w, h))
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v; the page says: %.400s", b.width, err, b.text())
	}
}

func (b *tab) text() string {
	ctx, cancel := context.WithTimeout(b.open, 10*time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
	if err != nil {
		return err.Error()
	}
	return s
}

// click clicks and waits until a page with the wanted element is there.
func (b *tab) click(sel, wanted string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(sel)), chromedp.WaitVisible(chromedp.CSS(wanted)))
}

func (b *tab) typeIn(sel, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS(sel), text))
}

// reach waits until pages that send themselves on have led to the path.
func (b *tab) reach(path string) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// While a page is being left, the question itself may fail.
		if at, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.readyState === "complete" ? location.pathname : ""`)); err == nil && at == path {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not at %s; the page says: %.400s", b.width, path, b.text())
		}
	}
}

// look checks the page with axe-core, and that nothing runs over the edge, and
// takes a screenshot.
func (b *tab) look(name string) {
	b.t.Helper()
	type finding struct {
		ID     string `json:"id"`
		Impact string `json:"impact"`
		Nodes  []any  `json:"nodes"`
	}
	b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[any](b.axe+";0"))
		return err
	}))
	raw, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run().then(r => JSON.stringify(r.violations))`,
		func(p *runtime.EvaluateParams) { chromedp.EvalAwaitPromise(p) }))
	if err != nil {
		b.t.Fatalf("axe-core on %s: %v", name, err)
	}
	var found []finding
	if err := json.Unmarshal([]byte(raw), &found); err != nil {
		b.t.Fatal(err)
	}
	for _, f := range found {
		if f.Impact == "serious" || f.Impact == "critical" {
			b.t.Errorf("%s at %s width: axe-core: %s (%s): %v", name, b.width, f.ID, f.Impact, f.Nodes)
		}
	}
	over, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
	if err != nil || over {
		b.t.Errorf("%s at %s width runs over the edge (%v)", name, b.width, err)
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil || len(png) < 1000 {
		b.t.Fatalf("screenshot of %s: %d octets, %v", name, len(png), err)
	}
	b.shots++
	if *screens {
		dir := filepath.Join("..", "..", "docs", "screens")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%s.png", name, b.width)), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestBrowser drives the whole login in Chromium: both bindings at both levels,
// with scripts, looking at each page at phone and desktop width.
func TestBrowser(t *testing.T) {
	l := shared(t)
	for _, size := range widths {
		for _, by := range bindings {
			for level := 1; level <= 2; level++ {
				t.Run(fmt.Sprintf("%s/%s/L%d", size.name, by, level), func(t *testing.T) {
					b := newTab(t, size.name, size.width, size.height)
					b.login(l, by, level)
				})
			}
		}
	}
}

func (b *tab) login(l *lab.Lab, by binding, level int) {
	b.t.Helper()
	p := enrol(b.t, l)
	b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
	first := by == post && level == 2 // the pages are the same on the other ways
	look := func(name string) {
		b.t.Helper()
		if first || level == 1 && by == post {
			b.look(name)
		}
	}
	if first {
		b.look("01-service-provider")
	}
	b.click(fmt.Sprintf(`a[href*="livello=%d"][href*="metodo=%s"]`, level, by), "#username")
	if first {
		b.look("02-credentials")
	}
	b.typeIn("#username", p.Username)
	b.typeIn("#password", p.Password)
	if level == 2 {
		b.click(`button[value="password"]`, `button[value="method"]`)
		b.look("03-method")
		seen := len(l.Bank.Inbox(p.Phone))
		b.click(`button[value="method"]`, "#code")
		ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
		defer cancel()
		inbox, err := l.Bank.Wait(ctx, p.Phone, seen+1)
		if err != nil {
			b.t.Fatal(err)
		}
		code := codeIn(b.t, inbox[seen])
		if first {
			b.look("04-code")
			page, err := chromedp.Run(b.ctx, chromedp.Location())
			if err != nil {
				b.t.Fatal(err)
			}
			b.do(chromedp.Navigate(l.PhonesURL), chromedp.WaitVisible(chromedp.CSS("body")))
			if !strings.Contains(b.text(), code) {
				b.t.Errorf("the phones' page does not show the code: %.300s", b.text())
			}
			b.look("05-phone")
			b.do(chromedp.Navigate(page), chromedp.WaitVisible(chromedp.CSS("#code")))
			b.typeIn("#code", wrong(code))
			b.click(`button[value="code"]`, `[role="alert"]`)
			b.look("06-wrong-code")
		}
		b.typeIn("#code", code)
		b.click(`button[value="code"]`, `button[value="consent"]`)
	} else {
		b.click(`button[value="password"]`, `button[value="consent"]`)
	}
	look(fmt.Sprintf("07-consent-l%d", level))
	// The hand-over page sends itself: what comes next is the SP's result.
	b.do(chromedp.Click(chromedp.CSS(`button[value="consent"]`)))
	b.reach("/esito")
	text := b.text()
	for _, want := range []string{"Ada", "Lovati", strings.TrimPrefix(p.Attributes["fiscalNumber"], "TINIT-")} {
		if !strings.Contains(text, want) {
			b.t.Errorf("the service provider does not show %q: %.600s", want, text)
		}
	}
	look(fmt.Sprintf("08-result-l%d", level))
}

// TestBrowserLanguages begins in German, as the browser asks for it, and goes on
// in Slovene: a choice on one page holds for those after it.
func TestBrowserLanguages(t *testing.T) {
	l := shared(t)
	b := newTab(t, "phone", widths[0].width, widths[0].height)
	b.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "test", AcceptLanguage: "de-IT,de"})
		return err
	}))
	p := enrol(t, l)
	b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
	b.click(`a[href*="livello=1"][href*="metodo=post"]`, "#username")
	b.expect("document.documentElement.lang", "de", "Mit SPID anmelden", "Benutzername", "Abbrechen")
	b.look("16-credentials-de")
	b.click(".langs a[lang=sl]", "#username")
	b.expect("document.documentElement.lang", "sl", "Prijava s SPID", "Uporabniško ime", "Prekliči")
	b.typeIn("#username", p.Username)
	b.typeIn("#password", "wrong")
	b.click(`button[value="password"]`, `[role="alert"]`)
	b.expect("document.documentElement.lang", "sl", "Uporabniško ime ali geslo ni pravilno. Na voljo imate še 2 poskusa.")
	b.typeIn("#username", p.Username)
	b.typeIn("#password", p.Password)
	b.click(`button[value="password"]`, `button[value="consent"]`)
	b.expect("document.documentElement.lang", "sl", "Ali dovolite pošiljanje podatkov?", "To je vaša prva prijava.")
	b.click(".langs a[lang=de]", `button[value="consent"]`)
	b.look("17-consent-de")
	b.do(chromedp.Click(chromedp.CSS(`button[value="consent"]`)))
	b.reach("/esito")
	b.do(chromedp.Navigate(l.IdP+"/sso/redirect"), chromedp.WaitVisible(chromedp.CSS("main")))
	b.expect("document.documentElement.lang", "de", table(t)[4]["page_text_it"], "Das Format der Anfrage ist nicht korrekt")
	b.look("18-anomaly-de")
}

// TestBrowserServiceProviderErrors looks at the service provider's pages that
// a login which goes well never shows.
func TestBrowserServiceProviderErrors(t *testing.T) {
	l := shared(t)
	for _, size := range widths {
		t.Run(size.name, func(t *testing.T) {
			b := newTab(t, size.name, size.width, size.height)
			const outcome = "document.body.dataset.esito"
			b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
			b.click(`a[href*="livello=2"][href*="metodo=post"]`, "#username")
			b.do(chromedp.Click(chromedp.CSS(`button[value="cancel"]`)))
			b.reach("/esito")
			b.expect(outcome, "anomalia", "Anomalia SPID n. 25", "Hai annullato")
			b.look("09-cancelled")

			const forged = "AnAnswerThatNoIdentityProviderEverSigned" // wider than a phone
			// A page of the same origin, so that the browser sends its cookie
			// along with an answer that no identity provider gave.
			b.do(chromedp.Navigate(l.SPURL + "/esito.json"))
			if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[any](`{
				const f = document.createElement("form"), i = document.createElement("input");
				f.method = "post"; f.action = "/acs"; i.name = "SAMLResponse"; i.value = btoa("<`+forged+` xmlns='urn:x'/>");
				f.append(i); document.body.append(f); f.submit(); 0
			}`)); err != nil {
				t.Fatal(err)
			}
			b.reach("/esito")
			b.expect(outcome, "rifiuto", "Risposta rifiutata", forged)
			b.look("10-refused")

			for _, page := range []struct{ name, path, want string }{
				{"11-bad-choice", "/login?livello=9&metodo=post", "Scelta non riconosciuta"},
				{"13-not-found", "/altro", "Pagina non trovata"},
			} {
				b.do(chromedp.Navigate(l.SPURL+page.path), chromedp.WaitVisible(chromedp.CSS("main")))
				b.expect(outcome, "", page.want)
				b.look(page.name)
			}
		})
	}
}

// expect wants the expression to have the value and the page to say the words.
func (b *tab) expect(expression, value string, words ...string) {
	b.t.Helper()
	if got, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](expression)); err != nil || got != value {
		b.t.Errorf("%s: %s is %q (%v), want %q", b.width, expression, got, err, value)
	}
	text := b.text()
	for _, want := range words {
		if !strings.Contains(text, want) {
			b.t.Errorf("%s: the page does not say %q: %.600s", b.width, want, text)
		}
	}
}

// TestBrowserAnomalies looks at the page for a person whose request cannot be
// answered and at the page shown before an anomaly goes to the service provider.
func TestBrowserAnomalies(t *testing.T) {
	l := shared(t)
	for _, size := range widths {
		t.Run(size.name, func(t *testing.T) {
			b := newTab(t, size.name, size.width, size.height)
			b.do(chromedp.Navigate(l.IdP+"/sso/redirect"), chromedp.WaitVisible(chromedp.CSS("main")))
			b.expect("document.documentElement.lang", "it", table(t)[4]["page_text_it"], table(t)[4]["advice_it"])
			b.look("14-anomaly")
			p := enrol(t, l)
			if _, err := l.Run(t.Context(), "identity", "suspend", p.Username, "--reason", "test"); err != nil {
				t.Fatal(err)
			}
			b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
			b.click(`a[href*="livello=1"][href*="metodo=redirect"]`, "#username")
			b.typeIn("#username", p.Username)
			b.typeIn("#password", p.Password)
			b.click(`button[value="password"]`, `[role="alert"]`)
			b.expect("document.documentElement.lang", "it", table(t)[23]["page_text_it"])
			b.look("15-suspended")
		})
	}
}
