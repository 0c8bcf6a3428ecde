package otpvault

import (
	"strings"
	"testing"
	"unicode/utf8"

	"custode/internal/fault"
)

func TestAlphabet(t *testing.T) {
	// 128 positions less line feed, carriage return and escape (TS 23.038, 6.2.1).
	if n := utf8.RuneCountInString(gsmBasic); n != 125 {
		t.Errorf("%d characters, want 125", n)
	}
	seen := map[rune]bool{}
	for _, r := range gsmBasic {
		if seen[r] {
			t.Errorf("%q twice", r)
		}
		seen[r] = true
	}
}

func TestServiceName(t *testing.T) {
	for _, c := range []struct {
		name string
		room int
		want string
	}{
		{"Comune di Forlì", 60, "Comune di Forlì"},
		{"Città Metropolitana È", 60, "Città Metropolitana E"},
		{"  Agenzia\t delle\r\n Entrate\u00a0 ", 60, "Agenzia delle Entrate"},
		{"L’INPS – “servizi” €", 60, "L'INPS - \"servizi\" EUR"},
		{"Občina Koper", 60, "Obcina Koper"},
		{"e\u0300 combinato", 60, "e combinato"},
		{"a{code}b [c]", 60, "a(code)b (c)"},
		{"@evil.example #123456", 60, "(at)evil.example n.123456"},
		{"Министерство", 60, noName},
		{"!!! \u200b", 60, noName},
		{"", 60, noName},
		{"\xff\xfeINPS", 60, "INPS"},
		{"abcdefghijklmnopqrstuvwxyz", 24, "abcdefghijklmnopqrstuv.."},
		{"abcdefghijklmnopqrstuvwx", 24, "abcdefghijklmnopqrstuvwx"},
		{"abcdefghijklmnopqrstu, e altro", 24, "abcdefghijklmnopqrstu.."},
		{strings.Repeat("à", 4000), 24, strings.Repeat("à", 22) + ".."},
	} {
		if got := string(serviceName(c.name, c.room)); got != c.want {
			t.Errorf("serviceName(%.40q, %d) = %q, want %q", c.name, c.room, got, c.want)
		}
	}
}

func TestTemplate(t *testing.T) {
	for s, ok := range map[string]bool{
		DefaultTemplate: true, "{code}": true, "{service}: {code} ({minutes} min)": true,
		"": false, "code": false, "{code} {code}": false, "{code} {service} {service}": false, "{code} {who}": false, "{code": false,
		"{code} €": false, "{code} ’": false, "{code}\n": false, "{code} }": false,
		"{code}" + strings.Repeat("a", 154): true, "{code}" + strings.Repeat("a", 155): false,
		"{code}{service}" + strings.Repeat("a", 130): true, "{code}{service}" + strings.Repeat("a", 131): false,
		"{code}{service}{minutes}" + strings.Repeat("a", 129): true, "{code}{service}{minutes}" + strings.Repeat("a", 130): false,
	} {
		if _, err := parseTemplate(s, 5); (err == nil) != ok || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want ok=%v", s, err, ok)
		}
	}
}

func TestRender(t *testing.T) {
	text, err := parseTemplate(DefaultTemplate, 5)
	if err != nil {
		t.Fatal(err)
	}
	code := [codeDigits]byte([]byte("012345"))
	const want = "012345 è il codice SPID per accedere a {Esempio}. Vale 5 minuti. Non comunicarlo a nessuno, nemmeno per telefono."
	if got := string(text.render(&code, "{Esempio}")); got != strings.NewReplacer("{", "(", "}", ")").Replace(want) {
		t.Errorf("%q", got)
	}
}

func FuzzRender(f *testing.F) {
	text, err := parseTemplate(DefaultTemplate, 30)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "Comune", "\r\nx", "{code}", strings.Repeat("€", 400), "\xc3", "日本 x", "ŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒŒ"} {
		f.Add(s)
	}
	code := [codeDigits]byte([]byte("987654"))
	f.Fuzz(func(t *testing.T, name string) {
		out := text.render(&code, name)
		if n := utf8.RuneCount(out); n > maxSeptets {
			t.Errorf("%d septets", n)
		}
		if cap(out) != 2*maxSeptets {
			t.Error("the buffer grew: a copy of the code stays behind")
		}
		for _, r := range string(out) {
			if !strings.ContainsRune(gsmBasic, r) {
				t.Errorf("%q is not in the alphabet", r)
			}
		}
		if !strings.HasPrefix(string(out), "987654 è il codice SPID per accedere a ") || strings.ContainsAny(string(out), "@#{}\r\n") {
			t.Errorf("%q", out)
		}
	})
}
