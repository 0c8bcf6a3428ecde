package web

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"custode/authcore"
)

func TestSecretsDifferByPurposeFlowAndBrowser(t *testing.T) {
	a, _ := newSecret(&counter{n: 1})
	b, _ := newSecret(&counter{n: 2})
	f1, f2 := mustFlow(t, testFlowText), mustFlow(t, "f_"+strings.Repeat("a", 32))
	seen := map[string]string{}
	for name, v := range map[string]string{
		"a1": a.formToken(f1), "a2": a.formToken(f2), "b1": b.formToken(f1), "notice": a.derive("notice", f1, ""), "data": a.derive("form", f1, "x"),
	} {
		if seen[v] != "" || len(v) != 43 {
			t.Errorf("%s equals %s or has length %d", name, seen[v], len(v))
		}
		seen[v] = name
	}
	if a.browser() == b.browser() || bytes.Contains(fmt.Appendf(nil, "%x", a.browser()), fmt.Appendf(nil, "%x", a[:4])) {
		t.Error("browser")
	}
}

func TestMarksOfAnotherFlowOrBrowser(t *testing.T) {
	k, _ := newSecret(&counter{n: 1})
	other, _ := newSecret(&counter{n: 2})
	v := testView(t, authcore.StepCode)
	v.Notice, v.AttemptsLeft = authcore.NoticeWrongCode, 2
	mark := k.mark(v, testNow)
	apply := func(k secret, mark, flow string) authcore.Notice {
		v := testView(t, authcore.StepCode)
		v.Flow = mustFlow(t, flow)
		k.applyMark(mark, v, testNow)
		return v.Notice
	}
	if got := apply(k, mark, testFlowText); got != authcore.NoticeWrongCode {
		t.Errorf("own mark: %v", got)
	}
	if got := apply(other, mark, testFlowText); got != 0 {
		t.Errorf("other browser: %v", got)
	}
	if got := apply(k, mark, "f_"+strings.Repeat("a", 32)); got != 0 {
		t.Errorf("other flow: %v", got)
	}
	for _, m := range []string{"", ".", "1.2.3.4.", "1.2.3.4.5.6", strings.Repeat("1.", 100), "x.3.2.0." + mark[8:]} {
		if got := apply(k, m, testFlowText); got != 0 {
			t.Errorf("%q: %v", m, got)
		}
	}
}

func TestSurplusCookies(t *testing.T) {
	var h []string
	for i := range 12 {
		h = append(h, fmt.Sprintf("__Host-flow-%016x=v", i))
	}
	h = append(h, "__Host-flow-EVIL\r\nX=1", "__Host-lang=it")
	del := surplusCookies(strings.Join(h, "; "))
	if len(del) != 5 || !strings.HasPrefix(del[0], "__Host-flow-0000000000000000=; Path=/; Max-Age=0") || !strings.HasPrefix(del[4], "__Host-flow-0000000000000004=;") {
		t.Errorf("%q", del)
	}
	if del := surplusCookies(strings.Join(h[:7], "; ")); del != nil {
		t.Errorf("%q", del)
	}
	if got := setCookie("a", "b", 90*time.Second); got != "a=b; Path=/; Max-Age=90; Secure; HttpOnly; SameSite=Lax" {
		t.Error(got)
	}
}

func TestParseForm(t *testing.T) {
	f, err := parseForm([]byte("a=1+2%2b&b&c=%C3%A8%00&&=x"))
	if err != nil || string(f["a"]) != "1 2+" || f["b"] == nil || string(f["c"]) != "è\x00" || string(f[""]) != "x" {
		t.Errorf("%q %v", f, err)
	}
	for _, bad := range []string{"a=%", "a=%4", "a=%g0", "%=1", "a=1&a=2", "a=1&%61=2", strings.Repeat("&", maxFields)} {
		if _, err := parseForm([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// FuzzParseForm compares with net/url where both accept, and checks that no
// result aliases the input.
func FuzzParseForm(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=%41+%2B", "%", "a=;b", "&&", "a=%e8&=", "SAMLRequest=PHg%2b&RelayState=%22"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got, err := parseForm(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		if len(got) > maxFields {
			t.Fatalf("%d fields", len(got))
		}
		want, err := url.ParseQuery(string(b))
		if err != nil {
			return // net/url refuses ";" for history's sake
		}
		if len(want) != len(got) {
			t.Fatalf("%q: %d fields, net/url has %d", b, len(got), len(want))
		}
		for k, v := range want {
			if len(v) != 1 || v[0] != string(got[k]) {
				t.Fatalf("%q: %q, net/url has %q", k, got[k], v)
			}
		}
	})
}

// FuzzCookies: whatever a Cookie header holds, only a well-formed secret comes
// out, and what is deleted has a well-formed name.
func FuzzCookies(f *testing.F) {
	f.Add("__Host-flow-0123456789abcdef=" + strings.Repeat("A", 43))
	f.Add("a=b; __Host-flow-0123456789abcdef=x; __Host-lang=en")
	f.Fuzz(func(t *testing.T, h string) {
		flow := mustFlow(t, testFlowText)
		if k, ok := secretOf(h, flow); ok {
			c, _, _ := strings.Cut(k.cookie(flow, time.Minute), ";")
			if !strings.Contains(h, c) {
				t.Fatalf("%q is not in %q", c, h)
			}
		}
		for _, d := range surplusCookies(h) {
			if strings.ContainsAny(d, "\r\n") || !strings.HasPrefix(d, flowCookiePrefix) {
				t.Fatalf("%q", d)
			}
		}
		if l := chooseLanguage(h, h); l != "it" && l != "en" {
			t.Fatal(l)
		}
	})
}
