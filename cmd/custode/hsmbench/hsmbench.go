// Package hsmbench is `custode hsm bench`: what the token of this machine does in a second by
// way of our package and by its module's bare calls, taken in turns in one run; and
// what verifying a code takes with few and with a million devices in a database of its
// own. It prints figures as JSON, for people with an HSM to choose and for `simlab bench`.
// Wiring only. It logs in to the token like the appliance, which must be stopped.
package hsmbench

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/bare"
	"custode/internal/fault"
	"custode/internal/id"
)

// Command is the subcommand.
type Command struct {
	URI     string        `required:"" help:"PKCS#11 URI of the token."`
	Sign    string        `default:"custode/sign/2026-1" help:"Label of a sign key."`
	Seed    string        `default:"custode/seed/2026-1" help:"Label of a seed key."`
	Bind    string        `default:"custode/bind/2026-1" help:"Label of a mac key."`
	Records string        `default:"custode/records/2026-1" help:"otp: label of a wrap key."`
	Suite   string        `default:"hsm" enum:"hsm,otp" help:"hsm: rates beside the bare module. otp: codes verified with many devices."`
	Wait    bool          `default:"true" negatable:"" help:"Callers wait for the module whatever their deadline, as in the worker process."`
	Rounds  int           `default:"40" help:"hsm: bursts of each kind."`
	Burst   time.Duration `default:"60ms" help:"hsm: length of a burst."`
	Dir     string        `type:"path" help:"otp: folder for two databases, which are deleted at the end."`
	Devices int           `default:"1000000" help:"otp: devices in the larger database."`
	Codes   int           `default:"4000" help:"otp: codes verified with each database."`
}

// Figure is one line of the result: ours beside a reference in the same unit.
type Figure struct {
	Measure   string
	Ours, Ref float64
	Unit      string
}

// token is the opened token with what a bench asks of it.
type token struct {
	*pkcs11.Token
	uri              string
	sign, seed, bind id.KeyLabel
	records          id.KeyLabel
	signer           hsm.ContextSigner
	mac              hsm.MAC
}

// Run benches and prints.
func (c *Command) Run() (err error) {
	ctx := context.Background()
	t := token{uri: c.URI}
	for to, text := range map[*id.KeyLabel]string{&t.sign: c.Sign, &t.seed: c.Seed, &t.bind: c.Bind, &t.records: c.Records} {
		if *to, err = id.ParseKeyLabel(text); err != nil {
			return err
		}
	}
	t.Token, err = pkcs11.Open(ctx, pkcs11.Config{URI: c.URI, MaxSessions: most, CallersWait: c.Wait, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	s, err := t.Signer(t.sign)
	if err != nil {
		return err
	}
	t.signer = s.(hsm.ContextSigner)
	if t.mac, err = t.MAC(t.bind); err != nil {
		return err
	}
	if err := t.OpenSeed(t.seed); err != nil {
		return err
	}
	var figures []Figure
	if c.Suite == "otp" {
		figures, err = c.otp(ctx, t)
	} else {
		figures, err = c.rates(ctx, t)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

// most is how many workers the busy half of each measure has.
const most = 8

// contest is one measure: what a worker does by way of our package and of the bare module.
type contest struct {
	name       string
	ours, bare func(worker int) error
}

func (c *Command) rates(ctx context.Context, t token) (_ []Figure, err error) {
	workers, err := bare.Open(t.uri, t.sign, t.seed, t.bind, most)
	defer func() {
		for _, w := range workers {
			err = errors.Join(err, w.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte("bench"))
	contests := []contest{{
		"sign_rsa2048",
		func(int) error { _, err := t.signer.SignContext(ctx, digest[:], crypto.SHA256); return err },
		func(w int) error { return workers[w].Sign(digest[:]) },
	}}
	for _, counters := range []int{1, 3} {
		q, err := t.question(ctx, counters)
		if err != nil {
			return nil, err
		}
		name := map[int]string{1: "unwrap_hmac", 3: "code_verified"}[counters]
		contests = append(contests, contest{
			name,
			func(int) error {
				found, err := t.MatchCodes(ctx, q)
				if err == nil && len(found) != 1 {
					err = fault.Newf(fault.Internal, "bench", "the code matches %v", found)
				}
				return err
			},
			func(w int) error { return workers[w].Codes(&q, true) },
		})
	}
	var figures []Figure
	for _, n := range []int{1, most} {
		for _, k := range contests {
			ours, ref, err := k.hold(n, c.Rounds, c.Burst)
			if err != nil {
				return nil, err
			}
			figures = append(figures, Figure{fmt.Sprintf("hsm_%s_rate_%d", k.name, n), ours, ref, "1/s"})
		}
	}
	return figures, nil
}

// question is about a device of its own, with RFC 4226's seed and a code that is right.
func (t token) question(ctx context.Context, counters int) (hsm.CodeQuery, error) {
	q := hsm.CodeQuery{KEK: t.seed, MAC: hsm.MechanismSHA1, Binder: t.bind, Digits: 6, Code: "755224", Counters: []uint64{0, 1, 2}[:counters]}
	var err error
	if q.Wrap, q.KeyType, err = t.SecretForm(t.seed); err != nil {
		return q, err
	}
	if q.KeyType == 0 {
		q.KeyType = hsm.KeyTypeOf(q.MAC)
	}
	q.Wrapped, err = t.WrapSecret(ctx, q.KEK, q.Wrap, q.KeyType, append([]byte("12345678901234567890"), make([]byte, 44)...))
	if err != nil {
		return q, err
	}
	// As long as a real one.
	q.Binding = append(make([]byte, 250), q.Wrapped...)
	q.BindingMAC, err = t.mac.MAC(ctx, q.Binding)
	return q, err
}

// hold takes turns and returns the medians of the rates.
func (k contest) hold(workers, rounds int, span time.Duration) (ours, ref float64, err error) {
	var rates [2][]float64
	for round := range rounds {
		for turn := range 2 {
			who := (turn + round) % 2
			rate, err := burst([]func(int) error{k.ours, k.bare}[who], workers, span)
			if err != nil {
				return 0, 0, err
			}
			rates[who] = append(rates[who], rate)
		}
	}
	return median(rates[0]), median(rates[1]), nil
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// burst has workers do one thing for a while and returns how often a second.
func burst(do func(worker int) error, workers int, span time.Duration) (float64, error) {
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begun := time.Now()
	for w := range workers {
		wg.Go(func() {
			for time.Since(begun) < span {
				if err := do(w); err != nil {
					failed.Store(&err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n.Load()) / time.Since(begun).Seconds(), nil
}
