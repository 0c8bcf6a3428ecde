// Package ceremonycmd has the subcommands of `custode ceremony`: what operators do
// to keys. The work on the token is hsm/pkcs11/ceremony's; here are flags, files,
// the check that enough operators approved, the report on paper and its signature,
// and what the security log is told. Wiring only, like cmd/custode, which imports it.
package ceremonycmd

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"custode/hsm"
	"custode/hsm/order"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// Host is the command line that the subcommands are part of.
type Host interface {
	// MachineFile reads the machine file.
	MachineFile() (*config.Machine, error)
	// PolicyFile reads the policy file.
	PolicyFile() (*config.Policy, error)
	// Ask calls a method of the daemon and prints the result.
	Ask(method string, arg any) error
	// Offline opens the database while no daemon runs (else fault.Conflict).
	Offline(use func(db *store.DB) error) error
	// WithoutCoreDumps keeps what is in memory out of files and of other processes' reach.
	WithoutCoreDumps() error
}

// Commands are the subcommands of `custode ceremony`.
type Commands struct {
	Order    orderCmd    `cmd:"" help:"Write an order for an operation on keys, for the operators to approve."`
	Approve  approveCmd  `cmd:"" help:"Show an order and approve it with an operator's key."`
	Run      runCmd      `cmd:"" help:"Make the keys of a reviewed plan in the token."`
	Request  requestCmd  `cmd:"" help:"Make a certificate signing request for a signing key."`
	Import   importCmd   `cmd:"" help:"Store the certificate that an authority issued beside its signing key."`
	Rollover rolloverCmd `cmd:"" help:"The change from one signing key to the next."`
	Keys     keysCmd     `cmd:"" help:"Show what is still under earlier keys (asks the running appliance)."`
	Restore  restoreCmd  `cmd:"" help:"Put the keys of a backup into another token, with the custodians' shares."`
	Reseed   reseedCmd   `cmd:"" help:"Bring the secrets of OATH devices under today's seed key, from their escrow copies (the appliance must be stopped)."`
	PIN      pinCmd      `cmd:"" name:"pin" help:"Change the token's user PIN."`
	Destroy  destroyCmd  `cmd:"" help:"Destroy a key that nothing needs any more."`
	Sign     signCmd     `cmd:"" help:"Sign a report with an operator's key."`
	Verify   verifyCmd   `cmd:"" help:"Verify an operator's signature on a report."`
}

// tokenFlags say which token is meant.
type tokenFlags struct {
	URI      string   `help:"PKCS#11 URI of the token; default: hsm.uri of the machine file, with its tolerate and copied."`
	Tolerate []string `help:"With --uri: rules that the token may lack."`
	Copied   []string `help:"With --uri: keys that other tokens hold too."`
}

func (f tokenFlags) access(c Host) (a ceremony.Access, err error) {
	if f.URI == "" {
		machine, err := c.MachineFile()
		if err != nil {
			return a, err
		}
		a.URI, a.Copied = machine.HSM.URI, machine.HSM.Copied
		a.Tolerate, err = hsm.ParseLacks(machine.HSM.Tolerate)
		return a, err
	}
	a.URI = f.URI
	if a.Copied, err = labels(f.Copied); err != nil {
		return a, err
	}
	a.Tolerate, err = hsm.ParseLacks(f.Tolerate)
	return a, err
}

func labels(names []string) ([]id.KeyLabel, error) {
	var out []id.KeyLabel
	for _, name := range names {
		l, err := id.ParseKeyLabel(name)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// maxInput bounds a file that a subcommand reads, in octets; the parsers are stricter.
const maxInput = 1 << 20

func readFile(path string) ([]byte, error) {
	op := "read " + path
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if len(data) > maxInput {
		return nil, fault.Newf(fault.Invalid, op, "longer than %d octets", maxInput)
	}
	return data, nil
}

// writeNew makes a file that did not exist.
func writeNew(path string, data []byte, mode os.FileMode) error {
	op := "write " + path
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fault.New(fault.Conflict, op, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	return nil
}

// absent refuses before the work what writeNew would refuse after it.
func absent(paths ...string) error {
	for _, p := range paths {
		if _, err := os.Lstat(p); !os.IsNotExist(err) {
			return fault.Newf(fault.Conflict, "prepare the output", "%s exists already, or cannot be looked at", p)
		}
	}
	if len(paths) > 0 {
		if st, err := os.Stat(filepath.Dir(paths[0])); err != nil || !st.IsDir() {
			return fault.Newf(fault.Fatal, "prepare the output", "%s is no folder", filepath.Dir(paths[0]))
		}
	}
	return nil
}

type requestCmd struct {
	tokenFlags
	Label id.KeyLabel `arg:"" help:"Label of the signing key."`
	Out   string      `required:"" type:"path" help:"File to write (PEM)."`
}

// Run writes the request.
func (r *requestCmd) Run(c Host) error {
	a, err := r.access(c)
	if err != nil {
		return err
	}
	if err := absent(r.Out); err != nil {
		return err
	}
	ctx, cancel := inTime()
	defer cancel()
	if err := tell(ctx, c, "request", "key "+r.Label.String()); err != nil {
		return err
	}
	der, err := ceremony.Request(ctx, a, r.Label)
	if err != nil {
		return err
	}
	if err := writeNew(r.Out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644); err != nil {
		return err
	}
	fmt.Printf("ok: request for %s in %s\n", r.Label, r.Out)
	return nil
}

type importCmd struct {
	tokenFlags
	orderFlags
	Label id.KeyLabel `arg:"" help:"Label of the signing key."`
	File  string      `arg:"" type:"existingfile" help:"PEM: the issued certificate first, then its intermediates."`
	Roots string      `required:"" type:"existingfile" help:"PEM: the authorities that the operators trust."`
}

// Run stores the certificate.
func (r *importCmd) Run(c Host) error {
	a, err := r.access(c)
	if err != nil {
		return err
	}
	chain, err := config.Certificates(r.File)
	if err != nil {
		return err
	}
	anchors, err := config.Certificates(r.Roots)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	for _, root := range anchors {
		roots.AddCert(root)
	}
	ctx, cancel := inTime()
	defer cancel()
	info, ok, err := r.control(ctx, c, a, order.Order{Operation: order.Import, Keys: []id.KeyLabel{r.Label}}, true)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("key %s in token %s, certificate SHA-256 %s", r.Label, info.Serial, order.Digest(chain[0].Raw))
	if err := begin(ctx, c, "import", ok, detail); err != nil {
		return err
	}
	former, err := ceremony.Import(ctx, a, r.Label, chain, roots, now())
	if err := end(ctx, c, "import", err, detail); err != nil {
		return err
	}
	fmt.Printf("ok: %s has the certificate with serial %s of %s; the former one is kept as %s\n", r.Label, chain[0].SerialNumber, chain[0].Issuer, former)
	return nil
}
