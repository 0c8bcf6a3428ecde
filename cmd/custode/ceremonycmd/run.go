package ceremonycmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"custode/hsm/pkcs11/ceremony"
	"custode/internal/fault"
)

func now() time.Time { return time.Now() }

// patience bounds one work on the token. Making keys takes minutes in a slow one.
const patience = 10 * time.Minute

func inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

type runCmd struct {
	Plan string `arg:"" type:"existingfile" help:"The reviewed plan (YAML)."`
	Out  string `type:"path" help:"Folder for the certificate and the report, made if missing; default: the plan's folder."`
	URI  string `help:"PKCS#11 URI of the token; default: hsm.uri of the machine file."`
}

// Run holds a ceremony: one reviewed file in; keys, certificate and report out.
func (r *runCmd) Run(c Host) error {
	a, err := tokenFlags{URI: r.URI}.access(c)
	if err != nil {
		return err
	}
	plan, err := readFile(r.Plan)
	if err != nil {
		return err
	}
	if r.Out == "" {
		r.Out = filepath.Dir(r.Plan)
	}
	if err := os.MkdirAll(r.Out, 0o700); err != nil {
		return fault.New(fault.Unavailable, "make output folder", err)
	}
	ctx, cancel := inTime()
	defer cancel()
	report, err := ceremony.Run(ctx, plan, a.URI, r.Out, now)
	if err != nil {
		return err
	}
	fmt.Print(report.Text)
	return nil
}
