package ceremony

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/custody"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/internal/id"
)

// checkText is what both tokens must agree about. Nothing in the product begins
// with NUL.
const checkText = "\x00custode copy check"

// check returns what the key makes of checkText, to be compared in the other token.
func check(ctx context.Context, t *pkcs11.Token, k *custody.Key) error {
	role, err := hsm.ParseRole(k.Role)
	if err != nil {
		return err
	}
	switch role {
	case hsm.RoleMAC:
		m, err := t.MAC(k.Label)
		if err != nil {
			return err
		}
		k.Check, err = m.MAC(ctx, []byte(checkText))
		return err
	case hsm.RoleWrap:
		w, err := t.Wrapper(k.Label)
		if err != nil {
			return err
		}
		k.Check, err = w.Wrap(ctx, []byte(checkText), nil)
		return err
	case hsm.RoleSeed:
		k.Check, err = wrapCheck(ctx, t, k.Label)
		return err
	}
	return nil // the certificate is the check
}

// wrapCheck wraps a fixed secret, which RFC 3394 does in one way only.
func wrapCheck(ctx context.Context, t *pkcs11.Token, label id.KeyLabel) ([]byte, error) {
	fixed := sha512.Sum512([]byte(checkText))
	if err := t.OpenSeed(label); err != nil {
		return nil, err
	}
	return t.WrapSecret(ctx, label, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, fixed[:])
}

// agrees compares what the key in this token makes with what the backup says.
func agrees(ctx context.Context, t *pkcs11.Token, k custody.Key) error {
	op := "check restored key " + k.Label.String()
	other := fault.Newf(fault.Fatal, op, "it is another key than the one that was backed up")
	role, err := hsm.ParseRole(k.Role)
	if err != nil {
		return err
	}
	switch role {
	case hsm.RoleMAC:
		m, err := t.MAC(k.Label)
		if err != nil {
			return err
		}
		sum, err := m.MAC(ctx, []byte(checkText))
		if err != nil {
			return err
		}
		if !bytes.Equal(sum, k.Check) {
			return other
		}
	case hsm.RoleWrap:
		w, err := t.Wrapper(k.Label)
		if err != nil {
			return err
		}
		text, err := w.Unwrap(ctx, k.Check, nil)
		if err != nil || string(text) != checkText {
			return other
		}
	case hsm.RoleSeed:
		wrapped, err := wrapCheck(ctx, t, k.Label)
		if err != nil {
			return err
		}
		if !bytes.Equal(wrapped, k.Check) {
			return other
		}
	case hsm.RoleSign:
		// Opening the key compares CKA_ID with the public key and tries a signature.
		cert, err := t.Certificate(k.Label)
		if err != nil {
			return err
		}
		if !bytes.Equal(cert.Raw, k.Certificate) {
			return other
		}
	}
	return nil
}

// Restored says what Restore did.
type Restored struct {
	Backup     custody.Backup
	Token      pkcs11.Info
	Custodians []string // whose shares opened the backup
	Keys       []KeyReport
}

// Restore unwraps the keys of a backup file into the token of a, which must hold
// none of them. shares must be as many as the backup's threshold: fault.Denied. A
// failure in the middle names what was made and stays in the token.
func Restore(ctx context.Context, a Access, file []byte, shares []custody.Share, rehearse bool) (rest Restored, err error) {
	secret, err := custody.Combine(shares)
	if err != nil {
		return rest, err
	}
	defer secret.Clear()
	b, err := custody.Open(file, secret)
	if err != nil {
		return rest, err
	}
	loc, err := pkcs11.ParseLocation(a.URI)
	if err != nil {
		return rest, err
	}
	rest.Backup = b
	for _, s := range shares {
		rest.Custodians = append(rest.Custodians, s.Custodian)
	}
	op := "restore backup " + b.ID
	for _, k := range b.Keys {
		a.Copied = append(a.Copied, k.Label)
	}
	if err := a.look(ctx, func(t *pkcs11.Token) error {
		rest.Token = t.Info()
		if err := rehearsal(rest.Token.Label, rehearse || b.Rehearsal); err != nil {
			return err
		}
		return absent(ctx, t, a.Copied)
	}); err != nil {
		return rest, err
	}
	var made []string
	err = atDesk(loc, rest.Token, op, func(d desk) error {
		transport, err := d.transportKey(secret)
		if err != nil {
			return err
		}
		for _, k := range b.Keys {
			made = append(made, k.Label.String())
			kr, err := d.restore(transport, k, a.Tolerate)
			if err != nil {
				return err
			}
			rest.Keys = append(rest.Keys, kr)
		}
		return nil
	})
	if err == nil {
		err = a.look(ctx, func(t *pkcs11.Token) error {
			for i, k := range b.Keys {
				if err := agrees(ctx, t, k); err != nil {
					return err
				}
				rest.Keys[i].passed("opened as the daemon opens it, and it gives the very result that the first token gave")
			}
			return nil
		})
	}
	if err != nil && len(made) > 0 {
		err = fmt.Errorf("%w; the token may hold some of: %s", err, strings.Join(made, ", "))
	}
	if err != nil {
		return rest, fault.New(fault.KindOf(err), op, err)
	}
	return rest, nil
}

func (d desk) restore(transport p11.ObjectHandle, k custody.Key, lacks hsm.Lacks) (KeyReport, error) {
	role, err := hsm.ParseRole(k.Role)
	if err != nil {
		return KeyReport{}, err
	}
	if k.Mechanism != wrapping(role) {
		return KeyReport{}, fault.Newf(fault.Invalid, "restore key "+k.Label.String(), "it was wrapped by mechanism %#x", k.Mechanism)
	}
	kr := KeyReport{PlannedKey: hsm.PlannedKey{Label: k.Label, Role: role, Bits: k.Bits, Copy: true}, ID: k.ID, CertificateDER: k.Certificate}
	h, err := d.unwrapKey(transport, k, role, lacks)
	if err != nil {
		return kr, err
	}
	if err := d.readBack(&kr, lacks, h); err != nil || role != hsm.RoleSign {
		return kr, err
	}
	cert, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return kr, fault.New(fault.Invalid, "restore key "+k.Label.String(), err)
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return kr, fault.Newf(fault.Invalid, "restore key "+k.Label.String(), "the certificate's key is not RSA")
	}
	kr.SPKI = cert.RawSubjectPublicKeyInfo
	if err := d.publicKey(k.Label.String(), k.ID, public); err != nil {
		return kr, err
	}
	if err := d.storeCertificate(k.Label.String(), k.ID, cert); err != nil {
		return kr, fault.New(fault.Fatal, "store certificate "+k.Label.String(), err)
	}
	return kr, nil
}

// absent refuses a token that has anything under one of the labels.
func absent(ctx context.Context, t *pkcs11.Token, labels []id.KeyLabel) error {
	for _, l := range labels {
		there, err := t.Holds(ctx, l)
		if err != nil {
			return err
		}
		if there {
			return fault.Newf(fault.Conflict, "inspect token", "it holds %s already; nothing was made", l)
		}
	}
	return nil
}

// rehearsal keeps rehearsals and real tokens apart, both ways.
func rehearsal(label string, rehearse bool) error {
	if is := hsm.ForRehearsal(label); is != rehearse {
		if is {
			return fault.Newf(fault.Denied, "begin ceremony", "token %q is for rehearsals: say --rehearse", label)
		}
		return fault.Newf(fault.Denied, "begin ceremony", "a rehearsal wants a token whose label begins with %q, this one is %q", hsm.RehearsalPrefix, label)
	}
	return nil
}
