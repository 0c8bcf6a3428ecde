package keep

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/notary"
	"custode/internal/fault"
	"custode/simulators/tsasim"
)

// TestOverdue: while the clock is out of tolerance nothing is sealed, while no authority
// answers nothing is stamped; records are taken all the same, the alarm comes when the
// patience is over, and all is made good afterwards.
func TestOverdue(t *testing.T) {
	var wrong atomic.Bool
	var tsa *tsasim.TSA
	out := func(n *notary.Notary, authority *tsasim.TSA) {
		tsa = authority
		n.Clock = func(context.Context) error {
			if wrong.Load() {
				return errors.New("it may be wrong by 1200000 µs")
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		set  func(on bool)
		want string
	}{
		"clock": {wrong.Store, "the clock cannot be trusted"},
		"authority": {func(on bool) {
			tsa.Misbehave(map[bool]tsasim.Fault{true: tsasim.Down, false: tsasim.Honest}[on])
		}, "HTTP 503"},
	} {
		t.Run(name, func(t *testing.T) {
			k, _, ahead, _ := kept(t, out)
			var logged bytes.Buffer
			k.Slog = slog.New(slog.NewTextHandler(&logged, nil))
			c.set(true)
			for range 2 {
				if p, err := k.Log.Append(t.Context(), certlog.Record{Tag: "a", Data: []byte("x")}); err != nil || p.IsZero() {
					t.Fatalf("a record is not taken: %v", err)
				}
				if err := k.Log.Seal(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("seal: %v", err)
				}
			}
			if s := k.Log.Status(); s.Unsealed+s.Pending != 2 || s.Oldest.IsZero() {
				t.Errorf("%+v", s)
			}
			*ahead = k.Age + k.Patience - time.Minute
			if k.overdue(); k.Overdue() || logged.Len() > 0 {
				t.Errorf("an alarm before its time: %s", &logged)
			}
			*ahead += 2 * time.Minute
			if k.overdue(); !k.Overdue() || !strings.Contains(logged.String(), "level=ERROR") || !strings.Contains(logged.String(), "overdue") {
				t.Errorf("no alarm: %s", &logged)
			}
			if n := k.Night(t.Context()); n.Verified || !strings.Contains(n.Problem, "segment 3: it was") {
				t.Errorf("the night does not name it: %+v", n)
			}
			c.set(false)
			if err := k.Log.Seal(t.Context()); err != nil || k.Overdue() {
				t.Errorf("afterwards: %v", err)
			}
			*ahead = 0
			if n := k.Night(t.Context()); !n.Verified || n.Records != 4 {
				t.Errorf("the night after: %+v", n)
			}
		})
	}
}
