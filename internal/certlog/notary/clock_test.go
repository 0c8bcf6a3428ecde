package notary

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestJudgeClock(t *testing.T) {
	for name, c := range map[string]struct {
		state int
		t     unix.Timex
		good  bool
	}{
		"synchronised":   {unix.TIME_OK, unix.Timex{Maxerror: 900_000}, true},
		"leap second":    {unix.TIME_INS, unix.Timex{Maxerror: 100}, true},
		"unsynchronised": {unix.TIME_OK, unix.Timex{Status: unix.STA_UNSYNC}, false},
		"error state":    {unix.TIME_ERROR, unix.Timex{}, false},
		"too uncertain":  {unix.TIME_OK, unix.Timex{Maxerror: 1_000_001}, false},
	} {
		if err := judgeClock(c.state, &c.t); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
