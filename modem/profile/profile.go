// Package profile holds what differs between modems, as data: how to initialise
// them, what they say by themselves, how long they take. profiles.yaml is compiled
// in; an operator's file of the same form may add profiles and replace them.
//
// The data is parsed strictly once: unknown fields, bad patterns, commands with
// control characters or of a shape that is not an AT command are refused with the
// file's name. What comes out is plain values; the package touches no device.
// Only modem/bay, package modem and cmd may import it.
package profile

import (
	"bytes"
	_ "embed" // profiles.yaml
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"custode/internal/fault"
)

//go:embed profiles.yaml
var builtin []byte

// Route says how status reports come.
type Route string

// The routes.
const (
	Direct Route = "direct" // by +CDS; stored ones (+CDSI) are read, too
	Stored Route = "stored" // as Direct, and the report storage is looked at in the poll
	None   Route = "none"   // the modem never gives any: none are asked for
)

// Profile is what is special about a family of modems. See modem.md, section 1.3,
// for the order of initialisation.
type Profile struct {
	Name         string
	Manufacturer *regexp.Regexp // of AT+CGMI
	Model        *regexp.Regexp // of AT+CGMM

	Defaults        string        // command for factory settings; "" for none
	DefaultsTimeout time.Duration // for it
	CommandGap      time.Duration // pause before each command
	CtrlZGap        time.Duration // pause between the PDU and Ctrl-Z
	SubmitTimeout   time.Duration // Ctrl-Z to doubt
	ListTimeout     time.Duration // of AT+CMGL
	BusyWait        time.Duration // how long the card may be busy after a start
	BootWait        time.Duration // reset to the next look, unless a Ready line comes first

	CNMI         []string // parameters to try in turn
	CSMS         int      // 0 or 1; 1 obliges to acknowledge each +CMT and +CDS
	StorageShape int      // parameters that AT+CPMS takes: 2 or 3
	Storages     []string // where messages may be kept, in order of preference
	StorageBase  int      // index of the first message: 0 or 1
	Reports      Route
	ReportStore  string // where reports are, whatever +CDSI says; "" believes it

	PINRetries string   // query of the tries left
	ICCID      []string // queries of the card's number, in turn
	Reset      string   // restarts the modem
	Extras     []string // further commands; a refusal does not matter
	Prefer2G   []string // two commands: stay on 2G, back to automatic; or none

	Boot   []string // beginnings of lines of a modem that starts or goes down
	Ready  []string // lines of the late stages of a start
	Ignore []string // beginnings of lines that mean nothing to us
}

// raw is the file's form. Pointers tell "absent" from "empty".
type raw struct {
	Name            string         `yaml:"name"`
	Manufacturer    string         `yaml:"manufacturer"`
	Model           string         `yaml:"model"`
	Defaults        *string        `yaml:"defaults"`
	DefaultsTimeout *time.Duration `yaml:"defaults_timeout"`
	CommandGap      *time.Duration `yaml:"command_gap"`
	CtrlZGap        *time.Duration `yaml:"ctrlz_gap"`
	SubmitTimeout   *time.Duration `yaml:"submit_timeout"`
	ListTimeout     *time.Duration `yaml:"list_timeout"`
	BusyWait        *time.Duration `yaml:"busy_wait"`
	BootWait        *time.Duration `yaml:"boot_wait"`
	CNMI            []string       `yaml:"cnmi"`
	CSMS            *int           `yaml:"csms"`
	StorageShape    *int           `yaml:"storage_shape"`
	Storages        []string       `yaml:"storages"`
	StorageBase     *int           `yaml:"storage_base"`
	ReportRoute     *Route         `yaml:"report_route"`
	ReportStorage   *string        `yaml:"report_storage"`
	PINRetries      *string        `yaml:"pin_retries"`
	ICCID           []string       `yaml:"iccid"`
	Reset           *string        `yaml:"reset"`
	Extras          []string       `yaml:"extras"`
	Prefer2G        []string       `yaml:"prefer_2g"`
	Boot            []string       `yaml:"boot"`  // added to generic's
	Ready           []string       `yaml:"ready"` // added to generic's
	Ignore          []string       `yaml:"ignore"`
}

type file struct {
	Profiles []raw `yaml:"profiles"`
}

// Set is the profiles in order of matching; generic is the last.
type Set struct{ list []Profile }

// maxFile bounds an operator's file, in octets.
const maxFile = 1 << 18

// Parse returns the built-in profiles changed by an operator's file (nil for none).
// name stands in errors, which are fault.Invalid.
func Parse(name string, extra []byte) (*Set, error) {
	own, err := read("built-in profiles", builtin)
	if err != nil {
		return nil, err
	}
	op := "modem profiles " + name
	if len(extra) > maxFile {
		return nil, fault.Newf(fault.Invalid, op, "over %d octets", maxFile)
	}
	more := []raw{}
	if len(bytes.TrimSpace(extra)) > 0 {
		if more, err = read(op, extra); err != nil {
			return nil, err
		}
	}
	var added []raw
	for _, m := range more {
		at := slices.IndexFunc(own, func(o raw) bool { return o.Name == m.Name })
		if at >= 0 {
			own[at] = m
		} else {
			added = append(added, m)
		}
	}
	all := append(added, own...)
	base := Profile{}
	s := &Set{}
	if all[len(all)-1].Name != "generic" {
		return nil, fault.Newf(fault.Invalid, op, "generic must be the last profile")
	}
	if base, err = build(op, all[len(all)-1], base); err != nil {
		return nil, err
	}
	if base.Defaults == "" || len(base.CNMI) == 0 || base.SubmitTimeout <= 0 || base.Reset == "" || base.PINRetries == "" || len(base.Storages) == 0 {
		return nil, fault.Newf(fault.Invalid, op, "generic must say everything")
	}
	for _, r := range all[:len(all)-1] {
		p, err := build(op, r, base)
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, p)
	}
	s.list = append(s.list, base)
	return s, nil
}

func read(op string, data []byte) ([]raw, error) {
	var f file
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	seen := map[string]bool{}
	for _, r := range f.Profiles {
		if r.Name == "" || seen[r.Name] {
			return nil, fault.Newf(fault.Invalid, op, "a profile without a name, or two named %q", r.Name)
		}
		seen[r.Name] = true
	}
	if len(f.Profiles) == 0 || len(f.Profiles) > 100 {
		return nil, fault.Newf(fault.Invalid, op, "1 to 100 profiles, got %d", len(f.Profiles))
	}
	return f.Profiles, nil
}

var (
	commandForm = regexp.MustCompile(`^AT[-+^#&A-Za-z0-9=?,"*]{0,80}$`)
	cnmiForm    = regexp.MustCompile(`^[0-3],[0-3],[0-3],[0-2],[01]$`)
	storageForm = regexp.MustCompile(`^[A-Z]{2}$`)
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

// build fills a profile from its raw form and the base.
func build(op string, r raw, base Profile) (Profile, error) {
	p := base
	p.Name = r.Name
	bad := func(what string) (Profile, error) {
		return Profile{}, fault.Newf(fault.Invalid, op, "profile %s: %s", r.Name, what)
	}
	var err1, err2 error
	p.Manufacturer, err1 = regexp.Compile(r.Manufacturer)
	p.Model, err2 = regexp.Compile(r.Model)
	if err1 != nil || err2 != nil || r.Manufacturer == "" || r.Model == "" || !nameForm.MatchString(r.Name) {
		return bad("name, manufacturer and model must be there and well formed")
	}
	set(&p.Defaults, r.Defaults)
	for _, d := range []struct {
		to   *time.Duration
		from *time.Duration
		most time.Duration
	}{
		{&p.DefaultsTimeout, r.DefaultsTimeout, time.Minute}, {&p.CommandGap, r.CommandGap, time.Second}, {&p.CtrlZGap, r.CtrlZGap, 2 * time.Second},
		{&p.SubmitTimeout, r.SubmitTimeout, 5 * time.Minute}, {&p.ListTimeout, r.ListTimeout, 5 * time.Minute},
		{&p.BusyWait, r.BusyWait, 10 * time.Minute}, {&p.BootWait, r.BootWait, 5 * time.Minute},
	} {
		set(d.to, d.from)
		if *d.to < 0 || *d.to > d.most {
			return bad("a time is out of range")
		}
	}
	set(&p.CSMS, r.CSMS)
	set(&p.StorageShape, r.StorageShape)
	set(&p.StorageBase, r.StorageBase)
	set(&p.Reports, r.ReportRoute)
	set(&p.ReportStore, r.ReportStorage)
	set(&p.PINRetries, r.PINRetries)
	set(&p.Reset, r.Reset)
	replace(&p.CNMI, r.CNMI)
	replace(&p.Storages, r.Storages)
	replace(&p.ICCID, r.ICCID)
	replace(&p.Extras, r.Extras)
	replace(&p.Prefer2G, r.Prefer2G)
	p.Boot = append(slices.Clone(base.Boot), r.Boot...)
	p.Ready = append(slices.Clone(base.Ready), r.Ready...)
	p.Ignore = append(slices.Clone(base.Ignore), r.Ignore...)
	if what := p.fault(); what != "" {
		return bad(what)
	}
	return p, nil
}

// fault names what is wrong with a profile, or "".
func (p *Profile) fault() string {
	commands := slices.Concat([]string{p.Defaults, p.PINRetries, p.Reset}, p.ICCID, p.Extras, p.Prefer2G)
	for _, c := range commands {
		if c != "" && (!commandForm.MatchString(c) || strings.HasPrefix(c, "ATD") || strings.HasPrefix(c, "ATA")) {
			return "a command is not of the form AT..., or makes a call"
		}
	}
	for _, c := range p.CNMI {
		if !cnmiForm.MatchString(c) {
			return "cnmi is mode,mt,bm,ds,bfr"
		}
	}
	for _, c := range p.Storages {
		if !storageForm.MatchString(c) {
			return "a storage is two letters"
		}
	}
	for _, line := range slices.Concat(p.Boot, p.Ready, p.Ignore) {
		if line == "" || len(line) > 40 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "a line is 1 to 40 printable characters"
		}
	}
	switch {
	case p.CSMS != 0 && p.CSMS != 1, p.StorageBase != 0 && p.StorageBase != 1, p.StorageShape != 2 && p.StorageShape != 3:
		return "csms and storage_base are 0 or 1, storage_shape 2 or 3"
	case p.Reports != Direct && p.Reports != Stored && p.Reports != None:
		return "report_route is direct, stored or none"
	case p.ReportStore != "" && !storageForm.MatchString(p.ReportStore):
		return "report_storage is two letters"
	case p.PINRetries == "":
		return "pin_retries is missing"
	case len(p.Prefer2G) != 0 && len(p.Prefer2G) != 2:
		return "prefer_2g is two commands"
	}
	return ""
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func replace(to *[]string, from []string) {
	if from != nil {
		*to = from
	}
}

// Match returns the profile of a modem that calls itself so.
func (s *Set) Match(manufacturer, model string) Profile {
	for _, p := range s.list {
		if p.Manufacturer.MatchString(manufacturer) && p.Model.MatchString(model) {
			return p
		}
	}
	return s.Generic()
}

// Generic returns the profile of a modem we know nothing of.
func (s *Set) Generic() Profile { return s.list[len(s.list)-1] }

// Names returns the names in order of matching.
func (s *Set) Names() []string {
	out := make([]string, len(s.list))
	for i, p := range s.list {
		out[i] = p.Name
	}
	return out
}
