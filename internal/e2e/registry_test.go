package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/simulators/lab"
	"custode/simulators/registrysim"
	"custode/simulators/spsim"
)

// federation starts a lab whose appliance follows a simulated registry.
func federation(t *testing.T, entities, pageSize int) *lab.Lab {
	t.Helper()
	return own(t, lab.Config{Federation: &lab.Federation{Entities: entities, PageSize: pageSize}, Modems: 1})
}

// registryRefresh has the daemon refresh and returns the state after it.
func registryRefresh(t *testing.T, l *lab.Lab, args ...string) (lab.RegistryStatus, error) {
	t.Helper()
	_, err := l.Run(t.Context(), append([]string{"registry", "refresh"}, args...)...)
	st, statusErr := l.RegistryStatus(t.Context())
	if statusErr != nil {
		t.Fatal(statusErr)
	}
	return st, err
}

// TestRegistry is the life of a replica: import, login, refresh under load,
// disabled, hostile source, restart with a dead one.
func TestRegistry(t *testing.T) {
	t.Parallel()
	const entities = 3000
	l := federation(t, entities, 0)
	st, err := l.RegistryStatus(t.Context())
	if err != nil || st.Live != entities+1 || st.Broken != 0 || !st.Inspected {
		t.Fatalf("after the first import: %+v %v", st, err)
	}
	p := enrol(t, l)
	login(t, l, post, 1, p)

	// A refresh in which every entity is new, with logins all the time.
	l.Registry.Publish(func(e *registrysim.Edition) {
		for i := range entities {
			e.Revision[i] = 1
		}
	})
	var wg sync.WaitGroup
	done := make(chan struct{})
	var slowest time.Duration
	logins := 0
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			start := time.Now()
			login(t, l, redirect, 1, p)
			slowest = max(slowest, time.Since(start))
			logins++
		}
	})
	st, err = registryRefresh(t, l)
	close(done)
	wg.Wait()
	if err != nil || st.Live != entities+1 || st.Attempts < 2 {
		t.Errorf("refresh: %+v %v", st, err)
	}
	t.Logf("refresh of %d took %s with %d logins, the slowest %v", entities, st.LastTook, logins, slowest)
	if logins == 0 || slowest > 10*time.Second {
		t.Errorf("%d logins during the refresh, the slowest %v", logins, slowest)
	}

	show, err := l.Run(t.Context(), "registry", "show", registrysim.EntityID(7))
	if err != nil || !strings.Contains(show, `"standing": "live"`) || !strings.Contains(show, "Online desk") || !strings.Contains(show, `"organization_type": "PA"`) {
		t.Errorf("show: %v %s", err, show)
	}
	if _, err := l.Run(t.Context(), "registry", "show", "https://nobody.example.it"); err == nil || !strings.Contains(err.Error(), "exit status 67") {
		t.Errorf("show unknown: %v", err)
	}

	// Disabled: anomaly 10 at the next refresh; and back.
	setFlag := func(f registrysim.Flags) {
		l.Registry.Publish(func(e *registrysim.Edition) { e.ExtraFlags[l.SP.EntityID()] = f })
		if st, err = registryRefresh(t, l); err != nil {
			t.Fatal(err)
		}
	}
	setFlag(registrysim.Flags{Disabled: true})
	if st.Disabled != 1 {
		t.Errorf("status %+v", st)
	}
	for _, by := range bindings {
		arrive(t, l, by, spsim.Request{Level: 1}).page(10)
	}
	setFlag(registrysim.Flags{Deleted: true})
	arrive(t, l, post, spsim.Request{Level: 1}).page(10)
	setFlag(registrysim.Flags{})
	login(t, l, post, 1, p)

	// A hostile source changes nothing; nor does one that lost most of it.
	l.Registry.Misbehave(registrysim.BadSignature)
	l.Registry.Publish(func(e *registrysim.Edition) { e.Revision[1] = 2 })
	if st, err = registryRefresh(t, l); err == nil || !strings.Contains(st.LastError, "digest") || st.Live != entities+1 {
		t.Errorf("bad signature: %+v %v", st, err)
	}
	l.Registry.Misbehave(registrysim.None)
	l.Registry.Publish(func(e *registrysim.Edition) { e.Entities = entities / 2 })
	if st, err = registryRefresh(t, l); err == nil || !strings.Contains(err.Error(), "would remain") || st.Live != entities+1 {
		t.Errorf("shrunk: %+v %v", st, err)
	}
	if st, err = registryRefresh(t, l, "--accept-shrink"); err != nil || st.Live != entities/2+1 {
		t.Errorf("shrunk, accepted: %+v %v", st, err)
	}

	// A restart while the source is down.
	l.Registry.Misbehave(registrysim.ServerError)
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, l, post, 1, p)
	if st, err = l.RegistryStatus(t.Context()); err != nil || st.Entities != entities/2+1 || !st.Usable || st.LastSuccess == nil {
		t.Errorf("after the restart: %+v %v", st, err)
	}
}

// TestRegistryAbsent: without a copy and without a source nobody is told that
// the service provider is unknown.
func TestRegistryAbsent(t *testing.T) {
	t.Parallel()
	l := federation(t, 20, 7)
	login(t, l, post, 1, enrol(t, l))
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(l.Dir, "state", "registry.copy")); err != nil {
		t.Fatal(err)
	}
	l.Registry.Misbehave(registrysim.ServerError)
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, by := range bindings {
		arrive(t, l, by, spsim.Request{Level: 1}).page(2)
	}
}

// TestRegistryKill kills the daemon at random instants of a refresh. Every
// restart, with a dead source, has one edition or the other, whole.
func TestRegistryKill(t *testing.T) {
	t.Parallel()
	const entities = 600
	l := federation(t, entities, 100)
	p := enrol(t, l)
	login(t, l, post, 1, p)
	n := entities
	for round := range 6 {
		n += 10
		l.Registry.Misbehave(registrysim.None)
		l.Registry.Publish(func(e *registrysim.Edition) {
			e.Entities = n
			for i := range n {
				e.Revision[i] = round + 1
			}
		})
		started := make(chan error, 1)
		go func() {
			_, err := l.Run(t.Context(), "registry", "refresh")
			started <- err
		}()
		time.Sleep(time.Duration(50+rand.IntN(1200)) * time.Millisecond)
		l.KillDaemon()
		<-started // it fails when the daemon died under it
		l.Registry.Misbehave(registrysim.ServerError)
		if err := l.StartDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := l.RegistryStatus(t.Context())
		if err != nil || !st.Usable || (st.Entities-1)%10 != 0 || st.Entities-1 > n {
			t.Fatalf("round %d: %+v %v", round, st, err)
		}
		login(t, l, post, 1, p)
		if _, err := l.Run(t.Context(), "registry", "show", registrysim.EntityID(st.Entities-2)); err != nil {
			t.Error(err)
		}
		files, err := filepath.Glob(filepath.Join(l.Dir, "state", "registry.copy*"))
		if err != nil || fmt.Sprint(len(files)) != "1" {
			t.Errorf("round %d: %v", round, files)
		}
		l.Registry.Misbehave(registrysim.None)
		if _, err := registryRefresh(t, l); err != nil {
			t.Errorf("round %d: refresh after the crash: %v", round, err)
		}
	}
}
