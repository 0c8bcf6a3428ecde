package at

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

var storedForm = regexp.MustCompile(`^"?([A-Z]{2})"?$`)

// Stored reads +CMTI: and +CDSI:, which announce a stored message: the storage (two
// letters, fit for a command) and the place in it.
func Stored(line string) (store string, index int, ok bool) {
	f := Fields(line, line[:strings.IndexByte(line, ':')+1])
	if len(f) != 2 {
		return "", 0, false
	}
	m := storedForm.FindStringSubmatch(strings.ToUpper(f[0]))
	n, err := strconv.ParseUint(f[1], 10, 16)
	if m == nil || err != nil {
		return "", 0, false
	}
	return m[1], int(n), true
}

// Reference reads "+CMGS: <mr>[,...]", the TP-MR of an accepted message.
func Reference(line string) (int, bool) {
	if !strings.HasPrefix(line, "+CMGS:") {
		return 0, false
	}
	f := Fields(line, "+CMGS:")
	if len(f) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(f[0], 10, 8)
	return int(n), err == nil
}

// TriesLeft reads how many tries of the SIM PIN are left. Vendors answer in their
// ways; the first number is always the PIN's:
//
//	+CPINR: SIM PIN,3,3    ^CPIN: SIM PIN,3,10,3,10,3    +QPINC: "SC",3,10
//	+SPIC: 3,10,0,10       +UPINCNT: 3,3,10,10           #PCT: 3
func TriesLeft(lines []string, prefix string) (int, bool) {
	for _, line := range lines {
		f := Fields(line, prefix)
		if len(f) == 0 || prefix == "+CPINR:" && f[0] != "SIM PIN" || prefix == "+QPINC:" && f[0] != "SC" {
			continue // the PUK's, or the second PIN's
		}
		for _, v := range f {
			if n, err := strconv.Atoi(v); err == nil {
				return n, true
			}
		}
	}
	return 0, false
}

var storageName = regexp.MustCompile(`"([A-Z]{2})"`)

// Storages reads the first list of "+CPMS: (...),(...)", which has many shapes (an extra
// bracket, missing ones): every name in it.
func Storages(line string) (names []string) {
	for _, m := range storageName.FindAllStringSubmatch(line, -1) {
		names = append(names, m[1])
	}
	return names
}

// USSD reads "+CUSD: m,"text",dcs"; without a scheme it is 15, the default alphabet.
func USSD(line string) (text string, dcs int) {
	f := Fields(line, "+CUSD:")
	switch len(f) {
	case 0, 1:
		return "", 15
	case 2:
		return f[1], 15
	}
	dcs, _ = strconv.Atoi(f[2])
	return f[1], dcs
}

// Number reads a number of the answer's first line, after its prefix; not negative.
func (r Reply) Number(prefix string, i int) (int, bool) {
	if len(r.Lines) == 0 {
		return 0, false
	}
	f := Fields(r.Lines[0], prefix)
	if i >= len(f) {
		return 0, false
	}
	n, err := strconv.Atoi(f[i])
	return n, err == nil && n >= 0
}

// Reference finds the TP-MR in an answer to AT+CMGS.
func (r Reply) Reference() (int, bool) {
	for _, l := range r.Lines {
		if n, ok := Reference(l); ok {
			return n, true
		}
	}
	return 0, false
}

// Cause names the reason of an engine's error: no text of the modem.
func Cause(err error) string {
	for _, c := range []error{ErrNoPrompt, ErrUnclear, ErrTimeout, ErrRestarted, ErrDead, ErrDirty} {
		if errors.Is(err, c) {
			return c.Error()
		}
	}
	return "interrupted"
}
