package modemsim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type answer = func(d *device, arg string) ([]string, string)

func fixed(lines ...string) answer {
	return func(*device, string) ([]string, string) { return lines, "" }
}

// extended finds the answer to a + command; nil when no make knows it.
func extended(name string) answer {
	switch name {
	case "+CGMI", "+GMI":
		return func(d *device, _ string) ([]string, string) { return []string{d.p.Manufacturer}, "" }
	case "+CGMM", "+GMM":
		return func(d *device, _ string) ([]string, string) { return []string{d.p.Model}, "" }
	case "+CGMR", "+GMR":
		return func(d *device, _ string) ([]string, string) { return []string{d.p.Revision}, "" }
	case "+CGSN", "+GSN":
		return func(d *device, _ string) ([]string, string) { return []string{d.imei()}, "" }
	case "+CIMI":
		return func(d *device, _ string) ([]string, string) { return []string{d.card.imsi}, "" }
	case "+CNUM":
		return func(d *device, _ string) ([]string, string) {
			return []string{fmt.Sprintf(`+CNUM: "","%s",145`, d.number())}, ""
		}
	case "+CPIN":
		return (*device).cpin
	case "+CMEE":
		return (*device).cmee
	case "+CFUN":
		return (*device).cfun
	case "+CREG", "+CGREG", "+CEREG":
		return func(d *device, arg string) ([]string, string) { return d.reg(name, arg) }
	case "+COPS":
		return (*device).cops
	case "+CSQ":
		return func(d *device, _ string) ([]string, string) {
			return []string{fmt.Sprintf("+CSQ: %d,0", d.signal())}, ""
		}
	case "+CESQ":
		return func(d *device, _ string) ([]string, string) { return d.cesq() }
	case "+CUSD":
		return (*device).cusd
	case "+CSCS":
		return (*device).cscs
	case "+CPAS":
		return fixed("+CPAS: 0")
	case "+CBC":
		return fixed("+CBC: 0,97,4012")
	case "+GCAP":
		return fixed("+GCAP: +CGSM")
	case "+CLCK":
		return (*device).clck
	case "+CLIP", "+CVHU", "+CGSMS", "+CSDH", "+CRC", "+CGATT", "+CTZR":
		return fixed()
	}
	return messages(name)
}

// messages finds the answer to a command of 27.005.
func messages(name string) answer {
	switch name {
	case "+CSMS":
		return (*device).csms
	case "+CMGF":
		return (*device).cmgf
	case "+CSCA":
		return (*device).csca
	case "+CSMP":
		return (*device).csmp
	case "+CMMS":
		return func(d *device, _ string) ([]string, string) { return nil, d.p.CMMSRefusal }
	case "+CPMS":
		return (*device).cpms
	case "+CNMI":
		return (*device).cnmi
	case "+CNMA":
		return (*device).cnma
	case "+CMGL":
		return (*device).cmgl
	case "+CMGR":
		return (*device).cmgr
	case "+CMGD":
		return (*device).cmgd
	case "+CMGS":
		return func(d *device, arg string) ([]string, string) { return d.prompt(arg, false) }
	case "+CMGW":
		return func(d *device, arg string) ([]string, string) { return d.prompt(arg, true) }
	}
	return nil
}

func (d *device) cmee(arg string) ([]string, string) {
	n, ok := number1(arg)
	switch {
	case arg == "?":
		return []string{fmt.Sprintf("+CMEE: %d", d.set.cmee)}, ""
	case arg == "=?":
		return []string{"+CMEE: (0-2)"}, ""
	case !ok || n < 0 || n > 2:
		return nil, "ERROR"
	}
	d.set.cmee = n
	return nil, ""
}

func (d *device) clck(arg string) ([]string, string) {
	if strings.HasSuffix(arg, ",2") {
		return []string{fmt.Sprintf("+CLCK: %d", min(len(d.card.pin), 1))}, ""
	}
	return nil, d.refuse(3, "operation not allowed")
}

func (d *device) cscs(arg string) ([]string, string) {
	sets := []string{"GSM", "IRA", "HEX", "UCS2"}
	v := strings.Trim(strings.TrimPrefix(arg, "="), `"`)
	switch {
	case arg == "?":
		return []string{fmt.Sprintf(`+CSCS: "%s"`, d.set.charset)}, ""
	case arg == "=?":
		return []string{`+CSCS: ("GSM","IRA","HEX","UCS2")`}, ""
	case !slices.Contains(sets, v):
		return nil, d.refuse(4, "operation not supported")
	}
	d.set.charset = v
	return nil, ""
}

func (d *device) csms(arg string) ([]string, string) {
	n, ok := number1(arg)
	switch {
	case arg == "?":
		return []string{fmt.Sprintf("+CSMS: %d,1,1,1", d.set.service)}, ""
	case arg == "=?":
		return []string{"+CSMS: " + d.p.CSMS}, ""
	case !ok || !slices.Contains(strings.Split(strings.Trim(d.p.CSMS, "()"), ","), strconv.Itoa(n)):
		return nil, "+CMS ERROR: 303"
	}
	d.set.service = n
	return []string{"+CSMS: 1,1,1"}, ""
}

func (d *device) cmgf(arg string) ([]string, string) {
	n, ok := number1(arg)
	switch {
	case arg == "?":
		if d.set.textMode {
			return []string{"+CMGF: 1"}, ""
		}
		return []string{"+CMGF: 0"}, ""
	case arg == "=?":
		return []string{"+CMGF: (0,1)"}, ""
	case !ok || n < 0 || n > 1:
		return nil, "ERROR"
	}
	d.set.textMode = n == 1
	return nil, ""
}

func (d *device) csca(arg string) ([]string, string) {
	if arg == "?" {
		return []string{fmt.Sprintf(`+CSCA: "%s",145`, d.card.sca)}, ""
	}
	if v, _, _ := strings.Cut(strings.TrimPrefix(arg, "="), ","); strings.HasPrefix(arg, "=") {
		d.card.sca = strings.Trim(v, `"`)
	}
	return nil, ""
}

func (d *device) csmp(arg string) ([]string, string) {
	if arg == "?" {
		return []string{"+CSMP: 17,167,0,0"}, ""
	}
	if d.p.CSMPClearsSCA {
		d.card.sca = ""
	}
	return nil, ""
}

// prompt opens AT+CMGS or, to store a message, AT+CMGW.
func (d *device) prompt(arg string, keep bool) ([]string, string) {
	if arg == "=?" {
		return nil, ""
	}
	first, _, _ := strings.Cut(arg, ",")
	n, ok := number1(first)
	if code := d.messageRefusal(); code != 0 {
		return nil, fmt.Sprintf("+CMS ERROR: %d", code)
	}
	switch {
	case d.set.textMode || !ok || n < 8 || n > 175:
		return nil, "+CMS ERROR: 304"
	case d.faults.noPrompt > 0:
		d.faults.noPrompt--
		return nil, silent
	}
	d.submit = &pendingSubmit{length: n, keep: keep}
	d.set.prompted = true
	return nil, ""
}
