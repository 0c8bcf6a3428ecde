package enrol

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
	"custode/simulators/appsim"
)

var (
	now    = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	byTime = oath.Parameters{Kind: oath.Time, Hash: oath.SHA256, Digits: 8, Period: 30 * time.Second}
	byTurn = oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6}
	secret = []byte("12345678901234567890")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	serial  = must(id.ParseSerial("V-0001"))
	subject = must(id.ParseSubject("s_0123456789abcdef0123456789abcdef"))
	label   = Label{Issuer: "Identità & Co. + €", Account: "mario.rossi+1@example.it"}
)

func TestURI(t *testing.T) {
	got := must(URI(Label{Issuer: "ACME Co", Account: "john@example.com"}, byTime, 0, secret))
	want := "otpauth://totp/ACME%20Co:john%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=ACME%20Co&algorithm=SHA256&digits=8&period=30"
	if string(got) != want {
		t.Errorf("%s", got)
	}
	got = must(URI(label, byTurn, 7, secret))
	u, err := url.Parse(string(got))
	if err != nil || u.Host != "hotp" || u.Path != "/"+label.Issuer+":"+label.Account || u.Query().Get("issuer") != label.Issuer || u.Query().Get("counter") != "7" {
		t.Errorf("%s: %v", got, err)
	}
	for name, err := range map[string]error{
		"colon":   second(URI(Label{"a:b", "c"}, byTime, 0, secret)),
		"account": second(URI(Label{"a", ""}, byTime, 0, secret)),
		"line":    second(URI(Label{"a", "b\n"}, byTime, 0, secret)),
		"octets":  second(URI(Label{"a", "\xff"}, byTime, 0, secret)),
		"long":    second(URI(Label{strings.Repeat("a", 65), "b"}, byTime, 0, secret)),
		"short":   second(URI(label, byTime, 0, secret[:15])),
		"digits":  second(URI(label, oath.Parameters{}, 0, secret)),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestQR lets zbarimg read our pictures.
func TestQR(t *testing.T) {
	tool, err := exec.LookPath("zbarimg")
	if err != nil {
		t.Fatal("zbarimg is missing: install the Debian package zbar-tools")
	}
	for i, uri := range [][]byte{
		must(URI(label, byTime, 0, secret)), must(URI(label, byTurn, 1<<40, bytes.Repeat([]byte{0xff}, 64))),
		must(URI(Label{strings.Repeat("à", 32), strings.Repeat("b", 128)}, byTime, 0, secret)),
	} {
		file := filepath.Join(t.TempDir(), "qr.png")
		if err := os.WriteFile(file, must(PNG(uri)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), tool, "--quiet", "--raw", file).Output()
		if err != nil || strings.TrimSpace(string(out)) != string(uri) {
			t.Errorf("%d: %v: read %q, want %q", i, err, out, uri)
		}
	}
	if _, err := PNG(make([]byte, 1001)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
}

// keyed stands for the HSM.
type keyed struct {
	err   error
	short bool
}

func (k keyed) MAC(_ context.Context, data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte("k"))
	m.Write(data)
	if k.short {
		return m.Sum(nil)[:16], k.err
	}
	return m.Sum(nil), k.err
}

func TestActivation(t *testing.T) {
	a, code, err := Issue(t.Context(), keyed{}, rand.Reader, serial, subject, now)
	if err != nil || len(code) != 19 || a.Left != 3 || !a.Expires.Equal(now.Add(30*time.Minute)) {
		t.Fatalf("%+v %d %v", a, len(code), err)
	}
	last := now.Add(30*time.Minute - 1)
	for _, typed := range []string{code, strings.ToLower(code), strings.ReplaceAll(code, "-", " "), strings.NewReplacer("O", "0", "I", "1", "B", "8").Replace(code)} {
		after, err := a.Redeem(t.Context(), keyed{}, typed, last)
		if err != nil || !after.Used || after.Version != 2 {
			t.Errorf("%+v %v", after, err)
		}
		if _, err := after.Redeem(t.Context(), keyed{}, code, last); !fault.Is(err, fault.Conflict) {
			t.Errorf("used twice: %v", err)
		}
	}
	if after, err := a.Redeem(t.Context(), keyed{}, code, last.Add(1)); !fault.Is(err, fault.Expired) || after.Used {
		t.Errorf("late: %v", err)
	}
	for _, bad := range []string{"", "x", code + "A", code[:18], strings.Repeat("-", 100)} {
		if after, err := a.Redeem(t.Context(), keyed{}, bad, now); !fault.Is(err, fault.Invalid) || after.Version != 1 {
			t.Errorf("%q: %v", bad, err)
		}
	}
	moved := a
	moved.Serial = must(id.ParseSerial("V-0002"))
	if _, err := moved.Redeem(t.Context(), keyed{}, code, now); !fault.Is(err, fault.Denied) {
		t.Errorf("another device: %v", err)
	}
	wrong := "AAAA-AAAA-AAAA-AAAA"
	for left := 2; left >= 0; left-- {
		if a, err = a.Redeem(t.Context(), keyed{}, wrong, now); !fault.Is(err, fault.Denied) || a.Left != left {
			t.Errorf("%+v %v", a, err)
		}
	}
	if _, err = a.Redeem(t.Context(), keyed{}, code, now); !fault.Is(err, fault.Exhausted) {
		t.Errorf("fourth try: %v", err)
	}
	for _, k := range []struct {
		keyed
		want fault.Kind
	}{{keyed{err: errors.New("x")}, fault.Internal}, {keyed{err: fault.New(fault.Denied, "x", nil)}, fault.Internal}, {keyed{short: true}, fault.Fatal}} {
		if _, _, err := Issue(t.Context(), k, rand.Reader, serial, subject, now); !fault.Is(err, k.want) {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := Issue(t.Context(), keyed{}, strings.NewReader("short"), serial, subject, now); err == nil {
		t.Error("no randomness, and a code")
	}
}

func delivered(t testing.TB, p oath.Parameters) (*appsim.App, []byte) {
	t.Helper()
	app := &appsim.App{}
	pub := must(app.PublicKey())
	_, code, err := Issue(t.Context(), keyed{}, rand.Reader, serial, subject, now)
	if err != nil {
		t.Fatal(err)
	}
	parcel, key, err := Deliver(rand.Reader, pub, code, serial, must(URI(label, p, 0, secret)))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(parcel, []byte("otpauth")) {
		t.Fatal("the parcel is readable")
	}
	other := *app
	if err := other.Receive(parcel, serial.String(), "AAAA-AAAA-AAAA-AAAA"); err == nil {
		t.Error("opened with another code")
	}
	if err := other.Receive(parcel, "V-0002", code); err == nil {
		t.Error("opened as another device")
	}
	for i := range parcel {
		bad := bytes.Clone(parcel)
		bad[i] ^= 0x40
		if err := other.Receive(bad, serial.String(), code); err == nil {
			t.Errorf("octet %d changed, and opened", i)
		}
	}
	if err := app.Receive(parcel, serial.String(), code); err != nil {
		t.Fatal(err)
	}
	if app.Issuer != label.Issuer || app.Account != label.Account || !bytes.Equal(app.DeviceKey, key) {
		t.Errorf("%+v", app)
	}
	return app, key
}

// TestDeliver: the reference app gets the seed and shows codes that we accept.
func TestDeliver(t *testing.T) {
	app, _ := delivered(t, byTurn)
	for i, want := range []string{"755224", "287082", "359152"} { // RFC 4226, appendix D
		if got := must(app.Code(now)); got != want {
			t.Errorf("code %d: %s", i, got)
		}
	}
	app, _ = delivered(t, oath.Parameters{Kind: oath.Time, Hash: oath.SHA1, Digits: 8, Period: 30 * time.Second})
	if got := must(app.Code(time.Unix(1234567890, 0))); got != "89005924" { // RFC 6238, appendix B
		t.Errorf("%s", got)
	}
	good := must((&appsim.App{}).PublicKey())
	uri := must(URI(label, byTurn, 0, secret))
	for name, err := range map[string]error{
		"key":         deliver(good[:31], "AAAA-AAAA-AAAA-AAAA", uri),
		"small order": deliver(make([]byte, 32), "AAAA-AAAA-AAAA-AAAA", uri),
		"code":        deliver(good, "AAAA", uri),
		"no URI":      deliver(good, "AAAA-AAAA-AAAA-AAAA", nil),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func deliver(key []byte, code string, uri []byte) error {
	_, _, err := Deliver(rand.Reader, key, code, serial, uri)
	return err
}

func push() Push {
	return Push{
		Serial: serial, Flow: must(id.ParseFlowID("f_0123456789abcdef0123456789abcdef")), Number: "42",
		SP: must(id.ParseEntityID("https://sp.example.it")), SPName: "Comune di Forlì", Code: []byte("905317"), Expires: now.Add(time.Minute),
	}
}

// TestPush: the reference app shows what was pushed, once, in time, unchanged.
func TestPush(t *testing.T) {
	app, key := delivered(t, byTime)
	message := must(push().Seal(rand.Reader, key))
	for _, hidden := range []string{"905317", "sp.example.it", "Forl"} {
		if bytes.Contains(message, []byte(hidden)) {
			t.Errorf("%s is readable on the way", hidden)
		}
	}
	if bytes.Equal(message, must(push().Seal(rand.Reader, key))) {
		t.Error("twice the same message")
	}
	for i := range message {
		bad := bytes.Clone(message)
		bad[i] ^= 1
		if _, err := app.Open(bad, now); err == nil {
			t.Errorf("octet %d changed, and opened", i)
		}
	}
	for n := range message {
		if _, err := app.Open(message[:n], now); err == nil {
			t.Errorf("cut to %d octets, and opened", n)
		}
	}
	if _, err := app.Open(message, now.Add(time.Minute)); err == nil {
		t.Error("too late, and shown")
	}
	other, _ := delivered(t, byTime)
	if _, err := other.Open(message, now); err == nil {
		t.Error("another instance of the app opened it")
	}
	got, err := app.Open(message, now)
	if err != nil || got.Code != "905317" || got.Number != "42" || got.SPName != "Comune di Forlì" || got.SP != "https://sp.example.it" || got.Flow != push().Flow.String() {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := app.Open(message, now); err == nil {
		t.Error("shown twice")
	}
	for name, change := range map[string]func(p *Push){
		"code": func(p *Push) { p.Code = []byte("12345") }, "letters": func(p *Push) { p.Code = []byte("12345x") }, "number": func(p *Push) { p.Number = "4" },
		"name": func(p *Push) { p.SPName = "" }, "SP": func(p *Push) { p.SP = id.EntityID{} }, "end": func(p *Push) { p.Expires = time.Time{} },
	} {
		p := push()
		change(&p)
		if _, err := p.Seal(rand.Reader, key); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := push().Seal(rand.Reader, key[:16]); !fault.Is(err, fault.Invalid) {
		t.Errorf("short key: %v", err)
	}
}

// TestLabels: any allowed label survives the way into the app.
func TestLabels(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("abc àèß€+&=%/?#\"<>@中 ")), 1, 15, 60)
	rapid.Check(t, func(t *rapid.T) {
		l := Label{Issuer: text.Draw(t, "issuer"), Account: text.Draw(t, "account")}
		var app appsim.App
		if err := app.Scan(string(must(URI(l, byTime, 0, secret)))); err != nil || app.Issuer != l.Issuer || app.Account != l.Account {
			t.Fatalf("%+v became %q %q, %v", l, app.Issuer, app.Account, err)
		}
	})
}

// FuzzCanonicalCode: what is accepted is canonical and stays so.
func FuzzCanonicalCode(f *testing.F) {
	f.Add("ABCD-EFGH-IJKL-MNOP")
	f.Add("0180 0180 0180 0180")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := CanonicalCode(s)
		if err != nil {
			return
		}
		if again, err := CanonicalCode(c); err != nil || again != c || len(c) != 16 {
			t.Fatalf("%q, %q, %v", c, again, err)
		}
	})
}

// TestQRText: the terminal's picture has the modules of the PNG's.
func TestQRText(t *testing.T) {
	uri := []byte("otpauth://totp/A:b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=A&algorithm=SHA1&digits=6&period=30")
	text, err := Text(uri)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	side := utf8.RuneCountInString(lines[0])
	var light [][]bool
	for _, l := range lines {
		top, bottom := make([]bool, 0, side), make([]bool, 0, side)
		for _, r := range l {
			top, bottom = append(top, r == '█' || r == '▀'), append(bottom, r == '█' || r == '▄')
		}
		light = append(light, top, bottom)
	}
	b, err := PNG(uri)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(b))
	if err != nil || picture.Bounds().Dx() != side*modulePixels {
		t.Fatalf("%v, %d modules and %d pixels", err, side, picture.Bounds().Dx())
	}
	for y := range side {
		for x := range side {
			r, _, _, _ := picture.At(x*modulePixels+1, y*modulePixels+1).RGBA()
			if (r > 0x7fff) != light[y][x] {
				t.Fatalf("module %d, %d differs", x, y)
			}
		}
	}
}
