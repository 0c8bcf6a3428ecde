package at

import (
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
