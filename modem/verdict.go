package modem

import (
	"errors"
	"fmt"

	"custode/modem/at"
)

// blame says who is at fault when a submission is refused, and so what to do.
type blame uint8

const (
	onNumber  blame = iota // the number or the message: do not try again
	onRoute                // passing, or this operator only: another modem, later
	onNetwork              // radio or service centre: another modem now, this one cools down
	onModem                // the modem's state: another modem now, initialise this one again
	onCard                 // the SIM: an operator must act, the bay leaves the pool
	onBusy                 // not ready: the same modem, a little later
	onNobody               // not a failure: the message was accepted before
	inDoubt                // it may have been sent
)

var blameNames = [...]string{"number", "route", "network", "modem", "card", "busy", "nobody", "doubt"}

func (b blame) String() string { return blameNames[b] }

// cmsBlame classifies +CMS ERROR codes: 0-127 are 24.011 causes, 128-255 are
// TP-FCS of 23.040, 300-511 are of 27.005 section 3.2.5, 512 and up vendors'.
// What is missing is onModem.
var cmsBlame = map[int]blame{
	1: onNumber, 8: onRoute, 10: onRoute, 21: onRoute, 22: onRoute, 27: onRoute, 28: onRoute, 29: onRoute, 30: onNumber,
	// 38 "network out of order" is what networks say for a dead number too; the
	// streak decides.
	38: onRoute, 41: onNetwork, 42: onNetwork, 47: onNetwork, 50: onRoute, 69: onRoute,
	81: onNumber, 95: onNumber, 96: onNumber, 97: onNumber, 98: onNumber, 99: onNumber, 111: onNumber, 127: onRoute,
	128: onNumber, 129: onNumber, 130: onNumber, 143: onNumber, 144: onNumber, 145: onNumber,
	159: onNumber, 160: onNumber, 161: onNumber, 175: onNumber, 176: onNumber,
	192: onNetwork, 193: onCard, 194: onNetwork, 195: onNumber, 196: onNumber, 197: onNobody, 198: onNumber, 199: onNumber,
	208: onBusy, 209: onBusy, 211: onBusy,
	304: onNumber, 305: onNumber,
	310: onCard, 311: onCard, 312: onCard, 313: onCard, 314: onBusy, 315: onCard, 316: onCard, 317: onCard, 318: onCard,
	322: onBusy, 330: onCard, 331: onNetwork, 332: inDoubt,
	512: onNetwork, 513: inDoubt, 514: onNetwork, 515: onBusy,
}

// cmeBlame classifies +CME ERROR codes (27.007 section 9.2). What is missing is
// onModem.
var cmeBlame = map[int]blame{
	10: onCard, 11: onCard, 12: onCard, 13: onCard, 14: onBusy, 15: onCard, 16: onCard, 17: onCard, 18: onCard,
	30: onNetwork, 31: onNetwork, 32: onNetwork, 103: onNetwork, 106: onNetwork, 111: onNetwork, 112: onNetwork, 113: onNetwork,
	256: onBusy, 258: onBusy, 515: onBusy, 772: onBusy,
}

// judge classifies a refusal.
func judge(r *at.Refusal) blame {
	table := cmeBlame
	if r.Set == at.CMS {
		table = cmsBlame
	}
	if b, ok := table[r.Code]; ok && (r.Set == at.CMS || r.Set == at.CME) {
		return b
	}
	return onModem
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
func refusalDetail(r *at.Refusal, b blame) string {
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
	then    blame
}{
	38: {2, onNetwork}, 21: {3, onNetwork}, 28: {3, onCard}, 50: {2, onCard}, 8: {3, onCard}, 10: {3, onCard},
}

// refused notes a refusal for number and returns the corrected blame.
func (s *streak) refused(r *at.Refusal, number string) blame {
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
