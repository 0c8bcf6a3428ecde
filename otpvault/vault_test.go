package otpvault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

type bench struct {
	vault    *Vault
	hsm      *fakeHSM
	store    *fakeStore
	now      time.Time
	accepted int
	log      bytes.Buffer
	flow     id.FlowID
	subject  id.Subject
	phone    id.Phone
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{hsm: &fakeHSM{}, store: newFakeStore(), now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)}
	b.flow, b.subject = flowID(t), subjectID(t)
	var err error
	if b.phone, err = id.ParsePhone("+393401234567"); err != nil {
		t.Fatal(err)
	}
	b.vault, err = New(Config{
		MAC: b.hsm, Wrapper: b.hsm, Random: rand.Reader, Store: b.store, Now: func() time.Time { return b.now },
		Log:      slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Accepted: func() { b.accepted++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flowID(t *testing.T) id.FlowID {
	t.Helper()
	f, err := id.NewFlowID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func subjectID(t *testing.T) id.Subject {
	t.Helper()
	s, err := id.NewSubject(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// issue returns the challenge and the code read from the wrapped message.
func (b *bench) issue(t *testing.T) (id.ChallengeID, string) {
	t.Helper()
	c, err := b.vault.Issue(context.Background(), b.flow, b.subject, b.phone, "Comune di Esempio")
	if err != nil {
		t.Fatal(err)
	}
	text, err := unwrap(b.store.messages[len(b.store.messages)-1])
	if err != nil {
		t.Fatalf("message not wrapped to its identifier: %v", err)
	}
	return c, text[:6]
}

func (b *bench) verify(c id.ChallengeID, code string) (int, error) {
	return b.vault.Verify(context.Background(), c, b.flow, b.subject, code)
}

func wrong(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want kind %v", what, err, kind)
	}
}

func TestRightCodeOnce(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	if b.accepted != 1 {
		t.Errorf("Accepted called %d times, want 1", b.accepted)
	}
	if _, err := b.verify(c, code); err != nil {
		t.Fatalf("right code: %v", err)
	}
	_, err := b.verify(c, code)
	wantKind(t, "second use", err, fault.Conflict)
	if got := strings.Join(b.store.calls, " "); got != "issue take burn take" {
		t.Errorf("store calls: %s", got)
	}
	m := b.store.messages[0]
	if m.To != b.phone || !m.Created.Equal(b.now) || !m.Expires.Equal(b.now.Add(5*time.Minute)) {
		t.Errorf("message %+v", m)
	}
}

func TestWrongCodes(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	for _, want := range []int{2, 1} {
		left, err := b.verify(c, wrong(code))
		wantKind(t, "wrong code", err, fault.Denied)
		if left != want {
			t.Errorf("left %d, want %d", left, want)
		}
	}
	_, err := b.verify(c, wrong(code))
	wantKind(t, "last wrong code", err, fault.Exhausted)
	_, err = b.verify(c, code)
	wantKind(t, "right code after the last attempt", err, fault.Exhausted)
}

func TestLastAttemptCanSucceed(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	b.verify(c, wrong(code))
	b.verify(c, wrong(code))
	if _, err := b.verify(c, code); err != nil {
		t.Errorf("right code at the third attempt: %v", err)
	}
}

func TestMalformedCodeIsNotCounted(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	for _, s := range []string{"", "12345", "1234567", "12345a", " 12345", "１２３４５６", "12345\x00", "-12345", "+12345", "123 456"} {
		_, err := b.verify(c, s)
		wantKind(t, s, err, fault.Invalid)
	}
	if left := b.store.rows[c].Left; left != 3 {
		t.Errorf("%d attempts left, want 3", left)
	}
	if _, err := b.verify(c, code); err != nil {
		t.Error(err)
	}
}

func TestExpiry(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	b.now = b.now.Add(5 * time.Minute)
	_, err := b.verify(c, code)
	wantKind(t, "at the instant of expiry", err, fault.Expired)
	b.now = b.now.Add(-time.Nanosecond)
	if _, err := b.verify(c, code); err != nil {
		t.Errorf("just before: %v", err)
	}
}

func TestNewCodeReplacesOld(t *testing.T) {
	b := newBench(t)
	c1, code1 := b.issue(t)
	c2, code2 := b.issue(t)
	_, err := b.verify(c1, code1)
	wantKind(t, "replaced code", err, fault.Conflict)
	if _, err := b.verify(c2, code2); err != nil {
		t.Error(err)
	}
}

func TestBoundToFlowAndSubject(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	ctx := context.Background()
	_, err := b.vault.Verify(ctx, c, flowID(t), b.subject, code)
	wantKind(t, "other flow", err, fault.NotFound)
	_, err = b.vault.Verify(ctx, c, b.flow, subjectID(t), code)
	wantKind(t, "other subject", err, fault.NotFound)
	if left := b.store.rows[c].Left; left != 3 {
		t.Errorf("%d attempts left, want 3", left)
	}
	// Somebody who writes to the store moves the MAC of a code he knows to the
	// challenge of his victim.
	other := newBench(t)
	victim, _ := other.issue(t)
	other.store.rows[victim].MAC = b.store.rows[c].MAC
	_, err = other.verify(victim, code)
	wantKind(t, "MAC of another challenge", err, fault.Denied)
}

func TestLimit(t *testing.T) {
	b := newBench(t)
	for range DefaultMessages {
		b.issue(t)
	}
	_, err := b.vault.Issue(context.Background(), flowID(t), b.subject, b.phone, "x")
	wantKind(t, "sixth message", err, fault.Exhausted)
	if b.accepted != DefaultMessages {
		t.Errorf("Accepted called %d times", b.accepted)
	}
	b.now = b.now.Add(DefaultWindow)
	b.issue(t)
}

func TestOneSuccessAmongMany(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.verify(c, code) })
	}
	wg.Wait()
	ok := 0
	for _, err := range errs {
		switch {
		case err == nil:
			ok++
		case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Exhausted):
			t.Errorf("loser got %v", err)
		}
	}
	if ok != 1 {
		t.Errorf("%d successes, want 1", ok)
	}
}

// TestTroubleIsNotAVerdict: whatever fails below, Verify neither succeeds nor
// says something about the code.
func TestTroubleIsNotAVerdict(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Denied, fault.Invalid, fault.Exhausted, fault.NotFound, fault.Expired, fault.Conflict, fault.Retry, fault.Fatal} {
		want := fault.Internal
		if kind == fault.Retry || kind == fault.Fatal {
			want = kind
		}
		b := newBench(t)
		c, code := b.issue(t)
		b.hsm.macErr = fault.New(kind, "sign", nil)
		_, err := b.verify(c, code)
		wantKind(t, "MAC fails", err, want)
		if left := b.store.rows[c].Left; left != 3 {
			t.Errorf("a failed MAC cost an attempt: %d left", left)
		}
		_, err = b.vault.Issue(context.Background(), b.flow, b.subject, b.phone, "x")
		wantKind(t, "MAC fails at issue", err, want)
		b.hsm.macErr = nil
		b.hsm.wrpErr = fault.New(kind, "wrap", nil)
		_, err = b.vault.Issue(context.Background(), b.flow, b.subject, b.phone, "x")
		wantKind(t, "wrap fails at issue", err, want)

		if kind == fault.Conflict {
			continue // from the store it is a verdict
		}
		b.store.before = func(call string) error {
			if call == "burn" {
				return fault.New(kind, "burn", nil)
			}
			return nil
		}
		_, err = b.verify(c, code)
		wantKind(t, "burn fails", err, want)
	}
	b := newBench(t)
	c, code := b.issue(t)
	b.hsm.macErr = context.DeadlineExceeded
	_, err := b.verify(c, code)
	wantKind(t, "time is up", err, fault.Retry)
	b.hsm.macErr = nil
	b.store.before = func(string) error { return errors.New("disk") }
	_, err = b.verify(c, code)
	wantKind(t, "take fails", err, fault.Internal)
}

func TestBadHSM(t *testing.T) {
	b := newBench(t)
	b.hsm.short = true
	_, err := b.vault.Issue(context.Background(), b.flow, b.subject, b.phone, "x")
	wantKind(t, "MAC of 8 octets", err, fault.Fatal)
	b.hsm.short = false
	b.hsm.clear = true
	_, err = b.vault.Issue(context.Background(), b.flow, b.subject, b.phone, "x")
	wantKind(t, "text in clear", err, fault.Fatal)
	if len(b.store.rows) != 0 || b.accepted != 0 {
		t.Error("something was stored")
	}
	c, code := func() (id.ChallengeID, string) { b.hsm.clear = false; return b.issue(t) }()
	b.store.rows[c].MAC = nil
	_, err = b.verify(c, code)
	wantKind(t, "stored MAC empty", err, fault.Internal)
}

func TestIssueRefusesZeroIdentifiers(t *testing.T) {
	b := newBench(t)
	ctx := context.Background()
	for _, err := range []error{
		second(b.vault.Issue(ctx, id.FlowID{}, b.subject, b.phone, "x")),
		second(b.vault.Issue(ctx, b.flow, id.Subject{}, b.phone, "x")),
		second(b.vault.Issue(ctx, b.flow, b.subject, id.Phone{}, "x")),
	} {
		wantKind(t, "zero identifier", err, fault.Invalid)
	}
}

func second[T any](_ T, err error) error { return err }

// TestNoTrace looks for the code and the phone wherever they must not be.
func TestNoTrace(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	_, denied := b.verify(c, wrong(code))
	if _, err := b.verify(c, code); err != nil {
		t.Fatal(err)
	}
	_, again := b.verify(c, code)
	_, malformed := b.verify(c, code+"7")
	for _, s := range []string{b.log.String(), denied.Error(), again.Error(), malformed.Error()} {
		// Identifiers are random hexadecimal: a code could appear in one by chance.
		s = strings.NewReplacer(c.String(), "", b.flow.String(), "", b.store.messages[0].ID.String(), "").Replace(s)
		for _, secret := range []string{code, wrong(code), b.phone.String(), "Comune"} {
			if strings.Contains(s, secret) {
				t.Errorf("%q in %q", secret, s)
			}
		}
	}
	if !strings.Contains(b.log.String(), "code issued") {
		t.Error("the test sees no log at all")
	}
	for _, buf := range append(b.hsm.macIn, b.hsm.wrapIn...) {
		if len(bytes.Trim(buf[:cap(buf)], "\x00")) != 0 {
			t.Errorf("a buffer of %d octets was not cleared", cap(buf))
		}
	}
	if len(b.hsm.macIn) != 4 || len(b.hsm.wrapIn) != 1 {
		t.Errorf("%d MACs, %d wraps; want 4 and 1", len(b.hsm.macIn), len(b.hsm.wrapIn))
	}
	row := b.store.rows[c]
	if bytes.Contains(row.MAC, []byte(code)) || bytes.Contains(b.store.messages[0].Wrapped, []byte(code)) {
		t.Error("the code is readable in the store")
	}
}

func TestMACInput(t *testing.T) {
	b := newBench(t)
	c, code := b.issue(t)
	var want []byte
	for _, f := range []string{"custode sms code 1", c.String(), b.flow.String(), b.subject.String(), code} {
		want = append(binary.BigEndian.AppendUint32(want, uint32(len(f))), f...)
	}
	if !bytes.Equal(b.hsm.macWas[0], want) {
		t.Errorf("MAC over %q, want %q", b.hsm.macWas[0], want)
	}
}

func TestDrawCode(t *testing.T) {
	draw := func(values ...uint32) (string, error) {
		var src []byte
		for _, v := range values {
			src = binary.BigEndian.AppendUint32(src, v)
		}
		var code [codeDigits]byte
		err := drawCode(&code, bytes.NewReader(src))
		return string(code[:]), err
	}
	for _, c := range []struct {
		values []uint32
		want   string
	}{
		{[]uint32{0}, "000000"}, {[]uint32{7}, "000007"}, {[]uint32{1_000_001}, "000001"},
		{[]uint32{4_293_999_999}, "999999"}, {[]uint32{4_294_000_000, 123_456}, "123456"}, {[]uint32{0xffffffff, 4_294_000_000, 5}, "000005"},
	} {
		if got, err := draw(c.values...); err != nil || got != c.want {
			t.Errorf("draw %v: %q, %v; want %q", c.values, got, err, c.want)
		}
	}
	if _, err := draw(); err == nil {
		t.Error("empty source accepted")
	}
	var code [codeDigits]byte
	stuck := io.LimitReader(onesReader{}, 1<<20)
	wantKind(t, "stuck source", drawCode(&code, stuck), fault.Fatal)
}

type onesReader struct{}

func (onesReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0xff
	}
	return len(p), nil
}

func TestNewRefuses(t *testing.T) {
	h := &fakeHSM{}
	good := Config{MAC: h, Wrapper: h, Random: rand.Reader, Store: newFakeStore(), Now: time.Now}
	if _, err := New(good); err != nil {
		t.Fatalf("defaults: %v", err)
	}
	for name, spoil := range map[string]func(*Config){
		"no MAC": func(c *Config) { c.MAC = nil }, "no wrapper": func(c *Config) { c.Wrapper = nil },
		"no random": func(c *Config) { c.Random = nil }, "no store": func(c *Config) { c.Store = nil }, "no clock": func(c *Config) { c.Now = nil },
		"seconds": func(c *Config) { c.Lifetime = 90 * time.Second }, "negative": func(c *Config) { c.Lifetime = -time.Minute },
		"an hour": func(c *Config) { c.Lifetime = time.Hour }, "attempts": func(c *Config) { c.Attempts = 11 }, "negative attempts": func(c *Config) { c.Attempts = -1 },
		"limit": func(c *Config) { c.Limit = Limit{Messages: 3} }, "window": func(c *Config) { c.Limit = Limit{Messages: 3, Window: 25 * time.Hour} },
		"template": func(c *Config) { c.Template = "no code" },
	} {
		cfg := good
		spoil(&cfg)
		_, err := New(cfg)
		wantKind(t, name, err, fault.Invalid)
	}
}
