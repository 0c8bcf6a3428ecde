package ceremonycmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"custode/cmd/custode/rotation"
	"custode/cmd/custode/signing"
	"custode/hsm"
	"custode/hsm/custody"
	"custode/hsm/order"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/admin"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

type restoreCmd struct {
	tokenFlags
	orderFlags
	Backup   string   `arg:"" type:"existingfile" help:"The backup that a ceremony wrote."`
	Share    []string `required:"" type:"existingfile" help:"A custodian's share; as many as the backup wants."`
	Out      string   `required:"" type:"path" help:"The report to write (.txt; the PDF goes beside it)."`
	Rehearse bool     `help:"On a token whose label begins with rehearsal."`
	Witness  []string `help:"A witness, for the report; may be given again."`
}

// Run puts the keys of a backup into a token.
func (r *restoreCmd) Run(c Host) error {
	if err := c.WithoutCoreDumps(); err != nil {
		return err
	}
	a, err := r.access(c)
	if err != nil {
		return err
	}
	file, err := readFile(r.Backup)
	if err != nil {
		return err
	}
	var shares []custody.Share
	for _, path := range r.Share {
		text, err := readFile(path)
		if err != nil {
			return err
		}
		s, err := custody.ParseShare(text)
		clear(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		shares = append(shares, s)
	}
	defer func() {
		for i := range shares {
			clear(shares[i].Value[:])
		}
	}()
	if !strings.HasSuffix(r.Out, ".txt") {
		return fault.Newf(fault.Invalid, "prepare the output", "--out must end with .txt")
	}
	if err := absent(r.Out, strings.TrimSuffix(r.Out, ".txt")+".pdf"); err != nil {
		return err
	}
	ctx, cancel := inTime()
	defer cancel()
	// What the file says of itself is not proven yet; a false word will not open.
	says, err := custody.Peek(file)
	if err != nil {
		return err
	}
	info, ok, err := r.control(ctx, c, a, order.Order{Operation: order.Restore, Backup: order.Digest(file)}, r.Rehearse && says.Rehearsal)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("backup file %s into token %s serial %s", order.Digest(file), info.Label, info.Serial)
	if err := begin(ctx, c, "restore", ok, detail); err != nil {
		return err
	}
	rest, err := ceremony.Restore(ctx, a, file, shares, r.Rehearse)
	if err == nil {
		at := now().UTC()
		text := rest.Text(at, ceremony.People{Operators: ok.by, Witnesses: r.Witness, Order: digestOf(ok)})
		if err = writeNew(r.Out, []byte(text), 0o644); err == nil {
			err = publish(ctx, a, id.KeyLabel{}, r.Out, text, at, true)
		}
		fmt.Print(text)
	}
	return end(ctx, c, "restore", err, detail)
}

func digestOf(a approved) string {
	if a.by == nil {
		return ""
	}
	return a.order.Digest()
}

// control inspects the token and checks the order for it. A rehearsal wants none.
func (f orderFlags) control(ctx context.Context, c Host, a ceremony.Access, want order.Order, rehearse bool) (pkcs11.Info, approved, error) {
	info, err := a.Inspect(ctx)
	if err != nil {
		return info, approved{}, err
	}
	if rehearse && hsm.ForRehearsal(info.Label) {
		return info, approved{}, nil
	}
	want.Token = info.Label
	ok, err := f.check(c, want, 0)
	return info, ok, err
}

type destroyCmd struct {
	tokenFlags
	orderFlags
	Label    id.KeyLabel `arg:"" help:"The key to destroy."`
	Offline  bool        `help:"Ask the database and the files what needs the key, while no appliance runs."`
	Rehearse bool        `help:"On a token whose label begins with rehearsal; nothing else is asked."`
}

// Run destroys a key that nothing needs any more.
func (r *destroyCmd) Run(c Host) error {
	a, err := r.access(c)
	if err != nil {
		return err
	}
	ctx, cancel := inTime()
	defer cancel()
	info, ok, err := r.control(ctx, c, a, order.Order{Operation: order.Destroy, Keys: []id.KeyLabel{r.Label}}, r.Rehearse)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("key %s in token %s serial %s", r.Label, info.Label, info.Serial)
	if !r.Rehearse {
		mac, err := ceremony.IsMAC(ctx, a, r.Label)
		if err != nil {
			return err
		}
		if err := r.mayGo(ctx, c, mac); err != nil {
			return err
		}
	}
	if err := begin(ctx, c, "destroy", ok, detail); err != nil {
		return err
	}
	done, err := ceremony.Destroy(ctx, a, r.Label, r.Rehearse)
	if err == nil {
		fmt.Printf("ok: destroyed %s in token %s serial %s\n", strings.Join(done.Objects, ", "), info.Label, info.Serial)
	}
	return end(ctx, c, "destroy", err, detail)
}

// mayGo refuses a key that something needs, and notes in the ledger that a signing
// key goes.
func (r *destroyCmd) mayGo(ctx context.Context, c Host, mac bool) error {
	key := rotation.Argument{Label: r.Label, MAC: mac}
	op := "destroy key " + r.Label.String()
	var why []string
	arg := signing.Argument{Actor: admin.Actor(), Label: r.Label, Reason: "ceremony destroy"}
	refuse := func() error {
		if len(why) > 0 {
			return fault.Newf(fault.Denied, op, "it is needed: %s", strings.Join(why, "; "))
		}
		return nil
	}
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	policy, err := c.PolicyFile()
	if err != nil {
		return err
	}
	if !r.Offline {
		if err := admin.Call(machine.AdminSocket, "keys/needed", key, &why); err != nil {
			return err
		}
		if err := refuse(); err != nil {
			return err
		}
		return admin.Call(machine.AdminSocket, "keys/destroyed", arg, nil)
	}
	return c.Offline(func(db *store.DB) error {
		if why, err = rotation.Needed(ctx, key, policy.Keys, machine.CertifiedLog.Directory, db); err != nil {
			return err
		}
		if err := refuse(); err != nil {
			return err
		}
		_, err := signing.Destroyed(ctx, db, arg, teller(c), now())
		return err
	})
}

type pinCmd struct {
	tokenFlags
	orderFlags
	New string `required:"" type:"existingfile" help:"File whose first line is the new PIN; only its owner may read it."`
}

// Run changes the user PIN and the PIN file.
func (r *pinCmd) Run(c Host) error {
	if err := c.WithoutCoreDumps(); err != nil {
		return err
	}
	a, err := r.access(c)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(r.New)
	if err != nil {
		return fault.New(fault.Invalid, "change PIN", err)
	}
	if err := ownPINFile(c, a.URI); err != nil {
		return err
	}
	ctx, cancel := inTime()
	defer cancel()
	info, ok, err := r.control(ctx, c, a, order.Order{Operation: order.PIN}, true)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("token %s serial %s", info.Label, info.Serial)
	if err := begin(ctx, c, "pin", ok, detail); err != nil {
		return err
	}
	err = ceremony.ChangePIN(ctx, a, path)
	if err == nil {
		fmt.Printf("ok: %s has the new PIN, and so has the PIN file; destroy %s\n", detail, r.New)
	}
	return end(ctx, c, "pin", err, detail)
}

// ownPINFile refuses a PIN file that primary and standby share: the one whose PIN is
// not changed would be offered a wrong one at each start of its worker, until it locks.
func ownPINFile(c Host, uri string) error {
	machine, err := c.MachineFile()
	if errors.Is(err, os.ErrNotExist) || err == nil && machine.HSM.Standby.URI == "" {
		return nil
	}
	if err != nil {
		return err
	}
	var files []os.FileInfo
	for _, u := range []string{uri, machine.HSM.URI, machine.HSM.Standby.URI} {
		loc, err := pkcs11.ParseLocation(u)
		if err != nil {
			return err
		}
		st, err := os.Stat(loc.PINFile)
		if err != nil {
			return fault.New(fault.Fatal, "change PIN", err)
		}
		files = append(files, st)
	}
	if os.SameFile(files[0], files[1]) && os.SameFile(files[0], files[2]) {
		return fault.Newf(fault.Denied, "change PIN", "hsm.uri and hsm.standby.uri have one PIN file: give each token its own first")
	}
	return nil
}

type keysCmd struct{}

// Run asks the daemon what is under which key.
func (keysCmd) Run(c Host) error { return c.Ask("keys/rotation", nil) }
