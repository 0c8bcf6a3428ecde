package certified

import (
	"time"

	"custode/internal/journal"
	"custode/internal/metrics"
)

// Metrics writes the figures of both logs. Labels: the two names, and witnesses as
// the machine file has them.
func (r *Registers) Metrics(p *metrics.Page) {
	names := []string{journal.SecurityLog, journal.TransactionLog}
	now := time.Now()
	gauge := func(name, help string, value func(k *journal.Kept) float64) {
		for _, log := range names {
			if k, err := r.Kept(log); err == nil {
				p.Gauge("custode_log_"+name, help, value(k), "log", log)
			}
		}
	}
	gauge("records", "Records in the certified log.", func(k *journal.Kept) float64 { return float64(k.Log.Status().Records) })
	gauge("sealed_records", "Records under the last checkpoint.", func(k *journal.Kept) float64 { return float64(k.Log.Status().Sealed) })
	gauge("unsealed_segments", "Closed segments without a seal.", func(k *journal.Kept) float64 { return float64(k.Log.Status().Unsealed) })
	gauge("pending_segments", "Sealed segments without a time-stamp.", func(k *journal.Kept) float64 { return float64(k.Log.Status().Pending) })
	gauge("oldest_pending_seconds", "Age of the oldest segment without seal or time-stamp, 0 for none.", func(k *journal.Kept) float64 {
		if oldest := k.Log.Status().Oldest; !oldest.IsZero() {
			return max(0, now.Sub(oldest).Seconds())
		}
		return 0
	})
	gauge("overdue", "1 while a seal or a time-stamp is overdue.", func(k *journal.Kept) float64 { return truth(k.Keeper.Overdue()) })
	gauge("broken", "1 while the log takes no records.", func(k *journal.Kept) float64 { return truth(k.Log.Status().Broken) })
	gauge("diverges", "1 when the last nightly verification found a divergence or could not be done.", func(k *journal.Kept) float64 { return truth(k.Keeper.Last().Problem != "") })
	gauge("verified_seconds", "When the last nightly verification ended well (Unix time), 0 for not since the start.", func(k *journal.Kept) float64 {
		if n := k.Keeper.Last(); n.Verified {
			return float64(n.At.Unix())
		}
		return 0
	})
	for _, log := range names {
		k, err := r.Kept(log)
		if err != nil {
			continue
		}
		for _, w := range k.Pusher.Status() {
			failing := 0.0
			if !w.Failing.IsZero() {
				failing = max(1, now.Sub(w.Failing).Seconds())
			}
			p.Gauge("custode_log_witness_failing_seconds", "For how long a witness has not taken what it lacks, 0 when it has all.", failing, "log", log, "witness", w.To)
		}
	}
	buckets := []metrics.Bucket{}
	count, sum := r.Transactions.Waits.Each(func(bound time.Duration, n uint64) {
		b := metrics.Bucket{Bound: -1, Count: n}
		if bound >= 0 {
			b.Bound = bound.Seconds()
		}
		buckets = append(buckets, b)
	})
	p.Histogram("custode_log_append_wait_seconds", "What the register cost each login: from the finished Response to its durable record.", buckets, sum.Seconds(), count)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
