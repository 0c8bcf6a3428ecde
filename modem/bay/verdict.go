package bay

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

	onNobody // not a failure: the message was accepted before
	inDoubt  // it may have been sent
	onSoft   // the modem, perhaps: as OnModem, but it is initialised only at the third in a row
)

var blameNames = [...]string{"number", "route", "network", "modem", "card", "busy", "us", "nobody", "doubt", "modem (soft)"}

// String returns the lower-case name.
func (b Blame) String() string { return blameNames[b] }

// remedy is what may be tried at once, on the same modem, before anybody is blamed.
type remedy uint8

const (
	none       remedy = iota
	plainForm         // without message class
	noValidity        // without validity period
	ownCentre         // with the configured service centre
	onceMore          // as it is
	purge             // nothing for the message; the storage is emptied
)

// verdict is a row of the tables.
type verdict struct {
	blame  Blame
	remedy remedy
}

// cmsVerdicts classifies +CMS ERROR codes: 0-127 are 24.011 causes, 128-255 are
// TP-FCS of 23.040, 300-511 are of 27.005 section 3.2.5, 512 and up vendors'.
// What is missing is onSoft.
var cmsVerdicts = map[int]verdict{
	1: {blame: OnNumber}, 8: {blame: OnRoute}, 10: {blame: OnRoute}, 21: {blame: OnRoute}, 22: {blame: OnRoute}, 27: {blame: OnRoute},
	28: {blame: OnRoute}, 29: {blame: OnRoute}, 30: {blame: OnNumber},
	// 38 "network out of order" is what networks say for a dead number too; the
	// streak decides.
	38: {blame: OnRoute}, 41: {blame: OnNetwork}, 42: {blame: OnNetwork}, 47: {blame: OnNetwork}, 50: {blame: OnRoute}, 69: {blame: OnUs},
	81: {blame: OnUs}, 95: {blame: OnUs}, 96: {blame: OnUs}, 97: {blame: OnUs}, 98: {blame: OnUs}, 99: {blame: OnUs}, 111: {blame: OnUs},
	127: {blame: OnRoute},
	128: {OnUs, plainForm}, 129: {OnUs, plainForm}, 130: {OnUs, plainForm}, 143: {OnUs, plainForm}, 144: {OnUs, plainForm}, 145: {OnUs, plainForm},
	159: {OnUs, plainForm}, 160: {OnUs, plainForm}, 161: {OnUs, plainForm}, 175: {OnUs, plainForm}, 176: {OnUs, plainForm},
	192: {blame: OnNetwork}, 193: {blame: OnCard}, 194: {blame: OnNetwork}, 195: {blame: OnNumber}, 196: {blame: OnNumber}, 197: {blame: onNobody},
	198: {OnUs, noValidity}, 199: {OnUs, noValidity},
	208: {OnBusy, purge}, 209: {OnBusy, purge}, 211: {OnBusy, purge}, 322: {OnBusy, purge},
	210: {blame: onSoft}, 212: {blame: onSoft}, 213: {blame: onSoft}, 255: {blame: onSoft},
	300: {blame: OnModem}, 301: {blame: OnModem}, 302: {blame: OnModem}, 303: {blame: OnModem}, 304: {blame: OnUs}, 305: {blame: OnUs},
	310: {blame: OnCard}, 311: {blame: OnCard}, 312: {blame: OnCard}, 313: {blame: OnCard}, 314: {blame: OnBusy}, 315: {blame: OnCard},
	316: {blame: OnCard}, 317: {blame: OnCard}, 318: {blame: OnCard}, 320: {blame: onSoft}, 321: {blame: onSoft},
	330: {OnCard, ownCentre}, 331: {blame: OnNetwork}, 332: {blame: inDoubt}, 340: {blame: onSoft}, 500: {blame: onSoft},
	512: {OnNetwork, onceMore}, 513: {blame: inDoubt}, 514: {blame: OnNetwork}, 515: {blame: OnBusy},
}

// cmeVerdicts classifies +CME ERROR codes (27.007 section 9.2). What is missing is
// onSoft.
var cmeVerdicts = map[int]verdict{
	3: {blame: OnModem}, 4: {blame: OnModem},
	10: {blame: OnCard}, 11: {blame: OnCard}, 12: {blame: OnCard}, 13: {blame: OnCard}, 15: {blame: OnCard}, 16: {blame: OnCard},
	17: {blame: OnCard}, 18: {blame: OnCard},
	14: {blame: OnBusy}, 256: {blame: OnBusy}, 258: {blame: OnBusy}, 515: {blame: OnBusy}, 772: {blame: OnBusy},
	20: {OnBusy, purge},
	30: {blame: OnNetwork}, 31: {blame: OnNetwork}, 32: {blame: OnNetwork},
	103: {blame: OnNetwork}, 106: {blame: OnNetwork}, 111: {blame: OnNetwork}, 112: {blame: OnNetwork}, 113: {blame: OnNetwork},
	100: {blame: onSoft},
}

// barred are the CME codes with which a network excludes a card or a device. After
// a restart of the modem the second one means the card.
var barred = map[int]bool{103: true, 106: true, 111: true, 112: true, 113: true}

// judge classifies a refusal.
func judge(r *at.Refusal) verdict {
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
	return verdict{blame: onSoft}
}

// asRefusal returns the refusal in err's chain, or nil.
func asRefusal(err error) *at.Refusal {
	var r *at.Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// isBusy reports that the modem or its card asks to be asked again.
func isBusy(r *at.Refusal) bool {
	return r != nil && judge(r).blame == OnBusy && judge(r).remedy != purge
}

// refusalDetail is what an Outcome may say: set and code, never the modem's text.
func refusalDetail(r *at.Refusal, b Blame) string {
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

// streak moves the blame when one code meets several different numbers within ten
// minutes and no message was accepted between: the first number may be dead, the
// third is not.
type streak struct {
	seen []refused
	soft int // refusals in a row that are the modem's
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
	22: {3, onSoft}, 27: {3, onSoft}, 29: {3, onSoft}, 127: {3, onSoft},
}

// refused notes a refusal for number and returns the corrected verdict.
func (s *streak) refused(r *at.Refusal, number string, now time.Time) verdict {
	v := judge(r)
	if v.blame == OnModem || v.blame == onSoft {
		s.soft++
		if s.soft >= 3 {
			v.blame = OnModem
		}
		return v
	}
	s.soft = 0
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
		v.blame = move.then
	}
	return v
}

func (s *streak) accepted() { s.seen, s.soft = s.seen[:0], 0 }

// spamRests are the pauses after which a card that a network's anti-spam filter
// refuses may try again.
var spamRests = [...]time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}
