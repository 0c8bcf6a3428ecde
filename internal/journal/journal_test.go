package journal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/fault"
	"custode/internal/id"
)

// memory is a log in memory.
type memory struct {
	mu      sync.Mutex
	records []certlog.Record
	down    error
	hold    chan struct{} // nil, or Append waits for it
	broken  bool
}

func (m *memory) Append(ctx context.Context, r certlog.Record) (certlog.Appended, error) {
	if m.hold != nil {
		select {
		case <-m.hold:
		case <-ctx.Done():
			return certlog.Appended{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return certlog.Appended{}, m.down
	}
	m.records = append(m.records, r)
	return certlog.Appended{}, nil
}

func (m *memory) Status() certlog.Status {
	return certlog.Status{Records: uint64(len(m.records)), Broken: m.broken}
}

func (m *memory) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

func (m *memory) events(t *testing.T) (out []Event) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		var e Event
		if err := json.Unmarshal(r.Data, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func subject(t *testing.T) id.Subject {
	t.Helper()
	s, err := id.ParseSubject("s_0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTransaction(t *testing.T) {
	entity, err := id.ParseEntityID("https://idp.example.it")
	if err != nil {
		t.Fatal(err)
	}
	code, err := id.ParseSPIDCode("ABCD0000000001")
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{}
	r := NewTransactions(m, entity, "v1")
	now := time.Date(2026, 11, 22, 1, 2, 3, 4e6, time.FixedZone("", 3600))
	x := register.Transaction{At: now, SPIDCode: code, Level: saml.L2, Credentials: []string{"password", "sms"}, RequestID: "_q", RequestIssued: now,
		Request: []byte("<q a='1'/>"), Requested: []string{"name"},
		Response: saml.Signed{Code: saml.Success, ID: "_r", AssertionID: "_a", NameID: "_n", XML: []byte("<r/>"), IssueInstant: now}}
	if _, err := r.Record(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	got, err := attest.ParseAccess(m.records[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Request.XML) != "<q a='1'/>" || string(got.Response.XML) != "<r/>" || got.SPIDCode != code.String() || got.Level != 2 || !got.At.Equal(now) ||
		got.Assertion.NameQualifier != entity.String() || got.Build != "v1" || m.records[0].Tag != code.String() {
		t.Errorf("%+v", got)
	}
	m.broken = true
	if _, err := r.Ready(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	m.down = errors.New("full")
	if p, err := r.Record(t.Context(), x); err == nil || register.Proved(p) {
		t.Errorf("%v, %v", p, err)
	}
}

// TestNoise: a flood of anonymous incidents is counted, an identified subject's are all kept.
func TestNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := NewSecurity(m, time.Now, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		peer, agent := netip.MustParseAddr("192.0.2.1"), strings.Repeat("x", 2000)
		for range 500 {
			s.Note(ctx, register.Incident{What: register.RequestRefused, Code: saml.BadIssuer, Address: peer, Agent: agent, Detail: strings.Repeat("é", 500)})
		}
		for range 40 {
			s.Note(ctx, register.Incident{What: register.PasswordWrong, Subject: subject(t), Address: peer, Agent: agent})
		}
		time.Sleep(2 * time.Second)
		kept, counted, wrong := 0, 0, 0
		for _, e := range m.events(t) {
			switch e.What {
			case string(register.RequestRefused):
				kept++
				if e.Address != "192.0.2.1" || len(e.Agent) > maxText || len(e.Detail) > maxDetail+1 {
					t.Fatalf("%+v", e)
				}
			case Summary:
				counted += e.Counts["request-refused/10"]
			case string(register.PasswordWrong):
				wrong++
			}
		}
		if kept != perSecond || kept+counted != 500 || wrong != 40 {
			t.Errorf("%d kept, %d counted, %d wrong passwords", kept, counted, wrong)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestBoundedWait: a disk that hangs delays nobody for long, and what waits is
// kept when it comes back. An act does not happen.
func TestBoundedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{hold: make(chan struct{})}
		s := NewSecurity(m, time.Now, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		start := time.Now()
		s.Note(ctx, register.Incident{What: register.CodeWrong, Subject: subject(t)})
		if took := time.Since(start); took != waitMost {
			t.Errorf("waited %v", took)
		}
		if err := s.Act(ctx, Event{What: "identity/suspend"}); !fault.Is(err, fault.Unavailable) || time.Since(start) > time.Minute {
			t.Errorf("act: %v after %v", err, time.Since(start))
		}
		close(m.hold)
		m.set(errors.New("full"))
		for range 3 {
			s.Note(ctx, register.Incident{What: register.CodesBlocked, Subject: subject(t)})
		}
		time.Sleep(3 * time.Second)
		m.set(nil)
		time.Sleep(3 * time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		counts := 0
		for _, e := range m.events(t) {
			counts += e.Counts["codes-blocked/0"]
		}
		if counts != 3 {
			t.Errorf("%d of 3 counted: %+v", counts, m.events(t))
		}
	})
}
