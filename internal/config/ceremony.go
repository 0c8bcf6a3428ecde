package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Ceremony says who must approve operations on keys.
type Ceremony struct {
	Approvals int        `yaml:"approvals"` // different operators who must approve; 0: none, and every report says so
	Operators []Operator `yaml:"operators"`
}

// Operator is one who may approve.
type Operator struct {
	Name      string `yaml:"name"`       // 1 to 32 of a-z 0-9 . -
	PublicKey string `yaml:"public_key"` // absolute; PEM, Ed25519 or RSA
}

func (m *Machine) validateCeremony(p *problems) {
	c := &m.Ceremony
	p.check(c.Approvals >= 0 && c.Approvals <= len(c.Operators), "ceremony.approvals: 0 to the number of operators")
	p.check(c.Approvals != 1, "ceremony.approvals: 1 is no dual control")
	p.check(len(c.Operators) <= 32, "ceremony.operators: at most 32")
	seen := map[string]bool{}
	for i, o := range c.Operators {
		key := fmt.Sprintf("ceremony.operators[%d]", i)
		p.check(o.Name != "" && len(o.Name) <= 32 && strings.Trim(o.Name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !seen[o.Name], key+".name: 1 to 32 of a-z 0-9 . -, unlike the others")
		p.check(filepath.IsAbs(o.PublicKey), key+".public_key: must be an absolute path")
		seen[o.Name] = true
	}
}
