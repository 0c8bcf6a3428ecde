package at

import (
	"regexp"
	"strconv"
)

var (
	// regAnswer is the answer to AT+CREG?: "n,stat" and perhaps an area; both may
	// have three digits. regNews is the unsolicited form: "stat" and perhaps an area,
	// which is quoted or has four digits or more.
	regAnswer = regexp.MustCompile(`^\+C[GE]?REG:\s*\d{1,3}\s*,\s*(\d{1,3})\s*(?:,.*)?$`)
	regNews   = regexp.MustCompile(`^\+(C[GE]?REG):\s*(\d{1,3})\s*(?:,\s*(?:"|[0-9A-Fa-f]{4}).*)?$`)
)

// IsRegistration reports that line is the answer to AT+CREG?, AT+CGREG? or
// AT+CEREG? (27.007 sections 7.2, 10.1.20, 10.1.22) and not the indication of the
// same name.
func IsRegistration(line string) bool { return regAnswer.MatchString(line) }

// Registration returns the stat of such an answer, 0 when it is none.
func Registration(line string) int {
	if m := regAnswer.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// RegistrationNews returns the side (CREG, CGREG, CEREG) and the stat of an
// indication; side is "" when line is none.
func RegistrationNews(line string) (side string, stat int) {
	m := regNews.FindStringSubmatch(line)
	if m == nil {
		return "", 0
	}
	stat, _ = strconv.Atoi(m[2])
	return m[1], stat
}

// Registered lists the states in which SMS work: home, roaming, SMS only (an LTE
// module on TIM Italia says 6), and CSFB not preferred (27.007 section 7.2).
func Registered(stat int) bool {
	switch stat {
	case 1, 5, 6, 7, 9, 10:
		return true
	}
	return false
}
