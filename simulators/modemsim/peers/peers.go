// Package peers drives the modem programs people use today, gammu-smsd and
// smstools' smsd, on the same simulated modems as the product, so that a bench can
// print them side by side.
//
// The programs run as child processes with configurations written for the run in
// a directory of its own; messages are handed over as files, the way both are used
// without a database. What is measured comes from the simulator's own ledger and
// clock, not from the programs' logs: when a modem got the Ctrl-Z, and when the
// network had the message. Nothing is installed here: a missing program is an error
// that names its Debian package. Only cmd/simlab and tests may import it.
package peers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"custode/simulators/modemsim"
)

// Options say how much to measure. The zero value is the full run, some four minutes.
type Options struct {
	Dir   string // for configurations and spools; "" is a temporary directory
	Quick bool   // fewer samples, tuned configurations only: under a minute
	// Programs to run: "gammu-smsd", "smstools"; none means both.
	Programs []string
	Log      io.Writer // progress; nil is silence
}

// Row is one measurement.
type Row struct {
	Program string // "gammu-smsd", "smstools"
	Config  string // "tuned" or "default"
	What    string // "idle hand-off" or "throughput"
	Modems  int
	Latency time.Duration // of the radio
	N       int           // messages measured
	// P50, P95 and Max are of the time from the file's appearing to Ctrl-Z; for
	// idle hand-off only.
	P50, P95, Max time.Duration
	// PerSecond and Overhead are for throughput: messages a second of all modems,
	// and what one modem needed per message beyond the radio's latency.
	PerSecond float64
	Overhead  time.Duration
}

const idle, throughput = "idle hand-off", "throughput"

// Run measures and returns the rows in a fixed order, as many as succeeded, with
// the errors of the others.
func Run(ctx context.Context, o Options) ([]Row, error) {
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "modem-peers-")
		if err != nil {
			return nil, fmt.Errorf("peers: %w", err)
		}
		defer os.RemoveAll(dir)
		o.Dir = dir
	}
	programs := map[string]program{"gammu-smsd": gammuSMSD{}, "smstools": smstools{}}
	if len(o.Programs) == 0 {
		o.Programs = []string{"gammu-smsd", "smstools"}
	}
	var cases []Row
	for _, name := range o.Programs {
		p := programs[name]
		if p == nil {
			return nil, fmt.Errorf("peers: no program %q", name)
		}
		if err := p.installed(); err != nil {
			return nil, err
		}
		cases = append(cases, o.cases(name)...)
	}
	// They sleep most of their time, so a few at once do not disturb one another.
	rows := make([]Row, len(cases))
	errs := make([]error, len(cases))
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, c := range cases {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rows[i], errs[i] = measure(ctx, programs[c.Program], c, filepath.Join(o.Dir, fmt.Sprint("case", i)))
			if o.Log != nil {
				fmt.Fprintf(o.Log, "peers: %s %s %s, %d modems, %v radio: done\n", c.Program, c.Config, c.What, c.Modems, c.Latency)
			}
		})
	}
	all.Wait()
	var good []Row
	for i, r := range rows {
		if errs[i] == nil {
			good = append(good, r)
		} else {
			errs[i] = fmt.Errorf("peers: %s, %s, %s: %w", cases[i].Program, cases[i].Config, cases[i].What, errs[i])
		}
	}
	return good, errors.Join(errs...)
}

// cases lists what to measure of one program.
func (o Options) cases(name string) []Row {
	const radio = 3 * time.Second
	out := []Row{
		{Program: name, Config: "tuned", What: idle, Modems: 1, N: 20},
		{Program: name, Config: "tuned", What: throughput, Modems: 1, N: 30},
		{Program: name, Config: "tuned", What: throughput, Modems: 4, N: 60},
		{Program: name, Config: "tuned", What: throughput, Modems: 1, Latency: radio, N: 10},
		{Program: name, Config: "tuned", What: throughput, Modems: 4, Latency: radio, N: 32},
		{Program: name, Config: "default", What: idle, Modems: 1, N: 8},
	}
	if o.Quick {
		out = out[:4]
		out[0].N, out[1].N, out[2].N, out[3].N = 6, 10, 20, 4
	}
	return out
}

// program is a peer: it can be started on a bank, and given a message.
type program interface {
	installed() error
	// configure writes the files for n modems and returns the commands to run.
	configure(dir string, bank *modemsim.Bank, tuned bool) ([]*exec.Cmd, error)
	// drop hands over message number k for one of the modems.
	drop(dir string, k, modem int, to, text string) error
}

// missing names the package of a program that is not there.
func missing(path, pack string) error {
	if _, err := exec.LookPath(path); err != nil {
		return fmt.Errorf("peers: %s is missing: install the Debian package %s (make deps)", path, pack)
	}
	return nil
}

func measure(ctx context.Context, p program, c Row, dir string) (Row, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	bank, err := modemsim.NewBank(modemsim.Config{Dir: filepath.Join(dir, "bank"), Modems: c.Modems, Latency: modemsim.Delay{Median: c.Latency}})
	if err != nil {
		return c, err
	}
	defer bank.Close()
	cmds, err := p.configure(dir, bank, c.Config == "tuned")
	if err != nil {
		return c, err
	}
	running, stop := context.WithCancel(ctx)
	var children sync.WaitGroup
	defer children.Wait()
	defer stop()
	for _, cmd := range cmds {
		if err := start(running, &children, cmd); err != nil {
			return c, err
		}
	}
	// One message per modem shows that everything is up.
	m := &meter{p: p, dir: dir, bank: bank}
	for range c.Modems {
		if _, err := m.send("warm-up"); err != nil {
			return c, err
		}
	}
	if _, err := bank.WaitLedger(ctx, c.Modems); err != nil {
		return c, fmt.Errorf("never came up: %w", err)
	}
	if c.What == idle {
		return m.idle(ctx, c)
	}
	return m.throughput(ctx, c)
}

// start runs a child in a process group of its own, which ends with ctx.
func start(ctx context.Context, children *sync.WaitGroup, cmd *exec.Cmd) error {
	group(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	children.Go(func() {
		defer close(done)
		_ = cmd.Wait()
	})
	children.Go(func() {
		select {
		case <-ctx.Done():
			end(cmd, done)
		case <-done:
		}
	})
	return nil
}

type meter struct {
	p    program
	dir  string
	bank *modemsim.Bank
	sent int
}

// send hands a message over and returns when it did.
func (m *meter) send(text string) (time.Time, error) {
	k := m.sent
	m.sent++
	to := fmt.Sprintf("+39340%07d", k)
	began := time.Now()
	return began, m.p.drop(m.dir, k, k%m.bank.Modems(), to, fmt.Sprint(text, " ", k))
}

func (m *meter) idle(ctx context.Context, c Row) (Row, error) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var took []time.Duration
	for range c.N {
		// Long enough to be idle, and at no fixed phase of its polling.
		pause := time.Second + time.Duration(rnd.Float64()*float64(time.Second))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return c, ctx.Err()
		}
		began, err := m.send("idle")
		if err != nil {
			return c, err
		}
		if _, err := m.bank.WaitLedger(ctx, m.sent); err != nil {
			return c, err
		}
		h := m.bank.Handoffs()
		took = append(took, h[len(h)-1].At.Sub(began))
	}
	slices.Sort(took)
	c.P50, c.P95, c.Max = took[len(took)/2], took[(len(took)*95+99)/100-1], took[len(took)-1]
	return c, nil
}

func (m *meter) throughput(ctx context.Context, c Row) (Row, error) {
	// The program has just sent something: let it finish.
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return c, ctx.Err()
	}
	began := time.Now()
	for range c.N {
		if _, err := m.send("batch"); err != nil {
			return c, err
		}
	}
	l, err := m.bank.WaitLedger(ctx, m.sent)
	if err != nil {
		return c, err
	}
	last := slices.MaxFunc(l, func(a, b modemsim.Submission) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	took := last.At.Sub(began)
	c.PerSecond = float64(c.N) / took.Seconds()
	c.Overhead = took*time.Duration(c.Modems)/time.Duration(c.N) - c.Latency
	return c, nil
}

// Print writes rows as a table.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "program\tconfig\tmeasure\tmodems\tradio\tn\tp50\tp95\tmax\tper second\toverhead")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%v\t%d\t", r.Program, r.Config, r.What, r.Modems, r.Latency, r.N)
		if r.What == idle {
			fmt.Fprintf(t, "%v\t%v\t%v\t-\t-\n", r.P50.Round(time.Millisecond), r.P95.Round(time.Millisecond), r.Max.Round(time.Millisecond))
		} else {
			fmt.Fprintf(t, "-\t-\t-\t%.2f\t%v\n", r.PerSecond, r.Overhead.Round(time.Millisecond))
		}
	}
	return t.Flush()
}
