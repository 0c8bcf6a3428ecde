package hsmcmd

import (
	"context"
	"time"

	"custode/cmd/custode/hsmbench"
	"custode/cmd/custode/signing"
	"custode/hsm/worker"
	"custode/internal/admin"
	"custode/internal/metrics"
)

// Commands are the subcommands of `custode hsm`.
type Commands struct {
	Status   statusCmd   `cmd:"" help:"Show the tokens and their workers."`
	Keys     keysCmd     `cmd:"" help:"List the keys in use, with fingerprints, and the tokens that hold them."`
	Failover failoverCmd `cmd:"" help:"Use the other token, or a named one."`
	Rotate   rotateCmd   `cmd:"" help:"Take the signing keys that the policy file names by now, and show what is still under earlier keys."`

	Bench hsmbench.Command `cmd:"" help:"Measure the token beside its bare module, and codes verified with many devices (the appliance must be stopped)."`
}

type rotateCmd struct{}

// Run asks the daemon. The keys that wrap are taken at a start of the daemon, and all is wrapped again in the background.
func (rotateCmd) Run(h Host) error {
	if err := h.Ask("keys/reload", signing.Argument{Actor: admin.Actor()}); err != nil {
		return err
	}
	return h.Ask("keys/rotation", nil)
}

type statusCmd struct{}

// Run asks the daemon.
func (statusCmd) Run(h Host) error { return h.Ask("hsm/status", nil) }

type keysCmd struct{}

// Run asks the daemon.
func (keysCmd) Run(h Host) error { return h.Ask("hsm/keys", nil) }

type failoverCmd struct {
	Token string `arg:"" enum:"primary,standby" help:"primary or standby."`
}

// Run asks the daemon.
func (f *failoverCmd) Run(h Host) error {
	return h.Ask("hsm/failover", failoverArgument{Actor: admin.Actor(), What: f.Token})
}

type failoverArgument struct {
	Actor string `json:"actor"`
	What  string `json:"what"`
}

// Methods adds what the administration socket answers about the tokens.
func Methods(c *worker.Client, methods map[string]admin.Method) map[string]admin.Method {
	methods["hsm/status"] = func(context.Context, []byte) (any, error) { return c.Status(), nil }
	methods["hsm/keys"] = func(context.Context, []byte) (any, error) { return c.Keys(), nil }
	methods["hsm/failover"] = func(_ context.Context, arg []byte) (any, error) {
		var in failoverArgument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		return c.Status(), c.Failover(in.What)
	}
	return methods
}

// Metrics writes the figures of the tokens. Labels: operations, the two tokens, kinds of errors.
func Metrics(c *worker.Client, p *metrics.Page) {
	f := c.Figures()
	for _, n := range f.Calls {
		p.Counter("custode_hsm_calls_total", "Calls of the token, by outcome (ok or the kind of the error).", float64(n.Count), "operation", n.Operation, "token", n.Token, "result", n.Result)
	}
	for _, s := range f.Spans {
		histogram(p, "custode_hsm_call_seconds", "Time that callers waited for a call of the token.", s.Time, "operation", s.Operation)
	}
	p.Counter("custode_hsm_repeated_total", "Tries that were made again, after a lost worker or with the other token.", float64(f.Repeated))
	p.Counter("custode_hsm_moves_total", "Changes of the token in use.", float64(f.Moves))
	histogram(p, "custode_hsm_recovery_seconds", "From the first call that found no token to the next that did.", f.Recovery)
	gauge := func(name, help string, value func(worker.Status) float64) {
		for _, t := range f.Tokens {
			p.Gauge("custode_hsm_"+name, help, value(t), "token", t.Name)
		}
	}
	gauge("in_use", "1 for the token in use.", func(t worker.Status) float64 { return truth(t.InUse) })
	gauge("well", "1 when the token answers probes with the keys in use.", func(t worker.Status) float64 { return truth(t.Well) })
	for _, t := range f.Tokens {
		p.Counter("custode_hsm_worker_starts_total", "Workers that greeted.", float64(t.Starts), "token", t.Name)
	}
	gauge("worker_recovery_seconds", "From the last loss of the worker to its being ready.", func(t worker.Status) float64 { return t.Recovery.Seconds() })
	report := func(name, help string, value func(*worker.Report) float64) {
		gauge(name, help, func(t worker.Status) float64 {
			if t.Worker == nil {
				return 0
			}
			return value(t.Worker)
		})
	}
	report("sessions_in_use", "Operations inside the module.", func(r *worker.Report) float64 { return float64(r.Sessions) })
	report("sessions_limit", "Operations that may be inside the module.", func(r *worker.Report) float64 { return float64(r.Limit) })
	report("worker_resident_bytes", "Resident memory of the worker.", func(r *worker.Report) float64 { return float64(r.Resident) })
	report("worker_unwraps", "Secrets unwrapped in the life of the worker.", func(r *worker.Report) float64 { return float64(r.Unwraps) })
	report("worker_denied", "Questions that the worker refused.", func(r *worker.Report) float64 { return float64(r.Denied) })
	report("worker_age_seconds", "Age of the worker.", func(r *worker.Report) float64 { return time.Since(r.Started).Seconds() })
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func histogram(p *metrics.Page, name, help string, h worker.Histogram, labels ...string) {
	buckets := make([]metrics.Bucket, 0, len(h.Counts))
	for i, n := range h.Counts {
		bound := -1.0
		if i < len(h.Bounds) {
			bound = h.Bounds[i].Seconds()
		}
		buckets = append(buckets, metrics.Bucket{Bound: bound, Count: n})
	}
	p.Histogram(name, help, buckets, h.Sum.Seconds(), h.Count, labels...)
}
