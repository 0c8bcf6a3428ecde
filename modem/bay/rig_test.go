package bay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/modem/at"
	"custode/modem/modemtest"
	"custode/modem/pdu"
	"custode/modem/profile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a modem: modemtest.Polite with changed answers and a hook.
type script struct {
	over map[string][]string
	// hook sees what was written (without CR) first; true means that it answered.
	hook func(p *modemtest.Port, cmd string) bool

	mu    sync.Mutex
	later map[string][]string
}

// answer changes an answer while the bay runs.
func (s *script) answer(cmd string, lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later == nil {
		s.later = map[string][]string{}
	}
	s.later[cmd] = lines
}

func (s *script) react() func(*modemtest.Port, string) {
	polite := modemtest.Polite(s.over)
	return func(p *modemtest.Port, got string) {
		cmd := strings.TrimSuffix(got, "\r")
		if s.hook != nil && s.hook(p, cmd) {
			return
		}
		s.mu.Lock()
		lines, changed := s.later[cmd]
		s.mu.Unlock()
		if changed {
			p.Say(lines...)
			return
		}
		polite(p, got)
	}
}

// owner collects what the bay tells.
type owner struct {
	mu      sync.Mutex
	serving bool
	news    []News
	refuse  error
	alone   bool
}

func (o *owner) Serving(_ string, on bool) { o.mu.Lock(); o.serving = on; o.mu.Unlock() }
func (o *owner) Alone(string) bool         { o.mu.Lock(); defer o.mu.Unlock(); return o.alone }
func (o *owner) Heard(_ context.Context, _ string, n News) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuse != nil && n.Kind == Received {
		return o.refuse
	}
	o.news = append(o.news, n)
	return nil
}

// heard returns the news of one kind.
func (o *owner) heard(k NewsKind) (out []News) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.news {
		if n.Kind == k {
			out = append(out, n)
		}
	}
	return out
}

func (o *owner) alarms() (out []Alarm) {
	for _, n := range o.heard(Alarmed) {
		out = append(out, n.Alarm)
	}
	return out
}

// rig runs a bay on a scripted modem. Use it inside synctest.Test.
type rig struct {
	t     *testing.T
	bay   *Bay
	owner *owner
	log   *bytes.Buffer
	mu    sync.Mutex
	lines []*modemtest.Port
	open  func() error // may refuse to open
	stop  func()
}

var defaults = Timing{
	Prompt: 10 * time.Second, Listen: 240 * time.Second, ListenOne: 10 * time.Second, KeepAlive: 30 * time.Second, Register: 5 * time.Second,
	Lost: 90 * time.Second, Inbox: 5 * time.Minute, RungRest: time.Hour, ReopenMin: 500 * time.Millisecond, ReopenMax: 30 * time.Second, AlarmEvery: time.Hour,
}

func profiles(t testing.TB) *profile.Set {
	t.Helper()
	s, err := profile.Parse("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newRig starts a bay whose modem is s; change may adjust the configuration.
func newRig(t *testing.T, s *script, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, owner: &owner{}, log: &bytes.Buffer{}}
	cfg := Config{
		Place: Place{Name: "bay0", Device: "/dev/bay0"}, Owner: r.owner, Log: slog.New(slog.NewTextHandler(r.log, nil)), Now: time.Now,
		Timing: defaults, Profiles: profiles(t), AllowSimulated: true,
		Open: func(Place) (at.Port, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.open != nil {
				if err := r.open(); err != nil {
					return nil, err
				}
			}
			p := modemtest.New(s.react())
			r.lines = append(r.lines, p)
			return p, nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	r.bay = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.bay.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	return r
}

// line returns the port of the i-th opening, the last one for -1.
func (r *rig) line(i int) *modemtest.Port {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < 0 {
		i = len(r.lines) - 1
	}
	return r.lines[i]
}

func (r *rig) opens() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.lines) }

// until waits (in virtual time) for a state.
func (r *rig) until(s State) {
	r.t.Helper()
	limit := time.Now().Add(30 * time.Minute)
	for r.bay.Status().State != s {
		if time.Now().After(limit) {
			r.t.Fatalf("state %+v, want %s\nwritten %q\n%s", r.bay.Status(), s, r.line(-1).Written(), r.log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// written returns the writes of all openings.
func (r *rig) written() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		out = append(out, l.Written()...)
	}
	return out
}

// count counts the writes that begin with prefix.
func (r *rig) count(prefix string) (n int) {
	for _, w := range r.written() {
		if strings.HasPrefix(w, prefix) {
			n++
		}
	}
	return n
}

// texts returns what was submitted.
func (r *rig) texts() (out []string) {
	for _, w := range r.written() {
		if text, ok := strings.CutSuffix(w, "\x1a"); ok {
			if s, err := pdu.DecodeSubmit(text); err == nil {
				out = append(out, s.Text)
			}
		}
	}
	return out
}

func newMessage(t testing.TB, to, text string) Message {
	t.Helper()
	m, err := id.NewMessageID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	phone, err := id.ParsePhone(to)
	if err != nil {
		t.Fatal(err)
	}
	return Message{ID: m, To: phone, Text: []byte(text), Validity: 5 * time.Minute}
}

// send sends a text and returns the outcome and the message.
func (r *rig) send(to, text string) (Outcome, Message) {
	r.t.Helper()
	m := newMessage(r.t, to, text)
	return r.sendMessage(m), m
}

func (r *rig) sendMessage(m Message) Outcome {
	r.t.Helper()
	p, err := NewParcel(m)
	if err != nil {
		r.t.Fatal(err)
	}
	defer p.Wipe()
	return r.bay.Send(context.Background(), p)
}

var errUnplugged = errors.New("unplugged")

func isPDU(cmd string) bool { return strings.HasSuffix(cmd, "\x1a") }

// once returns a hook that answers the first submission by do.
func once(do func(p *modemtest.Port)) func(*modemtest.Port, string) bool {
	used := false
	return func(p *modemtest.Port, cmd string) bool {
		if used || !isPDU(cmd) {
			return false
		}
		used = true
		do(p)
		return true
	}
}

func swap(number string) string {
	if len(number)%2 == 1 {
		number += "F"
	}
	out := []byte(number)
	for i := 0; i < len(out); i += 2 {
		out[i], out[i+1] = out[i+1], out[i]
	}
	return string(out)
}

// reportPDU makes a status report; number as the network writes it.
func reportPDU(ref byte, number string, status byte) string {
	kind := "81"
	if n, ok := strings.CutPrefix(number, "+"); ok {
		number, kind = n, "91"
	}
	return fmt.Sprintf("0006%02X%02X%s%s%s%s%02X", ref, len(number), kind, swap(number), "62117032540080", "62117032640080", status)
}

// deliverPDU makes a message of up to eight characters that need no packing: it uses
// 8-bit-free UCS-2.
func deliverPDU(from, text string, pid, dcs byte) string {
	var ud strings.Builder
	for _, r := range text {
		fmt.Fprintf(&ud, "%04X", r)
	}
	return fmt.Sprintf("0004%02X91%s%02X%02X%s%02X%s", len(from), swap(from), pid, dcs|8, "62117032540080", len(text)*2, ud.String())
}

var errNotKept = fault.Newf(fault.Unavailable, "keep", "database is down")

func withExtra(t testing.TB, yaml string) *profile.Set {
	t.Helper()
	s, err := profile.Parse("test", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var discard = slog.New(slog.DiscardHandler)

func indicationOf(line, text string) at.Indication { return at.Indication{Line: line, PDU: text} }
