package ceremonycmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"custode/hsm"
	"custode/hsm/order"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/certlog/cades"
	"custode/internal/fault"
	"custode/internal/id"
)

func now() time.Time { return time.Now() }

// patience bounds one work on the token. Making keys takes minutes in a slow one.
const patience = 10 * time.Minute

func inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

type runCmd struct {
	Plan     string      `arg:"" type:"existingfile" help:"The reviewed plan (YAML)."`
	Out      string      `type:"path" help:"Folder for certificates, backup and report, made if missing; default: the plan's folder."`
	Shares   string      `type:"existingdir" help:"Folder for the custodians' shares; default: as --out."`
	URI      string      `help:"PKCS#11 URI of the token; default: hsm.uri of the machine file."`
	Witness  []string    `help:"A witness, for the report; may be given again."`
	Rehearse bool        `help:"Run the plan on a token whose label begins with rehearsal, whatever token it names."`
	Seal     id.KeyLabel `help:"Signing key in the token that signs the report; default: keys.seal of the policy file when the token holds it."`
	orderFlags
}

// Run holds a ceremony: one reviewed file in; keys, certificates and report out.
func (r *runCmd) Run(c Host) error {
	if err := c.WithoutCoreDumps(); err != nil {
		return err
	}
	a, err := tokenFlags{URI: r.URI}.access(c)
	if err != nil {
		return err
	}
	text, err := readFile(r.Plan)
	if err != nil {
		return err
	}
	plan, err := hsm.ParsePlan(text)
	if err != nil {
		return err
	}
	var ok approved
	if !r.Rehearse {
		want := order.Order{Operation: order.Run, Token: plan.TokenLabel, Plan: order.Digest(text)}
		if ok, err = r.check(c, want, plan.Approvals); err != nil {
			return err
		}
	}
	if r.Out == "" {
		r.Out = filepath.Dir(r.Plan)
	}
	if err := os.MkdirAll(r.Out, 0o700); err != nil {
		return fault.New(fault.Unavailable, "make output folder", err)
	}
	ctx, cancel := inTime()
	defer cancel()
	what := "run"
	if r.Rehearse {
		what = "rehearsal"
	}
	detail := fmt.Sprintf("%s, plan %s, token %s", plan.Name, order.Digest(text), plan.TokenLabel)
	if err := begin(ctx, c, what, ok, detail); err != nil {
		return err
	}
	people := ceremony.People{Operators: ok.by, Witnesses: r.Witness}
	if ok.by != nil {
		people.Order = ok.order.Digest()
	}
	report, err := ceremony.Hold(ctx, ceremony.Options{Plan: text, URI: a.URI, Dir: r.Out, Shares: r.Shares, Rehearse: r.Rehearse, People: people, Now: now})
	if err == nil {
		for _, k := range report.Keys {
			if err := tell(ctx, c, what+"-key", fmt.Sprintf("%s: %s %s, CKA_ID %x, copied %t", report.Token.Serial, k.Role, k.Label, k.ID, k.Copy)); err != nil {
				return err
			}
		}
		a.Tolerate, a.Copied = plan.Tolerate, append(a.Copied, report.Copied()...)
		if err = r.sign(ctx, c, a, report); err != nil {
			err = fmt.Errorf("the keys are made and %s is written, but the report is not signed: %w", report.File, err)
		}
	}
	if err := end(ctx, c, what, err, detail); err != nil {
		return err
	}
	fmt.Print(report.Text)
	return nil
}

// sign writes the report as PDF and, when the token has a seal, signs both forms.
func (r *runCmd) sign(ctx context.Context, c Host, a ceremony.Access, report ceremony.Report) error {
	seal := r.Seal
	if seal.IsZero() {
		if policy, err := c.PolicyFile(); err == nil {
			seal = policy.Keys.Seal
		}
	}
	return publish(ctx, a, seal, report.File, report.Text, report.Time, r.Seal.IsZero())
}

// publish writes the PDF beside the text and the signatures beside both. A seal
// that the token does not hold is no error if it was only presumed: then operators
// sign, with ceremony sign.
func publish(ctx context.Context, a ceremony.Access, seal id.KeyLabel, file, text string, at time.Time, presumed bool) error {
	page, err := renderPDF(text, at)
	if err != nil {
		return fault.New(fault.Internal, "render the report", err)
	}
	paper := strings.TrimSuffix(file, ".txt") + ".pdf"
	if err := writeNew(paper, page, 0o644); err != nil {
		return err
	}
	if seal.IsZero() {
		return nil
	}
	t, err := pkcs11.Open(ctx, pkcs11.Config{URI: a.URI, Tolerate: a.Tolerate, Copied: a.Copied, MaxSessions: 1})
	if err != nil {
		return err
	}
	err = signBy(ctx, t, seal, presumed, map[string][]byte{file: []byte(text), paper: page})
	if cerr := t.Close(); err == nil {
		err = cerr
	}
	return err
}

func signBy(ctx context.Context, t *pkcs11.Token, seal id.KeyLabel, presumed bool, files map[string][]byte) error {
	there, err := t.Holds(ctx, seal)
	if err != nil {
		return err
	}
	if !there && presumed {
		fmt.Fprintf(os.Stderr, "custode: the token has no seal %s: have the operators sign the report (ceremony sign)\n", seal)
		return nil
	}
	signer, err := t.Signer(seal)
	if err != nil {
		return err
	}
	cert, err := t.Certificate(seal)
	if err != nil {
		return err
	}
	for path, content := range files {
		sealed, err := cades.Sign(content, signer, cert)
		if err != nil {
			return err
		}
		if _, err := cades.Open(sealed, cert); err != nil {
			return err
		}
		if err := writeNew(path+".p7m", sealed, 0o644); err != nil {
			return err
		}
	}
	return nil
}
