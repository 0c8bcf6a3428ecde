package ceremonycmd

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"custode/hsm/order"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
)

type orderCmd struct {
	Operation string        `arg:"" enum:"run,import,restore,destroy,pin,rollover-approve,reseed" help:"What is to be done: run, import, restore, destroy, pin, rollover-approve or reseed."`
	Token     string        `required:"" help:"Label of the token."`
	Plan      string        `type:"existingfile" help:"With run: the reviewed plan."`
	Backup    string        `type:"existingfile" help:"With restore: the backup file."`
	Key       []id.KeyLabel `help:"With import, destroy and rollover-approve: the key; may be given again for destroy."`
	Reason    string        `required:"" help:"Why."`
	Valid     time.Duration `default:"24h" help:"How long it may be carried out."`
	Out       string        `required:"" type:"path" help:"File to write."`
}

// Run writes the order for the operators to approve.
func (r *orderCmd) Run() error {
	o := order.Order{Operation: order.Operation(r.Operation), Token: r.Token, Keys: r.Key, Reason: r.Reason, Expires: now().Add(r.Valid)}
	for path, digest := range map[string]*string{r.Plan: &o.Plan, r.Backup: &o.Backup} {
		if path == "" {
			continue
		}
		file, err := readFile(path)
		if err != nil {
			return err
		}
		*digest = order.Digest(file)
	}
	o, err := order.New(o, now(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeNew(r.Out, o.Text(), 0o644); err != nil {
		return err
	}
	fmt.Printf("%s\nSHA-256 %s\n", o.Text(), o.Digest())
	return nil
}

type approveCmd struct {
	Order string `arg:"" type:"existingfile" help:"The order."`
	Name  string `required:"" help:"The operator's name in the machine file."`
	Key   string `required:"" type:"existingfile" help:"The operator's private key (PEM, PKCS #8, Ed25519 or RSA); only its owner may read the file."`
	Out   string `type:"path" help:"File to write; default: the order's name with .NAME.approval."`
}

// Run shows the order and signs it.
func (r *approveCmd) Run() error {
	text, err := readFile(r.Order)
	if err != nil {
		return err
	}
	o, err := order.Parse(text)
	if err != nil {
		return err
	}
	key, err := privateKey(r.Key)
	if err != nil {
		return err
	}
	file, err := order.Approve(o, r.Name, key, rand.Reader)
	if err != nil {
		return err
	}
	if r.Out == "" {
		r.Out = r.Order + "." + r.Name + ".approval"
	}
	if err := writeNew(r.Out, file, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s\nSHA-256 %s\napproved by %s: %s\n", text, o.Digest(), r.Name, r.Out)
	return nil
}

type signCmd struct {
	File string `arg:"" type:"existingfile" help:"The report."`
	Name string `required:"" help:"The operator's name in the machine file."`
	Key  string `required:"" type:"existingfile" help:"The operator's private key, as for approve."`
}

// Run signs a report by an operator's key.
func (r *signCmd) Run() error {
	file, err := readFile(r.File)
	if err != nil {
		return err
	}
	key, err := privateKey(r.Key)
	if err != nil {
		return err
	}
	sig, err := order.SignFile(file, r.Name, key, rand.Reader)
	if err != nil {
		return err
	}
	return writeNew(r.File+"."+r.Name+".sig", sig, 0o644)
}

type verifyCmd struct {
	File      string `arg:"" type:"existingfile" help:"The report."`
	Signature string `arg:"" type:"existingfile" help:"What ceremony sign wrote."`
}

// Run verifies an operator's signature.
func (r *verifyCmd) Run(c Host) error {
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	people, err := operators(machine)
	if err != nil {
		return err
	}
	file, err := readFile(r.File)
	if err != nil {
		return err
	}
	sig, err := readFile(r.Signature)
	if err != nil {
		return err
	}
	name, err := order.VerifyFile(file, sig, people)
	if err != nil {
		return err
	}
	fmt.Printf("ok: signed by %s\n", name)
	return nil
}

// privateKey reads an operator's key. The file must be private.
func privateKey(path string) (crypto.Signer, error) {
	op := "read private key " + path
	st, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return nil, fault.Newf(fault.Fatal, op, "must be a regular file that only its owner may read (mode is %v)", st.Mode())
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fault.Newf(fault.Invalid, op, "no PEM block in it")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, op, "not an unencrypted PKCS #8 key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fault.Newf(fault.Invalid, op, "%T does not sign", key)
	}
	return signer, nil
}

// operators reads the public keys of the machine file.
func operators(machine *config.Machine) ([]order.Operator, error) {
	var out []order.Operator
	for _, o := range machine.Ceremony.Operators {
		op := "read public key of operator " + o.Name
		text, err := readFile(o.PublicKey)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fault.Newf(fault.Fatal, op, "no PEM block in %s", o.PublicKey)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		out = append(out, order.Operator{Name: o.Name, Key: key})
	}
	return out, nil
}

// orderFlags bring the approved order.
type orderFlags struct {
	Order    string   `type:"existingfile" help:"The approved order; required when the machine file or the plan asks for approvals."`
	Approval []string `type:"existingfile" help:"An operator's approval of the order; once for each."`
}

// approved is an order that enough operators approved; the zero value when none is
// asked for.
type approved struct {
	order order.Order
	by    []string
}

// said is how the approval reads in the security log.
func (a approved) said() string {
	if a.by == nil {
		return "NO DUAL CONTROL"
	}
	return "order " + a.order.Digest() + " approved by " + strings.Join(a.by, ", ")
}

// check refuses an operation that not enough operators approved. want holds what
// the order must say: operation, token, keys, plan and backup.
func (f orderFlags) check(c Host, want order.Order, atLeast int) (approved, error) {
	op := "check the order to " + string(want.Operation)
	machine, err := c.MachineFile()
	switch {
	case err == nil:
		atLeast = max(atLeast, machine.Ceremony.Approvals)
	case !errors.Is(err, os.ErrNotExist):
		return approved{}, err // one that is there must be readable: it may ask for approvals
	case atLeast > 0 || f.Order != "":
		return approved{}, fault.Newf(fault.Denied, op, "approvals are asked for, and there is no machine file that names the operators: %w", err)
	}
	if f.Order == "" {
		if atLeast > 0 {
			return approved{}, fault.Newf(fault.Denied, op, "%d operators must approve: see ceremony order and ceremony approve", atLeast)
		}
		return approved{}, nil
	}
	text, err := readFile(f.Order)
	if err != nil {
		return approved{}, err
	}
	o, err := order.Parse(text)
	if err != nil {
		return approved{}, err
	}
	want.Reason, want.Expires, want.Nonce = o.Reason, o.Expires, o.Nonce
	if want.Operation == order.Destroy && len(want.Keys) == 1 && slices.Contains(o.Keys, want.Keys[0]) {
		want.Keys = o.Keys // one of several
	}
	if string(want.Text()) != string(o.Text()) {
		return approved{}, fault.Newf(fault.Denied, op, "the order is for something else than what was asked:\n%s", o.Text())
	}
	var files [][]byte
	for _, path := range f.Approval {
		file, err := readFile(path)
		if err != nil {
			return approved{}, err
		}
		files = append(files, file)
	}
	people, err := operators(machine)
	if err != nil {
		return approved{}, err
	}
	by, err := order.Check(o, files, people, max(atLeast, 1), now())
	return approved{o, by}, err
}

// begin keeps the beginning of an operation in the security log: if that cannot
// be, it does not take place.
func begin(ctx context.Context, c Host, what string, a approved, detail string) error {
	if err := tell(ctx, c, what, detail); err != nil {
		return err
	}
	return tell(ctx, c, what+"-control", a.said())
}

// end keeps the outcome.
func end(ctx context.Context, c Host, what string, err error, detail string) error {
	if err != nil {
		return errors.Join(err, tell(ctx, c, what+"-failed", detail+": "+fault.KindOf(err).String()))
	}
	return tell(ctx, c, what+"-done", detail)
}
