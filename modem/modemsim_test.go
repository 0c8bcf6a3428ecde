package modem

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"custode/simulators/modemsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fast are waits fit for tests on a pty.
var fast = Timing{
	Prompt: 300 * time.Millisecond, Hedge: 200 * time.Millisecond, Receipt: 500 * time.Millisecond,
	Listen: 300 * time.Millisecond, ListenOne: 300 * time.Millisecond, KeepAlive: 10 * time.Second,
	Register: 100 * time.Millisecond, ReopenMin: 50 * time.Millisecond, ReopenMax: 500 * time.Millisecond,
	Retry: 100 * time.Millisecond, Poll: 10 * time.Second, Drain: 2 * time.Second, Record: 2 * time.Second,
}

// onSim runs a pool on a bank of simulated modems over real ptys.
func onSim(t testing.TB, sim modemsim.Config, cfg Config) (*rig, *modemsim.Bank) {
	t.Helper()
	sim.Dir = filepath.Join(t.TempDir(), "bank")
	bank, err := modemsim.NewBank(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bank.Close() })
	for i := range bank.Modems() {
		cfg.Bays = append(cfg.Bays, BayConfig{Name: fmt.Sprintf("bay%d", i), Device: bank.Device(i)})
	}
	cfg.AllowSimulated = true
	if cfg.Timing == (Timing{}) {
		cfg.Timing = fast
	}
	r := start(t, cfg)
	return r, bank
}

const phone1, phone2 = "+393401234567", "+393407654321"

func ready(t testing.TB, r *rig, b *modemsim.Bank) {
	t.Helper()
	for i := range b.Modems() {
		r.waitBay(t, i, isReady)
	}
}

func TestHappyPath(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 2}, Config{})
	ready(t, r, bank)
	const text = "Il codice è 493817"
	began := time.Now()
	m := r.submit(t, phone1, text)
	in, err := bank.Wait(t.Context(), phone1, 1)
	took := time.Since(began)
	if err != nil || in[0].Text != text {
		t.Fatalf("inbox %v %v", in, err)
	}
	if took > 500*time.Millisecond {
		t.Errorf("hand-over took %v", took)
	}
	r.journal.wait(t, m.ID, Delivered)
	if d := cmp.Diff([]State{Sending, Sent, Delivered}, r.journal.states(m.ID)); d != "" {
		t.Error(d)
	}
	st := r.pool.Bays()[bank.Ledger()[0].Modem]
	if st.Manufacturer != "SIMULATOR" || st.IMEI == "" || strings.Contains(st.IMSI, bank.IMSI(0)) || st.Signal != -71 || st.Operator != "00101" || st.Sent != 1 || st.Reports != 1 {
		t.Errorf("status %+v", st)
	}
	r.stop()
	for _, secret := range []string{"493817", "3401234567", bank.IMSI(0)} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	for i := range bank.Modems() {
		if bank.Violations(i) > 0 {
			t.Errorf("modem %d was written to while it sent", i)
		}
	}
}

func TestHostileRadio(t *testing.T) {
	const seed = 42
	t.Logf("seed %d", seed)
	r, bank := onSim(t, modemsim.Config{Modems: 3, Chatter: 0.3, Chop: true, Reject: 0.2, Seed: seed,
		Latency: modemsim.Delay{Median: 5 * time.Millisecond, Spread: 0.5}}, Config{MaxAttempts: 20})
	var all []Message
	for i := range 40 {
		all = append(all, r.submit(t, fmt.Sprintf("+3934000000%02d", i), fmt.Sprintf("codice %06d", i)))
	}
	for i, m := range all {
		r.journal.wait(t, m.ID, Sent, Delivered)
		in, err := bank.Wait(t.Context(), m.To.String(), 1)
		if err != nil || len(in) != 1 || in[0].Text != fmt.Sprintf("codice %06d", i) {
			t.Fatalf("message %d: %v %v", i, in, err)
		}
	}
	if n := len(bank.Ledger()); n != 40 {
		t.Errorf("%d submissions for 40 messages", n)
	}
}

func TestLateReceipt(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	// Later than Receipt and Listen: it comes during or after the resynchronisation.
	bank.LateReceipt(0, 1300*time.Millisecond)
	first := r.submit(t, phone1, "uno")
	r.journal.wait(t, first.ID, MaybeSent)
	bank.BadNumber(phone2, 1)
	second := r.submit(t, phone2, "due")
	// The stray "+CMGS, OK" must not pass for the answer to the second.
	r.journal.wait(t, second.ID, Failed)
	third := r.submit(t, phone1, "tre")
	r.journal.wait(t, third.ID, Sent, Delivered)
	if len(bank.Ledger()) != 2 {
		t.Errorf("ledger %+v", bank.Ledger())
	}
}

func TestLateReceiptWhileListening(t *testing.T) {
	slow := fast
	slow.ListenOne = 5 * time.Second
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{Timing: slow})
	ready(t, r, bank)
	bank.LateReceipt(0, 700*time.Millisecond)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sent, Delivered)
	if d := cmp.Diff([]State{Sending, MaybeSent, Sent}, r.journal.states(m.ID)[:3]); d != "" {
		t.Error(d)
	}
}

func TestNoPrompt(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.NoPrompt(0, 1)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sent, Delivered)
	if d := cmp.Diff([]State{Sending, Queued, Sending, Sent}, r.journal.states(m.ID)[:4]); d != "" {
		t.Error(d)
	}
	if n := len(bank.Ledger()); n != 1 {
		t.Errorf("%d submissions", n)
	}
}

func TestUnplugWhileSending(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1, Latency: modemsim.Delay{Median: 300 * time.Millisecond}}, Config{})
	ready(t, r, bank)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sending)
	time.Sleep(100 * time.Millisecond) // on the air
	bank.Unplug(0)
	r.journal.wait(t, m.ID, MaybeSent)
	r.waitBay(t, 0, func(s BayStatus) bool { return s.State == Absent })
	before := cpu(t)
	time.Sleep(300 * time.Millisecond)
	if used := cpu(t) - before; used > 150*time.Millisecond {
		t.Errorf("%v of CPU in 300 ms with no modem", used)
	}
	if err := bank.Plug(0); err != nil {
		t.Fatal(err)
	}
	second := r.submit(t, phone1, "due")
	r.journal.wait(t, second.ID, Sent, Delivered)
	if in, err := bank.Wait(t.Context(), phone1, 1); err != nil || len(in) != 1 || in[0].Text != "due" {
		t.Errorf("inbox %v %v", in, err)
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestAnotherModemTakesOver(t *testing.T) {
	for name, spoil := range map[string]func(b *modemsim.Bank, i int){
		"network failure": func(b *modemsim.Bank, i int) { b.FailNext(i, 100, 42) },
		"modem failure":   func(b *modemsim.Bank, i int) { b.FailNext(i, 100, 500) },
		"hang":            func(b *modemsim.Bank, i int) { b.HangOnSend(i) },
		"deaf":            func(b *modemsim.Bank, i int) { b.Hang(i) },
	} {
		t.Run(name, func(t *testing.T) {
			r, bank := onSim(t, modemsim.Config{Modems: 2}, Config{})
			ready(t, r, bank)
			spoil(bank, 0)
			for i := range 4 {
				m := r.submit(t, phone1, fmt.Sprint("numero ", i))
				r.journal.wait(t, m.ID, Sent, Delivered)
			}
			if in, err := bank.Wait(t.Context(), phone1, 4); err != nil || len(in) != 4 {
				t.Errorf("%d messages arrived, %v", len(in), err)
			}
			for _, s := range bank.Ledger() {
				if s.Modem != 1 {
					t.Errorf("through modem %d", s.Modem)
				}
			}
		})
	}
}

func TestBadNumberDoesNotBlock(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.BadNumber(phone2, 1)
	var bad, good []Message
	for range 5 {
		bad = append(bad, r.submit(t, phone2, "x"))
	}
	for range 5 {
		good = append(good, r.submit(t, phone1, "y"))
	}
	began := time.Now()
	for _, m := range good {
		r.journal.wait(t, m.ID, Sent, Delivered)
	}
	for _, m := range bad {
		r.journal.wait(t, m.ID, Failed)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestReboot(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.Reboot(0) // echo on, no reports: all must be set again
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Delivered)
}

func TestRegistration(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.SetRegistration(0, 2)
	r.waitBay(t, 0, func(s BayStatus) bool { return s.State == NoNetwork })
	m := r.submit(t, phone1, "uno")
	time.Sleep(150 * time.Millisecond)
	if s := r.journal.state(m.ID); s != Queued {
		t.Errorf("without a network the message is %v", s)
	}
	bank.SetRegistration(0, 6) // SMS only, home: TIM on LTE
	r.journal.wait(t, m.ID, Sent, Delivered)
}

func TestStorm(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.Storm(0, 20000, 0)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sent, Delivered)
}

func TestOKWithoutReference(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.OKWithoutRef(0, 1)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Delivered) // the report has no other message to be about
}

func TestReferenceWraps(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	bank.SetNextRef(0, 254)
	for range 4 {
		m := r.submit(t, phone1, "uno")
		r.journal.wait(t, m.ID, Delivered)
	}
}

func TestSimulatorIsRefused(t *testing.T) {
	sim := modemsim.Config{Modems: 1, Dir: t.TempDir()}
	bank, err := modemsim.NewBank(sim)
	if err != nil {
		t.Fatal(err)
	}
	defer bank.Close()
	r := start(t, Config{Timing: fast, Bays: []BayConfig{{Name: "a", Device: bank.Device(0)}}})
	s := r.waitBay(t, 0, func(s BayStatus) bool { return s.State == NeedsHand })
	if !strings.Contains(s.LastError, "simulator") {
		t.Errorf("last error %q", s.LastError)
	}
	r.stop()
}

// TestRecordBeforeRadio: when the journal refuses "sending", no PDU leaves.
func TestRecordBeforeRadio(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	r.journal.setRefuse(func(e Event) error {
		if e.State == Sending {
			return errors.New("disk full")
		}
		return nil
	})
	m := r.submit(t, phone1, "uno")
	time.Sleep(300 * time.Millisecond)
	if n := len(bank.Ledger()); n != 0 {
		t.Fatalf("%d submissions that the journal does not know", n)
	}
	r.journal.setRefuse(nil)
	r.journal.wait(t, m.ID, Sent, Delivered)
	if n := len(bank.Ledger()); n != 1 {
		t.Errorf("%d submissions", n)
	}
}

// TestReceiptIsRecordedLater: a receipt the journal refuses is offered again.
func TestReceiptIsRecordedLater(t *testing.T) {
	quick := fast
	quick.Poll = 50 * time.Millisecond
	r, bank := onSim(t, modemsim.Config{Modems: 1, Loss: 1}, Config{Timing: quick})
	ready(t, r, bank)
	r.journal.setRefuse(func(e Event) error {
		if e.State == Sent {
			return errors.New("disk full")
		}
		return nil
	})
	m := r.submit(t, phone1, "uno")
	time.Sleep(200 * time.Millisecond)
	if s := r.journal.state(m.ID); s != Sending {
		t.Fatalf("state %v", s)
	}
	r.journal.setRefuse(nil)
	r.journal.wait(t, m.ID, Sent)
	if n := len(bank.Ledger()); n != 1 {
		t.Errorf("%d submissions", n)
	}
}

func TestShutdownFinishesTheTransaction(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1, Latency: modemsim.Delay{Median: 300 * time.Millisecond}}, Config{})
	ready(t, r, bank)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sending)
	r.stop()
	if s := r.journal.state(m.ID); s != Sent && s != Delivered {
		t.Errorf("after shutdown: %v", s)
	}
}

func TestShutdownRecordsDoubt(t *testing.T) {
	short := fast
	short.Drain, short.Receipt = 50*time.Millisecond, 10*time.Second
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{Timing: short})
	ready(t, r, bank)
	bank.HangOnSend(0)
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Sending)
	time.Sleep(100 * time.Millisecond) // the PDU is out
	began := time.Now()
	r.stop()
	if s := r.journal.state(m.ID); s != MaybeSent {
		t.Errorf("after shutdown: %v", s)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("shutdown took %v", took)
	}
}

func TestPINOnTheWire(t *testing.T) {
	bank, err := modemsim.NewBank(modemsim.Config{Modems: 2, Dir: t.TempDir(), SIMPIN: "4321"})
	if err != nil {
		t.Fatal(err)
	}
	defer bank.Close()
	cfg := Config{Timing: fast, AllowSimulated: true}
	for i, pin := range []string{"4321", "1111"} {
		file := filepath.Join(t.TempDir(), "pin")
		if err := os.WriteFile(file, []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Bays = append(cfg.Bays, BayConfig{Name: pin, Device: bank.Device(i), SIMPIN: file})
	}
	r := start(t, cfg)
	r.waitBay(t, 0, isReady)
	r.waitBay(t, 1, func(s BayStatus) bool { return s.State == NeedsHand && s.Opens > 2 })
	if n := bank.PINTries(1); n != 2 {
		t.Errorf("%d tries left on the refused card, want 2", n)
	}
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Delivered)
	r.stop()
}

func TestHeldPortIsNamed(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 1}, Config{})
	ready(t, r, bank)
	second := start(t, Config{Timing: fast, AllowSimulated: true, Bays: []BayConfig{{Name: "again", Device: bank.Device(0)}}})
	second.waitBay(t, 0, func(s BayStatus) bool {
		return strings.Contains(s.LastError, fmt.Sprintf("held by process %d", os.Getpid()))
	})
	m := r.submit(t, phone1, "uno")
	r.journal.wait(t, m.ID, Delivered)
}

// TestIdleHandover measures wake to radio, one message at a time.
func TestIdleHandover(t *testing.T) {
	r, bank := onSim(t, modemsim.Config{Modems: 4}, Config{})
	ready(t, r, bank)
	var took []time.Duration
	for i := range 60 {
		began := time.Now()
		m := r.submit(t, phone1, fmt.Sprint(i))
		r.journal.wait(t, m.ID, Sent, Delivered)
		took = append(took, bank.Ledger()[i].At.Sub(began))
	}
	slices.Sort(took)
	t.Logf("p50 %v, p95 %v", took[30], took[57])
	if took[30] > 50*time.Millisecond {
		t.Errorf("p50 is %v, the objective is 50 ms", took[30])
	}
}

var chaosSeed = flag.Uint64("chaos-seed", 7, "seed of TestChaos")

// TestChaos breaks modems at random and checks what must hold whatever happens:
// a receipt means that the network has the message, a failure that it has not,
// and a second copy exists only where doubt was recorded.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	r, bank := onSim(t, modemsim.Config{Modems: 3, Chatter: 0.1, Chop: true, Reject: 0.05, Seed: seed,
		Latency: modemsim.Delay{Median: 10 * time.Millisecond, Spread: 0.7}}, Config{MaxAttempts: 50})
	faults := []func(i int){
		bank.HangOnSend, bank.Reboot, bank.Hang,
		func(i int) { bank.FailNext(i, 2, 500) },
		func(i int) { bank.FailNext(i, 2, 38) },
		func(i int) { bank.OKWithoutRef(i, 1) },
		func(i int) { bank.NoPrompt(i, 1) },
		func(i int) { bank.LateReceipt(i, 600*time.Millisecond) },
		func(i int) { bank.Storm(i, 500, time.Millisecond) },
		bank.Unplug,
	}
	var all []Message
	for n := range 80 {
		all = append(all, r.submit(t, phone1, fmt.Sprintf("messaggio %d", n)))
		if n%4 == 0 {
			faults[rnd.IntN(len(faults))](rnd.IntN(3))
		}
		if n%10 == 9 {
			for i := range 3 {
				bank.Unhang(i)
				if err := bank.Plug(i); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i := range 3 {
		bank.Unhang(i)
		if err := bank.Plug(i); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range all {
		r.journal.wait(t, m.ID, Sent, Delivered, Failed, MaybeSent)
	}
	r.stop()
	copies := map[string]int{}
	for _, s := range bank.Ledger() {
		copies[s.Text]++
	}
	count, doubts, attempts := map[State]int{}, 0, 0
	for n, m := range all {
		final, doubt := r.journal.state(m.ID), slices.Contains(r.journal.states(m.ID), MaybeSent)
		got := copies[fmt.Sprintf("messaggio %d", n)]
		count[final]++
		attempts += len(r.journal.states(m.ID))
		if doubt {
			doubts++
		}
		switch {
		case got > 2, got > 1 && !doubt, final == Failed && got > 0,
			(final == Sent || final == Delivered) && got == 0, final == Queued, final == Sending:
			t.Errorf("message %d: %v, %d copies, history %v", n, final, got, r.journal.states(m.ID))
		}
	}
	t.Logf("ends: %v; %d messages were in doubt; %d records", count, doubts, attempts)
}

// BenchmarkSubmit is the pool's overhead per message at zero radio latency: one
// message in flight, from the wake to the network's acceptance.
func BenchmarkSubmit(b *testing.B) {
	r, bank := onSim(b, modemsim.Config{Modems: 1, Loss: 1}, Config{})
	ready(b, r, bank)
	for b.Loop() {
		m := r.submit(b, phone1, "Il codice per accedere è 123456. Non comunicarlo a nessuno.")
		r.journal.wait(b, m.ID, Sent)
	}
}
