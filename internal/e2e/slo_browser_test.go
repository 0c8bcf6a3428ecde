package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"custode/simulators/lab"
	"custode/simulators/spsim"
	"custode/simulators/spsim/site"
)

// addSite registers a further demo site that is told of logouts by one binding.
// It has an address of its own: cookies know no ports.
func addSite(t *testing.T, l *lab.Lab, host, name, binding string) string {
	t.Helper()
	ln, err := net.Listen("tcp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("http://%s", ln.Addr())
	sp, err := spsim.New(spsim.Config{BaseURL: base, IdPMetadataURL: l.IdP + "/metadata", LogoutBindings: []string{binding}, OrganizationDisplayName: "Ente " + name})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: site.New(sp), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	if err := l.RegisterSP(name, sp.Metadata()); err != nil {
		t.Fatal(err)
	}
	return base
}

// TestBrowserLogout: in Chromium the chain through the SPs runs by itself, from
// the session page and from a service, and each page of it can be read.
func TestBrowserLogout(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	others := []string{addSite(t, l, "127.0.0.2", "redirect", "redirect"), addSite(t, l, "127.0.0.3", "post", "post")}
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, size := range widths {
		t.Run(size.name, func(t *testing.T) {
			p := enrol(t, l)
			b := newTab(t, size.name, size.width, size.height)
			everywhere := func() {
				b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
				b.click(`a[href*="livello=1"][href*="metodo=redirect"]`, "#username")
				b.typeIn("#username", p.Username)
				b.typeIn("#password", p.Password)
				b.click(`button[value="password"]`, `button[value="consent"]`)
				b.do(chromedp.Click(chromedp.CSS(`button[value="consent"]`)))
				b.reach("/esito")
				for i, other := range others {
					b.do(chromedp.Navigate(other), chromedp.WaitVisible(chromedp.CSS("main")))
					b.click(`a[href*="livello=1"][href*="metodo=post"]`, `button[value="consent"]`) // and no password
					if i == 0 {
						b.look("16-consent-in-session")
					}
					b.do(chromedp.Click(chromedp.CSS(`button[value="consent"]`)))
					b.reach("/esito")
				}
			}
			loggedOut := func() {
				t.Helper()
				for _, sp := range append(others, l.SPURL) {
					b.do(chromedp.Navigate(sp+"/esito"), chromedp.WaitVisible(chromedp.CSS("main")))
					if strings.Contains(b.text(), "Accesso riuscito") {
						t.Errorf("%s is still logged in", sp)
					}
				}
			}
			everywhere()
			b.do(chromedp.Navigate(l.IdP+"/session"), chromedp.WaitVisible(chromedp.CSS("main")))
			b.expect("document.documentElement.lang", "it", "Ada Lovati", "Ente redirect", "Ente post")
			b.look("17-session")
			b.do(chromedp.Click(chromedp.CSS(`button[value="logout"]`)))
			for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.text(), "Sei uscito"); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the chain does not end: %.400s", b.text())
				}
			}
			b.expect("document.querySelectorAll('.services li').length.toString()", "3", "sessione chiusa")
			if strings.Contains(b.text(), "non confermata") {
				t.Errorf("somebody did not confirm: %s", b.text())
			}
			b.look("18-logout-done")
			loggedOut()

			everywhere()
			b.do(chromedp.Navigate(l.SPURL+"/esito"), chromedp.WaitVisible(chromedp.CSS("#esci-ovunque")))
			b.do(chromedp.Click(chromedp.CSS("#esci-ovunque")))
			for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.text(), "Sei uscito da questo servizio e da tutti"); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the chain does not come back: %.400s", b.text())
				}
			}
			b.expect("document.body.dataset.esito", "uscita")
			loggedOut()
		})
	}
}
