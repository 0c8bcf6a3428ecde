package registry

import (
	"context"
	"time"

	"custode/internal/fault"
)

// directoryPeriod is how long a service provider that was taken out of the
// directory, or a key that was replaced there, is still believed.
const directoryPeriod = 5 * time.Minute

// note keeps what the last reading found, for Status.
func (r *Registry) note(report Report, err error) {
	now := r.options.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.at = now
	r.last.attempts++
	if err != nil {
		r.last.err = printable(err.Error())
		return
	}
	r.last.err, r.last.success, r.last.rejected = "", now, report.Rejected
}

// Run reads the directory every five minutes until ctx is cancelled.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(directoryPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.readAndTell(Accept{})
		}
	}
}

// readAndTell reads once and logs.
func (r *Registry) readAndTell(a Accept) {
	report, err := r.reloadAccepting(a)
	if err != nil {
		r.options.Log.Error("registry not reloaded; the last good one stays", "error", err)
		return
	}
	r.Tell(report)
}

// Tell logs a report.
func (r *Registry) Tell(report Report) {
	for _, x := range report.Rejected {
		r.options.Log.Warn("registry: file left out", "file", printable(x.File), "error", x.Err)
	}
	r.options.Log.Info("registry loaded", "service providers", report.Loaded)
}

// Refresh reads the directory now and returns the reading's number.
func (r *Registry) Refresh(a Accept) (int, error) {
	r.readAndTell(a)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.attempts, nil
}

// Usable is nil: what the directory holds is what there is.
func (r *Registry) Usable() error { return nil }

// Status returns the present state; broken ones are named by file.
func (r *Registry) Status() Status {
	now := r.options.Now()
	s := r.current.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	st := Status{
		Source: r.dir, Usable: true, LastSuccess: moment(r.last.success), LastAttempt: moment(r.last.at), LastError: r.last.err,
		Age: now.Sub(r.last.success).Round(time.Second).String(), Attempts: r.last.attempts,
		NextRefresh: moment(r.last.at.Add(directoryPeriod)), Entities: len(s.byEntity), Live: len(s.byEntity),
		Inspected: true, Broken: len(r.last.rejected), Memory: Memory{Cached: len(s.byEntity), Heap: heap()},
	}
	for i, x := range r.last.rejected {
		if i == maxReported {
			break
		}
		st.BrokenList = append(st.BrokenList, Broken{printable(x.File), printable(x.Err.Error())})
	}
	for _, cert := range r.options.Pinned {
		st.Certificates = append(st.Certificates, pinnedStatus(cert, now))
	}
	return st
}

// Show describes the service provider of that entityID, else fault.NotFound.
func (r *Registry) Show(_ context.Context, entityID string) (*Details, error) {
	sp, ok := r.Lookup(entityID)
	if !ok {
		return nil, fault.Newf(fault.NotFound, "show service provider", "no entity %s", printable(entityID))
	}
	d := &Details{EntityID: printable(entityID), Standing: standingNames[live]}
	d.describe(sp, r.options.Now())
	return d, nil
}
