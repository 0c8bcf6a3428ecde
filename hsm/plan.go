package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"custode/internal/fault"
	"custode/internal/id"
)

// Limits of a plan.
const (
	maxPlan    = 64 << 10 // octets
	maxKeys    = 32
	maxDays    = 3660
	maxSubject = 64 // characters in CN and O (RFC 5280, appendix A.1, ub-common-name)
)

// Plan is a reviewed key ceremony: which keys to make in which token. It holds
// decisions only; where the module and the PIN are is said apart from it, so
// that what was reviewed on one machine is what runs on another. Only ParsePlan
// makes a Plan that a ceremony accepts.
type Plan struct {
	Name        string // 2 to 64 of a-z 0-9 . -; names the report file
	TokenLabel  string // the token must carry it, exactly
	TokenSerial string // the token must carry it, unless empty
	Tolerate    Lacks  // what the token may lack of the key policy
	Keys        []PlannedKey
}

// PlannedKey is one key of a plan.
type PlannedKey struct {
	Label       id.KeyLabel
	Role        Role
	Bits        int
	Certificate *PlannedCertificate // non-nil exactly for RoleSign
}

// PlannedCertificate is the self-signed certificate of a sign key.
type PlannedCertificate struct {
	CommonName     string
	Organization   string
	OrganizationID string      // organizationIdentifier, 2.5.4.97
	URI            id.EntityID // uri, 2.5.4.83: the entityID of the identity provider
	Country        string      // two capital letters
	Locality       string
	Validity       time.Duration // whole days
	NonRepudiation bool          // adds nonRepudiation to digitalSignature
}

// The file as it is written. Every name here is a key of the file.
type planFile struct {
	Ceremony string    `yaml:"ceremony"`
	Token    tokenFile `yaml:"token"`
	Keys     []keyFile `yaml:"keys"`
}

type tokenFile struct {
	Label  string `yaml:"label"`
	Serial string `yaml:"serial"`
	// What it may lack of the policy, by the names of Lacks.
	Tolerate []string `yaml:"tolerate"`
}

type keyFile struct {
	Label       string    `yaml:"label"`
	Role        string    `yaml:"role"`
	Bits        int       `yaml:"bits"`
	Certificate *certFile `yaml:"certificate"`
}

type certFile struct {
	Subject        subjectFile `yaml:"subject"`
	ValidityDays   int         `yaml:"validity-days"`
	NonRepudiation bool        `yaml:"non-repudiation"`
}

type subjectFile struct {
	CommonName     string `yaml:"common-name"`
	Organization   string `yaml:"organization"`
	OrganizationID string `yaml:"organization-identifier"`
	URI            string `yaml:"uri"`
	Country        string `yaml:"country"`
	Locality       string `yaml:"locality"`
}

// ParsePlan reads a ceremony plan: one YAML document of at most 64 KiB. An
// unknown or repeated key, a second document, a missing value and a
// contradiction are fault.Invalid; the error names the file's own keys, and the
// line and column where the decoder knows them.
func ParsePlan(text []byte) (Plan, error) {
	const op = "read ceremony plan"
	if len(text) > maxPlan {
		return Plan{}, fault.Newf(fault.Invalid, op, "longer than %d octets", maxPlan)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	var f planFile
	if err := dec.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return Plan{}, fault.Newf(fault.Invalid, op, "the file is empty")
		}
		return Plan{}, fault.Newf(fault.Invalid, op, "%s", yaml.FormatError(err, false, true))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Plan{}, fault.Newf(fault.Invalid, op, "more than one document")
	}
	p, problems := f.plan()
	if len(problems) > 0 {
		return Plan{}, fault.New(fault.Invalid, op, errors.Join(problems...))
	}
	return p, nil
}

// Validate repeats ParsePlan's judgement on a Plan, so that a ceremony can
// refuse one that was put together by hand. It returns fault.Invalid.
func (p Plan) Validate() error {
	if _, problems := p.file().plan(); len(problems) > 0 {
		return fault.New(fault.Invalid, "check ceremony plan", errors.Join(problems...))
	}
	return nil
}

func (p Plan) file() planFile {
	f := planFile{Ceremony: p.Name, Token: tokenFile{p.TokenLabel, p.TokenSerial, p.Tolerate.Strings()}}
	for _, k := range p.Keys {
		kf := keyFile{Label: k.Label.String(), Role: k.Role.String(), Bits: k.Bits}
		if c := k.Certificate; c != nil {
			days := 0 // a part of a day is a contradiction, as 0 days are
			if c.Validity%day == 0 {
				days = int(c.Validity / day)
			}
			kf.Certificate = &certFile{
				Subject:      subjectFile{c.CommonName, c.Organization, c.OrganizationID, c.URI.String(), c.Country, c.Locality},
				ValidityDays: days, NonRepudiation: c.NonRepudiation,
			}
		}
		f.Keys = append(f.Keys, kf)
	}
	return f
}

const day = 24 * time.Hour

var (
	planNameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]$`)
	serialForm   = regexp.MustCompile(`^[A-Za-z0-9.:_-]{1,16}$`)
	countryForm  = regexp.MustCompile(`^[A-Z]{2}$`)
	// The schemes of ETSI EN 319 412-1 section 5.1.4, with the national form
	// of two letters and a colon that SPID uses ("PA:IT-", "CF:IT-").
	orgIDForm = regexp.MustCompile(`^(?:[A-Z]{3}|[A-Z]{2}:)([A-Z]{2})-[A-Za-z0-9._/-]{1,64}$`)
	vatITForm = regexp.MustCompile(`^VATIT-([0-9]{11})$`)
)

func (f planFile) plan() (Plan, []error) {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	p := Plan{Name: f.Ceremony, TokenLabel: f.Token.Label, TokenSerial: f.Token.Serial}
	if !planNameForm.MatchString(p.Name) {
		bad("ceremony: must be 2 to 64 of a-z 0-9 . -")
	}
	if err := plainText(p.TokenLabel, 32); err != nil {
		bad("token.label: %w", err)
	}
	if p.TokenSerial != "" && !serialForm.MatchString(p.TokenSerial) {
		bad("token.serial: must be up to 16 letters and digits")
	}
	var lerr error
	if p.Tolerate, lerr = ParseLacks(f.Token.Tolerate); lerr != nil {
		bad("token.tolerate: %w", lerr)
	}
	if len(f.Keys) == 0 || len(f.Keys) > maxKeys {
		bad("keys: must list 1 to %d keys, lists %d", maxKeys, len(f.Keys))
		return p, problems
	}
	seen := map[string]int{}
	for i, kf := range f.Keys {
		k, ps := kf.key(fmt.Sprintf("keys[%d]", i))
		problems = append(problems, ps...)
		// Two labels that give one file name would overwrite one another.
		if j, dup := seen[k.FileName()]; dup && !k.Label.IsZero() {
			bad("keys[%d].label: is that of keys[%d], or gives the same file name", i, j)
		}
		seen[k.FileName()] = i
		p.Keys = append(p.Keys, k)
	}
	return p, problems
}

// FileName is the label with "/" written as "_": the stem of the files that
// belong to the key.
func (k PlannedKey) FileName() string { return strings.ReplaceAll(k.Label.String(), "/", "_") }

func (f keyFile) key(at string) (PlannedKey, []error) {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(at+format, args...)) }
	k := PlannedKey{Bits: f.Bits}
	var err error
	if k.Label, err = id.ParseKeyLabel(f.Label); err != nil {
		bad(".label: must be 2 to 64 of a-z 0-9 . _ / -")
	}
	if k.Role, err = ParseRole(f.Role); err != nil {
		bad(".role: must be sign, mac, wrap or seed")
		return k, problems
	}
	if !k.Role.Bits(f.Bits) {
		bad(".bits: %d is not a size of a %s key (sign: 2048, 3072, 4096; mac, wrap and seed: 256)", f.Bits, k.Role)
	}
	switch {
	case k.Role == RoleSign && f.Certificate == nil:
		bad(".certificate: is missing, and role sign needs one")
	case k.Role != RoleSign && f.Certificate != nil:
		bad(".certificate: contradicts role %s", k.Role)
	case f.Certificate != nil:
		c, ps := f.Certificate.certificate(at + ".certificate")
		k.Certificate = &c
		problems = append(problems, ps...)
	}
	return k, problems
}

func (f certFile) certificate(at string) (PlannedCertificate, []error) {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(at+format, args...)) }
	s := f.Subject
	c := PlannedCertificate{
		CommonName: s.CommonName, Organization: s.Organization, OrganizationID: s.OrganizationID,
		Country: s.Country, Locality: s.Locality,
		Validity: time.Duration(f.ValidityDays) * day, NonRepudiation: f.NonRepudiation,
	}
	for _, field := range []struct {
		name, value string
		max         int
	}{{"common-name", c.CommonName, maxSubject}, {"organization", c.Organization, maxSubject}, {"locality", c.Locality, 128}} {
		if err := plainText(field.value, field.max); err != nil {
			bad(".subject.%s: %w", field.name, err)
		}
	}
	if !countryForm.MatchString(c.Country) {
		bad(".subject.country: must be two capital letters")
	}
	if m := orgIDForm.FindStringSubmatch(c.OrganizationID); m == nil {
		bad(".subject.organization-identifier: must be like VATIT-12345678903, PA:IT-x_y or CF:IT-x")
	} else if m[1] != c.Country {
		bad(".subject.organization-identifier: names country %s and contradicts country %q", m[1], c.Country)
	} else if strings.HasPrefix(c.OrganizationID, "VATIT-") && !validVATIT(c.OrganizationID) {
		bad(".subject.organization-identifier: VATIT- needs 11 digits, the last of which checks the others")
	}
	var err error
	if c.URI, err = id.ParseEntityID(s.URI); err != nil {
		bad(".subject.uri: must be the entityID, an absolute URI")
	}
	if f.ValidityDays < 1 || f.ValidityDays > maxDays {
		bad(".validity-days: must be 1 to %d", maxDays)
	}
	return c, problems
}

// plainText wants something printable that survives a certificate and a report
// unchanged.
func plainText(s string, limit int) error {
	switch {
	case s == "":
		return errors.New("is missing")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("holds characters that cannot be printed")
	case s != strings.TrimSpace(s):
		return errors.New("begins or ends with a blank")
	case utf8.RuneCountInString(s) > limit:
		return fmt.Errorf("is longer than %d characters", limit)
	}
	return nil
}

// validVATIT checks the last digit of an Italian VAT number (Luhn's sum).
func validVATIT(s string) bool {
	m := vatITForm.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	sum := 0
	for i, c := range []byte(m[1]) {
		d := int(c - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
