package dialect

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What a profile says must agree with what it does, or a driver is tested against
// a modem that cannot exist.
func TestProfilesAreConsistent(t *testing.T) {
	quoted := regexp.MustCompile(`"([A-Z_]+)"`)
	for _, name := range Names() {
		p, ok := Get(name)
		if !ok || p.Name != name || p.Manufacturer == "" || p.Model == "" || p.Bearer != "2G" && p.Bearer != "LTE" {
			t.Errorf("%s: %+v", name, p)
		}
		var areas []string
		for i, a := range p.Areas {
			areas = append(areas, a.Name)
			if a.Alias != "" && !slices.Contains(areas[:i], a.Alias) || a.Alias == "" && a.Slots == 0 {
				t.Errorf("%s: area %+v", name, a)
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(p.CPMS, -1) {
			if !slices.Contains(areas, m[1]) {
				t.Errorf("%s offers area %s and has %v", name, m[1], areas)
			}
		}
		// Two makes do not tell the tries left.
		if s := fmt.Sprintf(p.PINCountersFmt, 3, 10, "READY"); p.PINCounters != "" && strings.Contains(s, "%!") {
			t.Errorf("%s: PIN counters are %q", name, s)
		}
		for what, s := range map[string]string{
			"report": fmt.Sprintf(p.ReportFmt, 25),
			"read":   fmt.Sprintf(p.ReadFmt, 0, 25), "stored": fmt.Sprintf(p.StoredFmt, "SR", 1),
		} {
			if s == "" || strings.Contains(s, "%!") {
				t.Errorf("%s: %s is %q", name, what, s)
			}
		}
		for i := 1; i < len(p.Boot); i++ {
			if p.Boot[i].After < p.Boot[i-1].After {
				t.Errorf("%s: boot line %d is out of order", name, i)
			}
		}
		if p.StoredSays != "" && !slices.Contains(areas, p.StoredSays) {
			t.Errorf("%s: reports in %s", name, p.StoredSays)
		}
	}
}

// A copy can be tweaked without the others noticing.
func TestGetCopies(t *testing.T) {
	a, _ := Get("ec25")
	a.Areas[0].Slots, a.Chatter[0] = 1, "x"
	if b, _ := Get("ec25"); b.Areas[0].Slots == 1 || b.Chatter[0] == "x" {
		t.Error("shared")
	}
}
