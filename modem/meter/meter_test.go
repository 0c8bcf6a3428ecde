package meter

import (
	"math"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	var s Span
	if d, n := s.Quantile(0.95); d != 0 || n != 0 {
		t.Errorf("empty: %v of %d", d, n)
	}
	for i := 1; i <= 100; i++ {
		s.Add(time.Duration(i) * 100 * time.Millisecond)
	}
	s.Add(-time.Second)
	for q, want := range map[float64]time.Duration{0: 0, 0.5: 5 * time.Second, 0.95: 9500 * time.Millisecond, 1: 10 * time.Second} {
		if d, n := s.Quantile(q); d != want || n != 101 {
			t.Errorf("quantile %v: %v of %d, want %v", q, d, n, want)
		}
	}
	snap := s.Snapshot()
	if snap.Count != 101 || snap.Sum != 505*time.Second || snap.P50 != 5*time.Second {
		t.Errorf("%+v", snap)
	}
	last := snap.Buckets[len(snap.Buckets)-1]
	if last.Bound != -1 || last.Count != 101 {
		t.Errorf("last bucket %+v", last)
	}
	for i, b := range snap.Buckets[:len(snap.Buckets)-1] {
		want := uint64(0)
		for j := 0; j <= 100; j++ {
			if time.Duration(j)*100*time.Millisecond <= b.Bound {
				want++
			}
		}
		if b.Count != want {
			t.Errorf("bucket %d (%v): %d, want %d", i, b.Bound, b.Count, want)
		}
	}
}

// TestSpanForgets: quantiles are of the latest samples, the histogram of all.
func TestSpanForgets(t *testing.T) {
	var s Span
	for range 1000 {
		s.Add(time.Minute)
	}
	for range latest {
		s.Add(time.Second)
	}
	if d, n := s.Quantile(0.99); d != time.Second || n != latest {
		t.Errorf("%v of %d", d, n)
	}
	if c := s.Snapshot().Count; c != 1000+latest {
		t.Errorf("count %d", c)
	}
}

func TestAverageAndRate(t *testing.T) {
	a := Average{Weight: 0.2, Value: 4}
	for range 50 {
		a.Add(2)
	}
	if math.Abs(a.Value-2) > 0.01 {
		t.Errorf("average %v", a.Value)
	}
	r := Rate{Memory: time.Minute}
	now := time.Unix(1e9, 0)
	if r.At(now) != 0 {
		t.Error("a rate out of nothing")
	}
	for i := range 300 { // 33 a minute for a while
		r.Add(1, now.Add(time.Duration(i)*time.Minute/33))
	}
	end := now.Add(299 * time.Minute / 33)
	if got := r.At(end) * 60; got < 30 || got > 36 {
		t.Errorf("rate %v a minute, want about 33", got)
	}
	if got := r.At(end.Add(10*time.Minute)) * 60; got > 0.1 {
		t.Errorf("rate %v after ten silent minutes", got)
	}
}
