package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"custode/simulators/lab"
	"custode/simulators/modemsim"
	"custode/simulators/modemsim/peers"
)

// benchModem measures the modem pool of the real appliance on simulated modems,
// beside gammu-smsd and smstools on modems of the same simulator.
func benchModem(ctx context.Context, custode string, quick bool, f figures) error {
	path, err := filepath.Abs(custode)
	if err != nil {
		return err
	}
	idle, burst, slow := 60, 300, 24
	if quick {
		idle, burst, slow = 20, 100, 8
	}
	p50, p95, err := idleHandoff(ctx, path, idle)
	if err != nil {
		return err
	}
	f.print("modem_idle_handoff_p50", ms(p50), "ms", 50)
	f.print("modem_idle_handoff_p95", ms(p95), "ms", 50)
	for _, c := range []struct {
		modems int
		radio  time.Duration
		n      int
	}{{1, 0, burst}, {4, 0, burst}, {1, 3 * time.Second, slow / 4}, {4, 3 * time.Second, slow}} {
		rate, err := poolRate(ctx, path, c.modems, c.radio, c.n)
		if err != nil {
			return err
		}
		if c.radio == 0 {
			f.print(fmt.Sprintf("modem_overhead_%d", c.modems), 1000/rate, "ms a message", 5)
			continue
		}
		f.print(fmt.Sprintf("modem_rate_%d_radio_3s", c.modems), rate, "messages/s", float64(c.modems)/c.radio.Seconds())
	}
	share, err := idleShare(ctx, path, 64, quick)
	if err != nil {
		return err
	}
	f.print("modem_64_idle_cpu", share*100, "% of one core", 20)
	return benchPeers(ctx, quick, f, p95)
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// modemLab starts an appliance with modems and a radio, and waits for them.
func modemLab(ctx context.Context, custode string, modems int, radio time.Duration) (*lab.Lab, error) {
	l, err := lab.Start(ctx, lab.Config{Custode: custode, Modems: modems, Log: os.Stderr, LogLevel: "error",
		Network: modemsim.Config{Latency: modemsim.Delay{Median: radio}}})
	if err != nil {
		return nil, err
	}
	limit := time.Now().Add(60 * time.Second)
	for {
		out, err := l.Run(ctx, "modem", "list", "--json")
		if err == nil && strings.Count(out, `"State": "ready"`) == modems {
			return l, nil
		}
		if time.Now().After(limit) {
			return nil, errors.Join(errors.New("the modems are not ready after 60 s"), err, l.Close())
		}
		wait(ctx, 200*time.Millisecond)
	}
}

// sendAll queues one text for numbers of their own.
func sendAll(ctx context.Context, l *lab.Lab, class string, from, n int) error {
	text := filepath.Join(l.Dir, "text.txt")
	if err := os.WriteFile(text, []byte("Avviso di prova del banco.\n"), 0o600); err != nil {
		return err
	}
	args := []string{"modem", "send", "--class", class, "--text-file", text}
	for i := range n {
		args = append(args, fmt.Sprintf("+39347%07d", from+i))
	}
	_, err := l.Run(ctx, args...)
	return err
}

// allSent waits for n messages to be sent and returns the trail.
func allSent(ctx context.Context, l *lab.Lab, n int) ([]step, error) {
	limit := time.Now().Add(5 * time.Minute)
	for {
		out, err := l.Run(ctx, "modem", "log", "--json", "--since", "1h")
		if err != nil {
			return nil, err
		}
		var steps []step
		sent := map[string]bool{}
		for d := json.NewDecoder(strings.NewReader(out)); ; {
			var s step
			if err := d.Decode(&s); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
			steps = append(steps, s)
			if s.State == "sent" || s.State == "delivered" {
				sent[s.Message] = true
			}
		}
		if len(sent) >= n {
			return steps, nil
		}
		if time.Now().After(limit) {
			return nil, fmt.Errorf("%d of %d messages sent after 5 minutes", len(sent), n)
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// idleHandoff hands single messages to an idle modem; the time is from acceptance
// (before wrapping and the durable row) to Ctrl-Z, as the trail has it.
func idleHandoff(ctx context.Context, custode string, n int) (p50, p95 time.Duration, err error) {
	l, err := modemLab(ctx, custode, 1, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for i := range n {
		if err := sendAll(ctx, l, "alert", i, 1); err != nil {
			return 0, 0, err
		}
		wait(ctx, 100*time.Millisecond)
	}
	steps, err := allSent(ctx, l, n)
	if err != nil {
		return 0, 0, err
	}
	var took []time.Duration
	for _, s := range steps {
		if s.State == "sent" {
			took = append(took, s.Handoff)
		}
	}
	slices.Sort(took)
	return took[len(took)/2], took[min(len(took)*95/100, len(took)-1)], nil
}

// poolRate sends n messages at once and returns how many a second left.
func poolRate(ctx context.Context, custode string, modems int, radio time.Duration, n int) (rate float64, err error) {
	l, err := modemLab(ctx, custode, modems, radio)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := sendAll(ctx, l, "alert", 0, n); err != nil {
		return 0, err
	}
	steps, err := allSent(ctx, l, n)
	if err != nil {
		return 0, err
	}
	var first, last time.Time
	for _, s := range steps {
		if s.State == "sending" && (first.IsZero() || s.At.Before(first)) {
			first = s.At
		}
		if s.State == "sent" && s.At.After(last) {
			last = s.At
		}
	}
	return float64(n) / last.Sub(first).Seconds(), nil
}

// idleShare is the appliance's processor time while its modems idle.
func idleShare(ctx context.Context, custode string, modems int, quick bool) (share float64, err error) {
	l, err := modemLab(ctx, custode, modems, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	span := 60 * time.Second // two rounds of keep-alive
	if quick {
		span = 10 * time.Second
	}
	wait(ctx, 2*time.Second)
	before, err := cpuTime(l.PID())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	wait(ctx, span)
	after, err := cpuTime(l.PID())
	if err != nil {
		return 0, err
	}
	return (after - before).Seconds() / time.Since(began).Seconds(), nil
}

// benchPeers prints the peers' figures; ours is the reference of their hand-off.
func benchPeers(ctx context.Context, quick bool, f figures, ours time.Duration) error {
	rows, err := peers.Run(ctx, peers.Options{Quick: quick, Log: os.Stderr})
	for _, r := range rows {
		name := strings.NewReplacer("-", "_", " ", "_").Replace(fmt.Sprintf("peer_%s_%s", r.Program, r.Config))
		if r.PerSecond == 0 {
			f.print(name+"_idle_handoff_p50", ms(r.P50), "ms", ms(ours))
			f.print(name+"_idle_handoff_p95", ms(r.P95), "ms", ms(ours))
			continue
		}
		if r.Latency > 0 {
			f.print(fmt.Sprintf("%s_rate_%d_radio_3s", name, r.Modems), r.PerSecond, "messages/s", float64(r.Modems)/r.Latency.Seconds())
			continue
		}
		f.print(fmt.Sprintf("%s_overhead_%d", name, r.Modems), 1000/r.PerSecond, "ms a message", 5)
	}
	return err
}
