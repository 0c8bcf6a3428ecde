package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"custode/modem"
	"custode/modem/alarm"
)

// TestTopIsTame: what devices say cannot drive the terminal, and a look fits it.
func TestTopIsTame(t *testing.T) {
	o := modem.Overview{At: time.Unix(1e9, 0), Bays: []modem.BayView{{BayStatus: modem.BayStatus{
		Name: "bay-1", State: modem.Ready, Operator: "TIM\x1b[2J", LastError: strings.Repeat("è\u009b\r\n", 60)}, Breaker: "closed", Tokens: -1, DayLeft: 7}},
		Alarms: []alarm.Alarm{{Name: alarm.NoCredit, Bay: "bay-1", Detail: "x\x1b]0;y\a"}}}
	var b bytes.Buffer
	drawTop(&b, o)
	if strings.ContainsAny(b.String(), "\x1b\r\a\u009b") {
		t.Errorf("control characters in %q", b.String())
	}
	look := fitted(b.String(), 5, 40)
	lines := strings.Split(look, "\r\n")
	if len(lines) != 5 {
		t.Errorf("%d lines on a terminal of 5", len(lines))
	}
	for _, l := range lines {
		plain := strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\x1b[J", "").Replace(l)
		if n := len([]rune(plain)); n > 40 {
			t.Errorf("%d columns on a terminal of 40: %q", n, plain)
		}
	}
	if !strings.Contains(fitted("ALARM x", 5, 40), "\x1b[1;31mALARM x\x1b[0m") {
		t.Error("an alarm does not stand out")
	}
}

func TestMasked(t *testing.T) {
	for in, want := range map[string]string{"": "", "+39347": "+39347", "+393471234567": "+3934·····567", "222010000000001": "22201·······001"} {
		if got := masked(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
