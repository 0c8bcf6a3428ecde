package modemsim

import (
	"fmt"
	"strconv"
	"strings"
)

// execute runs one command line, which may hold several commands joined by ";".
func (d *device) execute(line string) {
	line = strings.TrimSpace(line)
	if line != "" && len(d.commands) < 10000 {
		d.commands = append(d.commands, starred(line))
	}
	if len(line) < 2 || !strings.EqualFold(line[:2], "AT") {
		d.lateEcho()
		return // V.250: a line without AT is not a command
	}
	d.inject(AfterEcho)
	d.run(splitCommands(line[2:]))
}

// starred hides the digits of card PINs.
func starred(line string) string {
	if i := strings.Index(strings.ToUpper(line), "+CPIN="); i >= 0 {
		return line[:i+6] + "****"
	}
	return line
}

// run works through commands until one fails or opens a prompt.
func (d *device) run(cmds []string) {
	for n, cmd := range cmds {
		if lines, ok := d.script.Answer(cmd); ok {
			if len(lines) > 0 {
				d.say(lines...)
			}
			d.lateEcho()
			return
		}
		info, bad := d.command(cmd)
		switch {
		case d.set.prompted:
			d.set.prompted = false
			d.lateEcho()
			d.inject(BeforePrompt)
			d.write(d.p.Prompt)
			d.inject(AfterPrompt)
			return
		case d.set.hold > 0:
			hold := d.set.hold
			d.set.hold, d.working = 0, true
			d.later(hold, func() {
				if d.finish(info, bad, n == len(cmds)-1) {
					d.run(cmds[n+1:])
				}
				d.settled()
			})
			return
		case !d.finish(info, bad, n == len(cmds)-1):
			return
		}
	}
}

// silent as an error means that no final code is said.
const silent = "\x00"

// finish says the answer to one command; more tells the caller to go on.
func (d *device) finish(info []string, bad string, last bool) (more bool) {
	if len(info) > 0 {
		d.inject(BeforeInfo)
		d.say(info...)
	}
	switch {
	case bad == silent:
	case bad != "":
		d.inject(BeforeFinal)
		d.say(append([]string{bad}, d.script.Take(AfterFinal)...)...)
	case last:
		d.inject(BeforeFinal)
		d.say(append([]string{"OK"}, d.script.Take(AfterFinal)...)...)
	default:
		return true
	}
	d.lateEcho()
	return false
}

func (d *device) lateEcho() {
	if d.heldEcho != nil {
		d.write(string(d.heldEcho))
		d.heldEcho = nil
	}
}

func splitCommands(s string) []string {
	var out []string
	quoted, start := false, 0
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ';' && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// refuse renders a mobile equipment error as +CMEE asks.
func (d *device) refuse(code int, text string) string {
	switch d.set.cmee {
	case 1:
		return fmt.Sprintf("+CME ERROR: %d", code)
	case 2:
		return "+CME ERROR: " + text
	}
	return "ERROR"
}

func (d *device) unknown() string {
	if d.p.Unknown != "" {
		return d.p.Unknown
	}
	return d.refuse(4, "operation not supported")
}

// command runs one command; bad is the final code when it failed.
func (d *device) command(cmd string) (info []string, bad string) {
	cmd = strings.TrimLeft(cmd, " ")
	if cmd == "" {
		return nil, ""
	}
	if !strings.ContainsRune("+^#*$", rune(cmd[0])) {
		return d.basic(strings.ToUpper(cmd))
	}
	name, arg := cmd, ""
	if i := strings.IndexAny(cmd, "=?"); i > 0 {
		name, arg = cmd[:i], cmd[i:]
	}
	name = strings.ToUpper(name)
	if d.set.refusals > 0 {
		d.set.refusals--
		return nil, d.refuse(515, "please wait, init or command processing in progress")
	}
	if code, text := d.cardRefusal(name); code != 0 {
		return nil, d.refuse(code, text)
	}
	return d.dispatch(name, arg)
}

func (d *device) dispatch(name, arg string) ([]string, string) {
	full := strings.ToUpper(name + arg)
	switch {
	case d.p.PINCounters == full:
		return d.pinCounters(), ""
	case d.p.CardID == full:
		return []string{strings.TrimSuffix(name, "?") + ": " + d.card.iccid}, ""
	case d.p.MuteCommand != "" && d.p.MuteCommand == full:
		d.set.muted = true
		return nil, ""
	}
	for _, r := range d.p.ResetCommands {
		if r == name {
			return d.resetCommand()
		}
	}
	for _, e := range d.p.Extras {
		if e == name {
			return nil, ""
		}
	}
	if f := extended(name); f != nil {
		return f(d, arg)
	}
	return nil, d.unknown()
}

// basic handles E, V, Q, S, Z and &F, possibly several in a row (ATE0V1Q0).
func (d *device) basic(s string) ([]string, string) {
	for s != "" {
		letter := s[0]
		s = s[1:]
		if letter == '&' && s != "" {
			s = s[1:]
			letter = 'Z'
		}
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, _ := strconv.Atoi(s[:digits])
		s = s[digits:]
		switch letter {
		case 'E':
			d.set.echo = n == 1
		case 'V':
			d.set.verbose = n == 1
		case 'Q':
			d.set.quiet = n == 1
		case 'S':
			return d.register(n, s)
		case 'Z':
			d.factory()
		case 'I':
			return []string{d.p.Manufacturer + " " + d.p.Model}, ""
		case 'X', 'H', 'M', 'L':
		default:
			return nil, "ERROR"
		}
	}
	return nil, ""
}

// register sets or tells an S register: 3 and 4, the line ends, have a meaning.
func (d *device) register(n int, rest string) ([]string, string) {
	var at *byte
	switch n {
	case 3:
		at = &d.set.s3
	case 4:
		at = &d.set.s4
	}
	v, err := strconv.Atoi(strings.TrimPrefix(rest, "="))
	switch {
	case rest == "?" && at != nil:
		return []string{fmt.Sprintf("%03d", *at)}, ""
	case rest == "?":
		return []string{"000"}, ""
	case err != nil || v < 0 || v > 127:
		return nil, "ERROR"
	case at != nil:
		*at = byte(v)
	}
	return nil, ""
}

// factory is ATZ and AT&F: settings of the dialogue and of messages, but neither
// the radio nor the card.
func (d *device) factory() {
	old := d.set
	d.set = powerOn()
	d.set.registered, d.set.functional, d.set.rssi, d.set.awake = old.registered, old.functional, old.rssi, old.awake
	d.set.deregistered, d.set.mem = old.deregistered, [3]int{}
	d.set.hold = d.pace(d.p.ResetTime)
}

func number1(arg string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(arg, "="))
	return n, err == nil
}

// numbers reads "=a,b,c"; empty fields are def.
func numbers(arg string, def ...int) ([]int, bool) {
	out := append([]int(nil), def...)
	for i, f := range strings.Split(strings.TrimPrefix(arg, "="), ",") {
		f = strings.Trim(f, ` "`)
		if i >= len(out) {
			return nil, false
		}
		if f == "" {
			continue
		}
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}
