package network

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"custode/simulators/modemsim/tpdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPages(t *testing.T) {
	b, air := New(Config{Modems: 1})
	get := func(url string) string {
		rec := httptest.NewRecorder()
		b.Handler().ServeHTTP(rec, httptest.NewRequest("GET", url, nil))
		if rec.Code != 200 {
			t.Errorf("%s: %d", url, rec.Code)
		}
		return rec.Body.String()
	}
	if !strings.Contains(get("/"), "Nessun messaggio") {
		t.Error("the empty page says nothing")
	}
	air.Deliver(&Delivery{From: "+39320", M: tpdu.Submit{To: "+393401234567", Text: "<b>123456</b>"}})
	page := get("/")
	if !strings.Contains(page, "&lt;b&gt;123456") || !strings.Contains(page, "Telefoni simulati") {
		t.Errorf("page: %s", page)
	}
	var in []SMS
	if err := json.Unmarshal([]byte(get("/api/inbox?phone=%2B393401234567")), &in); err != nil || len(in) != 1 || in[0].Text != "<b>123456</b>" {
		t.Errorf("%v %v", in, err)
	}
	if got := strings.TrimSpace(get("/api/inbox?phone=%2B39000")); got != "[]" {
		t.Errorf("unknown phone: %s", got)
	}
	var all map[string][]SMS
	if err := json.Unmarshal([]byte(get("/api/inbox")), &all); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
}

func TestDelayIsSeeded(t *testing.T) {
	draws := func(seed uint64) (out []time.Duration) {
		b, _ := New(Config{Seed: seed})
		for range 50 {
			out = append(out, b.draw(Delay{Median: time.Second, Spread: 0.5}))
		}
		return out
	}
	if !cmp.Equal(draws(7), draws(7)) || cmp.Equal(draws(7), draws(8)) {
		t.Error("the seed does not decide")
	}
}

func TestShelf(t *testing.T) {
	n, air := New(Config{NationalRA: true, Transit: Delay{Median: time.Millisecond}})
	defer air.Wait()
	defer air.End()
	type report struct {
		status   byte
		national bool
	}
	reports := make(chan report, 10)
	send := func(to, text string, valid time.Duration) {
		air.Deliver(&Delivery{From: "+39320", M: tpdu.Submit{To: to, Text: text, Valid: valid},
			Report: func(st byte, national bool) { reports <- report{st, national} }})
	}
	next := func(want byte) {
		t.Helper()
		select {
		case r := <-reports:
			if r.status != want || !r.national {
				t.Errorf("report %+v, want %02x", r, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no report")
		}
	}
	n.SetPhone("+1", Phone{Off: true})
	send("+1", "stale", 20*time.Millisecond)
	next(0x46)
	send("+1", "kept", time.Hour)
	n.SetPhone("+2", Phone{NoReport: true})
	send("+2", "quiet", 0)
	if in, err := n.Wait(t.Context(), "+2", 1); err != nil || in[0].Text != "quiet" {
		t.Errorf("%v %v", in, err)
	}
	n.SetPhone("+1", Phone{})
	next(0)
	n.SetPhone("+3", Phone{Gone: true, Delay: time.Millisecond})
	send("+3", "nobody", 0)
	next(0x43)
	if in := n.Inbox("+1"); len(in) != 1 || in[0].Text != "kept" || len(n.Inbox("+3")) != 0 {
		t.Errorf("inbox %v", in)
	}
	if len(reports) != 0 {
		t.Error("a report too many")
	}
}

func TestPartsOutOfOrder(t *testing.T) {
	n, air := New(Config{})
	defer air.Wait()
	defer air.End()
	for _, part := range []int{3, 1, 2} {
		if len(n.Inbox("+1")) != 0 {
			t.Error("shown before it is whole")
		}
		air.Deliver(&Delivery{From: "+39320", M: tpdu.Submit{To: "+1", Text: string(rune('a' + part)), Part: part, Parts: 3, Ref: 9}})
	}
	if in := n.Inbox("+1"); len(in) != 1 || in[0].Text != "bcd" {
		t.Errorf("%v", in)
	}
}

func TestLoss(t *testing.T) {
	n, air := New(Config{Loss: 1})
	air.Deliver(&Delivery{M: tpdu.Submit{To: "+1", Text: "x"}})
	if len(n.Phones()) != 0 {
		t.Error("it arrived")
	}
	air.End()
	if air.Go(func() {}) {
		t.Error("started after the end")
	}
	air.Wait()
}
