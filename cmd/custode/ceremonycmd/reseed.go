package ceremonycmd

import (
	"context"
	"crypto"
	"fmt"

	"custode/cmd/custode/factor"
	"custode/hsm/order"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/otpvault/reseal"
)

type reseedCmd struct {
	orderFlags
	Key string `required:"" type:"existingfile" help:"The recovery key (PEM, PKCS #8, RSA); only its owner may read the file."`
}

// Run reseals every device that is not under keys.seed.
func (r *reseedCmd) Run(c Host) error {
	if err := c.WithoutCoreDumps(); err != nil {
		return err
	}
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	policy, err := c.PolicyFile()
	if err != nil {
		return err
	}
	a, err := tokenFlags{}.access(c)
	if err != nil {
		return err
	}
	cfg := reseal.Config{}
	certs, err := config.Certificates(machine.HSM.RecoveryCertificate)
	if err != nil {
		return err
	}
	if len(certs) != 1 {
		return fault.Newf(fault.Invalid, "reseal devices", "hsm.recovery_certificate: one certificate is wanted, there are %d", len(certs))
	}
	cfg.Certificate = certs[0]
	key, err := privateKey(r.Key)
	if err != nil {
		return err
	}
	var ok bool
	if cfg.Recovery, ok = key.(crypto.Decrypter); !ok {
		return fault.Newf(fault.Invalid, "reseal devices", "%s: the recovery key does not decrypt", r.Key)
	}
	ctx := context.Background() // a row takes milliseconds; a million of them, hours
	info, control, err := r.control(ctx, c, a, order.Order{Operation: order.Reseed}, false)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("seed key %s in token %s serial %s", policy.Keys.Seed, info.Label, info.Serial)
	if err := begin(ctx, c, "reseed", control, detail); err != nil {
		return err
	}
	var p reseal.Progress
	err = c.Offline(func(db *store.DB) (err error) {
		p, err = reseed(ctx, cfg, a, machine, policy, otpstore.New(db))
		return err
	})
	if perr := printJSON(p); err == nil {
		err = perr
	}
	return end(ctx, c, "reseed", err, fmt.Sprintf("%s: %d resealed, %d left under earlier keys", detail, p.Resealed, p.Left))
}

// reseed works with the token open, as the daemon has it.
func reseed(ctx context.Context, cfg reseal.Config, a ceremony.Access, machine *config.Machine, policy *config.Policy, rows reseal.Rows) (p reseal.Progress, err error) {
	t, err := pkcs11.Open(ctx, pkcs11.Config{URI: a.URI, InitArgs: machine.HSM.InitArgs, Tolerate: a.Tolerate, Copied: a.Copied,
		DecryptSeeds: machine.HSM.Seeds == "decrypt", MaxSessions: 2})
	if err != nil {
		return p, err
	}
	defer func() {
		if cerr := t.Close(); err == nil {
			err = cerr
		}
	}()
	if cfg.Recipe, err = factor.Recipe(t, policy); err != nil {
		return p, err
	}
	binder, err := t.MAC(policy.Keys.Bind)
	if err != nil {
		return p, err
	}
	cfg.Rows, cfg.Wrapper, cfg.Binder, cfg.Matcher = rows, t, binder, factor.Matcher{Token: t, Binder: policy.Keys.Bind}
	cfg.Told = func(p reseal.Progress) {
		if p.Seen%1000 == 0 {
			fmt.Printf("%d devices seen, %d resealed, %d left\n", p.Seen, p.Resealed, p.Left)
		}
	}
	return reseal.Run(ctx, cfg)
}
