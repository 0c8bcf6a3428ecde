package ceremony

import (
	"context"
	"encoding/binary"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/internal/id"
)

// Destroyed says what Destroy removed.
type Destroyed struct {
	Token   pkcs11.Info
	Label   id.KeyLabel
	Objects []string // "private key", "certificate" ...
}

// Destroy removes every object called label from the token: a secret key, or both
// halves of a pair and the certificate. Whether anything still needs the key is the
// caller's to know. fault.NotFound when there is none. The secret part goes first:
// what is left after a failure is of no use.
func Destroy(ctx context.Context, a Access, label id.KeyLabel, rehearse bool) (done Destroyed, err error) {
	op := "destroy key " + label.String()
	loc, err := pkcs11.ParseLocation(a.URI)
	if err != nil {
		return done, err
	}
	done.Label = label
	if done.Token, err = a.Inspect(ctx); err != nil {
		return done, err
	}
	if err := rehearsal(done.Token.Label, rehearse); err != nil {
		return done, err
	}
	err = atDesk(loc, done.Token, op, func(d desk) error {
		for _, c := range []struct {
			class uint
			name  string
		}{{p11.CKO_PRIVATE_KEY, "private key"}, {p11.CKO_SECRET_KEY, "secret key"}, {p11.CKO_PUBLIC_KEY, "public key"}, {p11.CKO_CERTIFICATE, "certificate"}} {
			found, err := d.find(c.class, label.String(), 2)
			if err != nil {
				return err
			}
			if len(found) > 1 {
				return fault.Newf(fault.Fatal, op, "the token holds more than one %s of that name: remove them with the vendor's tool", c.name)
			}
			for _, h := range found {
				if err := d.mod.DestroyObject(d.s, h); err != nil {
					return fault.New(fault.Fatal, op, fmt.Errorf("%s: %w", c.name, err))
				}
				done.Objects = append(done.Objects, c.name)
			}
		}
		if len(done.Objects) == 0 {
			return fault.Newf(fault.NotFound, op, "the token holds nothing of that name")
		}
		return nil
	})
	if err != nil {
		return done, err
	}
	return done, a.look(ctx, func(t *pkcs11.Token) error {
		there, err := t.Holds(ctx, label)
		if err == nil && there {
			err = fault.Newf(fault.Fatal, op, "the token still holds it")
		}
		return err
	})
}

// IsMAC reports whether the token holds a mac key of that label.
func IsMAC(ctx context.Context, a Access, label id.KeyLabel) (is bool, err error) {
	op := "look at key " + label.String()
	loc, err := pkcs11.ParseLocation(a.URI)
	if err != nil {
		return false, err
	}
	info, err := a.Inspect(ctx)
	if err != nil {
		return false, err
	}
	return is, atDesk(loc, info, op, func(d desk) error {
		found, err := d.find(p11.CKO_SECRET_KEY, label.String(), 1)
		if err != nil || len(found) == 0 {
			return err
		}
		kind, err := d.value(found[0], p11.CKA_KEY_TYPE)
		if err != nil {
			return fault.New(fault.Fatal, op, err)
		}
		is = len(kind) == 8 && binary.NativeEndian.Uint64(kind) == p11.CKK_GENERIC_SECRET
		return nil
	})
}
