package journal

import (
	"testing"
	"time"
)

func TestWaits(t *testing.T) {
	var w Waits
	for _, d := range []time.Duration{0, 500 * time.Microsecond, 19 * time.Millisecond, 20 * time.Millisecond, time.Minute} {
		w.add(d)
	}
	got := map[time.Duration]uint64{}
	count, sum := w.Each(func(bound time.Duration, n uint64) { got[bound] = n })
	for bound, want := range map[time.Duration]uint64{500 * time.Microsecond: 2, 15 * time.Millisecond: 2, 20 * time.Millisecond: 4, 10 * time.Second: 4, -1: 5} {
		if got[bound] != want {
			t.Errorf("up to %v: %d, want %d", bound, got[bound], want)
		}
	}
	if count != 5 || sum != time.Minute+39*time.Millisecond+500*time.Microsecond {
		t.Errorf("%d, %v", count, sum)
	}
}
