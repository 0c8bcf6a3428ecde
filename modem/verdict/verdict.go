// Package verdict says who is to blame when a modem or a network refuses a message:
// the tables of +CMS ERROR and +CME ERROR codes (3GPP TS 27.005, 24.011, 23.040,
// 27.007 and the vendors'), what may be tried before anybody is blamed, and the
// streaks that move the blame from the numbers to the network or the card. It is
// pure: no clock, no device. Only modem/bay may import it.
package verdict

import (
	"errors"
	"fmt"
	"time"

	"custode/modem/at"
)

// Blame says who is at fault when a submission is refused, and so what to do.
type Blame uint8

// The blames. An Outcome of result Refused has one of them.
const (
	OnNumber  Blame = iota // the number: do not try again
	OnRoute                // passing, or this operator only: another modem, later
	OnNetwork              // radio or service centre: another modem now, this one rests
	OnModem                // the modem's state: another modem now, this one is initialised again
	OnCard                 // the SIM: an operator must act, the bay leaves the pool
	OnBusy                 // not ready: the same modem, a little later
	OnUs                   // our PDU or our configuration: do not try again, tell somebody

	Nobody  // not a failure: the message was accepted before
	InDoubt // it may have been sent
	Soft    // the modem, perhaps: as OnModem, but it is initialised only at the third in a row
)

var blameNames = [...]string{"number", "route", "network", "modem", "card", "busy", "us", "nobody", "doubt", "modem (soft)"}

// String returns the lower-case name.
func (b Blame) String() string { return blameNames[b] }

// Remedy is what may be tried at once, on the same modem, before anybody is blamed.
type Remedy uint8

// The remedies.
const (
	None       Remedy = iota
	PlainForm         // without message class
	NoValidity        // without validity period
	OwnCentre         // with the configured service centre
	OnceMore          // as it is
	Purge             // nothing for the message; the storage is emptied
)

// Verdict is a row of the tables.
type Verdict struct {
	Blame  Blame
	Remedy Remedy
}

// cmsVerdicts classifies +CMS ERROR codes: 0-127 are 24.011 causes, 128-255 are
// TP-FCS of 23.040, 300-511 are of 27.005 section 3.2.5, 512 and up vendors'.
// What is missing is Soft.
var cmsVerdicts = map[int]Verdict{
	1: {Blame: OnNumber}, 8: {Blame: OnRoute}, 10: {Blame: OnRoute}, 21: {Blame: OnRoute}, 22: {Blame: OnRoute}, 27: {Blame: OnRoute},
	28: {Blame: OnRoute}, 29: {Blame: OnRoute}, 30: {Blame: OnNumber},
	// 38 "network out of order" is what networks say for a dead number too; the
	// streak decides.
	38: {Blame: OnRoute}, 41: {Blame: OnNetwork}, 42: {Blame: OnNetwork}, 47: {Blame: OnNetwork}, 50: {Blame: OnRoute}, 69: {Blame: OnUs},
	81: {Blame: OnUs}, 95: {Blame: OnUs}, 96: {Blame: OnUs}, 97: {Blame: OnUs}, 98: {Blame: OnUs}, 99: {Blame: OnUs}, 111: {Blame: OnUs},
	127: {Blame: OnRoute},
	128: {OnUs, PlainForm}, 129: {OnUs, PlainForm}, 130: {OnUs, PlainForm}, 143: {OnUs, PlainForm}, 144: {OnUs, PlainForm}, 145: {OnUs, PlainForm},
	159: {OnUs, PlainForm}, 160: {OnUs, PlainForm}, 161: {OnUs, PlainForm}, 175: {OnUs, PlainForm}, 176: {OnUs, PlainForm},
	192: {Blame: OnNetwork}, 193: {Blame: OnCard}, 194: {Blame: OnNetwork}, 195: {Blame: OnNumber}, 196: {Blame: OnNumber}, 197: {Blame: Nobody},
	198: {OnUs, NoValidity}, 199: {OnUs, NoValidity},
	208: {OnBusy, Purge}, 209: {OnBusy, Purge}, 211: {OnBusy, Purge}, 322: {OnBusy, Purge},
	210: {Blame: Soft}, 212: {Blame: Soft}, 213: {Blame: Soft}, 255: {Blame: Soft},
	300: {Blame: OnModem}, 301: {Blame: OnModem}, 302: {Blame: OnModem}, 303: {Blame: OnModem}, 304: {Blame: OnUs}, 305: {Blame: OnUs},
	310: {Blame: OnCard}, 311: {Blame: OnCard}, 312: {Blame: OnCard}, 313: {Blame: OnCard}, 314: {Blame: OnBusy}, 315: {Blame: OnCard},
	316: {Blame: OnCard}, 317: {Blame: OnCard}, 318: {Blame: OnCard}, 320: {Blame: Soft}, 321: {Blame: Soft},
	330: {OnCard, OwnCentre}, 331: {Blame: OnNetwork}, 332: {Blame: InDoubt}, 340: {Blame: Soft}, 500: {Blame: Soft},
	512: {OnNetwork, OnceMore}, 513: {Blame: InDoubt}, 514: {Blame: OnNetwork}, 515: {Blame: OnBusy},
}

// cmeVerdicts classifies +CME ERROR codes (27.007 section 9.2). What is missing is
// Soft.
var cmeVerdicts = map[int]Verdict{
	3: {Blame: OnModem}, 4: {Blame: OnModem},
	10: {Blame: OnCard}, 11: {Blame: OnCard}, 12: {Blame: OnCard}, 13: {Blame: OnCard}, 15: {Blame: OnCard}, 16: {Blame: OnCard},
	17: {Blame: OnCard}, 18: {Blame: OnCard},
	14: {Blame: OnBusy}, 256: {Blame: OnBusy}, 258: {Blame: OnBusy}, 515: {Blame: OnBusy}, 772: {Blame: OnBusy},
	20: {OnBusy, Purge},
	30: {Blame: OnNetwork}, 31: {Blame: OnNetwork}, 32: {Blame: OnNetwork},
	103: {Blame: OnNetwork}, 106: {Blame: OnNetwork}, 111: {Blame: OnNetwork}, 112: {Blame: OnNetwork}, 113: {Blame: OnNetwork},
	100: {Blame: Soft},
}

// Barred reports a refusal with which a network excludes a card or a device. After a
// restart of the modem the second one means the card.
func Barred(r *at.Refusal) bool { return r.Set == at.CME && barred[r.Code] }

var barred = map[int]bool{103: true, 106: true, 111: true, 112: true, 113: true}

// Of classifies a refusal.
func Of(r *at.Refusal) Verdict {
	switch r.Set {
	case at.CMS:
		if v, ok := cmsVerdicts[r.Code]; ok {
			return v
		}
	case at.CME:
		if v, ok := cmeVerdicts[r.Code]; ok {
			return v
		}
	}
	return Verdict{Blame: Soft}
}

// AsRefusal returns the refusal in err's chain, or nil.
func AsRefusal(err error) *at.Refusal {
	var r *at.Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// IsBusy reports that the modem or its card asks to be asked again.
func IsBusy(r *at.Refusal) bool {
	return r != nil && Of(r).Blame == OnBusy && Of(r).Remedy != Purge
}

// Detail is what an Outcome may say: set and code, never the modem's text.
func Detail(r *at.Refusal, b Blame) string {
	set := map[at.Set]string{at.CMS: "cms", at.CME: "cme", at.Other: "ext"}[r.Set]
	if set == "" || r.Code < 0 {
		return "refused, blame " + b.String()
	}
	return fmt.Sprintf("refused %s %d, blame %s", set, r.Code, b)
}

// streakWindow and streakRoom bound what a streak remembers.
const (
	streakWindow = 10 * time.Minute
	streakRoom   = 32
)

// Streak moves the blame when one code meets several different numbers within ten
// minutes and no message was accepted between: the first number may be dead, the
// third is not.
type Streak struct {
	seen []refused
	Soft int // refusals in a row that are the modem's
}

type refused struct {
	set    at.Set
	code   int
	number string
	when   time.Time
}

// moves says at how many numbers the blame moves, and to whom.
var moves = map[int]struct {
	numbers int
	then    Blame
}{
	8: {3, OnCard}, 10: {3, OnCard}, 28: {3, OnCard}, 50: {2, OnCard},
	21: {3, OnNetwork}, // the anti-spam filter
	38: {2, OnNetwork},
	// Networks that answer so to everything exist; another modem's may know better.
	1: {3, OnRoute}, 30: {3, OnRoute}, 195: {3, OnRoute}, 196: {3, OnRoute},
	22: {3, Soft}, 27: {3, Soft}, 29: {3, Soft}, 127: {3, Soft},
}

// Refused notes a refusal for number and returns the corrected verdict.
func (s *Streak) Refused(r *at.Refusal, number string, now time.Time) Verdict {
	v := Of(r)
	if v.Blame == OnModem || v.Blame == Soft {
		s.Soft++
		if s.Soft >= 3 {
			v.Blame = OnModem
		}
		return v
	}
	s.Soft = 0
	move, watched := moves[r.Code]
	if r.Set != at.CMS || !watched {
		return v
	}
	numbers := map[string]bool{number: true}
	kept := s.seen[:0]
	for _, e := range s.seen {
		if now.Sub(e.when) > streakWindow {
			continue
		}
		kept = append(kept, e)
		if e.set == r.Set && e.code == r.Code {
			numbers[e.number] = true
		}
	}
	if len(kept) >= streakRoom {
		kept = kept[:copy(kept, kept[1:])]
	}
	s.seen = append(kept, refused{r.Set, r.Code, number, now})
	if len(numbers) >= move.numbers {
		v.Blame = move.then
	}
	return v
}

// Accepted ends every streak.
func (s *Streak) Accepted() { s.seen, s.Soft = s.seen[:0], 0 }

// SpamRests are the pauses after which a card that a network's anti-spam filter
// refuses may try again.
var SpamRests = [...]time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}
