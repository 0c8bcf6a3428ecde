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
