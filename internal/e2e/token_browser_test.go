package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestBrowserDevices logs in with an app in Chromium, at phone width: the choice of method, the page
// for a device's code, a used code, another method, a pushed code, each seen by axe-core.
func TestBrowserDevices(t *testing.T) {
	l := shared(t)
	p, serial, code := invited(t, l)
	a := &app{t: t, l: l}
	first, _ := a.confirmed(serial, code)
	b := newTab(t, widths[0].name, widths[0].width, widths[0].height)
	b.do(chromedp.Navigate(l.SPURL), chromedp.WaitVisible(chromedp.CSS("main")))
	b.click(`a[href*="livello=2"][href*="metodo=post"]`, "#username")
	b.typeIn("#username", p.Username)
	b.typeIn("#password", p.Password)
	b.click(`button[value="password"]`, `button[value="method"]`)
	b.look("09-methods")
	b.click(`label[for="method-2"]`, `button[value="method"]`) // the code that the app shows
	b.click(`button[value="method"]`, "#code")
	b.look("10-device-code")
	b.typeIn("#code", first)
	b.click(`button[value="code"]`, `[role="alert"]`)
	if !strings.Contains(b.text(), "già stato usato") {
		t.Errorf("a used code: %.400s", b.text())
	}
	b.look("11-used-code")
	b.click(`button[value="other"]`, `button[value="method"]`)
	b.click(`label[for="method-1"]`, `button[value="method"]`)
	b.click(`button[value="method"]`, "#code")
	message, err := l.Pushes.Wait(b.ctx, serial, 1)
	if err != nil {
		t.Fatal(err)
	}
	push, err := a.Open(message, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.text(), push.Number) {
		t.Errorf("the page does not show %s: %.400s", push.Number, b.text())
	}
	b.look("12-pushed-code")
	b.typeIn("#code", push.Code)
	b.click(`button[value="code"]`, `button[value="consent"]`)
	b.look("13-consent-push")
	b.do(chromedp.Click(chromedp.CSS(`button[value="consent"]`)))
	b.reach("/esito")
}
