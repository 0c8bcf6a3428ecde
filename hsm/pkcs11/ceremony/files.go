package ceremony

import (
	"crypto/rand"
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
	"custode/hsm/custody"
	"custode/internal/fault"
)

// outputs are the absolute paths of the files that a ceremony writes.
type outputs struct {
	dir          string
	report       string
	certificates map[string]string // by key label
	backup       string            // "" for none
	shares       []string          // in the order of the custodians
}

// prepareOutputs refuses early what would fail after the keys are made.
func prepareOutputs(o Options, p hsm.Plan) (outputs, error) {
	const op = "prepare output directory"
	if o.Shares == "" {
		o.Shares = o.Dir
	}
	for _, dir := range []*string{&o.Dir, &o.Shares} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return outputs{}, fault.New(fault.Invalid, op, err)
		}
		*dir = abs
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return outputs{}, fault.Newf(fault.Invalid, op, "%s is not a directory", abs)
		}
	}
	name := p.Name
	if o.Rehearse {
		name = "REHEARSAL-" + name
	}
	out := outputs{dir: o.Dir, report: filepath.Join(o.Dir, name+".report.txt"), certificates: map[string]string{}}
	files := []string{out.report}
	for _, k := range p.Keys {
		if k.Certificate != nil {
			file := filepath.Join(o.Dir, k.FileName()+".crt.pem")
			out.certificates[k.Label.String()] = file
			files = append(files, file)
		}
	}
	if p.Copies() {
		out.backup = filepath.Join(o.Dir, name+".backup")
		files = append(files, out.backup)
		for i, custodian := range p.Custodians {
			file := filepath.Join(o.Shares, fmt.Sprintf("%s.share-%d-%s.txt", name, i+1, custodian))
			out.shares = append(out.shares, file)
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
		if err := writeNew(k.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.CertificateDER}), 0o644); err != nil {
			return err
		}
	}
	if err := r.writeBackup(); err != nil {
		return err
	}
	r.rep.Text = r.rep.text()
	if err := writeNew(r.rep.File, []byte(r.rep.Text), 0o644); err != nil {
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

// writeBackup writes the backup and the shares of what opens it, and forgets that.
func (r *run) writeBackup() error {
	if r.secret == nil {
		return nil
	}
	defer r.secret.Clear()
	file, err := r.backup.Encode(r.secret)
	if err != nil {
		return err
	}
	if err := writeNew(r.out.backup, file, 0o600); err != nil {
		return err
	}
	r.rep.Backup, r.rep.BackupDigest = r.backup.ID, sha256.Sum256(file)
	shares, err := custody.Split(r.secret, r.backup.ID, r.plan.Custodians, r.plan.Threshold, rand.Reader)
	if err != nil {
		return err
	}
	for i := range shares {
		text := shares[i].Encode()
		clear(shares[i].Value[:])
		err := writeNew(r.out.shares[i], text, 0o600)
		clear(text)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeNew makes a file that did not exist, durably.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
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

func (p People) lines(line func(string, ...any)) {
	if p.Order == "" {
		line("NO DUAL CONTROL: no operator's approval was asked for")
	} else {
		line("order SHA-256   %s", p.Order)
	}
	for _, o := range p.Operators {
		line("approved by     %s", o)
	}
	for _, w := range p.Witnesses {
		line("witness         %s", w)
	}
}

const timeForm = "2006-01-02 15:04:05 UTC"

// text renders the report for people. Nothing in it is secret.
func (r Report) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("CUSTODE KEY CEREMONY REPORT")
	if r.Rehearsal {
		line("")
		line("REHEARSAL  REHEARSAL  REHEARSAL: these keys are for practice, and no appliance takes them")
	}
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
	r.People.lines(line)
	if r.Backup != "" {
		line("")
		line("BACKUP %s", r.Backup)
		line("  SHA-256       %x", r.BackupDigest)
		line("  opened by any %d of: %s", r.Plan.Threshold, strings.Join(r.Plan.Custodians, ", "))
	}
	for _, k := range r.Keys {
		k.lines(line, r.Time)
	}
	line("")
	line("%s", signatures)
	return b.String()
}

const signatures = "operator ______________________   operator ______________________   witness ______________________"

// lines describe one key; made is when the certificate of a new one begins.
func (k KeyReport) lines(line func(string, ...any), made time.Time) {
	line("")
	line("KEY %s", k.Label)
	if k.Copy {
		line("  COPIED        into the backup: other tokens may hold it too")
	}
	line("  role          %s, %d bits", k.Role, k.Bits)
	line("  CKA_ID        %s", hex.EncodeToString(k.ID))
	if k.Role == hsm.RoleSign {
		line("  SPKI SHA-256  %x", sha256.Sum256(k.SPKI))
		if k.File != "" {
			line("  certificate   %s", filepath.Base(k.File))
		}
		line("    SHA-256     %x", sha256.Sum256(k.CertificateDER))
		if c := k.Certificate; c != nil {
			line("    subject     CN=%s, uri=%s, organizationIdentifier=%s, O=%s, L=%s, C=%s", c.CommonName, c.URI, c.OrganizationID, c.Organization, c.Locality, c.Country)
			line("    valid       %s to %s, both included", made.Format(timeForm), made.Add(c.Validity-time.Second).Format(timeForm))
		}
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

// Text renders what was restored for people, as of at.
func (r Restored) Text(at time.Time, p People) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("CUSTODE KEY RESTORATION REPORT")
	switch {
	case r.Backup.Rehearsal:
		line("")
		line("REHEARSAL  REHEARSAL  REHEARSAL: these keys are for practice, and no appliance takes them")
	case hsm.ForRehearsal(r.Token.Label):
		line("")
		line("TEST OF A BACKUP: these are the APPLIANCE'S OWN KEYS in a token for rehearsals; wipe the token after the test")
	}
	line("")
	line("ended           %s", at.UTC().Format(timeForm))
	line("backup          %s, of ceremony %s on %s", r.Backup.ID, r.Backup.Ceremony, r.Backup.Made.Format(timeForm))
	line("plan SHA-256    %s", r.Backup.Plan)
	line("from token      %s serial %s", r.Backup.Token, r.Backup.Serial)
	line("into token      %s serial %s", r.Token.Label, r.Token.Serial)
	line("manufacturer    %s", r.Token.Manufacturer)
	line("model           %s, hardware %s, firmware %s", r.Token.Model, r.Token.Hardware, r.Token.Firmware)
	line("custodians      %s", strings.Join(r.Custodians, ", "))
	p.lines(line)
	for _, k := range r.Keys {
		k.lines(line, at)
	}
	line("")
	line("%s", signatures)
	return b.String()
}
