package modem

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/at"
	"custode/modem/budget"
	"custode/modem/modemtest"
	"custode/modem/pdu"
)

// weather is a bank of modems with the faults of the soak, in virtual time.
type weather struct {
	mu        sync.Mutex
	hang      float64
	rnd       *rand.Rand
	deafUntil []time.Time
	gone      []time.Time // plugged in again at
	ports     []*modemtest.Port
	taken     map[string]int // text -> copies the network took
	hangs     int
}

func (w *weather) draw() (took time.Duration, hang bool) {
	if w.rnd.Float64() < w.hang {
		return 0, true
	}
	return time.Duration(3 * math.Exp(0.35*w.rnd.NormFloat64()) * float64(time.Second)), false
}

func (w *weather) react(i int) func(*modemtest.Port, string) {
	polite := modemtest.Polite(map[string][]string{"AT+CIMI": {fmt.Sprintf("22201000000%04d", i), "OK"}})
	ref := 0
	return func(p *modemtest.Port, got string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if time.Now().Before(w.deafUntil[i]) {
			return
		}
		text, ok := strings.CutSuffix(got, "\x1a")
		if !ok {
			w.mu.Unlock()
			polite(p, got)
			w.mu.Lock()
			return
		}
		s, err := pdu.DecodeSubmit(text)
		if err != nil {
			panic(err)
		}
		took, hang := w.draw()
		if hang {
			w.hangs++
			w.deafUntil[i] = time.Now().Add(time.Minute)
			return
		}
		if strings.HasPrefix(s.To.Digits, "39340111") {
			time.AfterFunc(took, func() { p.Say("+CMS ERROR: 38") })
			return
		}
		ref++
		n := ref % 256
		time.AfterFunc(took, func() {
			w.mu.Lock()
			alive := w.ports[i] == p && !time.Now().Before(w.gone[i])
			if alive {
				w.taken[s.Text]++
			}
			w.mu.Unlock()
			if alive {
				p.Say(fmt.Sprintf("+CMGS: %d", n), "OK")
			}
		})
	}
}

func (w *weather) open(b BayConfig) (at.Port, error) {
	var i int
	if _, err := fmt.Sscanf(b.Name, "bay%d", &i); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Now().Before(w.gone[i]) {
		return nil, errors.New("no such device")
	}
	w.ports[i] = modemtest.New(w.react(i))
	return w.ports[i], nil
}

func (w *weather) unplug(i int) {
	w.mu.Lock()
	w.gone[i] = time.Now().Add(5 * time.Second)
	w.deafUntil[i] = time.Time{}
	p := w.ports[i]
	w.mu.Unlock()
	if p != nil {
		p.Die(errors.New("unplugged"))
	}
}

// TestSoakInVirtualTime is the soak without wires: half an hour of codes on four
// modems with unplugs, bad numbers and endless bulk. Ninety-five of a hundred
// codes are handed over within 3 s, and nothing leaves twice unless it was in
// doubt.
func TestSoakInVirtualTime(t *testing.T) {
	for _, c := range []soakCase{{seed: 1, rate: 33}, {seed: 2, rate: 33}, {seed: 3, rate: 20}} {
		synctest.Test(t, func(t *testing.T) {
			line := soakOnce(t, c, 30*time.Minute)
			if os.Getenv("SOAK_VERBOSE") != "" {
				t.Log(line)
			}
		})
	}
}

// soakCase is a seed, codes a minute, and the share of submissions that hang the
// modem for a minute.
type soakCase struct {
	seed uint64
	rate float64
	hang float64
}

func soakOnce(t *testing.T, c soakCase, span time.Duration) string {
	const modems = 4
	w := &weather{hang: c.hang, rnd: rand.New(rand.NewPCG(c.seed, 1)), deafUntil: make([]time.Time, modems), gone: make([]time.Time, modems),
		ports: make([]*modemtest.Port, modems), taken: map[string]int{}}
	var bays []BayConfig
	for i := range modems {
		bays = append(bays, BayConfig{Name: fmt.Sprintf("bay%d", i), Device: fmt.Sprintf("/dev/bay%d", i)})
	}
	j := newFakeJournal()
	r := start(t, Config{Bays: bays, Journal: j, OpenPort: w.open,
		Budget: budget.Limits{Burst: 3, PerMinute: 20, PerDay: -1, PerMonth: -1}})
	time.Sleep(3 * time.Second)
	began := time.Now()
	rnd := rand.New(rand.NewPCG(c.seed, 2))
	nextCode, nextUnplug, nextBulk := began, began.Add(time.Minute), began
	exp := func(mean time.Duration) time.Duration { return time.Duration(rnd.ExpFloat64() * float64(mean)) }
	codes := map[string]Message{}
	bulk := 0
	for time.Since(began) < span {
		now := time.Now()
		if !now.Before(nextCode) {
			to := fmt.Sprintf("+3934022%05d", len(codes))
			if rnd.Float64() < 0.05 {
				to = fmt.Sprintf("+3934011%05d", 10000+len(codes))
			}
			text := fmt.Sprintf("codice %d", len(codes))
			codes[text] = r.add(t, OneTime, to, text)
			nextCode = now.Add(exp(time.Duration(float64(time.Minute) / c.rate)))
		}
		if !now.Before(nextUnplug) {
			w.unplug(rnd.IntN(modems))
			nextUnplug = now.Add(exp(time.Minute))
		}
		if !now.Before(nextBulk) {
			if r.pool.Overview().Waiting["bulk"] < 20 {
				for range 20 {
					m := message(t, phone2, fmt.Sprintf("massa %d", bulk))
					m.Class, m.Expires = Bulk, m.Created.Add(24*time.Hour)
					j.put(m, Queued)
					bulk++
				}
				r.pool.Wake()
			}
			nextBulk = now.Add(2 * time.Second)
		}
		next := nextCode
		for _, x := range []time.Time{nextUnplug, nextBulk} {
			if x.Before(next) {
				next = x
			}
		}
		time.Sleep(max(next.Sub(now), time.Millisecond))
	}
	time.Sleep(6 * time.Minute)
	o := r.pool.Overview()
	r.stop()
	return judgeSoak(t, c.seed, w, j, codes, o)
}

func judgeSoak(t *testing.T, seed uint64, w *weather, j *fakeJournal, codes map[string]Message, o Overview) string {
	var took []time.Duration
	doubts, twice := 0, 0
	j.mu.Lock()
	first := map[string]time.Duration{}
	doubted := map[string]bool{}
	for _, e := range j.events {
		k := e.ID.String()
		if _, ok := first[k]; !ok && e.Handoff > 0 {
			first[k] = e.Handoff
		}
		doubted[k] = doubted[k] || e.State == MaybeSent
	}
	j.mu.Unlock()
	for text, m := range codes {
		k := m.ID.String()
		if d, ok := first[k]; ok {
			took = append(took, d)
		} else {
			took = append(took, time.Hour)
		}
		if doubted[k] {
			doubts++
		}
		n := w.taken[text]
		if n > 1 {
			twice++
			if !doubted[k] {
				t.Errorf("seed %d: %q left %d times and was never in doubt", seed, text, n)
			}
		}
		if s := j.state(m.ID); n == 0 && s == Sent {
			t.Errorf("seed %d: %q is told to be sent and did not leave", seed, text)
		} else if n > 0 && s != Sent && s != MaybeSent {
			t.Errorf("seed %d: %q left and is told to be %v", seed, text, s)
		}
	}
	slices.Sort(took)
	p := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))] }
	if p(0.95) >= 3*time.Second {
		t.Errorf("seed %d: hand-off p95 %v of %d codes", seed, p(0.95), len(took))
	}
	bulk := 0
	for text := range w.taken {
		if strings.HasPrefix(text, "massa") {
			bulk++
		}
	}
	return fmt.Sprintf("seed %d: %d codes, hand-off p50 %v p95 %v p99 %v max %v, %d in doubt, %d twice, %d hangs, %d bulk", seed, len(took),
		p(0.5).Round(time.Millisecond), p(0.95).Round(time.Millisecond), p(0.99).Round(time.Millisecond), p(1).Round(time.Millisecond), doubts, twice, w.hangs, bulk)
}
