package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"custode/simulators/modemsim"
)

// objective is what 95 of 100 codes must stay under.
const objective = 3 * time.Second

// report is what a soak showed.
type report struct {
	cmd      *soakCmd
	logins   map[string]int
	errors   []string
	samples  []sample
	faults   map[string]int
	handoffs []handoff // of codes, by time
	codes    tally
	bulk     tally
	broken   []string // promises
	cpu      float64  // mean share of one core
	wall     time.Duration
}

// handoff is one code's first hand-over.
type handoff struct{ at, took time.Duration }

// tally is the account of a class against the simulator's ledger.
type tally struct {
	Messages, Sent, Failed, Expired, Cancelled, Doubtful, Waiting int
	Taken                                                         int // by the network, copies included
	Copies                                                        int // more than one of a message
	Unflagged                                                     int // of those, of messages never in doubt
	Lost                                                          int // told to be sent, and not in the ledger
}

// message gathers the steps of one.
type message struct {
	to, class, last string
	doubt           bool
	sendings        int
	first           handoff
	handed          bool
}

func (r *soak) assess(ctx context.Context) (*report, error) {
	steps, err := r.trail(ctx)
	if err != nil {
		return nil, err
	}
	rep := &report{cmd: r.cmd, logins: r.logins, errors: r.errors, samples: r.samples, faults: faultCounts(r.lab.Bank.Faults()), wall: time.Since(r.began)}
	all := map[string]*message{}
	for _, s := range steps {
		m := all[s.Message]
		if m == nil {
			m = &message{to: s.To, class: s.Class}
			all[s.Message] = m
		}
		m.last = s.State
		m.doubt = m.doubt || s.State == "maybe-sent"
		if s.State == "sending" {
			m.sendings++
		}
		if s.Handoff > 0 && !m.handed {
			m.handed, m.first = true, handoff{s.At.Sub(r.began) - s.Submit, s.Handoff}
		}
	}
	for _, m := range all {
		if m.class == "code" && m.handed {
			rep.handoffs = append(rep.handoffs, m.first)
		}
	}
	slices.SortFunc(rep.handoffs, func(a, b handoff) int { return int(a.at - b.at) })
	rep.codes = account(all, "code", r.lab.Bank.Ledger())
	rep.bulk = account(all, "bulk", r.lab.Bank.Ledger())
	if n := len(r.samples); n > 1 {
		rep.cpu = (r.samples[n-1].CPU - r.samples[0].CPU).Seconds() / (r.samples[n-1].At - r.samples[0].At).Seconds()
	}
	rep.judge()
	return rep, nil
}

// account compares the appliance's trail of a class with what the network took.
// Codes are told apart by text, bulk messages by number: each has its own.
func account(all map[string]*message, class string, ledger []modemsim.Submission) tally {
	var t tally
	type group struct{ sent, doubt int }
	numbers := map[string]*group{}
	for _, m := range all {
		if m.class != class {
			continue
		}
		g := numbers[m.to]
		if g == nil {
			g = &group{}
			numbers[m.to] = g
		}
		t.Messages++
		switch m.last {
		case "sent", "delivered":
			t.Sent++
			g.sent++
		case "maybe-sent":
			t.Doubtful++
		case "expired":
			t.Expired++
		case "cancelled":
			t.Cancelled++
		case "queued", "sending":
			t.Waiting++
		default:
			t.Failed++
		}
		if m.doubt {
			g.doubt++
		}
	}
	taken := map[string]map[string]int{} // number -> text -> copies
	for _, s := range ledger {
		if numbers[s.To] == nil {
			continue
		}
		if taken[s.To] == nil {
			taken[s.To] = map[string]int{}
		}
		taken[s.To][s.Text]++
		t.Taken++
	}
	for to, g := range numbers {
		copies := 0
		for _, n := range taken[to] {
			copies += n - 1
		}
		t.Copies += copies
		t.Unflagged += max(copies-g.doubt, 0)
		t.Lost += max(g.sent-len(taken[to]), 0)
		// A text in the ledger that is neither told sent nor was ever in doubt.
		t.Unflagged += max(len(taken[to])-g.sent-g.doubt, 0)
	}
	return t
}

func faultCounts(log []string) map[string]int {
	out := map[string]int{}
	for _, l := range log {
		for _, word := range []string{"hangs", "unplugged", "storms"} {
			if strings.Contains(l, word) {
				out[word]++
			}
		}
	}
	return out
}

// quantile of the hand-offs, 0 without any.
func (r *report) quantile(q float64) time.Duration {
	if len(r.handoffs) == 0 {
		return 0
	}
	d := make([]time.Duration, len(r.handoffs))
	for i, h := range r.handoffs {
		d[i] = h.took
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// judge notes the promises that were not kept.
func (r *report) judge() {
	broken := func(ok bool, format string, a ...any) {
		if !ok {
			r.broken = append(r.broken, fmt.Sprintf(format, a...))
		}
	}
	const limit = objective
	broken(len(r.handoffs) > 0, "no code left")
	broken(r.quantile(0.95) < limit, "hand-off p95 %v, not under %v", r.quantile(0.95).Round(time.Millisecond), limit)
	for name, t := range map[string]tally{"codes": r.codes, "bulk": r.bulk} {
		broken(t.Lost == 0, "%d %s told to be sent are not in the network's ledger", t.Lost, name)
		broken(t.Unflagged == 0, "%d copies of %s without a flag", t.Unflagged, name)
	}
	broken(r.bulk.Copies == 0, "%d bulk messages left twice", r.bulk.Copies)
	for name, value := range map[string]func(sample) int{
		"goroutines":  func(s sample) int { return s.Goroutines },
		"descriptors": func(s sample) int { return s.Descriptors },
		"resident kB": func(s sample) int { return s.RSS },
	} {
		early, late := r.median(0.25, 0.5, value), r.median(0.75, 1, value)
		slack := max(early/5, 12)
		if name == "resident kB" {
			slack = max(early/4, 8<<10)
		}
		broken(late <= early+slack, "%s grew from %d to %d", name, early, late)
	}
}

// median of a value over a part of the run.
func (r *report) median(from, to float64, value func(sample) int) int {
	n := float64(len(r.samples))
	part := r.samples[int(from*n):int(to*n)]
	if len(part) == 0 {
		return 0
	}
	v := make([]int, len(part))
	for i, s := range part {
		v[i] = value(s)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (r *report) verdict() error {
	if len(r.broken) > 0 {
		return errors.New("the soak broke its promises: " + strings.Join(r.broken, "; "))
	}
	return nil
}

// table is the report as Markdown.
func (r *report) table() string {
	var b strings.Builder
	row := func(what string, format string, a ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(format, a...))
	}
	fmt.Fprintf(&b, "# %s\n\n%v of logins at level 2 on the real appliance (SoftHSM, SQLite `synchronous=FULL`) with %d simulated modems; %s.\n\n"+
		"Arrivals: %s, %.0f codes a minute, 5 %% of them to numbers the network refuses; endless bulk messages. Each card may send 3 SMS at once and %.0f a minute. Radio: median %v (95 %% within %v to %v), "+
		"1 %% of the submissions hang the modem for %v; a modem is unplugged about every %v; storms of indications.\n\n",
		r.cmd.Title, r.cmd.Duration, r.cmd.Modems, time.Now().UTC().Format(time.DateOnly), r.cmd.Arrivals, r.cmd.Rate/r.cmd.Scale, r.cmd.PerMin/r.cmd.Scale, r.cmd.scaled(3*time.Second),
		r.cmd.scaled(1500*time.Millisecond), r.cmd.scaled(6*time.Second), r.cmd.scaled(time.Minute), r.cmd.scaled(time.Minute))
	b.WriteString("| measure | value |\n|---|---|\n")
	ms := func(q float64) string { return r.quantile(q).Round(time.Millisecond).String() }
	row("codes handed over", "%d (%.1f a minute)", len(r.handoffs), float64(len(r.handoffs))/r.cmd.Duration.Minutes())
	row("hand-off p50 / p95 / p99 / max", "%s / **%s** / %s / %s (objective: p95 under %v)", ms(0.5), ms(0.95), ms(0.99), ms(1), objective)
	row("logins", "%s", counts(r.logins))
	for _, c := range []struct {
		name string
		t    tally
	}{{"codes", r.codes}, {"bulk", r.bulk}} {
		row(c.name+" in the trail", "%d: %d sent or delivered, %d failed, %d expired, %d cancelled, %d in doubt, %d under way", c.t.Messages, c.t.Sent, c.t.Failed,
			c.t.Expired, c.t.Cancelled, c.t.Doubtful, c.t.Waiting)
		row(c.name+" in the network's ledger", "%d; second copies %d, without a `maybe-sent` flag %d; lost %d", c.t.Taken, c.t.Copies, c.t.Unflagged, c.t.Lost)
	}
	row("faults", "%s", counts(r.faults))
	for _, v := range []struct {
		name  string
		value func(sample) int
	}{
		{"goroutines", func(s sample) int { return s.Goroutines }}, {"descriptors", func(s sample) int { return s.Descriptors }},
		{"resident memory, kB", func(s sample) int { return s.RSS }},
	} {
		row(v.name+", median of 2nd and last quarter", "%d, %d", r.median(0.25, 0.5, v.value), r.median(0.75, 1, v.value))
	}
	row("processor, mean share of one core", "%.1f %%", r.cpu*100)
	verdict := "all promises kept"
	if len(r.broken) > 0 {
		verdict = "BROKEN: " + strings.Join(r.broken, "; ")
	}
	row("verdict", "%s", verdict)
	for _, e := range r.errors {
		fmt.Fprintf(&b, "\n    %s\n", e)
	}
	return b.String()
}

func counts(m map[string]int) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%d %s", m[k], k)
	}
	return strings.Join(keys, ", ")
}

// write puts the table and the plot into a folder.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := r.table() + "\n![hand-off, load and resources over time](soak.svg)\n\n" +
		"Made by `simlab soak`. A copy is a second submission of the same text to the same number; it is flagged when the message was\nrecorded as `maybe-sent` first.\n"
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(text), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "soak.svg"), []byte(r.plot()), 0o644)
}
