package order

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

var now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func destroy(t testing.TB, key string) Order {
	t.Helper()
	l, err := id.ParseKeyLabel(key)
	if err != nil {
		t.Fatal(err)
	}
	o, err := New(Order{Operation: Destroy, Token: "custode", Keys: []id.KeyLabel{l}, Reason: "retired – in May", Expires: now.Add(time.Hour)}, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestApprovals(t *testing.T) {
	annaPublic, anna, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bruno, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	operators := []Operator{{"anna", annaPublic}, {"bruno", bruno.Public()}, {"annas-other-name", annaPublic}}
	o := destroy(t, "custode/sign/2026-1")
	sign := func(o Order, name string) []byte {
		t.Helper()
		var file []byte
		var err error
		if name == "bruno" {
			file, err = Approve(o, name, bruno, rand.Reader)
		} else {
			file, err = Approve(o, name, anna, rand.Reader)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	a, b := sign(o, "anna"), sign(o, "bruno")
	if names, err := Check(o, [][]byte{a, b}, operators, 2, now); err != nil || strings.Join(names, " ") != "anna bruno" {
		t.Errorf("%v %v", names, err)
	}
	other := destroy(t, "custode/sign/2026-2")
	for name, c := range map[string]struct {
		approvals [][]byte
		at        time.Time
	}{
		"one":              {[][]byte{a}, now},
		"none":             {nil, now},
		"twice the same":   {[][]byte{a, a}, now},
		"two names":        {[][]byte{a, sign(o, "annas-other-name")}, now},
		"another order":    {[][]byte{a, sign(other, "bruno")}, now},
		"a stranger":       {[][]byte{a, sign(o, "carla")}, now},
		"anna signs bruno": {[][]byte{a, bytes.Replace(sign(o, "anna"), []byte("anna"), []byte("bruno"), 1)}, now},
		"relabelled order": {[][]byte{a, bytes.Replace(sign(other, "bruno"), []byte(other.Digest()), []byte(o.Digest()), 1)}, now},
		"expired":          {[][]byte{a, b}, now.Add(time.Hour)},
		"for ever":         {[][]byte{a, b}, now.Add(-32 * 24 * time.Hour)},
		"no JSON":          {[][]byte{a, []byte("x")}, now},
	} {
		if names, err := Check(o, c.approvals, operators, 2, c.at); !fault.Is(err, fault.Denied) || names != nil {
			t.Errorf("%s: %v %v", name, names, err)
		}
	}
}

func TestParse(t *testing.T) {
	o := destroy(t, "custode/sign/2026-1")
	text := string(o.Text())
	back, err := Parse([]byte(text))
	if err != nil || back.Digest() != o.Digest() {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"head":        "x" + text,
		"order":       strings.Replace(text, "operation: destroy\ntoken: custode\n", "token: custode\noperation: destroy\n", 1),
		"unknown":     text + "more: x\n",
		"twice":       strings.Replace(text, "token: custode\n", "token: custode\ntoken: other\n", 1),
		"no key":      strings.Replace(text, "key: custode/sign/2026-1\n", "", 1),
		"no reason":   strings.Replace(text, "reason: retired – in May\n", "", 1),
		"a plan too":  strings.Replace(text, "key:", "plan: "+strings.Repeat("0", 64)+"\nkey:", 1),
		"operation":   strings.Replace(text, "destroy", "sign", 1),
		"time zone":   strings.Replace(text, "Z\n", "+00:00\n", 1),
		"escape":      strings.Replace(text, "retired", "\x1b[2Kretired", 1),
		"no line end": strings.TrimSuffix(text, "\n"),
	} {
		if _, err := Parse([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, e := range map[string]time.Time{"past": now, "too late": now.Add(32 * 24 * time.Hour)} {
		bad := o
		bad.Expires = e
		if _, err := New(bad, now, rand.Reader); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(destroy(f, "custode/sign/2026-1").Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		if o, err := Parse(text); err == nil && !bytes.Equal(o.Text(), text) {
			t.Errorf("%q is another order than it says", text)
		}
	})
}
