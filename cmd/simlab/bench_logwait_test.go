package main

import (
	"math"
	"testing"
)

func TestWaitQuantiles(t *testing.T) {
	text := "# TYPE x histogram\n" +
		"custode_log_append_wait_seconds_bucket{le=\"0.001\"} %a\n"
	if _, err := parseWaits(text); err == nil {
		t.Error("a value that is none")
	}
	before, err := parseWaits("custode_log_append_wait_seconds_bucket{le=\"0.01\"} 5\ncustode_log_append_wait_seconds_bucket{le=\"0.02\"} 5\ncustode_log_append_wait_seconds_bucket{le=\"+Inf\"} 5\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseWaits("custode_log_append_wait_seconds_bucket{le=\"0.01\"} 55\ncustode_log_append_wait_seconds_bucket{le=\"0.02\"} 95\ncustode_log_append_wait_seconds_bucket{le=\"+Inf\"} 105\ncustode_log_append_wait_seconds_sum 9\n")
	if err != nil {
		t.Fatal(err)
	}
	w, err := after.since(before)
	if err != nil || w.count != 100 {
		t.Fatalf("%+v, %v", w, err)
	}
	for q, want := range map[float64]float64{0.25: 0.005, 0.5: 0.01, 0.7: 0.015, 0.95: 0.02} {
		if got := w.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if _, err := after.since(after); err == nil {
		t.Error("a quantile of nothing")
	}
}
