package bay

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"custode/internal/fault"
	"custode/modem/modemtest"
)

// TestOrdersReachAQuarantinedBay: a modem that hangs after a PDU is the one whose power
// an operator wants to switch; nothing is written to it meanwhile.
func TestOrdersReachAQuarantinedBay(t *testing.T) {
	for name, end := range map[string]func(context.Context, *Bay) error{
		"power cycle": func(ctx context.Context, b *Bay) error { return b.PowerCycle(ctx) },
		"hold":        func(ctx context.Context, b *Bay) error { return b.Hold(ctx, true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				power := &switchboard{}
				r := newRig(t, &script{hook: once(func(*modemtest.Port) {})}, func(c *Config) { c.Power = power })
				defer r.stop()
				r.idle()
				if o, _ := r.send(phone1, "codice"); o.Result != Doubtful {
					t.Errorf("%+v", o)
				}
				before, began := len(r.written()), time.Now()
				if _, err := r.bay.USSD(t.Context(), "*123#"); !fault.Is(err, fault.Unavailable) {
					t.Errorf("a question: %v", err)
				}
				if n := len(r.written()); n != before || r.bay.Status().State != Quarantined {
					t.Errorf("written %q in state %s", r.written()[before:], r.bay.Status().State)
				}
				if err := end(t.Context(), r.bay); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				if took := time.Since(began); took > 5*time.Second || r.bay.Status().State == Quarantined {
					t.Errorf("%s after %v", r.bay.Status().State, took)
				}
				if name == "hold" {
					_ = r.bay.Hold(t.Context(), false)
				}
				r.until(Ready)
			})
		})
	}
}
