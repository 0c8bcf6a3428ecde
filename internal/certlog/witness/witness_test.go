package witness

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/certlog"
	"custode/internal/certlog/folder/foldertest"
)

type endpoint struct {
	mu     sync.Mutex
	status int
	got    []string // names and octets
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	octets, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Header.Get("Content-Type") != "application/pkcs7-mime" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	w.WriteHeader(e.status)
	if e.status == http.StatusNoContent {
		e.got = append(e.got, r.Header.Get("Content-Disposition")+" "+string(octets))
	}
}

func (e *endpoint) set(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = status
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPush(t *testing.T) {
	log, folder, state := t.TempDir(), t.TempDir(), certlog.Dir(t.TempDir())
	end := &endpoint{status: http.StatusServiceUnavailable}
	server := httptest.NewServer(end)
	defer server.Close()
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var logged strings.Builder
	cfg := Config{Name: "transactions", FS: certlog.Dir(log), Folders: []string{folder}, URLs: []string{server.URL}, HTTP: server.Client(), State: state,
		Pause: time.Minute, Patience: time.Hour, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&logged, nil))}
	p := New(cfg)
	read := func(name string) string {
		octets, err := os.ReadFile(filepath.Join(folder, "transactions", name))
		if err != nil {
			return ""
		}
		return string(octets)
	}
	write(t, filepath.Join(log, "000000000001.p7m"), "one")
	write(t, filepath.Join(log, "000000000002.bes"), "two, early")
	p.Round(t.Context())
	if read("000000000001.p7m") != "one" || read("000000000002.bes") != "two, early" {
		t.Error("the folder lacks what was sealed")
	}
	if s := p.Status(); s[0].Holds != 1 || s[0].Error != "" || s[1].Holds != 0 || s[1].Error == "" || !s[1].Failing.Equal(now) {
		t.Errorf("%+v", s)
	}
	if strings.Contains(logged.String(), "level=ERROR") {
		t.Error("an alarm before its time")
	}
	now = now.Add(time.Hour)
	p.Round(t.Context())
	if !strings.Contains(logged.String(), "level=ERROR") {
		t.Error("no alarm")
	}
	end.set(http.StatusNoContent)
	if err := os.Rename(filepath.Join(log, "000000000002.bes"), filepath.Join(log, "000000000002.p7m")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(log, "000000000002.p7m"), "two")
	// What a witness holds is not replaced.
	write(t, filepath.Join(log, "000000000001.p7m"), "another one")
	p.Round(t.Context())
	if read("000000000002.p7m") != "two" || read("000000000001.p7m") != "one" {
		t.Errorf("the folder holds %q and %q", read("000000000001.p7m"), read("000000000002.p7m"))
	}
	if len(end.got) != 2 || !strings.Contains(end.got[1], `filename="transactions-000000000002.p7m"`) || !strings.HasSuffix(end.got[1], " two") {
		t.Errorf("posted: %q", end.got)
	}
	// A new process knows what was taken; a folder that lost something gets it again.
	if err := os.Remove(filepath.Join(folder, "transactions", "000000000002.p7m")); err != nil {
		t.Fatal(err)
	}
	again := New(cfg)
	again.begin()
	again.Round(t.Context())
	if len(end.got) != 2 || read("000000000002.p7m") != "two" {
		t.Errorf("posted again: %q", end.got)
	}
}

// mailbox is a mailbox that takes letters, or does not.
type mailbox struct {
	err error
	got []string
}

func (m *mailbox) Send(_ context.Context, log, name string, octets []byte) error {
	if m.err == nil {
		m.got = append(m.got, log+" "+name+" "+string(octets))
	}
	return m.err
}

// TestMailAndStatements: a mailbox gets the time-stamped seals, one without only
// when it is late; everybody gets statements of destruction, once.
func TestMailAndStatements(t *testing.T) {
	log, folder, state := t.TempDir(), t.TempDir(), certlog.Dir(t.TempDir())
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	box := &mailbox{}
	var logged strings.Builder
	cfg := Config{Name: "transactions", FS: certlog.Dir(log), Folders: []string{folder}, Mails: []Mail{{To: "mailto:auditor", Send: box.Send}}, State: state,
		Pause: time.Minute, Patience: time.Hour, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&logged, nil))}
	p := New(cfg)
	p.begin()
	wants := func(when string, want ...string) {
		t.Helper()
		p.Round(t.Context())
		if diff := cmp.Diff(want, box.got); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	write(t, filepath.Join(log, "000000000001.p7m"), "one")
	write(t, filepath.Join(log, "000000000002.bes"), "two, early")
	first, second := "transactions 000000000001.p7m one", "transactions 000000000002.bes two, early"
	wants("young", first)
	now = now.Add(mailPatience)
	wants("late", first, second)
	wants("once", first, second)
	box.err = errors.New("451 later")
	write(t, filepath.Join(log, "000000000002.p7m"), "two")
	write(t, filepath.Join(log, "destroyed-000000000001.p7m"), "gone")
	p.Destroyed()
	wants("refused", first, second)
	now = now.Add(time.Hour)
	wants("refused for an hour", first, second)
	if s := p.Status()[1]; s.Error == "" || s.Holds != 1 || !strings.Contains(logged.String(), "level=ERROR") {
		t.Errorf("no alarm: %+v", s)
	}
	box.err = nil
	third, fourth := "transactions 000000000002.p7m two", "transactions destroyed-000000000001.p7m gone"
	wants("taken again", first, second, third, fourth)
	if s := p.Status(); s[0].Told != 1 || s[1].Told != 1 || s[1].Holds != 2 || s[1].Error != "" {
		t.Errorf("%+v", s)
	}
	if octets, err := os.ReadFile(filepath.Join(folder, "transactions", "destroyed-000000000001.p7m")); err != nil || string(octets) != "gone" {
		t.Errorf("the folder has %q, %v", octets, err)
	}
	p = New(cfg)
	p.begin()
	wants("a new process", first, second, third, fourth)
}

// TestStateSurvives cuts the power at, and lets fail, each call of remembering:
// what is read afterwards is what was once true, or nothing.
func TestStateSurvives(t *testing.T) {
	for _, cut := range []bool{true, false} {
		for at := 1; ; at++ {
			d := foldertest.NewDisk(uint64(at))
			if cut {
				d.CrashAt = at
			} else {
				d.FailAt[at] = true
			}
			cfg := Config{Name: "x", Mails: []Mail{{To: "a"}}, State: d, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
			p := New(cfg)
			remembered := uint64(0)
			for n := uint64(1); n <= 3; n++ {
				p.places[0].Holds = n
				if p.remember() == nil {
					remembered = n
				}
			}
			cfg.State = d.Reboot()
			took, err := New(cfg).recall()
			if err != nil || took["a"].Holds < remembered || took["a"].Holds > 3 {
				t.Fatalf("call %d, cut %t: %+v, %v, remembered %d", at, cut, took, err, remembered)
			}
			if d.Calls < at {
				break
			}
		}
	}
}

// TestAbsentFolder: a share that is not mounted is not made.
func TestAbsentFolder(t *testing.T) {
	log, folder := t.TempDir(), filepath.Join(t.TempDir(), "not mounted")
	write(t, filepath.Join(log, "000000000001.p7m"), "one")
	p := New(Config{Name: "x", FS: certlog.Dir(log), Folders: []string{folder}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	p.Round(t.Context())
	if _, err := os.Stat(folder); err == nil || p.Status()[0].Error == "" {
		t.Errorf("%v, %+v", err, p.Status())
	}
}
