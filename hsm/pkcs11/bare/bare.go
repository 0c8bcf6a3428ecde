// Package bare does with a token what hsm/pkcs11 does, by the module's own calls alone: no
// pool, no repair, no checks. It is what the bench compares with, and nothing else uses it.
// The module must be open in this process by a pkcs11.Token, whose login it shares and
// which must outlive it.
package bare

import (
	"crypto"
	"encoding/binary"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/direct"
	"custode/hsm/pkcs11/soft"
	"custode/internal/fault"
	"custode/internal/id"
)

// Worker is one session with the handles of three keys. It serves one goroutine.
type Worker struct {
	mod                *p11.Ctx
	direct             direct.Module
	session            p11.SessionHandle
	sign, seed, binder p11.ObjectHandle
}

// Open opens n workers on the token at uri; Close ends each.
func Open(uri string, sign, seed, binder id.KeyLabel, n int) ([]*Worker, error) {
	const op = "open the bare module"
	loc, err := pkcs11.ParseLocation(uri)
	if err != nil {
		return nil, err
	}
	mod := p11.New(loc.Module)
	if mod == nil {
		return nil, fault.Newf(fault.Fatal, op, "%s cannot be loaded", loc.Module)
	}
	calls, err := direct.Load(loc.Module)
	if err != nil {
		return nil, err
	}
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	for _, slot := range slots {
		info, err := mod.GetTokenInfo(slot)
		padding := " \x00"
		if err != nil || loc.Label != "" && strings.Trim(info.Label, padding) != loc.Label || loc.Serial != "" && strings.Trim(info.SerialNumber, padding) != loc.Serial {
			continue
		}
		var all []*Worker
		for range n {
			w := &Worker{mod: mod, direct: calls}
			if err := w.open(slot, sign, seed, binder); err != nil {
				return all, fault.New(fault.Unavailable, op, err)
			}
			all = append(all, w)
		}
		return all, nil
	}
	return nil, fault.Newf(fault.Unavailable, op, "no slot holds the token")
}

func (w *Worker) open(slot uint, sign, seed, binder id.KeyLabel) (err error) {
	if w.session, err = w.mod.OpenSession(slot, p11.CKF_SERIAL_SESSION); err != nil {
		return err
	}
	for _, k := range []struct {
		to    *p11.ObjectHandle
		label id.KeyLabel
		class uint
	}{{&w.sign, sign, p11.CKO_PRIVATE_KEY}, {&w.seed, seed, p11.CKO_SECRET_KEY}, {&w.binder, binder, p11.CKO_SECRET_KEY}} {
		if err := w.mod.FindObjectsInit(w.session, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, k.class), p11.NewAttribute(p11.CKA_LABEL, k.label.String())}); err != nil {
			return err
		}
		found, _, err := w.mod.FindObjects(w.session, 1)
		if ferr := w.mod.FindObjectsFinal(w.session); err == nil {
			err = ferr
		}
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fault.Newf(fault.NotFound, "find key "+k.label.String(), "the token does not hold it")
		}
		*k.to = found[0]
	}
	return nil
}

// Close closes the session.
func (w *Worker) Close() error { return w.mod.CloseSession(w.session) }

// Sign makes a PKCS #1 v1.5 signature of a SHA-256 digest and looks at nothing.
func (w *Worker) Sign(digest []byte) error {
	info, err := soft.DigestInfo(crypto.SHA256, digest)
	if err != nil {
		return err
	}
	if err := w.mod.SignInit(w.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, w.sign); err != nil {
		return err
	}
	_, err = w.mod.Sign(w.session, info)
	return err
}

// Codes does what the token has to do for a question: the binding's MAC, unless binding is
// false, unwrapping, an HMAC for each counter, and destroying.
func (w *Worker) Codes(q *hsm.CodeQuery, binding bool) error {
	var mac [64]byte
	if binding {
		if err := w.direct.HMAC(w.session, w.binder, hsm.MechanismSHA256, q.Binding, mac[:32]); err != nil {
			return err
		}
	}
	object, err := w.direct.Unwrap(w.session, w.seed, q.Wrapped, direct.Unwrapped{KeyType: q.KeyType})
	if err != nil {
		return err
	}
	var message [8]byte
	for _, counter := range q.Counters {
		binary.BigEndian.PutUint64(message[:], counter)
		if err := w.direct.HMAC(w.session, object, q.MAC, message[:], mac[:hsm.HMACSize(q.MAC)]); err != nil {
			return err
		}
	}
	return w.direct.Destroy(w.session, object)
}
