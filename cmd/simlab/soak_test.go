package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/simulators/modemsim"
)

// TestAccount: what the ledger and the trail must agree on.
func TestAccount(t *testing.T) {
	const to = "+393401234567"
	took := func(texts ...string) (out []modemsim.Submission) {
		for _, s := range texts {
			out = append(out, modemsim.Submission{To: to, Text: s})
		}
		return out
	}
	sent, doubtful, failed := &message{to: to, class: "code", last: "sent"}, &message{to: to, class: "code", last: "sent", doubt: true}, &message{to: to, class: "code", last: "failed"}
	for name, c := range map[string]struct {
		trail  map[string]*message
		ledger []modemsim.Submission
		want   tally
	}{
		"once":            {map[string]*message{"a": sent}, took("1"), tally{Messages: 1, Sent: 1, Taken: 1}},
		"lost":            {map[string]*message{"a": sent}, nil, tally{Messages: 1, Sent: 1, Lost: 1}},
		"twice, flagged":  {map[string]*message{"a": doubtful}, took("1", "1"), tally{Messages: 1, Sent: 1, Taken: 2, Copies: 1}},
		"twice, silently": {map[string]*message{"a": sent}, took("1", "1"), tally{Messages: 1, Sent: 1, Taken: 2, Copies: 1, Unflagged: 1}},
		"failed and left": {map[string]*message{"a": failed}, took("1"), tally{Messages: 1, Failed: 1, Taken: 1, Unflagged: 1}},
		"two codes":       {map[string]*message{"a": sent, "b": sent}, took("1", "2"), tally{Messages: 2, Sent: 2, Taken: 2}},
	} {
		if d := cmp.Diff(c.want, account(c.trail, "code", c.ledger)); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

// TestReportJudges: growth and slowness break promises, and the plot is XML.
func TestReportJudges(t *testing.T) {
	r := &report{cmd: &soakCmd{Duration: time.Minute, Scale: 1, Rate: 33, Modems: 4}, handoffs: []handoff{{time.Second, time.Second}}}
	for i := range 40 {
		r.samples = append(r.samples, sample{At: time.Duration(i) * time.Second, Goroutines: 30, Descriptors: 30, RSS: 40000, CPU: time.Duration(i) * time.Millisecond})
	}
	if r.judge(); len(r.broken) != 0 {
		t.Errorf("broken: %v", r.broken)
	}
	for i := range r.samples {
		r.samples[i].Goroutines += i * 3
	}
	r.handoffs[0].took = 4 * time.Second
	if r.judge(); len(r.broken) != 2 || r.verdict() == nil {
		t.Errorf("broken: %v", r.broken)
	}
	for d := xml.NewDecoder(strings.NewReader(r.plot())); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(r.table(), "BROKEN") {
		t.Error("the table hides it")
	}
}
