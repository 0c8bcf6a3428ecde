package ceremony

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
)

// Report says what a ceremony made. Text is the report as it was written for
// people.
type Report struct {
	Plan       hsm.Plan
	PlanDigest [sha256.Size]byte // of the plan's bytes as given
	Time       time.Time         // when the ceremony began, UTC
	Token      pkcs11.Info
	Keys       []KeyReport
	File       string // absolute path of the report
	Text       string
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

// run is a ceremony in progress.
type run struct {
	uri  string
	loc  pkcs11.Location
	plan hsm.Plan
	out  outputs
	now  time.Time
	rep  Report
	made []string // labels in the token since stage 2
}

// Run executes the ceremony of plan, the bytes of a plan file, on the token at
// uri (RFC 7512, see pkcs11.ParseLocation), and writes its files into dir, which
// must exist. now dates the certificates and the report. Errors are *fault.Error:
// Invalid for the plan or the URI, Conflict for a label or a file that exists
// already, Fatal for a token that does not comply.
func Run(ctx context.Context, plan []byte, uri, dir string, now func() time.Time) (Report, error) {
	p, err := hsm.ParsePlan(plan)
	if err != nil {
		return Report{}, err
	}
	loc, err := pkcs11.ParseLocation(uri)
	if err != nil {
		return Report{}, err
	}
	if (loc.Label != "" && loc.Label != p.TokenLabel) || (loc.Serial != "" && p.TokenSerial != "" && loc.Serial != p.TokenSerial) {
		return Report{}, fault.Newf(fault.Invalid, "begin ceremony "+p.Name, "the URI selects token %q serial %q, the plan wants %q serial %q",
			loc.Label, loc.Serial, p.TokenLabel, p.TokenSerial)
	}
	out, err := prepareOutputs(dir, p)
	if err != nil {
		return Report{}, err
	}
	r := &run{uri: uri, loc: loc, plan: p, out: out, now: now().UTC().Truncate(time.Second)}
	r.rep = Report{Plan: p, PlanDigest: sha256.Sum256(plan), Time: r.now, File: out.report}
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
	if err := r.prove(ctx); err != nil {
		return err
	}
	r.rep.Text = r.rep.text()
	return r.write()
}

// inspect is stage 1.
func (r *run) inspect(ctx context.Context) (err error) {
	t, err := pkcs11.Open(ctx, pkcs11.Config{URI: r.uri, Tolerate: r.plan.Tolerate, MaxSessions: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := t.Close(); err == nil {
			err = cerr
		}
	}()
	r.rep.Token = t.Info()
	if r.plan.TokenLabel != r.rep.Token.Label || (r.plan.TokenSerial != "" && r.plan.TokenSerial != r.rep.Token.Serial) {
		return fault.Newf(fault.Invalid, "inspect token", "it is %q serial %q, the plan wants %q serial %q",
			r.rep.Token.Label, r.rep.Token.Serial, r.plan.TokenLabel, r.plan.TokenSerial)
	}
	for _, k := range r.plan.Keys {
		there, err := t.Holds(ctx, k.Label)
		if err != nil {
			return err
		}
		if there {
			return fault.Newf(fault.Conflict, "inspect token", "it holds %s already; nothing was made", k.Label)
		}
	}
	return nil
}

// prove is stage 4: what the daemon will do at its start must work now.
func (r *run) prove(ctx context.Context) (err error) {
	t, err := pkcs11.Open(ctx, pkcs11.Config{URI: r.uri, Tolerate: r.plan.Tolerate, MaxSessions: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := t.Close(); err == nil {
			err = cerr
		}
	}()
	if t.Info().Serial != r.rep.Token.Serial {
		return fault.Newf(fault.Fatal, "prove the keys", "the token changed during the ceremony")
	}
	for i := range r.rep.Keys {
		k := &r.rep.Keys[i]
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
	}
	return nil
}

func (k *KeyReport) passed(what string) { k.Checks = append(k.Checks, what) }
