package modemsim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// execute runs one command line, which may hold several commands joined by ";".
func (d *device) execute(line string) {
	line = strings.TrimSpace(line)
	if len(line) < 2 || !strings.EqualFold(line[:2], "AT") {
		return // V.250: a line without AT is not a command
	}
	for _, cmd := range splitCommands(line[2:]) {
		info, bad := d.command(cmd)
		if strings.HasPrefix(strings.ToUpper(cmd), "+CMGS=") && bad == "" {
			return // the prompt is the answer
		}
		d.say(info...)
		if bad != "" {
			d.say(bad)
			return
		}
	}
	d.say("OK")
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

// command runs one command; bad is the final code when it failed.
func (d *device) command(cmd string) (info []string, bad string) {
	if cmd == "" {
		return nil, ""
	}
	if cmd[0] != '+' {
		return d.basic(strings.ToUpper(cmd))
	}
	name, arg := cmd, ""
	if i := strings.IndexAny(cmd, "=?"); i > 0 {
		name, arg = cmd[:i], cmd[i:]
	}
	name = strings.ToUpper(name)
	if needsCard[name] && !d.card.unlocked {
		return nil, d.refuse(11, "SIM PIN required")
	}
	if f := extended[name]; f != nil {
		return f(d, arg)
	}
	return nil, d.refuse(4, "operation not supported")
}

// basic handles E, V, Q, Z and &F, possibly several in a row (ATE0V1Q0).
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
		case 'Z':
			reg := d.set.registered
			d.set = powerOn()
			d.set.registered = reg
		case 'I':
			return []string{"SIMULATOR modemsim"}, ""
		case 'V', 'Q', 'X', 'S', 'H':
		default:
			return nil, "ERROR"
		}
	}
	return nil, ""
}

var needsCard = map[string]bool{
	"+CIMI": true, "+CSCA": true, "+CPMS": true, "+CMGL": true, "+CMGD": true, "+CNMI": true, "+COPS": true,
}

func fixed(lines ...string) func(*device, string) ([]string, string) {
	return func(*device, string) ([]string, string) { return lines, "" }
}

func (d *device) number1(arg string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(arg, "="))
	return n, err == nil
}

var extended = map[string]func(d *device, arg string) ([]string, string){
	"+CGMI": fixed("SIMULATOR"), "+CGMM": fixed("modemsim"), "+CGMR": fixed("1"),
	"+CGSN": func(d *device, _ string) ([]string, string) { return []string{d.imei()}, "" },
	"+CIMI": func(d *device, _ string) ([]string, string) { return []string{d.imsi()}, "" },
	"+CCID": func(d *device, _ string) ([]string, string) { return []string{"+CCID: " + d.iccid()}, "" },
	"+CPIN": (*device).cpin,
	"+CPINR": func(d *device, _ string) ([]string, string) {
		return []string{fmt.Sprintf("+CPINR: SIM PIN,%d,3", d.card.tries)}, ""
	},
	"+CMEE": func(d *device, arg string) ([]string, string) {
		n, ok := d.number1(arg)
		if !ok || n > 2 {
			return nil, "ERROR"
		}
		d.set.cmee = n
		return nil, ""
	},
	"+CFUN":  (*device).cfun,
	"+CREG":  (*device).creg,
	"+CEREG": (*device).cereg,
	"+CGREG": fixed(),
	"+COPS": func(d *device, arg string) ([]string, string) {
		if arg == "?" {
			return []string{`+COPS: 0,2,"00101"`}, ""
		}
		return nil, ""
	},
	"+CSCS": fixed(), "+CMGD": fixed(), "+CMGL": fixed(), "+CMMS": fixed(), "+CLIP": fixed(),
	"+CSMS": func(d *device, arg string) ([]string, string) {
		if n, ok := d.number1(arg); ok {
			d.set.service = n
			return []string{"+CSMS: 1,1,1"}, ""
		}
		return []string{fmt.Sprintf("+CSMS: %d,1,1,1", d.set.service)}, ""
	},
	"+CMGF": func(d *device, arg string) ([]string, string) {
		if n, ok := d.number1(arg); ok {
			d.set.textMode = n == 1
		}
		return nil, ""
	},
	"+CSCA": func(d *device, arg string) ([]string, string) {
		if arg == "?" {
			return []string{`+CSCA: "+393900000001",145`}, ""
		}
		return nil, ""
	},
	"+CPMS": fixed("+CPMS: 0,20,0,20,0,20"),
	"+CNMI": (*device).cnmi,
	"+CSQ": func(d *device, _ string) ([]string, string) {
		return []string{fmt.Sprintf("+CSQ: %d,0", d.set.rssi)}, ""
	},
	"+CMGS": (*device).cmgs,
}

func (d *device) cpin(arg string) ([]string, string) {
	switch {
	case arg == "?" && d.card.unlocked:
		return []string{"+CPIN: READY"}, ""
	case arg == "?" && d.card.tries == 0:
		return []string{"+CPIN: SIM PUK"}, ""
	case arg == "?":
		return []string{"+CPIN: SIM PIN"}, ""
	case d.card.unlocked:
		return nil, d.refuse(3, "operation not allowed")
	case d.card.tries == 0:
		return nil, d.refuse(12, "SIM PUK required")
	case strings.Trim(arg, `="`) != d.bank.cfg.SIMPIN:
		d.card.tries--
		return nil, d.refuse(16, "incorrect password")
	}
	d.card.unlocked, d.card.tries = true, 3
	return nil, ""
}

func (d *device) cfun(arg string) ([]string, string) {
	switch arg {
	case "?":
		return []string{fmt.Sprintf("+CFUN: %d", d.set.functional)}, ""
	case "=1,1":
		d.later(50*time.Millisecond, d.reboot)
	case "=0", "=1", "=4":
		d.set.functional = int(arg[1] - '0')
	default:
		return nil, d.refuse(4, "operation not supported")
	}
	return nil, ""
}

// reboot restarts and says so; d.mu is held.
func (d *device) reboot() {
	d.restart(d.set.registered)
	d.say("RDY", "+CPIN: READY", "SMS Ready")
}

func (d *device) stat() int {
	if d.set.functional != 1 || !d.card.unlocked {
		return 0
	}
	return d.set.registered
}

func (d *device) creg(arg string) ([]string, string) {
	if n, ok := d.number1(arg); ok {
		d.set.regURC = n
		return nil, ""
	}
	return []string{fmt.Sprintf("+CREG: %d,%d", d.set.regURC, d.stat())}, ""
}

func (d *device) cereg(arg string) ([]string, string) {
	if n, ok := d.number1(arg); ok {
		d.set.eregURC = n
		return nil, ""
	}
	return []string{fmt.Sprintf("+CEREG: %d,%d", d.set.eregURC, d.stat())}, ""
}

func (d *device) cnmi(arg string) ([]string, string) {
	switch arg {
	case "?":
		return []string{fmt.Sprintf("+CNMI: %d,%d,0,%d,0", d.set.mode, d.set.mt, d.set.ds)}, ""
	case "=?":
		return []string{"+CNMI: (0-2),(0-2),(0,2),(0-1),(0,1)"}, ""
	}
	f := strings.Split(strings.TrimPrefix(arg, "="), ",")
	v := [5]int{}
	for i := range min(len(f), 5) {
		n, err := strconv.Atoi(strings.TrimSpace(f[i]))
		if err != nil {
			return nil, "ERROR"
		}
		v[i] = n
	}
	if v[0] > 2 || v[1] > 2 || v[3] > 1 {
		return nil, "+CMS ERROR: 303"
	}
	d.set.mode, d.set.mt, d.set.ds = v[0], v[1], v[3]
	return nil, ""
}

func (d *device) cmgs(arg string) ([]string, string) {
	n, ok := d.number1(arg)
	switch {
	case !d.card.unlocked:
		return nil, "+CMS ERROR: 311"
	case d.set.textMode || !ok || n < 8 || n > 175:
		return nil, "+CMS ERROR: 304"
	case d.faults.noPrompt > 0:
		d.faults.noPrompt--
		return nil, ""
	}
	d.submit = &pendingSubmit{length: n}
	d.write("\r\n> ")
	return nil, ""
}
