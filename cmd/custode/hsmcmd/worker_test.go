package hsmcmd

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"custode/hsm"
	"custode/hsm/hsmtest"
	"custode/hsm/worker"
	"custode/internal/fault"
	"custode/simulators/hsmsim"
)

// attributes are signed attributes of a seal, new at each call.
func attributes() []byte {
	var b cryptobyte.Builder
	digest := sha256.Sum256([]byte(rand.Text()))
	attribute := func(b *cryptobyte.Builder, oid []byte, value func(*cryptobyte.Builder)) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
			b.AddASN1(asn1.SET, value)
		})
	}
	pkcs := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01}
	b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
		attribute(b, append(slices.Clone(pkcs), 9, 3), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(append(slices.Clone(pkcs), 7, 1)) })
		})
		attribute(b, append(slices.Clone(pkcs), 9, 5), func(b *cryptobyte.Builder) { b.AddASN1UTCTime(time.Now().UTC()) })
		attribute(b, append(slices.Clone(pkcs), 9, 4), func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) })
		attribute(b, append(slices.Clone(pkcs), 9, 16, 2, 47), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) })
		})
	})
	out, err := b.Bytes()
	if err != nil {
		panic(err)
	}
	return out
}

// TestConformance runs the suite of all tokens on a token in another process.
func TestConformance(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) hsmtest.Backend {
		b := newBench(t)
		return hsmtest.Backend{
			Token: open(t, b, nil), Sign: signLabel, MAC: macLabel, Wrap: wrapLabel, Seed: seedLabel, Octets: attributes,
			Refused:      []hsmtest.Refused{{Label: badLabel, Role: hsm.RoleMAC, Names: "CKA_EXTRACTABLE"}},
			DropSessions: b.DropSessions, Logout: b.Logout, Remove: b.Remove, Restore: b.Restore,
		}
	})
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begun)
}

// load signs, computes and unwraps all the time, and counts what went wrong.
type load struct {
	stop  chan struct{}
	all   sync.WaitGroup
	good  atomic.Int64
	errs  atomic.Int64 // calls that failed
	wrong atomic.Int64 // answers that were not right
	slow  atomic.Int64 // nanoseconds of the slowest round
	stall atomic.Int64 // nanoseconds that this machine kept somebody waiting who only wanted to look at the clock
	said  atomic.Pointer[error]
}

// allow is a limit on a machine that has other work too.
func (l *load) allow(d time.Duration) time.Duration { return d + 2*time.Duration(l.stall.Load()) }

// last is the error of the last call that failed.
func (l *load) last() error {
	if err := l.said.Load(); err != nil {
		return *err
	}
	return nil
}

func (l *load) measure() {
	for begun := time.Now(); ; begun = time.Now() {
		select {
		case <-l.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		if d := int64(time.Since(begun) - 5*time.Millisecond); d > l.stall.Load() {
			l.stall.Store(d)
		}
	}
}

func begin(t *testing.T, c *worker.Client, callers int) *load {
	t.Helper()
	s, err := c.Signer(signLabel)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Wrapper(wrapLabel)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.MAC(t.Context(), []byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	blob, err := w.Wrap(t.Context(), []byte("kept"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{stop: make(chan struct{})}
	once := func() (right bool, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		sum, err := m.MAC(ctx, []byte("kept"))
		if err != nil || !bytes.Equal(sum, want) {
			return false, err
		}
		plain, err := w.Unwrap(ctx, blob, nil)
		if err != nil || string(plain) != "kept" {
			return false, err
		}
		octets := attributes()
		sig, err := crypto.SignMessage(s, nil, octets, crypto.SHA256)
		if err != nil {
			return false, err
		}
		digest := sha256.Sum256(octets)
		return rsa.VerifyPKCS1v15(s.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig) == nil, nil
	}
	l.all.Go(l.measure)
	for range callers {
		l.all.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				begun := time.Now()
				right, err := once()
				if err != nil {
					l.said.Store(&err)
				}
				if d := int64(time.Since(begun)); d > l.slow.Load() {
					l.slow.Store(d)
				}
				switch {
				case fault.Is(err, fault.Invalid), fault.Is(err, fault.NotFound), fault.Is(err, fault.Denied):
					l.wrong.Add(1) // a good question was blamed
				case err != nil:
					l.errs.Add(1)
				case right:
					l.good.Add(1)
				default:
					l.wrong.Add(1)
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.all.Wait()
}

// more waits for n further good rounds.
func (l *load) more(t *testing.T, limit time.Duration, n int64) time.Duration {
	t.Helper()
	from := l.good.Load()
	return eventually(t, limit, "service", func() bool { return l.good.Load() >= from+n })
}

func pid(t *testing.T, c *worker.Client, token int) int {
	t.Helper()
	var p int
	eventually(t, 10*time.Second, "a worker's report", func() bool {
		if r := c.Status()[token].Worker; r != nil && c.Status()[token].Well {
			p = r.PID
		}
		return p != 0
	})
	return p
}

// onePIN insists that no process met a refused PIN twice, and that none was refused at all unless expected.
func onePIN(t *testing.T, b bench, refused int) {
	t.Helper()
	all, err := b.Logins()
	if err != nil || len(all) == 0 {
		t.Fatalf("logins: %v, %v", all, err)
	}
	n := 0
	for _, l := range all {
		if l.RV != 0 {
			n++
		}
	}
	if n != refused {
		t.Errorf("%d logins were refused, want %d: %v", n, refused, all)
	}
}

// TestWorkerTrouble: whatever happens to the worker, callers wait and get right answers.
func TestWorkerTrouble(t *testing.T) {
	b := newBench(t)
	c := open(t, b, nil)
	l := begin(t, c, 8)
	l.more(t, 20*time.Second, 50)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, trouble := range []struct {
		name  string
		do    func()
		fresh bool // another process follows
	}{
		{"killed", func() { must(syscall.Kill(pid(t, c, 0), syscall.SIGKILL)) }, true},
		{"crash in C_Sign", func() { must(b.Add(hsmsim.Fault{Call: "C_Sign", Action: hsmsim.Crash, Count: 1})) }, true},
		{"crash in C_Decrypt", func() { must(b.Add(hsmsim.Fault{Call: "C_Decrypt", Action: hsmsim.Crash, Count: 1})) }, true},
		{"sessions dropped", func() { must(b.DropSessions()) }, false},
		{"logged out", func() { must(b.Logout()) }, false},
		{"a device error in ten", func() {
			must(b.Add(hsmsim.Fault{Call: "C_Sign", RV: p11.CKR_DEVICE_ERROR, Rate: 0.1, Seed: 1, Count: 20}))
		}, false},
	} {
		before, errs := pid(t, c, 0), l.errs.Load()
		trouble.do()
		if trouble.fresh {
			eventually(t, 10*time.Second, "another worker", func() bool { r := c.Status()[0].Worker; return r != nil && r.PID != before })
		}
		took := l.more(t, 10*time.Second, 20)
		t.Logf("%s: served again after %v, %d calls failed, slowest so far %v", trouble.name, took, l.errs.Load()-errs, time.Duration(l.slow.Load()))
		if n := l.errs.Load() - errs; n > 0 {
			t.Errorf("%s: %d calls failed; the last: %v", trouble.name, n, l.last())
		}
	}
	// A hung call must end the process.
	before := pid(t, c, 0)
	must(b.Add(hsmsim.Fault{Call: "C_Sign", Hang: true, Count: 3}))
	eventually(t, 10*time.Second, "a worker after the hung one", func() bool { r := c.Status()[0].Worker; return r != nil && r.PID != before })
	l.more(t, 10*time.Second, 20)
	l.end()
	if n := l.wrong.Load(); n > 0 {
		t.Errorf("%d wrong answers", n)
	}
	onePIN(t, b, 0)
}

// TestTokenAway: calls are refused quickly while the token is away, and it is used within 5 s of its return.
func TestTokenAway(t *testing.T) {
	b := newBench(t)
	c := open(t, b, nil)
	l := begin(t, c, 4)
	l.more(t, 20*time.Second, 20)
	for _, away := range []time.Duration{200 * time.Millisecond, 6 * time.Second} {
		if err := b.Remove(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "ill", func() bool { return c.Health() != nil })
		time.Sleep(away)
		if err := b.Restore(); err != nil {
			t.Fatal(err)
		}
		took := l.more(t, 5*time.Second, 1)
		eventually(t, 5*time.Second, "well", func() bool { return c.Health() == nil })
		t.Logf("away for %v: served again after %v", away, took)
	}
	l.end()
	if n := l.wrong.Load(); n > 0 || l.errs.Load() == 0 {
		t.Errorf("%d wrong answers, %d refusals", n, l.errs.Load())
	}
	onePIN(t, b, 0)
}

// TestOtherToken: one that comes back re-initialised or with other keys is refused by name, by the worker that
// knew it and by one that did not; the right one is used again.
func TestOtherToken(t *testing.T) {
	b := newBench(t)
	c := open(t, b, nil)
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(names ...string) {
		t.Helper()
		var err error
		defer func() {
			if t.Failed() {
				t.Logf("instead: %v", err)
			}
		}()
		eventually(t, 10*time.Second, "refused by name", func() bool {
			err = c.Health()
			return fault.Is(err, fault.Fatal) && slices.ContainsFunc(names, func(n string) bool { return strings.Contains(err.Error(), n) })
		})
		if _, err := m.MAC(t.Context(), nil); err == nil {
			t.Error("used nevertheless")
		}
	}
	tokens, err := os.ReadDir(b.Sim.Dir + "/tokens")
	if err != nil || len(tokens) != 1 {
		t.Fatal(tokens, err)
	}
	keep := b.Sim.Dir + "/kept"
	if err := os.CopyFS(keep, os.DirFS(b.Sim.Dir+"/tokens")); err != nil {
		t.Fatal(err)
	}
	was := b.Serial
	if err := b.Wipe(); err != nil {
		t.Fatal(err)
	}
	refused("re-initialised or replaced")
	if err := syscall.Kill(pidOf(c), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	refused("re-initialised or replaced")
	// The same serial number, and no keys in it.
	files := b.Sim.Dir + "/tokens"
	if err := errors.Join(os.Rename(files, files+"-not"), os.Rename(keep, files)); err != nil {
		t.Fatal(err)
	}
	b.Serial = was
	eventually(t, 5*time.Second, "the right token is used again", func() bool { return c.Health() == nil })
	if err := deleteKey(b, macLabel.String()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pidOf(c), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	refused("recognise key " + macLabel.String())
	onePIN(t, b, 0)
}

func pidOf(c *worker.Client) int {
	for {
		if r := c.Status()[0].Worker; r != nil {
			return r.PID
		}
		time.Sleep(time.Millisecond)
	}
}

// halt stops every thread of a process. The signal alone is sent before it has come everywhere: one may answer yet.
func halt(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(file string) bool {
			stat, err := os.ReadFile(file)
			_, state, found := bytes.Cut(stat, []byte(") ")) // proc_pid_stat(5): number, (name), state
			return err != nil || !found || !bytes.HasPrefix(state, []byte("T"))
		})
	})
}

// TestStoppedWorker: a process that stands still without ending is ended and replaced.
func TestStoppedWorker(t *testing.T) {
	b := newBench(t)
	c := openConfig(t, worker.Config{Primary: source(b, bench{}, false), Deaf: time.Second, Log: slog.New(slog.NewTextHandler(testLog, nil))})
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	first := pid(t, c, 0)
	halt(t, first)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begun := time.Now()
	if _, err := m.MAC(ctx, nil); err != nil {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	t.Logf("answered after %v", time.Since(begun))
	if now := pid(t, c, 0); now == first {
		t.Errorf("still process %d", now)
	}
}

// TestGrown: a worker that has unwrapped as much as it may is replaced, and nobody notices.
func TestGrown(t *testing.T) {
	sim := newSim(t)
	env := map[string]string{machineEnv: sim.URI() + "||few", "SOFTHSM2_CONF": sim.Conf}
	c := openSource(t, &supervised{env: env, cfg: Config{MachineFile: "m", PolicyFile: "p", Stderr: testLog}})
	wrap, keyType, err := c.SecretForm(seedLabel)
	if err != nil {
		t.Fatal(err)
	}
	first := pid(t, c, 0)
	for i := range 60 {
		if _, err := c.WrapSecret(t.Context(), seedLabel, wrap, keyType, make([]byte, 64)); err != nil {
			t.Fatalf("secret %d: %v", i, err)
		}
		time.Sleep(10 * time.Millisecond) // the worker looks four times a second
	}
	eventually(t, 5*time.Second, "another worker", func() bool { r := c.Status()[0].Worker; return r != nil && r.PID != first })
	if s := c.Status()[0]; s.Trouble != "" || !s.Ready {
		t.Errorf("%+v", s)
	}
}

// TestRefusedPIN: a worker that the token refused is not followed by another.
func TestRefusedPIN(t *testing.T) {
	b := newBench(t)
	c := open(t, b, nil)
	m, err := c.MAC(macLabel)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePIN(b, "000000"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid(t, c, 0), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	select {
	case err := <-ended:
		if !errors.Is(err, worker.ErrForGood) || !strings.Contains(err.Error(), "PIN") || strings.Contains(err.Error(), "000000") {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if _, err := m.MAC(t.Context(), nil); !fault.Is(err, fault.Fatal) {
		t.Errorf("a call: %v", err)
	}
	time.Sleep(time.Second) // a back-off's time and more
	onePIN(t, b, 1)
}

// TestStandby: the primary is lost in every way, and nobody waits for two seconds.
func TestStandby(t *testing.T) {
	primary := newBench(t)
	sim, err := primary.Copy(t.TempDir() + "/copy")
	if err != nil {
		t.Fatal(err)
	}
	shim, err := hsmsim.NewShim(t.TempDir()+"/shim", sim.Module, "")
	if err != nil {
		t.Fatal(err)
	}
	standby := bench{sim, shim}
	c := open(t, primary, &standby)
	l := begin(t, c, 4)
	both := func() bool {
		for _, s := range c.Status() {
			if !s.Well {
				return false
			}
		}
		return true
	}
	settled := func() {
		t.Helper()
		eventually(t, 20*time.Second, "both well, the primary in use", func() bool { return both() && c.Status()[0].InUse })
	}
	for name, lose := range map[string]func() error{
		"taken away":        primary.Remove,
		"slot empty":        primary.Hide,
		"C_Sign hangs":      func() error { return primary.Add(hsmsim.Fault{Call: "C_Sign", Hang: true}) },
		"everything hangs":  func() error { return primary.Add(hsmsim.Fault{Call: "C_*", Hang: true}) },
		"device error":      func() error { return primary.Add(hsmsim.Fault{Call: "C_*", RV: p11.CKR_DEVICE_ERROR}) },
		"worker is stopped": func() error { halt(t, pid(t, c, 0)); return nil },
	} {
		settled()
		l.more(t, 20*time.Second, 10)
		l.slow.Store(0)
		l.stall.Store(0)
		stopped := pid(t, c, 0)
		begun := time.Now()
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, name+": fail-over", func() bool { return c.Status()[1].InUse })
		took := time.Since(begun)
		if took > l.allow(2*time.Second) {
			t.Errorf("%s: fail-over after %v", name, took)
		}
		l.more(t, 5*time.Second, 10)
		t.Logf("%s: fail-over after %v, slowest round %v", name, took, time.Duration(l.slow.Load()))
		if d := time.Duration(l.slow.Load()); d > l.allow(2*time.Second) {
			t.Errorf("%s: somebody waited %v, on a machine that stood still for %v", name, d, time.Duration(l.stall.Load()))
		}
		// Everything back as it was; a process that hangs has been replaced or is now.
		_ = syscall.Kill(stopped, syscall.SIGKILL)
		_ = primary.Clear()
		_ = primary.Show()
		if name == "taken away" {
			if err := primary.Restore(); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled() // else Close tells that the last worker was killed
	l.end()
	if l.wrong.Load()+l.errs.Load() > 0 {
		t.Errorf("%d wrong answers, %d calls failed; the last: %v", l.wrong.Load(), l.errs.Load(), l.last())
	}
	onePIN(t, primary, 0)
	onePIN(t, standby, 0)
}

// deleteKey removes a secret key from the token, by the module itself in this process.
func deleteKey(b bench, name string) error {
	old, had := os.LookupEnv("SOFTHSM2_CONF")
	if err := os.Setenv("SOFTHSM2_CONF", b.Conf); err != nil {
		return err
	}
	if had {
		defer os.Setenv("SOFTHSM2_CONF", old)
	} else {
		defer os.Unsetenv("SOFTHSM2_CONF")
	}
	pin, err := os.ReadFile(b.PINFile)
	if err != nil {
		return err
	}
	mod := p11.New(b.Sim.Module)
	if err := mod.Initialize(); err != nil {
		return err
	}
	defer mod.Finalize()
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return err
	}
	s, err := mod.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := mod.Login(s, p11.CKU_USER, strings.TrimSpace(string(pin))); err != nil {
		return err
	}
	if err := mod.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, name)}); err != nil {
		return err
	}
	found, _, err := mod.FindObjects(s, 1)
	if err != nil || len(found) != 1 {
		return errors.Join(err, errors.New("not found"))
	}
	return errors.Join(mod.FindObjectsFinal(s), mod.DestroyObject(s, found[0]))
}

func writePIN(b bench, pin string) error {
	return errors.Join(os.Chmod(b.PINFile, 0o600), os.WriteFile(b.PINFile, []byte(pin+"\n"), 0o600))
}
