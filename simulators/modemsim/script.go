package modemsim

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

// refusal renders the answer of a refusing outcome; "" is none.
func (o Outcome) refusal(d *device) string {
	switch {
	case o.CMS != 0:
		return cms(o.CMS)
	case o.CME != 0:
		return d.refuse(o.CME, "unknown")
	}
	return o.Final
}

// plain tells an outcome that does nothing but refuse or succeed.
func (o Outcome) lost() bool { return o.Silent || o.Hang || o.Reboot || o.Unplug || o.BrownOut }

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

// script is what a test has asked for; it outlives restarts.
type script struct {
	outcomes []Outcome
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

// reply finds the canned answer to a command.
func (s *script) reply(cmd string) ([]string, bool) {
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

// take uses up one insertion.
func (s *script) take(at Place) []string {
	in := &s.inserts[at]
	if in.left == 0 {
		return nil
	}
	in.left--
	return in.lines
}

func (d *device) inject(at Place) {
	if lines := d.script.take(at); lines != nil {
		d.say(lines...)
	}
}

// Script sets what becomes of the next submissions on modem i, in order; it adds
// to what is not used up.
func (b *Bank) Script(i int, o ...Outcome) {
	b.with(i, func(d *device) { d.script.outcomes = append(d.script.outcomes, o...) })
}

// Unscript forgets what Script, Reply and Inject set on modem i.
func (b *Bank) Unscript(i int) { b.with(i, func(d *device) { d.script = script{} }) }

// OnNumber sets what becomes of every submission to phone on any modem; nil forgives.
func (b *Bank) OnNumber(phone string, o *Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o == nil {
		delete(b.byNumber, phone)
		return
	}
	b.byNumber[phone] = *o
}

// BadNumber lets the network refuse phone with +CMS ERROR: code; 0 forgives.
func (b *Bank) BadNumber(phone string, code int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.barred[phone] = code
}

// Reply answers the next n commands of modem i that start with prefix ("+CREG?",
// "+CPMS=", "E0"; without AT) by these lines, verbatim, the final code included;
// none is silence.
func (b *Bank) Reply(i int, prefix string, n int, lines ...string) {
	b.with(i, func(d *device) {
		d.script.replies = append(d.script.replies, canned{strings.ToUpper(prefix), n, lines})
	})
}

// Inject says unsolicited lines at a place of the next n transactions of modem i
// that come by there.
func (b *Bank) Inject(i int, at Place, n int, urc ...string) {
	b.with(i, func(d *device) { d.script.inserts[at] = insert{n, urc} })
}

// Commands returns the command lines modem i got, in order; digits of a PIN are
// starred. PDUs are not among them. It stops after 10,000.
func (b *Bank) Commands(i int) (lines []string) {
	b.with(i, func(d *device) { lines = slices.Clone(d.commands) })
	return lines
}
