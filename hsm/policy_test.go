package hsm

import (
	"slices"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestLacks(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  Lacks
	}{
		{nil, 0},
		{[]string{"allowed-mechanisms"}, LackAllowedMechanisms},
		{[]string{"allowed-mechanisms", "local"}, LackAllowedMechanisms | LackLocal},
		{[]string{"unwrap-template"}, LackUnwrapTemplate},
	} {
		got, err := ParseLacks(c.names)
		if err != nil || got != c.want || !slices.Equal(got.Strings(), c.names) {
			t.Errorf("%v: %v %v %v", c.names, got, got.Strings(), err)
		}
	}
	for _, bad := range [][]string{{"all"}, {""}, {"local", "local"}, {"sensitive"}} {
		if _, err := ParseLacks(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v, want invalid", bad, err)
		}
	}
	if Lacks(0).Has(LackLocal) || !(LackLocal | LackAllowedMechanisms).Has(LackLocal) {
		t.Error("Has is wrong")
	}
	// Whatever is tolerated, only CKA_LOCAL is pardoned of the rules.
	for role := RoleSign; role <= RoleSeed; role++ {
		for _, r := range Rules(role) {
			if got := Lacks(0xff).Pardons(r); got != (r.Attribute == AttrLocal) {
				t.Errorf("%v %v is pardoned: %v", role, r.Attribute, got)
			}
			if Lacks(0).Pardons(r) || LackAllowedMechanisms.Pardons(r) {
				t.Errorf("%v %v is pardoned without being named", role, r.Attribute)
			}
		}
	}
}

func TestPlanTolerates(t *testing.T) {
	text := strings.Replace(goodPlan, "token:\n", "token:\n  tolerate: [local]\n", 1)
	p, err := ParsePlan([]byte(text))
	if err != nil || p.Tolerate != LackLocal || p.Validate() != nil {
		t.Errorf("%v %v", p.Tolerate, err)
	}
	if _, err := ParsePlan([]byte(strings.Replace(text, "[local]", "[locale]", 1))); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "token.tolerate") {
		t.Errorf("%v, want invalid naming token.tolerate", err)
	}
}
