package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/simulators/registrysim"
)

var _ saml.SPs = (*Federation)(nil)

// room is a simulated registry and what is needed to follow it.
type room struct {
	t    *testing.T
	sim  *registrysim.Sim
	http HTTPConfig
	copy string
	pins []*x509.Certificate
	now  func() time.Time
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newRoom(t *testing.T, entities int) *room {
	t.Helper()
	sim, err := registrysim.New(registrysim.Config{Entities: entities, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(sim.Handler())
	t.Cleanup(srv.Close)
	return &room{t: t, sim: sim, copy: filepath.Join(t.TempDir(), "registry.copy"), pins: []*x509.Certificate{sim.Certificate()}, now: time.Now, log: &lockedBuffer{},
		http: HTTPConfig{AggregateURL: srv.URL + "/entities?entity_type=SP", ListingURL: srv.URL + "/entities-sp?output=json", Now: time.Now}}
}

// open builds and opens a replica of the room.
func (r *room) open(change ...func(*FederationConfig)) *Federation {
	r.t.Helper()
	src, err := NewHTTP(r.http)
	if err != nil {
		r.t.Fatal(err)
	}
	c := FederationConfig{Source: src, CopyPath: r.copy, Pinned: r.pins, Random: rand.Reader, Now: r.now, Log: slog.New(slog.NewTextHandler(r.log, nil)), Rules: Rules{Pace: 100}}
	for _, ch := range change {
		ch(&c)
	}
	f, err := NewFederation(c)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := f.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = f.Close() })
	return f
}

// refreshed refreshes and wants success.
func (r *room) refreshed(f *Federation, a ...Accept) bool {
	r.t.Helper()
	changed, err := f.refresh(r.t.Context(), slices.Concat(a, []Accept{{}})[0])
	if err != nil {
		r.t.Fatalf("refresh: %v", err)
	}
	return changed
}

func want(t *testing.T, f *Federation, entityID string, found bool) {
	t.Helper()
	sp, ok := f.Lookup(entityID)
	if ok != found || ok && sp.EntityID.String() != entityID {
		t.Errorf("look-up of %q: %v", entityID, ok)
	}
}

// intact wants the copy's last set in service, whatever was tried since.
func intact(t *testing.T, f *Federation, n int) {
	t.Helper()
	want(t, f, registrysim.EntityID(0), true)
	want(t, f, registrysim.EntityID(n-1), true)
	if st := f.Status(); st.Entities != n || !st.Usable {
		t.Errorf("status %+v", st)
	}
}

func TestFederation(t *testing.T) {
	for name, pageSize := range map[string]int{"one document": 0, "pages": 50} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 130)
			r.http.PageSize = pageSize
			r.sim.Publish(func(e *registrysim.Edition) { e.Disabled[3], e.Deleted[4] = true, true })
			f := r.open()
			if err := f.Usable(); !fault.Is(err, fault.Unavailable) {
				t.Errorf("usable before the first refresh: %v", err)
			}
			want(t, f, registrysim.EntityID(0), false)
			if !r.refreshed(f) {
				t.Error("nothing changed")
			}
			for i := range 130 {
				want(t, f, registrysim.EntityID(i), i != 3 && i != 4)
			}
			for _, absent := range []string{"", registrysim.EntityID(130), strings.ToUpper(registrysim.EntityID(0)), registrysim.EntityID(0) + "/"} {
				want(t, f, absent, false)
			}
			sp, _ := f.Lookup(registrysim.EntityID(7))
			if sp.Name("en") != "Municipality & body no. 7" || len(sp.Certificates) == 0 || len(sp.ACS) == 0 || len(sp.Services) == 0 {
				t.Errorf("%+v", sp)
			}
			if again, _ := f.Lookup(registrysim.EntityID(7)); again != sp {
				t.Error("parsed twice")
			}
			// The source confirms: nothing is written, the age starts anew.
			before, _ := os.Stat(r.copy)
			if r.refreshed(f) {
				t.Error("changed without a change")
			}
			if after, _ := os.Stat(r.copy); !os.SameFile(before, after) || !after.ModTime().After(before.ModTime()) {
				t.Error("the copy was not just confirmed")
			}
			// One entity changes: only that one is new.
			r.sim.Publish(func(e *registrysim.Edition) { e.Revision[9] = 1; delete(e.Disabled, 3) })
			if !r.refreshed(f) {
				t.Error("the change did not arrive")
			}
			want(t, f, registrysim.EntityID(3), true)
			if again, _ := f.Lookup(registrysim.EntityID(7)); again != sp {
				t.Error("an unchanged entity was parsed again")
			}
			// A restart without the source.
			r.sim.Misbehave(registrysim.ServerError)
			again := r.open()
			want(t, again, registrysim.EntityID(3), true)
			want(t, again, registrysim.EntityID(4), false)
			if err := again.Usable(); err != nil {
				t.Error(err)
			}
			if _, err := again.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Unavailable) {
				t.Errorf("refresh from a dead source: %v", err)
			}
			intact(t, again, 130)
		})
	}
}

// TestHostileSource: whatever the source does, the last good copy stays, in
// memory and on disk, and work and memory are bounded.
func TestHostileSource(t *testing.T) {
	const entities = 120
	for name, c := range map[string]struct {
		fault registrysim.Fault
		kind  fault.Kind
		pages bool
	}{
		"bad signature":      {registrysim.BadSignature, fault.Denied, false},
		"bad page":           {registrysim.BadSignature, fault.Denied, true},
		"foreign key":        {registrysim.ForeignKey, fault.Denied, false},
		"connection lost":    {registrysim.Half, fault.Unavailable, false},
		"half a file":        {registrysim.Cut, fault.Invalid, false},
		"drip":               {registrysim.Drip, fault.Unavailable, false},
		"endless":            {registrysim.Endless, fault.Invalid, false},
		"gzip bomb":          {registrysim.GzipBomb, fault.Invalid, false},
		"wrong content type": {registrysim.WrongType, fault.Invalid, false},
		"maintenance page":   {registrysim.Maintenance, fault.Invalid, false},
		"server error":       {registrysim.ServerError, fault.Unavailable, true},
		"redirect elsewhere": {registrysim.Elsewhere, fault.Unavailable, false},
		"totals change":      {registrysim.Restless, fault.Retry, true},
		"listing cut":        {registrysim.BadListing, fault.Invalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, entities)
			if c.pages {
				r.http.PageSize = 50
			}
			if c.fault == registrysim.Drip {
				r.http.Grace, r.http.LeastRate = 300*time.Millisecond, 4<<10
			}
			f := r.open(func(c *FederationConfig) { c.Rules.MaxOctets = 8 << 20 })
			r.refreshed(f)
			held, err := os.ReadFile(r.copy)
			if err != nil {
				t.Fatal(err)
			}
			r.sim.Publish(func(e *registrysim.Edition) { e.Revision[1] = 1 })
			r.sim.Misbehave(c.fault)
			if _, err := f.refresh(t.Context(), Accept{Shrink: true, Rollback: true}); !fault.Is(err, c.kind) {
				t.Errorf("refresh: %v, want %v", err, c.kind)
			}
			intact(t, f, entities)
			if now, err := os.ReadFile(r.copy); err != nil || !bytes.Equal(now, held) {
				t.Error("the copy changed")
			}
			if _, err := os.Stat(r.copy + copySuffix); !errors.Is(err, os.ErrNotExist) {
				t.Error("an unfinished copy was left behind")
			}
			r.sim.Misbehave(registrysim.Moved)
			if !r.refreshed(f) {
				t.Error("did not recover")
			}
		})
	}
	t.Run("not modified to a newcomer", func(t *testing.T) {
		r := newRoom(t, 10)
		r.sim.Misbehave(registrysim.OldETag)
		if _, err := r.open().refresh(t.Context(), Accept{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("time limit", func(t *testing.T) {
		r := newRoom(t, 10)
		r.sim.Misbehave(registrysim.Drip)
		start := time.Now()
		if _, err := r.open(func(c *FederationConfig) { c.Rules.Timeout = 200 * time.Millisecond }).refresh(t.Context(), Accept{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestBrokenEntities: each is left out and named, the others are served.
func TestBrokenEntities(t *testing.T) {
	r := newRoom(t, 40)
	hostile := r.sim.Hostile()
	twin := []byte(strings.Replace(string(hostile["script"]), "script.hostile", "twin.hostile", 1))
	other := []byte(strings.Replace(string(twin), "/acs/0", "/acs/7", 1))
	r.sim.Publish(func(e *registrysim.Edition) {
		for _, doc := range hostile {
			e.Extra = append(e.Extra, doc)
		}
		e.Extra = append(e.Extra, hostile["script"], twin, other)
	})
	f := r.open()
	r.refreshed(f)
	for i := range 40 {
		want(t, f, registrysim.EntityID(i), true)
	}
	const script = "https://script.hostile.example.it"
	for name := range hostile {
		want(t, f, "https://"+name+".hostile.example.it", name == "script")
	}
	want(t, f, "https://twin.hostile.example.it", false)
	sp, _ := f.Lookup(script)
	for _, c := range []string{"\u202e", "\u0085", "\u009b"} {
		if strings.Contains(sp.Name("it"), c) {
			t.Errorf("name %q", sp.Name("it"))
		}
	}
	if !strings.Contains(sp.Name("it"), "<script>") {
		t.Errorf("the name is shown escaped, not changed: %q", sp.Name("it"))
	}
	st := f.Status()
	// All of Hostile but "script", and the twins.
	if st.Broken != len(hostile) || len(st.BrokenList) != st.Broken || !st.Inspected || st.Repeated != 1 || st.Live != 41 {
		t.Errorf("status %+v", st)
	}
	for _, b := range st.BrokenList {
		if b.Reason == "" || strings.ContainsFunc(b.Entity+b.Reason, func(c rune) bool { return c < ' ' || c == '\u009b' || c == '\u202e' }) {
			t.Errorf("broken %q: %q", b.Entity, b.Reason)
		}
	}
	if n := strings.Count(r.log.String(), "level"); n > 30 {
		t.Errorf("%d log lines", n)
	}
	// The same after a restart, found by the inspection.
	again := r.open()
	want(t, again, "https://acs.hostile.example.it", false)
	want(t, again, "https://twin.hostile.example.it", false)
	again.inspectLoaded(t.Context(), again.current.Load())
	if got := again.Status(); got.Broken != st.Broken || got.Live != st.Live {
		t.Errorf("after a restart %+v", got)
	}
	d, err := again.Show(t.Context(), "https://certificate.hostile.example.it")
	if err != nil || d.Standing != "broken" || d.Reason == "" {
		t.Errorf("show: %+v %v", d, err)
	}
}

func TestShrink(t *testing.T) {
	r := newRoom(t, 100)
	f := r.open()
	r.refreshed(f)
	shrunk := map[string]func(*registrysim.Edition){
		"aggregate": func(e *registrysim.Edition) { e.Entities = 60 },
		"listing": func(e *registrysim.Edition) {
			e.Entities = 100
			for i := range 60 {
				e.Disabled[i] = true
			}
		},
	}
	for _, name := range []string{"aggregate", "listing"} {
		r.sim.Publish(shrunk[name])
		if _, err := f.refresh(t.Context(), Accept{Rollback: true}); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
		intact(t, f, 100)
	}
	// An operator lets it pass, once.
	r.refreshed(f, Accept{Shrink: true})
	want(t, f, registrysim.EntityID(0), false)
	want(t, f, registrysim.EntityID(99), true)
	r.sim.Publish(func(e *registrysim.Edition) { e.Entities, e.Disabled = 80, map[int]bool{} })
	r.refreshed(f) // more than before
	r.sim.Publish(func(e *registrysim.Edition) { e.Entities = 0; e.Extra = [][]byte{r.sim.Hostile()["acs"]} })
	if _, err := f.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("nobody left: %v", err)
	}
}

func TestRollback(t *testing.T) {
	for name, until := range map[string]bool{"by validUntil": false, "by memory": true} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 30)
			same := time.Now().Add(time.Hour).Truncate(time.Second)
			publish := func(rev int) {
				r.sim.Publish(func(e *registrysim.Edition) {
					e.Revision[1] = rev
					if until {
						e.ValidUntil = same // says nothing about the order
					}
				})
			}
			publish(1)
			f := r.open()
			r.refreshed(f)
			publish(2)
			r.refreshed(f)
			f = r.open() // the memory survives
			r.sim.Serve(2)
			if _, err := f.refresh(t.Context(), Accept{Shrink: true}); !fault.Is(err, fault.Conflict) {
				t.Errorf("replay: %v", err)
			}
			r.refreshed(f, Accept{Rollback: true})
			r.sim.Serve(3)
			if _, err := f.refresh(t.Context(), Accept{}); until && !fault.Is(err, fault.Conflict) {
				t.Errorf("forward again, without being told: %v", err)
			}
			r.refreshed(f, Accept{Rollback: true})
		})
	}
}

// TestRollOver: two pinned certificates; the one of the signature may be either.
func TestRollOver(t *testing.T) {
	r := newRoom(t, 12)
	f := r.open(func(c *FederationConfig) { c.Pinned = []*x509.Certificate{newAuthor().cert, r.sim.Certificate()} })
	r.refreshed(f)
	// The signer's pin is taken away: the copy is no longer believed.
	again := r.open(func(c *FederationConfig) { c.Pinned = []*x509.Certificate{newAuthor().cert} })
	if err := again.Usable(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without the pin: %v", err)
	}
	want(t, again, registrysim.EntityID(0), false)
	if !strings.Contains(r.log.String(), "copy is not usable") {
		t.Error("nothing in the log")
	}
	if _, err := again.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Denied) {
		t.Errorf("refresh without the pin: %v", err)
	}
	// The pin expires: what was fetched in time stays, new editions do not come in.
	late := r.sim.Certificate().NotAfter.Add(time.Hour)
	r.sim.Publish(func(e *registrysim.Edition) { e.ValidUntil = late.AddDate(1, 0, 0) })
	r.refreshed(f)
	r.now = func() time.Time { return late }
	expired := r.open()
	intact(t, expired, 12)
	r.sim.Publish(func(e *registrysim.Edition) { e.Revision[1] = 1 })
	if _, err := expired.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Denied) {
		t.Errorf("refresh with an expired pin: %v", err)
	}
	expired.alarm()
	if log := r.log.String(); !strings.Contains(log, "no pinned certificate is valid") || !strings.Contains(log, "the copy is old") {
		t.Errorf("no alarm: %s", log)
	}
	if st := expired.Status(); st.Certificates[0].Usable || st.Trouble == "" {
		t.Errorf("status %+v", st)
	}
}

// TestDamagedCopy: nothing of a copy that is not as it was written is used.
func TestDamagedCopy(t *testing.T) {
	r := newRoom(t, 20)
	r.refreshed(r.open())
	good, err := os.ReadFile(r.copy)
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) int { return bytes.Index(good, []byte(s)) }
	for name, damage := range map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"cut":           func(b []byte) []byte { return b[:len(b)/2] },
		"end cut":       func(b []byte) []byte { return b[:len(b)-1] },
		"entity":        func(b []byte) []byte { b[at("/acs/0")+5] = '9'; return b },
		"signature":     func(b []byte) []byte { b[at("<ds:SignatureValue>")+30] ^= 1; return b },
		"listing":       func(b []byte) []byte { b[at(`"_disabled":"N"`)+13] = 'Y'; return b },
		"footer":        func(b []byte) []byte { b[bytes.LastIndex(b, []byte(`"length"`))+10] ^= 1; return b },
		"footer length": func(b []byte) []byte { b[len(b)-len(copyEnd)-8] = 0xff; return b },
		"comment":       func(b []byte) []byte { return append(b, "<!-- -->"...) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(r.copy, damage(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			f := r.open()
			if f.Usable() == nil {
				t.Error("usable")
			}
			want(t, f, registrysim.EntityID(0), false)
			r.refreshed(f) // and it heals
			intact(t, f, 20)
		})
	}
	// Changed under a running replica: found at the look-up.
	f := r.open()
	file, err := os.OpenFile(r.copy, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text, _ := os.ReadFile(r.copy)
	if _, err := file.WriteAt([]byte("9"), int64(bytes.Index(text, []byte("/acs/0"))+5)); err != nil {
		t.Fatal(err)
	}
	want(t, f, registrysim.EntityID(0), false)
	want(t, f, registrysim.EntityID(1), true)
}

// TestAge: what is too old stops logins with a reason of its own.
func TestAge(t *testing.T) {
	r := newRoom(t, 12)
	var shift atomic.Int64
	r.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	f := r.open(func(c *FederationConfig) { c.Rules.MaxAge, c.Rules.StopAge = time.Hour, 48*time.Hour })
	f.attempt(t.Context(), Accept{})
	if st := f.Status(); !st.Usable || st.Trouble != "" || st.LastSuccess == nil {
		t.Errorf("fresh: %+v", st)
	}
	shift.Store(int64(2 * time.Hour))
	if st := f.Status(); !st.Usable || st.Trouble != "the copy is old" {
		t.Errorf("old: %+v", st)
	}
	shift.Store(int64(50 * time.Hour))
	if err := f.Usable(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("too old: %v", err)
	}
	f.alarm()
	if !strings.Contains(r.log.String(), "logins are stopped") {
		t.Error("no alarm")
	}
	shift.Store(int64(8 * 24 * time.Hour)) // the edition's validUntil is over
	r.sim.Misbehave(registrysim.ServerError)
	if err := r.open().Usable(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "valid until") {
		t.Errorf("validUntil: %v", err)
	}
}

func TestShow(t *testing.T) {
	r := newRoom(t, 12)
	r.sim.Publish(func(e *registrysim.Edition) {
		e.Deleted[1] = true
		e.ExtraFlags["https://gone.example.it"] = registrysim.Flags{Deleted: true}
	})
	f := r.open()
	r.refreshed(f)
	for id, standing := range map[string]string{registrysim.EntityID(0): "live", registrysim.EntityID(1): "deleted", "https://gone.example.it": "absent"} {
		d, err := f.Show(t.Context(), id)
		if err != nil || d.Standing != standing || d.Listing == nil {
			t.Errorf("%s: %+v %v", id, d, err)
		}
	}
	if _, err := f.Show(t.Context(), "https://nobody.example.it"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	if st := f.Status(); st.ListedOnly != 1 || st.Deleted != 1 || st.Live != 11 || st.Memory.Index == 0 || st.Memory.Copy == 0 {
		t.Errorf("%+v", st)
	}
}

// TestLookupDuringRefresh lets the race detector watch, and no look-up fail.
func TestLookupDuringRefresh(t *testing.T) {
	r := newRoom(t, 60)
	f := r.open(func(c *FederationConfig) { c.Rules.Cached = 8 })
	r.refreshed(f)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				want(t, f, registrysim.EntityID(i%60), true)
				f.Status()
			}
		})
	}
	for i := range 5 {
		r.sim.Publish(func(e *registrysim.Edition) { e.Revision[i] = i + 1 })
		r.refreshed(f)
	}
	stop()
	wg.Wait()
	if n := f.cache.len(); n > 8 {
		t.Errorf("%d cached", n)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, url := range []string{"", "ftp://x/", "registry", "http://"} {
		if _, err := NewHTTP(HTTPConfig{AggregateURL: url, Now: time.Now}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := NewFederation(FederationConfig{Source: File{}, CopyPath: "/x", Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler)}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no pin: %v", err)
	}
}

func TestFileSource(t *testing.T) {
	r := newRoom(t, 15)
	resp, err := http.Get(r.http.AggregateURL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc bytes.Buffer
	if _, err := doc.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	src := File{AggregatePath: filepath.Join(dir, "sp.xml"), ListingPath: filepath.Join(dir, "sp.json")}
	f := r.open(func(c *FederationConfig) { c.Source = src })
	if _, err := f.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no file: %v", err)
	}
	put(t, dir, "sp.xml", doc.Bytes())
	put(t, dir, "sp.json", []byte(`[{"entity_id":"`+registrysim.EntityID(2)+`","_disabled":true,"_deleted":null,"other":{"x":[1]}}]`))
	if !r.refreshed(f) || r.refreshed(f) {
		t.Error("changes are not noticed as they are")
	}
	want(t, f, registrysim.EntityID(1), true)
	want(t, f, registrysim.EntityID(2), false)
	for _, bad := range []string{`{}`, `[`, `[{"entity_id":1}]`, `[{"_disabled":"maybe"}]`, `[] []`, `[{"x":"` + strings.Repeat("y", 2*maxListedEntry) + `"}]`} {
		put(t, dir, "sp.json", []byte(bad))
		if _, err := f.refresh(t.Context(), Accept{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("listing %.20s: %v", bad, err)
		}
	}
	want(t, f, registrysim.EntityID(2), false)
}
