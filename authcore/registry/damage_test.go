package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/simulators/registrysim"
)

// spoil changes octets of the copy where it lies, as a bad disk does.
func spoil(t *testing.T, path, from, to string) {
	t.Helper()
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(octets, []byte(from))
	if at < 0 || len(from) != len(to) {
		t.Fatalf("no %q in the copy", from)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(to), int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedListing: the unsigned listing in the copy is compared with its
// digest before it is believed again, and fetched anew when it is not the one.
func TestDamagedListing(t *testing.T) {
	r := newRoom(t, 30)
	r.sim.Publish(func(e *registrysim.Edition) { e.Disabled[3] = true })
	f := r.open()
	r.refreshed(f)
	want(t, f, registrysim.EntityID(3), false)
	spoil(t, r.copy, `"_disabled":"Y"`, `"_disabled":"N"`)
	if _, err := f.refresh(t.Context(), Accept{}); err == nil {
		t.Error("a changed listing was taken from the copy")
	}
	want(t, f, registrysim.EntityID(3), false)
	r.refreshed(f)
	want(t, f, registrysim.EntityID(3), false)
}

// TestDamagedCopyIsReplaced: a source that says "not modified" for ever must not keep a
// damaged copy in use for ever.
func TestDamagedCopyIsReplaced(t *testing.T) {
	r := newRoom(t, 30)
	f := r.open()
	r.refreshed(f)
	spoil(t, r.copy, "/acs/0", "/acs/9")
	if _, err := f.refresh(t.Context(), Accept{}); err == nil {
		t.Error("a damaged copy was confirmed")
	}
	if !r.refreshed(f) {
		t.Error("nothing was fetched")
	}
	intact(t, f, 30)
	intact(t, r.open(), 30)
}

// TestCopyTakenAway: the source confirms what is in use, and not what somebody
// put in the copy's place, or nothing.
func TestCopyTakenAway(t *testing.T) {
	for _, name := range []string{"removed", "an older one put there"} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 30)
			f := r.open()
			r.refreshed(f)
			older, err := os.ReadFile(r.copy)
			if err != nil {
				t.Fatal(err)
			}
			r.sim.Publish(func(e *registrysim.Edition) { e.Disabled[3] = true; e.Revision[1] = 1 })
			r.refreshed(f)
			if err := os.Remove(r.copy); err != nil {
				t.Fatal(err)
			}
			if name != "removed" {
				if err := os.WriteFile(r.copy, older, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r.refreshed(f)
			again := r.open()
			want(t, again, registrysim.EntityID(3), false)
			intact(t, again, 30)
		})
	}
}

// TestClockGoesBack: a clock that was ahead when the copy was made must not take
// the registry away from a daemon that starts after it was set right.
func TestClockGoesBack(t *testing.T) {
	r := newRoom(t, 30)
	r.refreshed(r.open())
	r.now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	f := r.open(func(c *FederationConfig) { c.Rules.StopAge = 72 * time.Hour })
	intact(t, f, 30)
	if wait := f.first(); wait > 70*time.Minute {
		t.Errorf("the first refresh is in %v", wait)
	}
	if st := f.Status(); strings.HasPrefix(st.Age, "-") {
		t.Errorf("age %s", st.Age)
	}
	// Back to before the pinned certificate: nothing can be judged.
	r.now = func() time.Time { return r.sim.Certificate().NotBefore.Add(-time.Hour) }
	if err := r.open().Usable(); err == nil {
		t.Error("a copy was believed before its certificate was valid")
	}
}

// TestShowIsPrintable: nothing that an operator is shown of an entity can steer
// the terminal.
func TestShowIsPrintable(t *testing.T) {
	r := newRoom(t, 20)
	bad := strings.NewReplacer("RequestedAttribute Name=\"", "RequestedAttribute Name=\"\u009b2J\u202e", `ServiceName xml:lang="it"`, "ServiceName xml:lang=\"\u009bit\"",
		`DisplayName xml:lang="it"`, "DisplayName xml:lang=\"\u202eit\"", "/acs/0", "/acs/\u009b\u202e0").Replace(string(r.sim.Hostile()["script"]))
	r.sim.Publish(func(e *registrysim.Edition) { e.Extra = append(e.Extra, []byte(bad)) })
	f := r.open()
	r.refreshed(f)
	d, err := f.Show(t.Context(), "https://script.hostile.example.it")
	if err != nil || d.Standing != "live" {
		t.Fatalf("%+v %v", d, err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(text), "\u009b\u202e\u0085") {
		t.Errorf("%q", text)
	}
}

// miscount is a source that says it has one entity more than it hands over.
type miscount struct{ Source }

func (m miscount) Aggregate(ctx context.Context, known func(string) Mark, take func(Arrival) error) (int, error) {
	_, err := m.Source.Aggregate(ctx, known, take)
	return 31, err
}

// TestTotal: an entity that the source counts and does not hand over is missing.
func TestTotal(t *testing.T) {
	r := newRoom(t, 30)
	f := r.open(func(c *FederationConfig) { c.Source = miscount{c.Source} })
	if _, err := f.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Invalid) || f.Usable() == nil {
		t.Errorf("got %v", err)
	}
}

// TestRollbackByCreation: an aggregate is older when it was made earlier, or no
// longer says when.
func TestRollbackByCreation(t *testing.T) {
	made := func(digest string, at time.Time) *federationSnapshot {
		return &federationSnapshot{created: at, digests: []string{digest}, foot: &footer{}}
	}
	f, now := newRoom(t, 1).open(), time.Now()
	for name, c := range map[string]struct {
		next *federationSnapshot
		a    Accept
		kind fault.Kind
	}{
		"later":             {made("b", now.Add(time.Second)), Accept{}, 0},
		"same time":         {made("b", now), Accept{}, 0},
		"earlier":           {made("b", now.Add(-time.Second)), Accept{}, fault.Conflict},
		"no time":           {made("b", time.Time{}), Accept{}, fault.Conflict},
		"earlier, accepted": {made("b", now.Add(-time.Second)), Accept{Rollback: true}, 0},
		"the same again":    {made("a", now.Add(-time.Second)), Accept{}, 0},
	} {
		err := f.judgeAge(c.next, made("a", now), c.a)
		if c.kind == 0 && err != nil || c.kind != 0 && !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
