package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"custode/simulators/lab"
)

// loginsAtOnce is how many browsers log in at once while the register's share is measured.
const loginsAtOnce = 64

// benchLogWait drives 64 browsers at the real daemon and prints how long each login
// waited for its record (append, fsync and what it queued behind), as the daemon's own
// histogram has it. Once as it is, where the hash decides the rate, and once with a
// hash that costs nothing, which brings as many records at once as this machine can.
func benchLogWait(ctx context.Context, custode string, quick bool, f figures) error {
	span := 20 * time.Second
	if quick {
		span = 5 * time.Second
	}
	for _, run := range []struct {
		name   string
		policy map[string]string
	}{
		{"certlog_login_wait", nil},
		{"certlog_login_wait_no_hash", map[string]string{"passwords.memory_kib": "8", "passwords.iterations": "1"}},
	} {
		w, r, err := logWait(ctx, custode, span, run.policy)
		if err != nil {
			return err
		}
		fmt.Printf("%d browsers: %.1f logins/s, p95 of a login %.0f ms; %.0f records waited for\n", loginsAtOnce, float64(r.logins)/r.wall.Seconds(), r.p95.Seconds()*1e3, w.count)
		for _, q := range []struct {
			name string
			at   float64
		}{{"_p50", 0.50}, {"_p95", 0.95}, {"_p99", 0.99}} {
			f.print(run.name+q.name, w.quantile(q.at)*1e3, "ms", refAppendP95)
		}
	}
	return nil
}

func logWait(ctx context.Context, custode string, span time.Duration, policy map[string]string) (w waits, r result, err error) {
	path, err := filepath.Abs(custode)
	if err != nil {
		return w, r, err
	}
	// On the disk of this folder, as the rest of the suite: a temporary folder may be memory.
	dir, err := os.MkdirTemp("bench", "lab-")
	if err != nil {
		return w, r, err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return w, r, err
	}
	l, err := lab.Start(ctx, lab.Config{Custode: path, Dir: dir, Modems: 1, Log: os.Stderr, LogLevel: "error", Policy: policy})
	if err != nil {
		return w, r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	people := make([]lab.Person, loginsAtOnce)
	for i := range people {
		p := lab.Demo()
		p.Username, p.Phone = fmt.Sprintf("load.%d", i), ""
		p.Attributes["spidCode"] = fmt.Sprintf("LABX%010d", i)
		delete(p.Attributes, "mobilePhone")
		if err := l.Enrol(ctx, p); err != nil {
			return w, r, err
		}
		people[i] = p
	}
	if _, err := drive(ctx, l, people, 1, time.Second); err != nil { // warm up
		return w, r, err
	}
	before, err := readWaits(ctx, l.Metrics)
	if err != nil {
		return w, r, err
	}
	if r, err = drive(ctx, l, people, 1, span); err != nil {
		return w, r, err
	}
	after, err := readWaits(ctx, l.Metrics)
	if err == nil {
		w, err = after.since(before)
	}
	return w, r, err
}

// waits is the daemon's histogram: counts up to each bound in seconds.
type waits struct {
	bounds, counts []float64
	count          float64
}

func readWaits(ctx context.Context, base string) (w waits, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return w, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return w, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return w, err
	}
	return parseWaits(string(text))
}

func parseWaits(text string) (w waits, err error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, `custode_log_append_wait_seconds_bucket{le="`)
		if !ok {
			continue
		}
		bound, value, _ := strings.Cut(strings.TrimSpace(rest), `"} `)
		b, err1 := strconv.ParseFloat(bound, 64) // "+Inf" too
		n, err2 := strconv.ParseFloat(value, 64)
		if err := errors.Join(err1, err2); err != nil {
			return w, err
		}
		w.bounds, w.counts, w.count = append(w.bounds, b), append(w.counts, n), n
	}
	if len(w.bounds) == 0 {
		return w, errors.New("the daemon has no histogram of append waits")
	}
	return w, nil
}

func (w waits) since(before waits) (waits, error) {
	if len(w.counts) != len(before.counts) {
		return waits{}, errors.New("two histograms with other bounds")
	}
	out := waits{bounds: w.bounds, count: w.count - before.count}
	for i := range w.counts {
		out.counts = append(out.counts, w.counts[i]-before.counts[i])
	}
	if out.count == 0 {
		return waits{}, errors.New("no login waited for a record")
	}
	return out, nil
}

// quantile interpolates within the bucket; beyond the last bound it says that bound.
func (w waits) quantile(q float64) float64 {
	rank, below, from := q*w.count, 0.0, 0.0
	for i, n := range w.counts {
		if n >= rank {
			if math.IsInf(w.bounds[i], 1) {
				return from
			}
			return from + (w.bounds[i]-from)*(rank-below)/(n-below)
		}
		below, from = n, w.bounds[i]
	}
	return from
}
