package session

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

func TestPolicy(t *testing.T) {
	p, err := Policy{}.complete()
	if err != nil || p != (Policy{Idle: 30 * time.Minute, Absolute: 2 * time.Hour, PerSP: 4 * time.Second, Total: 10 * time.Second}) {
		t.Errorf("%+v, %v", p, err)
	}
	for name, p := range map[string]Policy{
		"idle": {Idle: time.Second}, "absolute": {Absolute: 25 * time.Hour}, "order": {Idle: 3 * time.Hour}, "per SP": {PerSP: time.Minute},
		"total": {Total: time.Minute}, "total under one": {PerSP: 5 * time.Second, Total: 4 * time.Second}, "negative": {Idle: -time.Minute},
	} {
		if _, err := p.complete(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("empty configuration: %v", err)
	}
}

// TestLimits: idle and absolute limits, and what a clock that jumps does to them.
func TestLimits(t *testing.T) {
	start := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	p := Policy{Idle: 30 * time.Minute, Absolute: 2 * time.Hour}
	for name, c := range map[string]struct {
		used, now time.Duration // since the beginning
		ended     bool
		open      bool
	}{
		"fresh":                      {0, 0, false, true},
		"just before the idle limit": {0, 30*time.Minute - 1, false, true},
		"at the idle limit":          {0, 30 * time.Minute, false, false},
		"used again":                 {20 * time.Minute, 49 * time.Minute, false, true},
		"before the absolute limit":  {110 * time.Minute, 2*time.Hour - 1, false, true},
		"at the absolute limit":      {110 * time.Minute, 2 * time.Hour, false, false},
		"ended":                      {0, 0, true, false},
		"node a minute behind":       {10 * time.Minute, 9 * time.Minute, false, true},
		"clock back two minutes":     {10 * time.Minute, 8 * time.Minute, false, true},
		"clock back three minutes":   {10 * time.Minute, 7 * time.Minute, false, false},
		"clock back before it began": {10 * time.Minute, -24 * time.Hour, false, false},
		"fresh, clock back a day":    {0, -24 * time.Hour, false, false},
	} {
		r := Record{Index: "_s", Created: start, Used: start.Add(c.used)}
		if c.ended {
			r.Ended = start
		}
		if got := p.open(r, start.Add(c.now)); got != c.open {
			t.Errorf("%s: open %v", name, got)
		}
	}
}

func TestCurrentAndView(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spSOAP, spRedir, spSOAP)
	b.store.parts["_s1"][2].NameID = "_later"
	got, err := b.Current(t.Context(), cookie("_s1"))
	if err != nil || got.Index != "_s1" || got.Subject != b.who || !got.Authenticated.Equal(b.now.Add(-time.Second)) {
		t.Errorf("%+v, %v", got, err)
	}
	v, err := b.View(t.Context(), cookie("_s1"))
	if err != nil || v.Name != "Ada Lovati" || !v.Since.Equal(b.now.Add(-time.Second)) || !v.Until.Equal(b.now.Add(30*time.Minute)) || len(v.SPs) != 2 || v.SPs[0].NameID != "_later" {
		t.Errorf("%+v, %v", v, err)
	}
	r := b.store.sessions["_s1"]
	r.Used = b.now.Add(100 * time.Minute)
	b.store.sessions["_s1"] = r
	b.now = b.now.Add(110 * time.Minute)
	if v, err = b.View(t.Context(), cookie("_s1")); err != nil || !v.Until.Equal(r.Created.Add(2*time.Hour)) {
		t.Errorf("the absolute limit comes first: %+v, %v", v, err)
	}
	for name, c := range map[string][32]byte{"none": {}, "unknown": cookie("x")} {
		if _, err := b.Current(t.Context(), c); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.now = b.now.Add(10 * time.Minute)
	if _, err := b.Current(t.Context(), cookie("_s1")); !fault.Is(err, fault.NotFound) {
		t.Errorf("over: %v", err)
	}
	if _, err := b.Leave(t.Context(), cookie("_s1"), cookie("b")); !fault.Is(err, fault.NotFound) {
		t.Errorf("leaving what is over: %v", err)
	}
}

// leave ends the session as the person and returns the logout.
func (b *bench) leave(index string) id.LogoutID {
	b.t.Helper()
	l, err := b.Leave(b.t.Context(), cookie(index), cookie("browser"))
	if err != nil {
		b.t.Fatal(err)
	}
	if b.store.sessions[index].Ended.IsZero() {
		b.t.Fatal("the session is open while its end is told")
	}
	return l
}

func (b *bench) step(l id.LogoutID, m Move) Page {
	b.t.Helper()
	p, err := b.Step(b.t.Context(), l, [32]byte{}, cookie("browser"), m)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func states(p []Part) string {
	var s strings.Builder
	for _, x := range p {
		s.WriteString(strings.TrimSuffix(strings.TrimPrefix(x.SP.String(), "https://"), ".example.it"))
		s.WriteString([]string{"", ":waiting ", ":sent ", ":done ", ":failed "}[x.State])
	}
	return strings.TrimSpace(s.String())
}

// TestChain: SOAP first, then one SP after the other through the browser; who is
// skipped or has no endpoint has failed, and nobody is told twice without asking.
func TestChain(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spNone, spPost, spSOAP)
	l := b.leave("_s1")
	if p := b.step(l, Look); states(p.Parts) != "soap:waiting redir:waiting none:failed post:waiting" || p.Message != nil || len(b.wire.sent) != 0 || p.Over || p.Again {
		t.Fatalf("look: %s %+v", states(p.Parts), p)
	}
	p := b.step(l, Go)
	if states(p.Parts) != "soap:failed redir:sent none:failed post:waiting" || len(b.wire.sent) != 1 || b.wire.sent[0] != spSOAP+"/slo _id4 _s1"+spSOAP+" _s1" {
		t.Fatalf("go: %s %q", states(p.Parts), b.wire.sent)
	}
	if p.Message == nil || p.Message.Location != spRedir+"/slo" || string(p.Message.XML) != "_id1 _s1"+spRedir+" _s1" {
		t.Fatalf("message %+v", p.Message)
	}
	if p = b.step(l, Look); !p.Again || p.Message != nil {
		t.Errorf("back without an answer: %+v", p)
	}
	if p = b.step(l, Go); p.Message == nil || p.Message.Location != spRedir+"/slo" || len(b.wire.sent) != 1 {
		t.Errorf("again: %+v", p)
	}
	if p = b.step(l, Skip); states(p.Parts) != "soap:failed redir:failed none:failed post:sent" || p.Message.Location != spPost+"/slo" {
		t.Errorf("skip: %s", states(p.Parts))
	}
	if p = b.step(l, Skip); !p.Over || !p.Partial || p.Message != nil {
		t.Errorf("the end: %+v", p)
	}
	saves := b.store.saves
	if b.step(l, Go); b.store.saves != saves {
		t.Error("a step that changes nothing writes")
	}
	for name, browser := range map[string][32]byte{"another": cookie("other"), "none": {}} {
		if _, err := b.Step(t.Context(), l, [32]byte{}, browser, Look); !fault.Is(err, fault.Denied) {
			t.Errorf("%s browser: %v", name, err)
		}
	}
}

// TestDeadline: after a quarter of an hour whoever is left has failed.
func TestDeadline(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spPost)
	l := b.leave("_s1")
	b.step(l, Go)
	b.now = b.now.Add(LogoutLife)
	if p := b.step(l, Go); !p.Over || states(p.Parts) != "redir:failed post:failed" {
		t.Errorf("%s", states(p.Parts))
	}
}

// TestGone: an SP that left the registry meanwhile stops nothing.
func TestGone(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir, spPost)
	l := b.leave("_s1")
	delete(b.sps, spRedir)
	if p := b.step(l, Go); states(p.Parts) != "redir:failed post:sent" || p.Message.Location != spPost+"/slo" {
		t.Errorf("%s", states(p.Parts))
	}
}

// TestSlowBackChannel: however many SPs sleep, the time for all is the limit, and
// no more are asked at once than allowed.
func TestSlowBackChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Policy{PerSP: 4 * time.Second, Total: 10 * time.Second})
		var sps []string
		for i := range 40 {
			name := "https://s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".example.it"
			b.sps[name] = &saml.SP{EntityID: entity(name), SLO: []saml.Endpoint{{Binding: saml.SOAP, Location: name + "/slo"}}}
			sps = append(sps, name)
		}
		b.wire.send = func(ctx context.Context, _, _ string) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
		b.session("_s1", sps...)
		l := b.leave("_s1")
		began := time.Now()
		p := b.step(l, Go)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		if len(b.wire.sent) != 3*maxAtOnce || !p.Over || !p.Partial {
			t.Errorf("%d were asked", len(b.wire.sent))
		}
	})
}

// TestStoreFails: a session whose end cannot be written is not said to have ended.
func TestStoreFails(t *testing.T) {
	b := newBench(t, Policy{})
	b.session("_s1", spRedir)
	b.store.fail = fault.Newf(fault.Unavailable, "write", "disk full")
	if _, err := b.Leave(t.Context(), cookie("_s1"), cookie("browser")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("leave: %v", err)
	}
	b.store.fail = nil
	l := b.leave("_s1")
	b.store.fail = fault.Newf(fault.Unavailable, "write", "disk full")
	if p, err := b.Step(t.Context(), l, [32]byte{}, cookie("browser"), Go); err == nil || p.Message != nil {
		t.Errorf("a request leaves that the store does not know of: %+v, %v", p, err)
	}
}
