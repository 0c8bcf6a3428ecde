// Package script holds what a test can ask of a simulated modem: the outcome of
// submissions, canned answers, lines at a wrong moment, and the random plan of
// faults. It is data and look-up; the modem does the deeds. Only modemsim imports
// it, which gives its types to tests under its own name.
package script

import (
	"slices"
	"strings"
	"time"
)

// Outcome says what becomes of a submission; the zero value is success. The
// answer comes after the radio's latency, or Delay.
type Outcome struct {
	CMS, CME int    // refused with +CMS ERROR or +CME ERROR
	Final    string // refused with these lines, separated by "\n"
	// Sent lets the network take the message although the answer says otherwise
	// or never comes.
	Sent   bool
	Delay  time.Duration
	Silent bool // nothing is ever said; other commands are served
	Hang   bool // deaf and mute at once
	NoRef  bool // OK without +CMGS
	Twice  bool // OK comes twice
	// Free takes the message at once, but tells after the delay, and serves other
	// commands meanwhile: a late +CMGS.
	Free     bool
	Reboot   bool // restart instead of an answer
	Unplug   bool // the port vanishes instead of an answer
	BrownOut bool // a word about the voltage, and a restart
}

// Lost tells an outcome without an answer.
func (o Outcome) Lost() bool { return o.Silent || o.Hang || o.Reboot || o.Unplug || o.BrownOut }

// Place is a moment within a transaction at which an unsolicited line can come.
type Place int

// The places.
const (
	BeforeEcho      Place = iota // before the first octet of a command is echoed
	AfterEcho                    // between the echo and the answer
	BeforeInfo                   // before information text
	BeforeFinal                  // between information text and final code
	AfterFinal                   // glued to the final code
	BeforePrompt                 // between AT+CMGS and its prompt
	AfterPrompt                  // after the prompt, before the host writes
	BeforeRef                    // between Ctrl-Z and +CMGS
	BetweenRefAndOK              // between +CMGS and OK
	places
)

// Script is what a test has asked for; it outlives restarts. The zero value asks
// for nothing.
type Script struct {
	Outcomes []Outcome
	replies  []canned
	inserts  [places]insert
}

type canned struct {
	prefix string
	left   int
	lines  []string
}

type insert struct {
	left  int
	lines []string
}

// Answer finds the canned answer to a command.
func (s *Script) Answer(cmd string) ([]string, bool) {
	cmd = strings.ToUpper(strings.TrimSpace(cmd))
	for i := range s.replies {
		r := &s.replies[i]
		if strings.HasPrefix(cmd, r.prefix) {
			if r.left--; r.left <= 0 {
				lines := r.lines
				s.replies = slices.Delete(s.replies, i, i+1)
				return lines, true
			}
			return r.lines, true
		}
	}
	return nil, false
}

// Take uses up one insertion.
func (s *Script) Take(at Place) []string {
	in := &s.inserts[at]
	if in.left == 0 {
		return nil
	}
	in.left--
	return in.lines
}

// Answers cans the answer to the next n commands with a prefix.
func (s *Script) Answers(prefix string, n int, lines []string) {
	s.replies = append(s.replies, canned{strings.ToUpper(prefix), n, lines})
}

// Insert sets what Take finds at a place, n times.
func (s *Script) Insert(at Place, n int, lines []string) { s.inserts[at] = insert{n, lines} }
