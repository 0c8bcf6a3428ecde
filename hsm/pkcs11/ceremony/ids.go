package ceremony

import (
	"strings"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
)

// writeIDs is stage 3: crypto11 cannot change an attribute, and the pool must
// not be able to.
func (r *run) writeIDs() error {
	const op = "write CKA_ID"
	return atDesk(r.loc, r.rep.Token, op, func(d desk) error {
		for i := range r.rep.Keys {
			k := &r.rep.Keys[i]
			if k.Role != hsm.RoleSign || k.Copy {
				continue
			}
			for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
				h, err := d.only(class, k.Label.String())
				if err != nil {
					return err
				}
				if err := d.set(h, p11.CKA_ID, k.ID); err != nil {
					return fault.New(fault.Fatal, op, err)
				}
			}
			k.passed("CKA_ID derived from the public key, and equal on private key, public key and certificate")
		}
		return nil
	})
}

// tokens returns the slot, label and serial number of each token there is.
func tokens(mod *p11.Ctx) (map[uint]pkcs11.Info, error) {
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return nil, fault.New(fault.Fatal, "list slots", err)
	}
	found := map[uint]pkcs11.Info{}
	for _, s := range slots {
		if info, err := mod.GetTokenInfo(s); err == nil {
			found[s] = pkcs11.Info{Label: strings.Trim(info.Label, " \x00"), Serial: strings.Trim(info.SerialNumber, " \x00")}
		}
	}
	return found, nil
}

func slotOf(mod *p11.Ctx, want pkcs11.Info) (uint, error) {
	found, err := tokens(mod)
	if err != nil {
		return 0, err
	}
	for slot, have := range found {
		if have.Label == want.Label && have.Serial == want.Serial {
			return slot, nil
		}
	}
	return 0, fault.Newf(fault.Fatal, "list slots", "the token with serial %q is gone", want.Serial)
}

// choose names the token to crypto11, which takes the first that fits one thing:
// the serial number, or the label where tokens share their number, as those of
// NSS do.
func (r *run) choose() (cfg crypto11.Config, err error) {
	const op = "choose token for making keys"
	mod := p11.New(r.loc.Module)
	if mod == nil {
		return cfg, fault.Newf(fault.Fatal, op, "%s cannot be loaded", r.loc.Module)
	}
	if err := mod.Initialize(); err != nil {
		return cfg, fault.New(fault.Fatal, op, err)
	}
	defer func() {
		if ferr := mod.Finalize(); err == nil && ferr != nil {
			err = fault.New(fault.Fatal, op, ferr)
		}
	}()
	found, err := tokens(mod)
	if err != nil {
		return cfg, err
	}
	serials, labels := 0, 0
	for _, t := range found {
		if t.Serial == r.rep.Token.Serial {
			serials++
		}
		if t.Label == r.rep.Token.Label {
			labels++
		}
	}
	switch {
	case serials == 1:
		cfg.TokenSerial = r.rep.Token.Serial
	case labels == 1:
		cfg.TokenLabel = r.rep.Token.Label
	default:
		return cfg, fault.Newf(fault.Fatal, op, "neither serial %q nor label %q is one token's alone", r.rep.Token.Serial, r.rep.Token.Label)
	}
	return cfg, nil
}
