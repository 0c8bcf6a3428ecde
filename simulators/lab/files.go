package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// ceremonyPlan is what the lab's operators reviewed.
const ceremonyPlan = `ceremony: laboratory-2026-1
token:
  label: %[1]s
keys:
  - label: custode/sign/2026-1
    role: sign
    bits: 2048
    certificate:
      subject:
        common-name: Custode Laboratory
        organization: Custode Laboratory
        organization-identifier: VATIT-00000000000
        uri: %[2]s
        country: IT
        locality: Roma
      validity-days: 365
  - label: custode/pepper/2026-1
    role: mac
    bits: 256
  - label: custode/codes/2026-1
    role: mac
    bits: 256
  - label: custode/outbox/2026-1
    role: wrap
    bits: 256
  - label: custode/seal/2026-1
    role: sign
    bits: 2048
    certificate:
      subject:
        common-name: Custode Laboratory Log Seal
        organization: Custode Laboratory
        organization-identifier: VATIT-00000000000
        uri: %[2]s
        country: IT
        locality: Roma
      validity-days: 3650
  - label: custode/log/2026-1
    role: wrap
    bits: 256
  - label: custode/records/2026-1
    role: wrap
    bits: 256
  - label: custode/seed/2026-1
    role: seed
    bits: 256
  - label: custode/bind/2026-1
    role: mac
    bits: 256
`

// configure registers the SP, writes both configuration files, holds the key
// ceremony and prepares the database: an operator's first day.
func (l *Lab) configure(ctx context.Context) error {
	if err := l.RegisterSP("demo", l.SP.Metadata()); err != nil {
		return err
	}
	state := filepath.Join(l.Dir, "state")
	for _, folder := range []string{state, l.LogDir(), l.WitnessDir()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(l.TSACertificates(), l.tsaPEM(), 0o600); err != nil {
		return err
	}
	l.machine, l.policy = filepath.Join(l.Dir, "machine.yaml"), filepath.Join(l.Dir, "policy.yaml")
	plan := filepath.Join(l.Dir, "ceremony.yaml")
	for path, text := range map[string]string{
		l.machine:                       l.machineFile(state),
		l.policy:                        l.policyFile(),
		filepath.Join(l.Dir, "sim-pin"): l.cfg.SIMPIN + "\n",
		plan:                            fmt.Sprintf(ceremonyPlan, "simulator", l.IdP),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"check-config"},
		{"ceremony", "run", plan, "--out", filepath.Join(l.Dir, "ceremony")},
		{"migrate"},
	} {
		if args[0] == "migrate" && l.cfg.Prepare != nil {
			if err := l.cfg.Prepare(l); err != nil {
				return err
			}
		}
		if _, err := l.Run(ctx, args...); err != nil {
			return err
		}
	}
	return l.copyToken()
}

func (l *Lab) machineFile(state string) string {
	var b strings.Builder
	level := l.cfg.LogLevel
	if level == "" {
		level = "info"
	}
	fmt.Fprintf(&b, `listen: %s
insecure_http_for_development: true
state_directory: %s
admin_socket: %s
%shsm:
%sallow_simulated_modems: true
certified_log:
  directory: %s
  tsa_certificates: %s
  witness_directories: [%s]
  clock: none
metrics_listen: %s
push:
  url: %s
log:
  level: %s
  format: json
modems:
`, l.cfg.Addr.IdP, state, filepath.Join(l.Dir, "admin.sock"), l.registryLines(), l.hsmLines(), l.LogDir(), l.TSACertificates(), l.WitnessDir(), strings.TrimPrefix(l.Metrics, "http://"), l.Pushes.URL, level)
	for i := range l.Bank.Modems() {
		fmt.Fprintf(&b, "  - name: bay-%d\n    device: %s\n", i+1, l.Bank.Device(i))
		if l.cfg.SIMPIN != "" {
			fmt.Fprintf(&b, "    sim_pin_file: %s\n", filepath.Join(l.Dir, "sim-pin"))
		}
	}
	return b.String()
}

func (l *Lab) policyFile() string {
	sections := map[string]map[string]string{
		"organization": {"name": "Custode Laboratory", "display_name": "Custode Laboratory", "url": l.IdP},
		"keys": {
			"sign": "custode/sign/2026-1", "pepper": "custode/pepper/2026-1",
			"codes": "custode/codes/2026-1", "outbox": "custode/outbox/2026-1",
			"seal": "custode/seal/2026-1", "log": "custode/log/2026-1", "records": "custode/records/2026-1",
			"seed": "custode/seed/2026-1", "bind": "custode/bind/2026-1",
		},
		"certified_log": {"time_stamps": l.timeStamps()},
	}
	// A laboratory's people log in like machines.
	sections["sms"] = map[string]string{"burst": "-1", "per_day": "-1", "per_month": "-1", "per_number": "-1"}
	for k, v := range l.cfg.Policy {
		section, key, _ := strings.Cut(k, ".")
		if sections[section] == nil {
			sections[section] = map[string]string{}
		}
		sections[section][key] = v
	}
	var b strings.Builder
	fmt.Fprintf(&b, "entity_id: %[1]s\npublic_url: %[1]s\nspid_prefix: LABX\n", l.IdP)
	for _, s := range sorted(sections) {
		fmt.Fprintf(&b, "%s:\n", s)
		for _, k := range sorted(sections[s]) {
			fmt.Fprintf(&b, "  %s: %s\n", k, sections[s][k])
		}
	}
	return b.String()
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Person is somebody to enrol.
type Person struct {
	Username, Password, Phone string // Phone "" : no SMS credential
	Type                      string // of the identity, as identity.yaml names it; "" for a citizen's
	Attributes                map[string]string
}

// Demo is the person whose login the demo prints.
func Demo() Person {
	return Person{
		Username: "ada.lovati", Password: "Torre-Civica_74", Phone: "+393471234567",
		Attributes: map[string]string{
			"spidCode": "LABX0000000001", "name": "Ada", "familyName": "Lovati", "gender": "F",
			"dateOfBirth": "1985-12-10", "placeOfBirth": "H501", "countyOfBirth": "RM",
			"fiscalNumber": "TINIT-LVTDAA85T50H501D", "email": "ada.lovati@example.it",
			"address": "via dei Laboratori 1 00100 Roma RM", "domicileStreetAddress": "via dei Laboratori 1",
			"domicilePostalCode": "00100", "domicileMunicipality": "Roma", "domicileProvince": "RM", "domicileNation": "IT",
			"idCard": "cartaIdentita CA00000AA comuneRoma 2020-01-15 2030-12-10", "expirationDate": "2030-12-10",
			"mobilePhone": "+393471234567",
		},
	}
}

// Enrol adds the person through the daemon.
func (l *Lab) Enrol(ctx context.Context, p Person) error {
	var b strings.Builder
	fmt.Fprintf(&b, "username: %s\n", p.Username)
	if p.Phone != "" {
		fmt.Fprintf(&b, "phone: %q\n", p.Phone)
	}
	if p.Type != "" {
		fmt.Fprintf(&b, "type: %s\n", p.Type)
	}
	b.WriteString("attributes:\n")
	for _, k := range sorted(p.Attributes) {
		fmt.Fprintf(&b, "  %s: %q\n", k, p.Attributes[k])
	}
	file, secret := filepath.Join(l.Dir, "identity.yaml"), filepath.Join(l.Dir, "identity.password")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(secret, []byte(p.Password+"\n"), 0o600); err != nil {
		return err
	}
	_, err := l.Run(ctx, "identity", "add", file, "--password-file", secret)
	for _, f := range []string{file, secret} {
		if e := os.Remove(f); e != nil && err == nil {
			err = e
		}
	}
	return err
}
