package bay

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/at"
	"custode/modem/modemtest"
)

// TestConsequences: what a refusal does to the bay.
func TestConsequences(t *testing.T) {
	always := func(line string) func(*modemtest.Port, string) bool {
		return func(p *modemtest.Port, cmd string) bool {
			if !isPDU(cmd) {
				return false
			}
			p.Say(line)
			return true
		}
	}
	number := func(i int) string { return fmt.Sprintf("+3934012345%02d", i) }
	t.Run("number: stays in service, at once", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 1")}, func(t *testing.T, r *rig) {
			r.idle()
			began := time.Now()
			for i := range 10 {
				if o, _ := r.send(number(i), "x"); o.Result != Refused {
					t.Fatalf("%+v", o)
				}
			}
			if time.Since(began) != 0 || r.bay.Status().State == NeedsHand {
				t.Errorf("ten bad numbers took %v, %s", time.Since(began), r.bay.Status().State)
			}
		})
	})
	t.Run("card: leaves service, alarm, looked at ever more rarely", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 310")}, func(t *testing.T, r *rig) {
			r.idle()
			if o, _ := r.send(phone1, "x"); o.Blame != OnCard {
				t.Fatalf("%+v", o)
			}
			if s := r.bay.Status().State; s != NeedsHand && s != Absent {
				t.Errorf("state %s", s)
			}
			if !slices.Contains(r.owner.alarms(), CardBarred) {
				t.Error("no alarm")
			}
		})
	})
	t.Run("modem: initialised again", func(t *testing.T) {
		bubble(t, &script{hook: once(func(p *modemtest.Port) { p.Say("+CMS ERROR: 302") })}, func(t *testing.T, r *rig) {
			r.idle()
			r.send(phone1, "x")
			time.Sleep(3 * time.Second)
			r.until(Ready)
			if n := r.count("AT+CMGF=0"); n != 2 || r.opens() != 1 {
				t.Errorf("%d initialisations, %d openings", n, r.opens())
			}
		})
	})
	t.Run("500: third in a row initialises, sixth restarts", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 500")}, func(t *testing.T, r *rig) {
			for i := range 6 {
				r.idle()
				if n, want := r.count("AT+CMGF=0"), 1+i/3; i < 5 && n != want && i != 3 && i != 4 {
					t.Errorf("%d initialisations before message %d, want %d", n, i, want)
				}
				r.send(number(i), "x")
			}
			time.Sleep(2 * time.Second)
			if r.count("AT+CFUN=1,1") != 1 {
				t.Errorf("no restart: %q", r.written())
			}
		})
	})
	t.Run("21 clustered: rests 30 s, 2, 10, 60 min", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 21")}, func(t *testing.T, r *rig) {
			r.idle()
			var rests []time.Duration
			for i := range 7 {
				o, _ := r.send(number(i), "x")
				rests = append(rests, o.Rest)
			}
			if want := []time.Duration{0, 0, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, time.Hour}; !slices.Equal(rests, want) {
				t.Errorf("%v", rests)
			}
		})
	})
	t.Run("197: counted as sent", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 197")}, func(t *testing.T, r *rig) {
			r.idle()
			if o, _ := r.send(phone1, "x"); o.Result != Accepted {
				t.Errorf("%+v", o)
			}
		})
	})
	for _, code := range []int{332, 513} {
		t.Run(fmt.Sprintf("%d: ambiguous", code), func(t *testing.T) {
			bubble(t, &script{hook: always(fmt.Sprintf("+CMS ERROR: %d", code))}, func(t *testing.T, r *rig) {
				r.idle()
				if o, _ := r.send(phone1, "x"); o.Result != Doubtful {
					t.Errorf("%+v", o)
				}
				synctest.Wait()
				if s := r.bay.Status().State; s != Ready {
					t.Errorf("state %s", s)
				}
			})
		})
	}
	t.Run("illegal card: network first, card after a restart", func(t *testing.T) {
		bubble(t, &script{hook: always("+CME ERROR: 103")}, func(t *testing.T, r *rig) {
			r.idle()
			if o, _ := r.send(phone1, "x"); o.Blame != OnNetwork {
				t.Errorf("%+v", o)
			}
			r.stop()
			r.bay.ladder.level, r.bay.ladder.used = restart, map[rung]time.Time{restart: time.Now()}
			if a := r.bay.refusal(newMessage(t, phone1, "x"), &at.Refusal{Set: at.CME, Code: 103}); a.Blame != OnCard {
				t.Errorf("%+v", a)
			}
		})
	})
	t.Run("our mistake is told", func(t *testing.T) {
		bubble(t, &script{hook: always("+CMS ERROR: 96")}, func(t *testing.T, r *rig) {
			r.idle()
			r.send(phone1, "x")
			if !slices.Contains(r.owner.alarms(), OurMistake) {
				t.Error("no alarm")
			}
		})
	})
}
