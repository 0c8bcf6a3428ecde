package ceremony

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"custode/hsm"
	"custode/internal/fault"
)

// outputs are the absolute paths of the files that a ceremony writes.
type outputs struct {
	dir          string
	report       string
	certificates map[string]string // by key label
}

// prepareOutputs refuses early what would fail after the keys are made.
func prepareOutputs(dir string, p hsm.Plan) (outputs, error) {
	const op = "prepare output directory"
	dir, err := filepath.Abs(dir)
	if err != nil {
		return outputs{}, fault.New(fault.Invalid, op, err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return outputs{}, fault.Newf(fault.Invalid, op, "%s is not a directory", dir)
	}
	out := outputs{dir: dir, report: filepath.Join(dir, p.Name+".report.txt"), certificates: map[string]string{}}
	files := []string{out.report}
	for _, k := range p.Keys {
		if k.Certificate != nil {
			file := filepath.Join(dir, k.FileName()+".crt.pem")
			out.certificates[k.Label.String()] = file
			files = append(files, file)
		}
	}
	for _, f := range files {
		if _, err := os.Lstat(f); !errors.Is(err, os.ErrNotExist) {
			return outputs{}, fault.Newf(fault.Conflict, op, "%s exists already, or cannot be looked at", f)
		}
	}
	return out, nil
}

// write is stage 5. The report comes last: where there is one, all is there.
func (r *run) write() error {
	for i := range r.rep.Keys {
		k := &r.rep.Keys[i]
		if k.Role != hsm.RoleSign {
			continue
		}
		if err := writeNew(k.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.CertificateDER})); err != nil {
			return err
		}
	}
	if err := writeNew(r.rep.File, []byte(r.rep.Text)); err != nil {
		return err
	}
	d, err := os.Open(r.out.dir)
	if err != nil {
		return fault.New(fault.Fatal, "make the files durable", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fault.New(fault.Fatal, "make the files durable", err)
	}
	return nil
}

// writeNew makes a file that did not exist, durably.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fault.New(fault.Conflict, "write "+path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fault.New(fault.Fatal, "write "+path, err)
	}
	return nil
}

const timeForm = "2006-01-02 15:04:05 UTC"

// text renders the report for people. Nothing in it is secret.
func (r Report) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("CUSTODE KEY CEREMONY REPORT")
	line("")
	line("ceremony        %s", r.Plan.Name)
	line("begun           %s", r.Time.Format(timeForm))
	line("plan SHA-256    %x", r.PlanDigest)
	line("")
	line("token label     %s", r.Token.Label)
	line("token serial    %s", r.Token.Serial)
	for _, lack := range r.Plan.Tolerate.Strings() {
		line("TOLERATED       the token may lack: %s", lack)
	}
	line("manufacturer    %s", r.Token.Manufacturer)
	line("model           %s, hardware %s, firmware %s", r.Token.Model, r.Token.Hardware, r.Token.Firmware)
	for _, k := range r.Keys {
		line("")
		line("KEY %s", k.Label)
		line("  role          %s, %d bits", k.Role, k.Bits)
		line("  CKA_ID        %s", hex.EncodeToString(k.ID))
		if k.Role == hsm.RoleSign {
			line("  SPKI SHA-256  %x", sha256.Sum256(k.SPKI))
			line("  certificate   %s", filepath.Base(k.File))
			line("    SHA-256     %x", sha256.Sum256(k.CertificateDER))
			c := k.Certificate
			line("    subject     CN=%s, uri=%s, organizationIdentifier=%s, O=%s, L=%s, C=%s", c.CommonName, c.URI, c.OrganizationID, c.Organization, c.Locality, c.Country)
			line("    valid       %s to %s, both included", r.Time.Format(timeForm), r.Time.Add(c.Validity-time.Second).Format(timeForm))
		}
		line("  attributes, as the token reports them")
		for _, a := range k.Attributes {
			line("    %s", a)
		}
		line("  checks passed")
		for _, c := range k.Checks {
			line("    %s", c)
		}
	}
	line("")
	line("operator ______________________   operator ______________________   witness ______________________")
	return b.String()
}
