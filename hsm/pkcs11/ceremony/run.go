package ceremony

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/custody"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/internal/id"
)

// Report says what a ceremony made. Text is the report as it was written for
// people.
type Report struct {
	Plan       hsm.Plan
	PlanDigest [sha256.Size]byte // of the plan's bytes as given
	Time       time.Time         // when the ceremony began, UTC
	Token      pkcs11.Info
	Keys       []KeyReport
	Rehearsal  bool
	Backup     string // identifier of the backup, "" for none
	// BackupDigest is of the backup file.
	BackupDigest [sha256.Size]byte
	File         string // absolute path of the report
	Text         string
	People       People
}

// People are those who took part, for the report.
type People struct {
	Operators []string // who approved, as the approvals name them
	Witnesses []string
	Order     string // SHA-256 of the order that they approved, "" for none
}

// KeyReport is one key of a Report.
type KeyReport struct {
	hsm.PlannedKey
	ID             []byte   // CKA_ID
	SPKI           []byte   // DER SubjectPublicKeyInfo of a sign key
	Attributes     []string // "CKA_SENSITIVE=true", as read back from the token
	Checks         []string // what was tried and passed
	CertificateDER []byte   // of a sign key
	File           string   // absolute path of the certificate
}

// Copied returns the keys that went into the backup.
func (r Report) Copied() (out []id.KeyLabel) {
	for _, k := range r.Keys {
		if k.Copy {
			out = append(out, k.Label)
		}
	}
	return out
}

// run is a ceremony in progress.
type run struct {
	loc      pkcs11.Location
	access   Access
	plan     hsm.Plan
	rehearse bool
	out      outputs
	now      time.Time
	rep      Report
	made     []string // labels in the token since stage 2
	// Of the keys that are copied; nil and empty without.
	secret *custody.Secret
	backup custody.Backup
}

// Options are what a ceremony needs.
type Options struct {
	Plan     []byte // of the plan file
	URI      string // of the token (RFC 7512, see pkcs11.ParseLocation)
	Dir      string // for its files; must exist
	Shares   string // folder for the custodians' shares; "" is Dir
	Rehearse bool   // on a token whose label begins with hsm.RehearsalPrefix, whatever the plan names
	People   People
	Now      func() time.Time // dates the certificates and the report
}

// Run is Hold without rehearsal and people.
func Run(ctx context.Context, plan []byte, uri, dir string, now func() time.Time) (Report, error) {
	return Hold(ctx, Options{Plan: plan, URI: uri, Dir: dir, Now: now})
}

// Hold executes the ceremony of a plan. Errors are *fault.Error: Invalid for the plan
// or the URI, Conflict for a label or a file that exists already, Denied for a
// rehearsal's token without a rehearsal, Fatal for a token that does not comply.
func Hold(ctx context.Context, o Options) (Report, error) {
	p, err := hsm.ParsePlan(o.Plan)
	if err != nil {
		return Report{}, err
	}
	loc, err := pkcs11.ParseLocation(o.URI)
	if err != nil {
		return Report{}, err
	}
	if !o.Rehearse && ((loc.Label != "" && loc.Label != p.TokenLabel) || (loc.Serial != "" && p.TokenSerial != "" && loc.Serial != p.TokenSerial)) {
		return Report{}, fault.Newf(fault.Invalid, "begin ceremony "+p.Name, "the URI selects token %q serial %q, the plan wants %q serial %q",
			loc.Label, loc.Serial, p.TokenLabel, p.TokenSerial)
	}
	out, err := prepareOutputs(o, p)
	if err != nil {
		return Report{}, err
	}
	r := &run{access: Access{URI: o.URI, Tolerate: p.Tolerate}, loc: loc, plan: p, out: out, rehearse: o.Rehearse, now: o.Now().UTC().Truncate(time.Second)}
	for _, k := range p.Keys {
		if k.Copy {
			r.access.Copied = append(r.access.Copied, k.Label)
		}
	}
	r.rep = Report{Plan: p, PlanDigest: sha256.Sum256(o.Plan), Time: r.now, File: out.report, Rehearsal: o.Rehearse, People: o.People}
	defer func() {
		if r.secret != nil {
			r.secret.Clear()
		}
	}()
	if err := r.execute(ctx); err != nil {
		if len(r.made) > 0 {
			err = fmt.Errorf("%w; made before the failure, and still in the token: %s", err, strings.Join(r.made, ", "))
		}
		return Report{}, fault.New(fault.KindOf(err), "ceremony "+p.Name, err)
	}
	return r.rep, nil
}

func (r *run) execute(ctx context.Context) error {
	if err := r.inspect(ctx); err != nil {
		return err
	}
	// crypto11 unloads the module at its end, which has crashed processes. One
	// reference more keeps it loaded until the process ends.
	if p11.New(r.loc.Module) == nil {
		return fault.Newf(fault.Fatal, "load module", "%s cannot be loaded", r.loc.Module)
	}
	if err := r.generate(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.New(fault.Unavailable, "after making the keys", err)
	}
	if err := r.writeIDs(); err != nil {
		return err
	}
	if err := r.copies(); err != nil {
		return err
	}
	if err := r.prove(ctx); err != nil {
		return err
	}
	return r.write()
}

// inspect is stage 1.
func (r *run) inspect(ctx context.Context) error {
	return r.access.look(ctx, func(t *pkcs11.Token) error {
		r.rep.Token = t.Info()
		if err := rehearsal(r.rep.Token.Label, r.rehearse); err != nil {
			return err
		}
		if !r.rehearse && (r.plan.TokenLabel != r.rep.Token.Label || (r.plan.TokenSerial != "" && r.plan.TokenSerial != r.rep.Token.Serial)) {
			return fault.Newf(fault.Invalid, "inspect token", "it is %q serial %q, the plan wants %q serial %q",
				r.rep.Token.Label, r.rep.Token.Serial, r.plan.TokenLabel, r.plan.TokenSerial)
		}
		var labels []id.KeyLabel
		for _, k := range r.plan.Keys {
			labels = append(labels, k.Label)
		}
		return absent(ctx, t, labels)
	})
}

// prove is stage 4: what the daemon will do at its start must work now.
func (r *run) prove(ctx context.Context) error {
	return r.access.look(ctx, func(t *pkcs11.Token) error {
		if t.Info().Serial != r.rep.Token.Serial {
			return fault.Newf(fault.Fatal, "prove the keys", "the token changed during the ceremony")
		}
		for i := range r.rep.Keys {
			if err := r.rep.Keys[i].prove(t); err != nil {
				return err
			}
		}
		for i := range r.backup.Keys {
			if err := check(ctx, t, &r.backup.Keys[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (k *KeyReport) prove(t *pkcs11.Token) error {
	switch k.Role {
	case hsm.RoleSign:
		cert, err := t.Certificate(k.Label)
		if err != nil {
			return err
		}
		if string(cert.Raw) != string(k.CertificateDER) {
			return fault.Newf(fault.Fatal, "prove key "+k.Label.String(), "the token returns another certificate than was stored")
		}
		k.passed("opened as the daemon opens it: policy, CKA_ID from the public key, test signature, certificate for the key")
	case hsm.RoleMAC:
		if _, err := t.MAC(k.Label); err != nil {
			return err
		}
		k.passed("opened as the daemon opens it: policy, value unreadable, known answer repeated")
	case hsm.RoleWrap:
		if _, err := t.Wrapper(k.Label); err != nil {
			return err
		}
		k.passed("opened as the daemon opens it: policy, value unreadable, wrapped and unwrapped, damaged blob refused")
	case hsm.RoleSeed:
		if err := t.OpenSeed(k.Label); err != nil {
			return err
		}
		k.passed("opened as the daemon opens it: policy, value unreadable, a secret wrapped, unwrapped unreadable and used for SHA-1, SHA-256 and SHA-512, not unwrapped as readable, damaged one refused")
	}
	return nil
}

func (k *KeyReport) passed(what string) { k.Checks = append(k.Checks, what) }
