package bay

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/at"
	"custode/modem/modemtest"
	"custode/modem/verdict"
)

// still is a bay that does not run, for its arithmetic.
func still(t *testing.T) (*Bay, *owner) {
	t.Helper()
	o := &owner{}
	return New(Config{Place: Place{Name: "bay0"}, Owner: o, Log: discard, Now: time.Now, Profiles: profiles(t), Timing: defaults}), o
}

// TestDoubtsTurn: a doubt waits for the reference after the last, the second doubt
// for the one after that, and 255 is followed by 0. After a refusal nobody knows.
func TestDoubtsTurn(t *testing.T) {
	b, _ := still(t)
	b.lastRef = 254
	for i, want := range []int{255, 0, 1} {
		b.doubt(newMessage(t, phone1, "x"))
		if got := b.doubts[i].ref; got != want {
			t.Errorf("doubt %d waits for %d, want %d", i, got, want)
		}
	}
	left := b.sort(newMessage(t, phone2, "y"), at.Reply{PayloadLeft: true}, &at.Refusal{Set: at.CMS, Code: 38})
	b.doubt(newMessage(t, phone1, "z"))
	if left.Result != Refused || b.doubts[3].ref != -1 {
		t.Errorf("after a refusal a doubt waits for %d", b.doubts[3].ref)
	}
}

// TestDoubtsEnd: they are few, and they do not last.
func TestDoubtsEnd(t *testing.T) {
	b, o := still(t)
	for range 40 {
		b.doubt(newMessage(t, phone1, "x"))
	}
	if len(b.doubts) != 16 {
		t.Errorf("%d doubts", len(b.doubts))
	}
	// Several whose turn is not known: a reference between commands is nobody's.
	b.credit(9)
	if n := len(o.heard(LateReceipt)); n != 0 || len(b.doubts) != 16 {
		t.Errorf("%d late receipts, %d doubts", n, len(b.doubts))
	}
	for i := range b.doubts {
		b.doubts[i].when = time.Now().Add(-doubtLife + time.Minute)
	}
	b.doubts[3].when = time.Now().Add(-doubtLife)
	if b.expireDoubts(); len(b.doubts) != 15 {
		t.Errorf("%d doubts are left, want 15", len(b.doubts))
	}
}

// TestDoubtsDieWithTheLine: what a restarted modem still had to say is gone.
func TestDoubtsDieWithTheLine(t *testing.T) {
	for name, end := range map[string]func(p *modemtest.Port){
		"restart": func(p *modemtest.Port) { p.Say("RDY") },
		"unplug":  func(p *modemtest.Port) { p.Die(errUnplugged) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &script{hook: once(end)})
				r.idle()
				if o, _ := r.send(phone1, "eins"); o.Result != Doubtful {
					t.Errorf("%+v", o)
				}
				r.until(Ready)
				r.stop()
				if len(r.bay.doubts) != 0 {
					t.Errorf("%d doubts", len(r.bay.doubts))
				}
			})
		})
	}
}

// TestLateNoEndsTheDoubt: an OK that names nothing is then the next message's.
func TestLateNoEndsTheDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &script{hook: once(func(p *modemtest.Port) {
			time.AfterFunc(100*time.Second, func() { p.Say("+CMS ERROR: 38") })
		})})
		r.idle()
		if o, _ := r.send(phone1, "eins"); o.Result != Doubtful {
			t.Errorf("%+v", o)
		}
		r.until(Ready)
		r.stop()
		if len(r.bay.doubts) != 0 {
			t.Errorf("%d doubts", len(r.bay.doubts))
		}
	})
}

// TestRemediesOnce: a remedy is tried once a message, else a modem that always says 512
// would be sent the same PDU for ever.
func TestRemediesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pdus := 0
		r := newRig(t, &script{hook: func(p *modemtest.Port, cmd string) bool {
			if !isPDU(cmd) {
				return false
			}
			if pdus++; pdus > 50 {
				p.Die(errUnplugged)
				return true
			}
			p.Say("+CMS ERROR: 512")
			return true
		}})
		defer r.stop()
		r.idle()
		if o, _ := r.send(phone1, "codice"); o.Result != Refused || o.Blame != OnNetwork || pdus != 2 {
			t.Errorf("%+v after %d submissions", o, pdus)
		}
	})
}

// TestSpamRestsBeginAnew: an accepted message ends the growth of the pauses.
func TestSpamRestsBeginAnew(t *testing.T) {
	b, _ := still(t)
	rest := func() time.Duration {
		for i := range 3 {
			a := b.refusal(newMessage(t, "+39340"+strings.Repeat(string(rune('1'+i)), 7), "x"), &at.Refusal{Set: at.CMS, Code: 21})
			if a.Rest > 0 {
				return a.Rest
			}
		}
		return 0
	}
	if a, c := rest(), rest(); a != verdict.SpamRests[0] || c != verdict.SpamRests[1] {
		t.Errorf("rests %v %v", a, c)
	}
	b.accepted(newMessage(t, phone1, "x"), 1, true)
	if a := rest(); a != verdict.SpamRests[0] {
		t.Errorf("after an acceptance %v", a)
	}
}

// TestBarredAfterARestart: a network that excludes the card is to blame until the modem
// was restarted in the present trouble; a restart of last week proves nothing.
func TestBarredAfterARestart(t *testing.T) {
	b, _ := still(t)
	barred := &at.Refusal{Set: at.CME, Code: 103}
	b.ladder.used = map[rung]time.Time{restart: time.Now().Add(-7 * 24 * time.Hour)}
	if a := b.refusal(newMessage(t, phone1, "x"), barred); a.Blame != OnNetwork {
		t.Errorf("before a restart: %+v", a)
	}
	b.ladder.level = restart
	if a := b.refusal(newMessage(t, phone1, "x"), barred); a.Blame != OnCard {
		t.Errorf("after it: %+v", a)
	}
}
