package bay

import (
	"errors"
	"fmt"

	"custode/modem/at"
)

// Blame says who is at fault when a submission is refused, and so what to do.
type Blame uint8

// The blames. The last two are never in an Outcome of result Refused.

const (
	OnNumber  Blame = iota // the number or the message: do not try again
	OnRoute                // passing, or this operator only: another modem, later
	OnNetwork              // radio or service centre: another modem now, this one cools down
	OnModem                // the modem's state: another modem now, initialise this one again
	OnCard                 // the SIM: an operator must act, the bay leaves the pool
	OnBusy                 // not ready: the same modem, a little later
	onNobody               // not a failure: the message was accepted before
	inDoubt                // it may have been sent
)

var blameNames = [...]string{"number", "route", "network", "modem", "card", "busy", "nobody", "doubt"}

// String returns the lower-case name.
func (b Blame) String() string { return blameNames[b] }

// cmsBlame classifies +CMS ERROR codes: 0-127 are 24.011 causes, 128-255 are
// TP-FCS of 23.040, 300-511 are of 27.005 section 3.2.5, 512 and up vendors'.
// What is missing is OnModem.
var cmsBlame = map[int]Blame{
	1: OnNumber, 8: OnRoute, 10: OnRoute, 21: OnRoute, 22: OnRoute, 27: OnRoute, 28: OnRoute, 29: OnRoute, 30: OnNumber,
	// 38 "network out of order" is what networks say for a dead number too; the
	// streak decides.
	38: OnRoute, 41: OnNetwork, 42: OnNetwork, 47: OnNetwork, 50: OnRoute, 69: OnRoute,
	81: OnNumber, 95: OnNumber, 96: OnNumber, 97: OnNumber, 98: OnNumber, 99: OnNumber, 111: OnNumber, 127: OnRoute,
	128: OnNumber, 129: OnNumber, 130: OnNumber, 143: OnNumber, 144: OnNumber, 145: OnNumber,
	159: OnNumber, 160: OnNumber, 161: OnNumber, 175: OnNumber, 176: OnNumber,
	192: OnNetwork, 193: OnCard, 194: OnNetwork, 195: OnNumber, 196: OnNumber, 197: onNobody, 198: OnNumber, 199: OnNumber,
	208: OnBusy, 209: OnBusy, 211: OnBusy,
	304: OnNumber, 305: OnNumber,
	310: OnCard, 311: OnCard, 312: OnCard, 313: OnCard, 314: OnBusy, 315: OnCard, 316: OnCard, 317: OnCard, 318: OnCard,
	322: OnBusy, 330: OnCard, 331: OnNetwork, 332: inDoubt,
	512: OnNetwork, 513: inDoubt, 514: OnNetwork, 515: OnBusy,
}

// cmeBlame classifies +CME ERROR codes (27.007 section 9.2). What is missing is
// OnModem.
var cmeBlame = map[int]Blame{
	10: OnCard, 11: OnCard, 12: OnCard, 13: OnCard, 14: OnBusy, 15: OnCard, 16: OnCard, 17: OnCard, 18: OnCard,
	30: OnNetwork, 31: OnNetwork, 32: OnNetwork, 103: OnNetwork, 106: OnNetwork, 111: OnNetwork, 112: OnNetwork, 113: OnNetwork,
	256: OnBusy, 258: OnBusy, 515: OnBusy, 772: OnBusy,
}

// judge classifies a refusal.
func judge(r *at.Refusal) Blame {
	table := cmeBlame
	if r.Set == at.CMS {
		table = cmsBlame
	}
	if b, ok := table[r.Code]; ok && (r.Set == at.CMS || r.Set == at.CME) {
		return b
	}
	return OnModem
}

// asRefusal returns the refusal in err's chain, or nil.
func asRefusal(err error) *at.Refusal {
	var r *at.Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// refusalDetail is what an Event may say: set and code, never the modem's text.
func refusalDetail(r *at.Refusal, b Blame) string {
	set := map[at.Set]string{at.CMS: "cms", at.CME: "cme", at.Other: "ext"}[r.Set]
	if set == "" || r.Code < 0 {
		return "refused, blame " + b.String()
	}
	return fmt.Sprintf("refused %s %d, blame %s", set, r.Code, b)
}

// streak moves the blame when one code meets many numbers in a row: a network
// that says "out of order" for the second different number is out of order, a
// card barred for the third is barred.
type streak struct {
	code    int
	numbers map[string]bool
}

var streakLimit = map[int]struct {
	numbers int
	then    Blame
}{
	38: {2, OnNetwork}, 21: {3, OnNetwork}, 28: {3, OnCard}, 50: {2, OnCard}, 8: {3, OnCard}, 10: {3, OnCard},
}

// refused notes a refusal for number and returns the corrected blame.
func (s *streak) refused(r *at.Refusal, number string) Blame {
	b := judge(r)
	limit, watched := streakLimit[r.Code]
	if r.Set != at.CMS || !watched {
		return b
	}
	if s.code != r.Code || s.numbers == nil {
		s.code, s.numbers = r.Code, map[string]bool{}
	}
	if len(s.numbers) < limit.numbers {
		s.numbers[number] = true
	}
	if len(s.numbers) >= limit.numbers {
		return limit.then
	}
	return b
}

func (s *streak) accepted() { *s = streak{} }
