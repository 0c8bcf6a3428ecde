package ceremony

import (
	"context"
	"errors"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/direct"
	"custode/internal/fault"
	"custode/internal/id"
)

// Access says which token to work on and what its keys may lack of the policy.
type Access struct {
	URI      string // RFC 7512, see pkcs11.ParseLocation
	Tolerate hsm.Lacks
	Copied   []id.KeyLabel // keys that other tokens hold too (docs/adr/0005-copied-keys.md)
}

// look opens the token with the product's own pool, which checks module, PIN file
// and policy, for as long as use runs.
func (a Access) look(ctx context.Context, use func(t *pkcs11.Token) error) error {
	t, err := pkcs11.Open(ctx, pkcs11.Config{URI: a.URI, Tolerate: a.Tolerate, Copied: a.Copied, MaxSessions: 1})
	if err != nil {
		return err
	}
	err = use(t)
	if cerr := t.Close(); err == nil {
		err = cerr
	}
	return err
}

// Inspect says what the token is.
func (a Access) Inspect(ctx context.Context) (info pkcs11.Info, err error) {
	err = a.look(ctx, func(t *pkcs11.Token) error { info = t.Info(); return nil })
	return info, err
}

// desk is a read-write login of the ceremony's own, beside the pool: for what the
// pool must not be able to do.
type desk struct {
	mod *p11.Ctx
	s   p11.SessionHandle
}

// atDesk opens the token that want describes, logs in, and ends both after use.
func atDesk(loc pkcs11.Location, want pkcs11.Info, op string, use func(d desk) error) (err error) {
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	mod := p11.New(loc.Module)
	if mod == nil {
		return fault.Newf(fault.Fatal, op, "%s cannot be loaded", loc.Module)
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
	slot, err := slotOf(mod, want)
	if err != nil {
		return err
	}
	s, err := mod.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return failed(err)
	}
	pin, err := loc.ReadPIN()
	if err != nil {
		return err
	}
	past, err := direct.Load(loc.Module)
	if err == nil {
		err = past.Login(s, pin)
	}
	clear(pin)
	if err != nil {
		return failed(err)
	}
	return use(desk{mod, s})
}

// find returns the handles, at most most, of the objects called label.
func (d desk) find(class uint, label string, most int) ([]p11.ObjectHandle, error) {
	op := "find key " + label
	if err := d.mod.FindObjectsInit(d.s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_LABEL, label)}); err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	found, _, err := d.mod.FindObjects(d.s, most)
	if err := errors.Join(err, d.mod.FindObjectsFinal(d.s)); err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	return slices.Clone(found), nil
}

// only returns the one object called label.
func (d desk) only(class uint, label string) (p11.ObjectHandle, error) {
	found, err := d.find(class, label, 2)
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fault.Newf(fault.Fatal, "find key "+label, "the token holds it %d times, or more", len(found))
	}
	return found[0], nil
}

// set writes one attribute.
func (d desk) set(o p11.ObjectHandle, attribute uint, value any) error {
	return d.mod.SetAttributeValue(d.s, o, []*p11.Attribute{p11.NewAttribute(attribute, value)})
}

// value reads one attribute, nil when the token does not know it.
func (d desk) value(o p11.ObjectHandle, attribute uint) ([]byte, error) {
	got, err := d.mod.GetAttributeValue(d.s, o, []*p11.Attribute{p11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, err
	}
	return got[0].Value, nil
}
