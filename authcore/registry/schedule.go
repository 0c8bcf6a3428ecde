package registry

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

const (
	firstBackOff = 30 * time.Second
	// alarmPeriod is how often a trouble that lasts is logged again.
	alarmPeriod = time.Hour
	// pinNotice is how long before a pinned certificate's end operators hear of it.
	pinNotice = 30 * 24 * time.Hour
)

// Run refreshes the replica on its schedule until ctx is cancelled: every
// Interval, sooner after a failure (30 s, doubled each time up to Interval), each time plus or minus a
// tenth, so that the appliances of a federation do not all ask at once.
func (f *Federation) Run(ctx context.Context) error {
	if s := f.current.Load(); s != nil && s.inspection.Load() == nil {
		f.inspectLoaded(ctx, s)
	}
	timer := time.NewTimer(f.first())
	defer timer.Stop()
	alarms := time.NewTicker(alarmPeriod)
	defer alarms.Stop()
	f.alarm()
	for {
		var accept Accept
		select {
		case <-ctx.Done():
			return nil
		case <-alarms.C:
			f.alarm()
			continue
		case accept = <-f.requests:
		case <-timer.C:
		}
		timer.Reset(f.attempt(ctx, accept))
	}
}

// first is the time until the first refresh: at once when the copy is due.
func (f *Federation) first() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.c.Now()
	due := now
	if f.current.Load() != nil {
		if at := f.progress.lastSuccess.Add(f.jitter(f.c.Rules.Interval)); at.After(now) {
			due = at
		}
	}
	f.progress.next = due
	return due.Sub(now)
}

// inspectLoaded finds the broken entities of a copy that came from the disk;
// logins are served meanwhile.
func (f *Federation) inspectLoaded(ctx context.Context, s *federationSnapshot) {
	found, err := s.inspect(s.index, nil, f.pacer(ctx))
	if err != nil {
		if ctx.Err() == nil {
			f.c.Log.Error("registry: copy not inspected", "error", err)
		}
		return
	}
	s.inspection.Store(found)
	f.c.Log.Info("registry: copy inspected", "live", found.count[live], "broken", found.broken)
}

// attempt refreshes once and returns the time until the next try.
func (f *Federation) attempt(ctx context.Context, a Accept) time.Duration {
	start := f.c.Now()
	f.mu.Lock()
	f.progress.refreshing, f.progress.lastAttempt = true, start
	f.mu.Unlock()
	changed, err := f.refresh(ctx, a)
	end := f.c.Now()

	f.mu.Lock()
	p := &f.progress
	p.refreshing, p.took = false, end.Sub(start)
	p.attempts++
	wait := f.c.Rules.Interval
	if err == nil {
		p.lastSuccess, p.lastError, p.failures = end, "", 0
	} else {
		p.lastError = printable(err.Error())
		wait = min(wait, firstBackOff<<min(p.failures, 20))
		p.failures++
	}
	wait = f.jitter(wait)
	p.next = end.Add(wait)
	failures := p.failures
	f.mu.Unlock()

	switch {
	case ctx.Err() != nil:
	case err != nil:
		f.c.Log.Error("registry: not refreshed; the last good copy stays", "error", err, "failures", failures, "next", wait)
	default:
		f.tell(changed, end.Sub(start))
	}
	return wait
}

func (f *Federation) tell(changed bool, took time.Duration) {
	s := f.current.Load()
	if s == nil {
		return
	}
	n := s.standings()
	f.c.Log.Info("registry: refreshed", "changed", changed, "live", n[live], "disabled", n[disabled], "deleted", n[deleted], "broken", n[broken], "took", took)
	in := s.inspection.Load()
	if !changed || in == nil {
		return
	}
	const most = 10 // of a line each; the rest is in the status
	for i, b := range in.list {
		if i == most {
			f.c.Log.Warn("registry: more entities left out; see custode registry status", "count", in.broken-most)
			return
		}
		f.c.Log.Warn("registry: entity left out", "entity", b.Entity, "reason", b.Reason)
	}
}

// jitter changes d by up to a tenth.
func (f *Federation) jitter(d time.Duration) time.Duration {
	var b [2]byte
	if _, err := io.ReadFull(f.c.Random, b[:]); err != nil {
		return d // the schedule matters more than its jitter
	}
	return d + d/10*time.Duration(int(binary.BigEndian.Uint16(b[:]))-1<<15)/(1<<15)
}

// alarm logs what an operator must hear again and again.
func (f *Federation) alarm() {
	now := f.c.Now()
	if err := f.Usable(); err != nil && f.current.Load() != nil {
		f.c.Log.Error("registry: logins are stopped", "error", err)
	} else if age, old := f.stale(now); old {
		f.c.Log.Error("registry: the copy is old; service providers may be missing or no longer be members", "age", age.Round(time.Second), "limit", f.c.Rules.MaxAge)
	}
	usable := 0
	for _, cert := range f.c.Pinned {
		if xmldoc.Usable(cert, now) == nil {
			usable++
		}
		if left := cert.NotAfter.Sub(now); left < pinNotice {
			f.c.Log.Warn("registry: pinned certificate ends", "subject", printable(cert.Subject.String()), "at", cert.NotAfter, "over", left < 0)
		}
	}
	if usable == 0 {
		f.c.Log.Error("registry: no pinned certificate is valid; no refresh can succeed", "kind", fault.Fatal)
	}
}

// stale tells the age of the last success and whether it passes the limit.
func (f *Federation) stale(now time.Time) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress.lastSuccess.IsZero() {
		return 0, false
	}
	age := now.Sub(f.progress.lastSuccess)
	return age, age > f.c.Rules.MaxAge
}
