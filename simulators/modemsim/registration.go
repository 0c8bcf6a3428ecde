package modemsim

import (
	"fmt"
	"strings"
	"time"

	"custode/simulators/modemsim/tpdu"
)

// stat is the registration state of 27.007 section 7.2.
func (d *device) stat() int {
	code, _ := d.trouble()
	if d.set.functional != 1 || d.set.deregistered || code >= 10 && code <= 13 {
		return 0
	}
	return d.set.registered
}

// registered tells whether messages can go: 1 home, 5 roaming, 6 and 7 SMS only,
// 9 and 10 without preferred fallback.
func (d *device) onNet() bool {
	switch d.stat() {
	case 1, 5, 6, 7, 9, 10:
		return true
	}
	return false
}

// reg serves +CREG, +CGREG and +CEREG.
func (d *device) reg(name, arg string) ([]string, string) {
	if name == "+CEREG" && !d.p.CEREG {
		return nil, d.unknown()
	}
	switch n, ok := number1(arg); {
	case arg == "=?":
		return []string{name + ": (0-2)"}, ""
	case ok && n <= 2:
		d.set.reg[name] = n
		return nil, ""
	case arg != "?":
		return nil, d.refuse(4, "operation not supported")
	}
	if d.p.ThreeDigits {
		return []string{fmt.Sprintf("%s: %03d,%03d", name, d.set.reg[name], d.stat())}, ""
	}
	return []string{fmt.Sprintf("%s: %d,%s", name, d.set.reg[name], d.cell(name))}, ""
}

// cell is the state, with the cell when the mode asks for it.
func (d *device) cell(name string) string {
	s := fmt.Sprint(d.stat())
	if d.set.reg[name] == 2 && d.onNet() {
		s += `,"00C3","0001A2B3"`
		if d.p.Bearer == "LTE" {
			s += ",7"
		}
	}
	return s
}

// announce tells the state to whom it concerns.
func (d *device) announce() {
	for _, name := range []string{"+CREG", "+CGREG", "+CEREG"} {
		if d.set.reg[name] > 0 {
			d.say(name + ": " + d.cell(name))
		}
	}
}

// SetRegistration sets +CREG's stat of modem i (0 to 10) and tells of it when asked to.
func (b *Bank) SetRegistration(i, stat int) { b.with(i, func(d *device) { d.registers(stat) }) }

func (d *device) registers(stat int) {
	d.set.registered = stat
	d.announce()
	d.later(time.Microsecond, d.pump)
}

// SetSignal sets +CSQ's rssi of modem i (0 to 31, 99 unknown).
func (b *Bank) SetSignal(i, rssi int) { b.with(i, func(d *device) { d.set.rssi = rssi }) }

// SetOperator moves modem i to another network, five or six digits.
func (b *Bank) SetOperator(i int, plmn string) { b.with(i, func(d *device) { d.plmn = plmn }) }

func (d *device) cops(arg string) ([]string, string) {
	f := strings.Split(strings.TrimPrefix(arg, "="), ",")
	switch {
	case arg == "=?":
		d.set.hold = d.pace(20 * time.Second)
		return []string{fmt.Sprintf(`+COPS: (2,"SIMNET","SIM","%s"),(3,"OTHER","OTH","00199"),,(0-4),(0-2)`, d.plmn)}, ""
	case arg == "?" && !d.onNet():
		return []string{"+COPS: 0"}, ""
	case arg == "?" && d.set.longNames:
		return []string{`+COPS: 0,0,"SIMNET"`}, ""
	case arg == "?":
		return []string{fmt.Sprintf(`+COPS: 0,2,"%s"`, d.plmn)}, ""
	case f[0] == "3":
		d.set.longNames = len(f) > 1 && f[1] != "2"
	case f[0] == "2":
		d.set.deregistered = true
		d.later(time.Millisecond, d.announce)
	case f[0] == "0" || f[0] == "1":
		d.set.hold = d.pace(2 * time.Second)
		d.set.deregistered = false
		d.later(d.set.hold+time.Millisecond, func() {
			d.announce()
			d.pump()
		})
	default:
		return nil, d.refuse(4, "operation not supported")
	}
	return nil, ""
}

func (d *device) cfun(arg string) ([]string, string) {
	switch arg {
	case "?":
		return []string{fmt.Sprintf("+CFUN: %d", d.set.functional)}, ""
	case "=?":
		return []string{"+CFUN: (0,1,4),(0,1)"}, ""
	case "=1,1":
		return d.resetCommand()
	case "=0", "=4":
		d.set.functional = int(arg[1] - '0')
		d.later(time.Millisecond, d.announce)
	case "=1", "=1,0":
		if d.set.functional != 1 {
			d.set.hold = d.pace(2 * time.Second)
			d.set.refusals = d.p.RadioBusy
		}
		d.set.functional = 1
		d.later(d.set.hold+time.Millisecond, func() {
			d.announce()
			d.pump()
		})
	default:
		return nil, d.refuse(4, "operation not supported")
	}
	return nil, ""
}

// resetCommand says OK and restarts a moment later.
func (d *device) resetCommand() ([]string, string) {
	d.later(50*time.Millisecond, func() {
		name := d.resetName
		d.resetName = ""
		d.reset(name)
	})
	return nil, ""
}

func (d *device) signal() int {
	if !d.onNet() && d.set.functional != 1 {
		return 99
	}
	return d.set.rssi
}

func (d *device) cesq() ([]string, string) {
	switch {
	case !d.p.CESQ:
		return nil, d.unknown()
	case d.signal() == 99:
		return []string{"+CESQ: 99,99,255,255,255,255"}, ""
	}
	return []string{fmt.Sprintf("+CESQ: 99,99,255,255,%d,%d", d.signal()/2+6, d.signal()*2)}, ""
}

// cusd answers a code after a while on the radio.
func (d *device) cusd(arg string) ([]string, string) {
	f := strings.Split(strings.TrimPrefix(arg, "="), ",")
	switch {
	case arg == "?" || arg == "=?":
		return []string{"+CUSD: 1"}, ""
	case len(f) < 2:
		return nil, ""
	case !d.onNet():
		return nil, d.refuse(30, "no network service")
	}
	text := d.ussd
	if d.card.credit >= 0 {
		text = fmt.Sprintf("Credito residuo: %d messaggi", d.card.credit)
	}
	d.later(max(d.bank.latency(d), time.Millisecond), func() {
		d.say(fmt.Sprintf(`+CUSD: 0,"%s",15`, tpdu.Encode(d.set.charset, text)))
	})
	return nil, ""
}

// SetUSSD sets what the network answers to modem i's +CUSD codes; a card with
// limited credit tells that instead.
func (b *Bank) SetUSSD(i int, text string) { b.with(i, func(d *device) { d.ussd = text }) }
