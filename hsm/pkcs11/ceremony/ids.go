package ceremony

import (
	"strings"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/internal/fault"
)

// writeIDs is stage 3: crypto11 cannot change an attribute, and the pool must
// not be able to.
func (r *run) writeIDs() (err error) {
	const op = "write CKA_ID"
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	mod := p11.New(r.loc.Module)
	if mod == nil {
		return fault.Newf(fault.Fatal, op, "%s cannot be loaded", r.loc.Module)
	}
	if err := mod.Initialize(); err != nil {
		return failed(err)
	}
	defer func() {
		// Finalize closes the session and ends the login with it.
		if ferr := mod.Finalize(); err == nil && ferr != nil {
			err = failed(ferr)
		}
	}()
	slot, err := slotOf(mod, r.rep.Token.Serial)
	if err != nil {
		return err
	}
	s, err := mod.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return failed(err)
	}
	pin, err := r.loc.ReadPIN()
	if err != nil {
		return err
	}
	err = mod.Login(s, p11.CKU_USER, string(pin))
	clear(pin)
	if err != nil {
		return failed(err)
	}
	for i := range r.rep.Keys {
		k := &r.rep.Keys[i]
		if k.Role != hsm.RoleSign {
			continue
		}
		for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} {
			h, err := only(mod, s, class, k.Label.String())
			if err != nil {
				return err
			}
			if err := mod.SetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, k.ID)}); err != nil {
				return failed(err)
			}
		}
		k.passed("CKA_ID derived from the public key, and equal on private key, public key and certificate")
	}
	return nil
}

func slotOf(mod *p11.Ctx, serial string) (uint, error) {
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return 0, fault.New(fault.Fatal, "list slots", err)
	}
	for _, s := range slots {
		if info, err := mod.GetTokenInfo(s); err == nil && strings.Trim(info.SerialNumber, " \x00") == serial {
			return s, nil
		}
	}
	return 0, fault.Newf(fault.Fatal, "list slots", "the token with serial %q is gone", serial)
}

func only(mod *p11.Ctx, s p11.SessionHandle, class uint, label string) (p11.ObjectHandle, error) {
	op := "find key " + label
	if err := mod.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_LABEL, label)}); err != nil {
		return 0, fault.New(fault.Fatal, op, err)
	}
	found, _, err := mod.FindObjects(s, 2)
	if ferr := mod.FindObjectsFinal(s); err == nil {
		err = ferr
	}
	if err != nil {
		return 0, fault.New(fault.Fatal, op, err)
	}
	if len(found) != 1 {
		return 0, fault.Newf(fault.Fatal, op, "the token holds it %d times or more", len(found))
	}
	return found[0], nil
}
