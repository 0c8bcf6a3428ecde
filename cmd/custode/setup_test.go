package main

import (
	"testing"

	"custode/internal/config"
	"custode/internal/fault"
)

// TestAgree: what serve would refuse for its content is refused beforehand.
func TestAgree(t *testing.T) {
	const examples = "../../docs/examples/"
	for name, spoil := range map[string]func(*config.Machine, *config.Policy){
		"":             func(*config.Machine, *config.Policy) {},
		"plain http":   func(_ *config.Machine, p *config.Policy) { p.PublicURL = "http://localhost" },
		"tolerance":    func(m *config.Machine, _ *config.Policy) { m.HSM.Tolerate = []string{"everything"} },
		"no module":    func(m *config.Machine, _ *config.Policy) { m.HSM.URI = "pkcs11:token=x?pin-source=file:/pin" },
		"weak hash":    func(_ *config.Machine, p *config.Policy) { p.Passwords.MemoryKiB = 8 },
		"code missing": func(_ *config.Machine, p *config.Policy) { p.Codes.Text = "{minutes}" },
	} {
		m, err := config.Load[config.Machine](examples + "machine.yaml")
		if err != nil {
			t.Fatal(err)
		}
		p, err := config.Load[config.Policy](examples + "policy.yaml")
		if err != nil {
			t.Fatal(err)
		}
		spoil(m, p)
		if err := agree(m, p); (name == "" && err != nil) || (name != "" && !fault.Is(err, fault.Invalid)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
