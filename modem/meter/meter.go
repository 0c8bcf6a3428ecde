// Package meter measures what a modem pool decides by: how long things take (a
// Span: a histogram of everything and the latest samples for quantiles) and how
// often they happen or fail (a Rate, an Average).
//
// Everything is arithmetic in memory: no clock (moments are arguments), no lock
// (the owner has one), nothing durable. The zero values are ready to use. It is no
// metrics library: package modem hands Snapshots out, and whoever publishes them
// chooses the format.
package meter

import (
	"math"
	"slices"
	"time"
)

// Bounds are the upper bounds of a Span's buckets; a last bucket has none. They
// fit radio times (seconds) and our own (milliseconds).
var bounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 8 * time.Second, 12 * time.Second,
	20 * time.Second, 30 * time.Second, 60 * time.Second, 120 * time.Second, 300 * time.Second,
}

// latest is how many samples quantiles are taken from: enough for a p99, few
// enough that a modem is judged by what it does today.
const latest = 256

// Span is a distribution of durations.
type Span struct {
	buckets [len(bounds) + 1]uint64
	count   uint64
	sum     time.Duration
	ring    []time.Duration
	next    int
}

// Add takes a sample; a negative one counts as zero.
func (s *Span) Add(d time.Duration) {
	d = max(d, 0)
	i, _ := slices.BinarySearch(bounds[:], d)
	s.buckets[i]++
	s.count++
	s.sum += d
	if len(s.ring) < latest {
		s.ring = append(s.ring, d)
		return
	}
	s.ring[s.next] = d
	s.next = (s.next + 1) % latest
}

// Quantile returns the q-th quantile (0 to 1) of the latest samples, and how many
// those are; without samples 0, 0.
func (s *Span) Quantile(q float64) (time.Duration, int) {
	n := len(s.ring)
	if n == 0 {
		return 0, 0
	}
	sorted := slices.Clone(s.ring)
	slices.Sort(sorted)
	i := int(math.Ceil(q*float64(n))) - 1
	return sorted[min(max(i, 0), n-1)], n
}

// Bucket is how many samples were at most Bound; the last bucket's Bound is
// negative: no bound.
type Bucket struct {
	Bound time.Duration
	Count uint64 // cumulative
}

// Snapshot is a Span to publish.
type Snapshot struct {
	Buckets  []Bucket
	Count    uint64
	Sum      time.Duration
	P50, P95 time.Duration // of the latest samples
}

// Snapshot copies the span.
func (s *Span) Snapshot() Snapshot {
	out := Snapshot{Count: s.count, Sum: s.sum, Buckets: make([]Bucket, 0, len(s.buckets))}
	var sum uint64
	for i, n := range s.buckets {
		sum += n
		b := Bucket{Bound: -1, Count: sum}
		if i < len(bounds) {
			b.Bound = bounds[i]
		}
		out.Buckets = append(out.Buckets, b)
	}
	out.P50, _ = s.Quantile(0.50)
	out.P95, _ = s.Quantile(0.95)
	return out
}

// Average is an exponentially weighted mean. Weight is the share of a new
// sample, in (0, 1]; Value starts at its initial value, which the first samples
// outweigh.
type Average struct {
	Weight, Value float64
}

// Add takes a sample.
func (a *Average) Add(v float64) { a.Value += a.Weight * (v - a.Value) }

// Rate estimates events per second, with a memory of about Memory.
type Rate struct {
	Memory time.Duration
	value  float64
	last   time.Time
}

// Add counts n events at a moment.
func (r *Rate) Add(n int, now time.Time) {
	r.value = r.At(now) + float64(n)/r.Memory.Seconds()
	r.last = now
}

// At returns the rate at a moment, per second.
func (r *Rate) At(now time.Time) float64 {
	if r.last.IsZero() {
		return 0
	}
	age := max(now.Sub(r.last), 0).Seconds()
	return r.value * math.Exp(-age/r.Memory.Seconds())
}
