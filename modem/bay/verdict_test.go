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

// TestSection17 is modem.md section 1.7: every row of both tables.
func TestSection17(t *testing.T) {
	rows := map[at.Set]map[string]struct {
		codes []int
		blame Blame
		fix   remedy
	}{
		at.CMS: {
			"1 unassigned number":                     {[]int{1}, OnNumber, none},
			"8 10 barring":                            {[]int{8, 10}, OnRoute, none},
			"21 rejected, anti-spam":                  {[]int{21}, OnRoute, none},
			"22 memory capacity":                      {[]int{22}, OnRoute, none},
			"27 destination out of order":             {[]int{27}, OnRoute, none},
			"28 unidentified subscriber":              {[]int{28}, OnRoute, none},
			"30 unknown subscriber":                   {[]int{30}, OnNumber, none},
			"29 facility rejected":                    {[]int{29}, OnRoute, none},
			"38 network out of order":                 {[]int{38}, OnRoute, none},
			"41 42 47 temporary, congestion":          {[]int{41, 42, 47}, OnNetwork, none},
			"50 not subscribed":                       {[]int{50}, OnRoute, none},
			"69 not implemented":                      {[]int{69}, OnUs, none},
			"81 95-99 111 protocol errors":            {[]int{81, 95, 96, 97, 98, 99, 111}, OnUs, none},
			"127 interworking":                        {[]int{127}, OnRoute, none},
			"128- PID, DCS, class unsupported":        {[]int{128, 129, 130, 143, 144, 145, 159, 160, 161, 175, 176}, OnUs, plainForm},
			"192 194 service centre busy, failing":    {[]int{192, 194}, OnNetwork, none},
			"193 no subscription":                     {[]int{193}, OnCard, none},
			"195 196 invalid address, barred":         {[]int{195, 196}, OnNumber, none},
			"197 duplicate":                           {[]int{197}, onNobody, none},
			"198 199 validity unsupported":            {[]int{198, 199}, OnUs, noValidity},
			"208 209 211 322 storage full":            {[]int{208, 209, 211, 322}, OnBusy, purge},
			"210 212 213 255 station errors":          {[]int{210, 212, 213, 255}, onSoft, none},
			"300-303 equipment":                       {[]int{300, 301, 302, 303}, OnModem, none},
			"304 305 invalid parameter":               {[]int{304, 305}, OnUs, none},
			"310 313 315 card missing, failed, wrong": {[]int{310, 313, 315}, OnCard, none},
			"311 312 316-318 PIN, PUK":                {[]int{311, 312, 316, 317, 318}, OnCard, none},
			"314 card busy":                           {[]int{314}, OnBusy, none},
			"320 321 memory, index":                   {[]int{320, 321}, onSoft, none},
			"330 service centre unknown":              {[]int{330}, OnCard, ownCentre},
			"331 no service":                          {[]int{331}, OnNetwork, none},
			"332 network time-out is ambiguous":       {[]int{332}, inDoubt, none},
			"340 no acknowledgement expected":         {[]int{340}, onSoft, none},
			"500 unknown":                             {[]int{500}, onSoft, none},
			"512 establishment failure":               {[]int{512}, OnNetwork, onceMore},
			"513 lower layer failure is ambiguous":    {[]int{513}, inDoubt, none},
			"514 congestion":                          {[]int{514}, OnNetwork, none},
			"515 not available":                       {[]int{515}, OnBusy, none},
			"325 604 34 vendor's":                     {[]int{325, 604, 34}, onSoft, none},
		},
		at.CME: {
			"3 4 not allowed, unsupported":         {[]int{3, 4}, OnModem, none},
			"10 13 15 no card, failure, wrong":     {[]int{10, 13, 15}, OnCard, none},
			"11 12 16 17 18 PIN, PUK":              {[]int{11, 12, 16, 17, 18}, OnCard, none},
			"14 515 256 258 772 busy":              {[]int{14, 515, 256, 258, 772}, OnBusy, none},
			"20 memory full":                       {[]int{20}, OnBusy, purge},
			"30 31 32 no service":                  {[]int{30, 31, 32}, OnNetwork, none},
			"103 106 111 112 113 illegal, barred":  {[]int{103, 106, 111, 112, 113}, OnNetwork, none},
			"100 unknown":                          {[]int{100}, onSoft, none},
			"999 a code that is not in the tables": {[]int{999}, onSoft, none},
		},
	}
	for set, table := range rows {
		name := map[at.Set]string{at.CMS: "CMS", at.CME: "CME"}[set]
		for row, want := range table {
			t.Run(name+" "+row, func(t *testing.T) {
				for _, code := range want.codes {
					if v := judge(&at.Refusal{Set: set, Code: code}); v.blame != want.blame || v.remedy != want.fix {
						t.Errorf("%d: %v and remedy %d", code, v.blame, v.remedy)
					}
				}
			})
		}
	}
	for _, r := range []*at.Refusal{{Set: at.Plain, Code: -1}, {Set: at.CMS, Code: -1}, {Set: at.Other, Code: 1}} {
		if v := judge(r); v.blame != onSoft {
			t.Errorf("%+v: %v", r, v.blame)
		}
	}
	// Nothing is in a table that no row speaks of.
	for set, codes := range map[at.Set]map[int]verdict{at.CMS: cmsVerdicts, at.CME: cmeVerdicts} {
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
		1: {3, OnNumber, OnRoute}, 30: {3, OnNumber, OnRoute}, 27: {3, OnRoute, onSoft}, 127: {3, OnRoute, onSoft},
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := &at.Refusal{Set: at.CMS, Code: code}
			now := time.Now()
			var s streak
			for i := range c.limit - 1 {
				for range 5 { // the same number again proves nothing
					if v := s.refused(r, fmt.Sprint(i), now); v.blame != c.before {
						t.Fatalf("number %d: %v", i, v.blame)
					}
				}
			}
			if v := s.refused(r, "last", now); v.blame != c.then {
				t.Errorf("at the limit: %v", v.blame)
			}
			s.accepted()
			if v := s.refused(r, "next", now); v.blame != c.before {
				t.Errorf("after an acceptance: %v", v.blame)
			}
			// What is older than ten minutes is forgotten.
			s = streak{}
			for i := range c.limit - 1 {
				s.refused(r, fmt.Sprint(i), now)
			}
			if v := s.refused(r, "last", now.Add(11*time.Minute)); v.blame != c.before {
				t.Errorf("after ten minutes: %v", v.blame)
			}
			for i := range 200 {
				s.refused(r, fmt.Sprint("many", i), now)
			}
			if len(s.seen) > streakRoom {
				t.Errorf("%d remembered", len(s.seen))
			}
		})
	}
	t.Run("three refusals of the modem's own", func(t *testing.T) {
		var s streak
		for i, want := range []Blame{onSoft, onSoft, OnModem} {
			if v := s.refused(&at.Refusal{Set: at.CMS, Code: 500}, "1", time.Now()); v.blame != want {
				t.Errorf("%d: %v", i, v.blame)
			}
		}
	})
}

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
