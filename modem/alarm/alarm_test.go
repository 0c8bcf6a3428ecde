package alarm

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSet(t *testing.T) {
	var s Set
	t0 := time.Unix(1e9, 0)
	for i, step := range []struct {
		name    Name
		bay     string
		on      bool
		changed bool
	}{
		{NoCredit, "b", false, false}, {NoCredit, "b", true, true}, {NoCredit, "b", true, false},
		{NoCredit, "a", true, true}, {AllDown, "", true, true}, {AllDown, "", false, true}, {AllDown, "", false, false},
	} {
		if got := s.Put(step.name, step.bay, step.on, "d", t0.Add(time.Duration(i)*time.Second)); got != step.changed {
			t.Errorf("step %d: changed %v", i, got)
		}
	}
	want := []Alarm{{NoCredit, "a", "d", t0.Add(3 * time.Second)}, {NoCredit, "b", "d", t0.Add(time.Second)}}
	if d := cmp.Diff(want, s.List()); d != "" {
		t.Error(d)
	}
}

func TestNamesAreDistinct(t *testing.T) {
	seen := map[Name]bool{}
	for _, n := range Names() {
		if n == "" || seen[n] {
			t.Errorf("name %q", n)
		}
		seen[n] = true
	}
}
