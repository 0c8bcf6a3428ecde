package modemsim

import (
	"slices"

	"custode/simulators/modemsim/script"
)

// refusal renders the answer of a refusing outcome; "" is none.
func (d *device) refusal(o Outcome) string {
	switch {
	case o.CMS != 0:
		return cms(o.CMS)
	case o.CME != 0:
		return d.refuse(o.CME, "unknown")
	}
	return o.Final
}

func (d *device) inject(at Place) {
	if lines := d.script.Take(at); lines != nil {
		d.say(lines...)
	}
}

// Script sets what becomes of the next submissions on modem i, in order; it adds
// to what is not used up.
func (b *Bank) Script(i int, o ...Outcome) {
	b.with(i, func(d *device) { d.script.Outcomes = append(d.script.Outcomes, o...) })
}

// Unscript forgets what Script, Reply and Inject set on modem i.
func (b *Bank) Unscript(i int) { b.with(i, func(d *device) { d.script = script.Script{} }) }

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
		d.script.Answers(prefix, n, lines)
	})
}

// Inject says unsolicited lines at a place of the next n transactions of modem i
// that come by there.
func (b *Bank) Inject(i int, at Place, n int, urc ...string) {
	b.with(i, func(d *device) { d.script.Insert(at, n, urc) })
}

// Commands returns the command lines modem i got, in order; digits of a PIN are
// starred. PDUs are not among them. It stops after 10,000.
func (b *Bank) Commands(i int) (lines []string) {
	b.with(i, func(d *device) { lines = slices.Clone(d.commands) })
	return lines
}
