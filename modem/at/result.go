package at

import (
	"strconv"
	"strings"

	"custode/internal/fault"
)

// Set says which table a Refusal's code belongs to.
type Set uint8

// The sets of result codes.
const (
	Plain Set = iota // ERROR, NO CARRIER and the like: no code
	CME              // 27.007 section 9.2, mobile equipment
	CMS              // 27.005 section 3.2.5, message service
	Other            // a vendor's own table
)

// Refusal is the modem's own "no". Code is -1 when it gave none or text only.
type Refusal struct {
	Set  Set
	Code int
	Text string // the final line, cut to 80 octets
}

// Error returns the modem's line.
func (r *Refusal) Error() string { return "modem answered " + r.Text }

// Final is a final result code: Refused is nil for OK.
type Final struct{ Refused *Refusal }

// asError dresses the refusal; kind Retry only says that the engine is in step.
func (f Final) asError(op string) error {
	if f.Refused == nil {
		return nil
	}
	return fault.New(fault.Retry, op, f.Refused)
}

// coded are the final codes that carry a number or text. The blank after the
// colon is part of the code: without it Huawei sticks mean an indication.
var coded = []struct {
	prefix string
	set    Set
}{
	{"+CME ERROR: ", CME},
	{"+CMS ERROR: ", CMS},
	{"+EXT ERROR: ", Other},
	{"MODEM ERROR: ", Other}, // Motorola
}

// plain are the final codes without a code. CONNECT is here as a refusal: we
// never dial, so it is a fault.
var plain = map[string]bool{
	"ERROR": true, "NO CARRIER": true, "BUSY": true, "NO ANSWER": true, "NO DIALTONE": true,
	"COMMAND NOT SUPPORT": true, // Huawei
	"NA":                  true, // Samsung
	"+CME ERROR:":         true, // the splitter trimmed the blank after an empty text
	"+CMS ERROR:":         true,
}

// ParseFinal recognises a final result code (V.250 section 5.7 and the vendors'
// additions).
func ParseFinal(line string) (Final, bool) {
	if line == "OK" {
		return Final{}, true
	}
	cut := line[:min(len(line), 80)]
	if plain[line] || strings.HasPrefix(line, "CONNECT") {
		return Final{&Refusal{Set: Plain, Code: -1, Text: cut}}, true
	}
	for _, c := range coded {
		rest, ok := strings.CutPrefix(line, c.prefix)
		if !ok {
			continue
		}
		code, err := strconv.ParseUint(strings.TrimSpace(rest), 10, 16)
		if err != nil {
			return Final{&Refusal{Set: c.set, Code: -1, Text: cut}}, true
		}
		return Final{&Refusal{Set: c.set, Code: int(code), Text: cut}}, true
	}
	return Final{}, false
}

// twoLine are the indications whose PDU follows on the next line.
var twoLine = []string{"+CMT:", "+CDS:", "+CBM:"}

// Boot says what a line tells about a restart of the modem.
type Boot uint8

// Boot signs. BootHard: it has just started or is going down, all settings are
// lost. BootSoft: a late stage of a boot ("SMS Ready"), which after a quick
// initialisation may belong to the boot we know of.
const (
	BootNo Boot = iota
	BootSoft
	BootHard
)

var bootLines = map[string]Boot{
	"RDY": BootHard, "NORMAL POWER DOWN": BootHard, "POWERED DOWN": BootHard, "UNDER-VOLTAGE POWER DOWN": BootHard,
	"OVER-VOLTAGE POWER DOWN": BootHard, "+CPIN: NOT READY": BootHard, "*ATREADY: 1": BootHard, "+CFUN: 1": BootHard,
	"SMS Ready": BootSoft, "Call Ready": BootSoft, "SMS DONE": BootSoft, "PB DONE": BootSoft,
	"+QIND: SMS DONE": BootSoft, "+QIND: PB DONE": BootSoft,
}

// looksUnsolicited keeps indications out of bare answers.
func looksUnsolicited(line string) bool {
	if line == "" || strings.ContainsRune("+^*#$_", rune(line[0])) {
		return true
	}
	return bootLines[line] != BootNo || line == "RING" || strings.HasPrefix(line, "DST:")
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) >= 2 && len(s)%2 == 0
}

// follows reports that line is the PDU that the first line of a two-line indication
// announced. Its length counts octets after the service centre address, which has
// 1 to 13; ZTE writes "+CDS: ,<len>" and some firmware no length at all.
func follows(head, line string) bool {
	if !isHex(line) {
		return false
	}
	f := Fields(head[:min(len(head), 80)], head[:strings.IndexByte(head, ':')+1])
	if len(f) == 0 {
		return true
	}
	n, err := strconv.ParseUint(f[len(f)-1], 10, 8)
	if err != nil {
		return true
	}
	octets := len(line) / 2
	return octets >= int(n) && octets <= int(n)+13 // some count the address, too
}

// Fields splits the part of a line after its prefix at commas outside quotes,
// trims blanks and takes quotes off. It is lenient: modems forget quotes and add
// blanks.
func Fields(line, prefix string) []string {
	rest := strings.TrimSpace(strings.TrimPrefix(line, prefix))
	if rest == "" {
		return nil
	}
	var out []string
	quoted, start := false, 0
	for i := 0; i <= len(rest); i++ {
		switch {
		case i == len(rest) || rest[i] == ',' && !quoted:
			f := strings.TrimSpace(rest[start:i])
			if len(f) >= 2 && f[0] == '"' && f[len(f)-1] == '"' {
				f = f[1 : len(f)-1]
			}
			out = append(out, f)
			start = i + 1
		case rest[i] == '"':
			quoted = !quoted
		}
	}
	return out
}
