package verdict

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"custode/modem/at"
)

// TestSection17 is modem.md section 1.7: every row of both tables.
func TestSection17(t *testing.T) {
	rows := map[at.Set]map[string]struct {
		codes []int
		blame Blame
		fix   Remedy
	}{
		at.CMS: {
			"1 unassigned number":                     {[]int{1}, OnNumber, None},
			"8 10 barring":                            {[]int{8, 10}, OnRoute, None},
			"21 rejected, anti-spam":                  {[]int{21}, OnRoute, None},
			"22 memory capacity":                      {[]int{22}, OnRoute, None},
			"27 destination out of order":             {[]int{27}, OnRoute, None},
			"28 unidentified subscriber":              {[]int{28}, OnRoute, None},
			"30 unknown subscriber":                   {[]int{30}, OnNumber, None},
			"29 facility rejected":                    {[]int{29}, OnRoute, None},
			"38 network out of order":                 {[]int{38}, OnRoute, None},
			"41 42 47 temporary, congestion":          {[]int{41, 42, 47}, OnNetwork, None},
			"50 not subscribed":                       {[]int{50}, OnRoute, None},
			"69 not implemented":                      {[]int{69}, OnUs, None},
			"81 95-99 111 protocol errors":            {[]int{81, 95, 96, 97, 98, 99, 111}, OnUs, None},
			"127 interworking":                        {[]int{127}, OnRoute, None},
			"128- PID, DCS, class unsupported":        {[]int{128, 129, 130, 143, 144, 145, 159, 160, 161, 175, 176}, OnUs, PlainForm},
			"192 194 service centre busy, failing":    {[]int{192, 194}, OnNetwork, None},
			"193 no subscription":                     {[]int{193}, OnCard, None},
			"195 196 invalid address, barred":         {[]int{195, 196}, OnNumber, None},
			"197 duplicate":                           {[]int{197}, Nobody, None},
			"198 199 validity unsupported":            {[]int{198, 199}, OnUs, NoValidity},
			"208 209 211 322 storage full":            {[]int{208, 209, 211, 322}, OnBusy, Purge},
			"210 212 213 255 station errors":          {[]int{210, 212, 213, 255}, Soft, None},
			"300-303 equipment":                       {[]int{300, 301, 302, 303}, OnModem, None},
			"304 305 invalid parameter":               {[]int{304, 305}, OnUs, None},
			"310 313 315 card missing, failed, wrong": {[]int{310, 313, 315}, OnCard, None},
			"311 312 316-318 PIN, PUK":                {[]int{311, 312, 316, 317, 318}, OnCard, None},
			"314 card busy":                           {[]int{314}, OnBusy, None},
			"320 321 memory, index":                   {[]int{320, 321}, Soft, None},
			"330 service centre unknown":              {[]int{330}, OnCard, OwnCentre},
			"331 no service":                          {[]int{331}, OnNetwork, None},
			"332 network time-out is ambiguous":       {[]int{332}, InDoubt, None},
			"340 no acknowledgement expected":         {[]int{340}, Soft, None},
			"500 unknown":                             {[]int{500}, Soft, None},
			"512 establishment failure":               {[]int{512}, OnNetwork, OnceMore},
			"513 lower layer failure is ambiguous":    {[]int{513}, InDoubt, None},
			"514 congestion":                          {[]int{514}, OnNetwork, None},
			"515 not available":                       {[]int{515}, OnBusy, None},
			"325 604 34 vendor's":                     {[]int{325, 604, 34}, Soft, None},
		},
		at.CME: {
			"3 4 not allowed, unsupported":         {[]int{3, 4}, OnModem, None},
			"10 13 15 no card, failure, wrong":     {[]int{10, 13, 15}, OnCard, None},
			"11 12 16 17 18 PIN, PUK":              {[]int{11, 12, 16, 17, 18}, OnCard, None},
			"14 515 256 258 772 busy":              {[]int{14, 515, 256, 258, 772}, OnBusy, None},
			"20 memory full":                       {[]int{20}, OnBusy, Purge},
			"30 31 32 no service":                  {[]int{30, 31, 32}, OnNetwork, None},
			"103 106 111 112 113 illegal, barred":  {[]int{103, 106, 111, 112, 113}, OnNetwork, None},
			"100 unknown":                          {[]int{100}, Soft, None},
			"999 a code that is not in the tables": {[]int{999}, Soft, None},
		},
	}
	for set, table := range rows {
		name := map[at.Set]string{at.CMS: "CMS", at.CME: "CME"}[set]
		for row, want := range table {
			t.Run(name+" "+row, func(t *testing.T) {
				for _, code := range want.codes {
					if v := Of(&at.Refusal{Set: set, Code: code}); v.Blame != want.blame || v.Remedy != want.fix {
						t.Errorf("%d: %v and remedy %d", code, v.Blame, v.Remedy)
					}
				}
			})
		}
	}
	for _, r := range []*at.Refusal{{Set: at.Plain, Code: -1}, {Set: at.CMS, Code: -1}, {Set: at.Other, Code: 1}} {
		if v := Of(r); v.Blame != Soft {
			t.Errorf("%+v: %v", r, v.Blame)
		}
	}
	// Nothing is in a table that no row speaks of.
	for set, codes := range map[at.Set]map[int]Verdict{at.CMS: cmsVerdicts, at.CME: cmeVerdicts} {
		for code := range codes {
			found := false
			for _, want := range rows[set] {
				found = found || slices.Contains(want.codes, code)
			}
			if !found {
				t.Errorf("%v %d has no row", set, code)
			}
		}
	}
}

// TestStreaks: the same code on different numbers within ten minutes moves the blame.
func TestStreaks(t *testing.T) {
	for code, c := range map[int]struct {
		limit  int
		before Blame
		then   Blame
	}{
		38: {2, OnRoute, OnNetwork}, 50: {2, OnRoute, OnCard}, 8: {3, OnRoute, OnCard}, 10: {3, OnRoute, OnCard}, 28: {3, OnRoute, OnCard}, 21: {3, OnRoute, OnNetwork},
		1: {3, OnNumber, OnRoute}, 30: {3, OnNumber, OnRoute}, 27: {3, OnRoute, Soft}, 127: {3, OnRoute, Soft},
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := &at.Refusal{Set: at.CMS, Code: code}
			now := time.Now()
			var s Streak
			for i := range c.limit - 1 {
				for range 5 { // the same number again proves nothing
					if v := s.Refused(r, fmt.Sprint(i), now); v.Blame != c.before {
						t.Fatalf("number %d: %v", i, v.Blame)
					}
				}
			}
			if v := s.Refused(r, "last", now); v.Blame != c.then {
				t.Errorf("at the limit: %v", v.Blame)
			}
			s.Accepted()
			if v := s.Refused(r, "next", now); v.Blame != c.before {
				t.Errorf("after an acceptance: %v", v.Blame)
			}
			// What is older than ten minutes is forgotten.
			s = Streak{}
			for i := range c.limit - 1 {
				s.Refused(r, fmt.Sprint(i), now)
			}
			if v := s.Refused(r, "last", now.Add(11*time.Minute)); v.Blame != c.before {
				t.Errorf("after ten minutes: %v", v.Blame)
			}
			for i := range 200 {
				s.Refused(r, fmt.Sprint("many", i), now)
			}
			if len(s.seen) > streakRoom {
				t.Errorf("%d remembered", len(s.seen))
			}
		})
	}
	t.Run("three refusals of the modem's own", func(t *testing.T) {
		var s Streak
		for i, want := range []Blame{Soft, Soft, OnModem} {
			if v := s.Refused(&at.Refusal{Set: at.CMS, Code: 500}, "1", time.Now()); v.Blame != want {
				t.Errorf("%d: %v", i, v.Blame)
			}
		}
	})
}
