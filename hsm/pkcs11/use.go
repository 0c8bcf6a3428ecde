package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"io"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/soft"
	"custode/internal/fault"
	"custode/internal/id"
)

// opened is one opened key. It serves hsm.ContextSigner, hsm.MAC or hsm.Wrapper,
// as Signer, MACKey and WrapKey.
type opened struct {
	t *Token
	k *key
}

func (o opened) do(ctx context.Context, verb string, ownFault bool, use func(s p11.SessionHandle, h p11.ObjectHandle) error) error {
	return o.t.do(ctx, call{
		op: verb + " with key " + o.k.label.String(), ownFault: ownFault, canary: o.t.canaryFor(o.k, 0),
		use: func(g *generation, s p11.SessionHandle) error {
			h, err := o.t.handle(g, o.k)
			if err != nil {
				return err
			}
			return use(s, h)
		},
	})
}

// Signer is an RSA key in the token.
type Signer struct{ opened }

// MACKey is an HMAC-SHA-256 key in the token.
type MACKey struct{ opened }

// WrapKey is an AES-256 key in the token.
type WrapKey struct{ opened }

var (
	_ hsm.ContextSigner = Signer{}
	_ hsm.MAC           = MACKey{}
	_ hsm.Wrapper       = WrapKey{}
)

// Signer opens the sign key called label: finds it, checks its policy and makes
// a test signature. A missing key is fault.NotFound, one that breaks the policy
// fault.Fatal with the attribute's name. The result is a hsm.ContextSigner.
func (t *Token) Signer(label id.KeyLabel) (crypto.Signer, error) {
	k, err := t.openKey(label, hsm.RoleSign)
	if err != nil {
		return nil, err
	}
	return Signer{opened{t, k}}, nil
}

// MAC opens the mac key called label, with errors as Signer.
func (t *Token) MAC(label id.KeyLabel) (hsm.MAC, error) {
	k, err := t.openKey(label, hsm.RoleMAC)
	if err != nil {
		return nil, err
	}
	return MACKey{opened{t, k}}, nil
}

// Wrapper opens the wrap key called label, with errors as Signer.
func (t *Token) Wrapper(label id.KeyLabel) (hsm.Wrapper, error) {
	k, err := t.openKey(label, hsm.RoleWrap)
	if err != nil {
		return nil, err
	}
	return WrapKey{opened{t, k}}, nil
}

// sign makes one signature and verifies it: a fault during an RSA-CRT
// computation would otherwise give the private key away.
func (t *Token) sign(s p11.SessionHandle, h p11.ObjectHandle, public *rsa.PublicKey, hash crypto.Hash, digest []byte) ([]byte, error) {
	info, err := soft.DigestInfo(hash, digest)
	if err != nil {
		return nil, err
	}
	if err := t.mod.SignInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, h); err != nil {
		return nil, inCall("C_SignInit", err)
	}
	sig, err := t.mod.Sign(s, info)
	if err != nil {
		return nil, inCall("C_Sign", err)
	}
	if err := rsa.VerifyPKCS1v15(public, hash, digest, sig); err != nil {
		return nil, fault.Newf(fault.Reopen, "verify the signature just made", "the token signed wrongly: %w", err)
	}
	return sig, nil
}

func (t *Token) mac(s p11.SessionHandle, h p11.ObjectHandle, data []byte) ([]byte, error) {
	sum := make([]byte, 32)
	if err := t.direct.HMAC(s, h, hsm.MechanismSHA256, data, sum); err != nil {
		return nil, err
	}
	return sum, nil
}

// wrap encrypts plaintext under a fresh IV from the token's random.
func (t *Token) wrap(s p11.SessionHandle, h p11.ObjectHandle, label id.KeyLabel, plaintext, aad []byte) (hsm.Blob, error) {
	b := hsm.Blob{Key: label}
	iv, err := t.mod.GenerateRandom(s, hsm.IVLen)
	if err != nil {
		return b, inCall("C_GenerateRandom", err)
	}
	params := p11.NewGCMParams(iv, b.AAD(aad), hsm.TagLen*8)
	defer params.Free()
	if err := t.mod.EncryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, h); err != nil {
		return b, inCall("C_EncryptInit", err)
	}
	wrapped, err := t.direct.Encrypt(s, plaintext, len(plaintext)+hsm.TagLen)
	if err != nil {
		return b, inCall("C_Encrypt", err)
	}
	// CloudHSM ignores the IV it is given and writes its own back.
	if used := params.IV(); len(used) != hsm.IVLen || len(wrapped) != len(plaintext)+hsm.TagLen {
		return b, fault.Newf(fault.Fatal, "encrypt", "the token made an IV of %d octets and a ciphertext of %d from %d", len(used), len(wrapped), len(plaintext))
	} else {
		b.IV = [hsm.IVLen]byte(used)
	}
	b.Wrapped = wrapped
	return b, nil
}

func (t *Token) unwrap(s p11.SessionHandle, h p11.ObjectHandle, b hsm.Blob, aad []byte) ([]byte, error) {
	params := p11.NewGCMParams(b.IV[:], b.AAD(aad), hsm.TagLen*8)
	defer params.Free()
	if err := t.mod.DecryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, inCall("C_DecryptInit", err)
	}
	plain, err := t.direct.Decrypt(s, b.Wrapped, len(b.Wrapped))
	if err != nil {
		return nil, inCall("C_Decrypt", err)
	}
	if len(plain) != len(b.Wrapped)-hsm.TagLen {
		clear(plain)
		return nil, fault.Newf(fault.Reopen, "decrypt", "the token made %d octets from %d", len(plain), len(b.Wrapped))
	}
	return plain, nil
}

// Public returns the *rsa.PublicKey that the token holds beside the private key.
func (o Signer) Public() crypto.PublicKey { return o.k.public }

// Sign makes a PKCS #1 v1.5 signature within Config.OpTimeout. The reader is not
// used. opts must name SHA-256, SHA-384 or SHA-512; PSS is refused.
func (o Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, fault.Newf(fault.Invalid, "sign with key "+o.k.label.String(), "PSS is not offered")
	}
	return o.SignContext(context.Background(), digest, opts.HashFunc())
}

// SignContext is Sign with a deadline; see hsm.ContextSigner.
func (o Signer) SignContext(ctx context.Context, digest []byte, hash crypto.Hash) ([]byte, error) {
	if _, err := soft.DigestInfo(hash, digest); err != nil {
		return nil, err
	}
	digest = slices.Clone(digest)
	var sig []byte
	err := o.do(ctx, "sign", false, func(s p11.SessionHandle, h p11.ObjectHandle) (err error) {
		sig, err = o.t.sign(s, h, o.k.public, hash, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sig, nil
}

// MAC implements hsm.MAC.
func (o MACKey) MAC(ctx context.Context, data []byte) ([]byte, error) {
	if len(data) > hsm.MaxMACInput {
		return nil, fault.Newf(fault.Invalid, "compute MAC with key "+o.k.label.String(), "%d octets are more than %d", len(data), hsm.MaxMACInput)
	}
	data = slices.Clone(data)
	var sum []byte
	err := o.do(ctx, "compute MAC", false, func(s p11.SessionHandle, h p11.ObjectHandle) (err error) {
		sum, err = o.t.mac(s, h, data)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sum, nil
}

// Wrap implements hsm.Wrapper. The blob is unwrapped once before it is returned.
// One key may make 2^32 blobs (NIST SP 800-38D, section 8.3: random IVs).
func (o WrapKey) Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	op := "wrap with key " + o.k.label.String()
	if len(plaintext) > hsm.MaxPlaintext || len(aad) > hsm.MaxAAD {
		return nil, fault.Newf(fault.Invalid, op, "%d octets with %d of additional data are more than %d with %d", len(plaintext), len(aad), hsm.MaxPlaintext, hsm.MaxAAD)
	}
	plaintext, aad = slices.Clone(plaintext), slices.Clone(aad)
	var blob hsm.Blob
	err := o.do(ctx, "wrap", false, func(s p11.SessionHandle, h p11.ObjectHandle) (err error) {
		if blob, err = o.t.wrap(s, h, o.k.label, plaintext, aad); err != nil {
			return err
		}
		back, err := o.t.unwrap(s, h, blob, aad)
		if err != nil {
			return err
		}
		defer clear(back)
		if !bytes.Equal(back, plaintext) {
			return fault.Newf(fault.Reopen, "read back the blob just made", "the token wrapped wrongly")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	clear(plaintext)
	return blob.Encode()
}

// Unwrap implements hsm.Wrapper.
func (o WrapKey) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	op := "unwrap with key " + o.k.label.String()
	b, err := hsm.DecodeBlob(blob)
	if err != nil {
		return nil, err
	}
	if b.Key != o.k.label {
		return nil, fault.Newf(fault.Invalid, op, "it was wrapped by key %s", b.Key)
	}
	if len(aad) > hsm.MaxAAD {
		return nil, fault.Newf(fault.Invalid, op, "%d octets of additional data are more than %d", len(aad), hsm.MaxAAD)
	}
	aad = slices.Clone(aad)
	var plain []byte
	err = o.do(ctx, "unwrap", true, func(s p11.SessionHandle, h p11.ObjectHandle) (err error) {
		plain, err = o.t.unwrap(s, h, b, aad)
		return err
	})
	if err != nil {
		return nil, err
	}
	return plain, nil
}

// Certificate returns the certificate stored under the sign key's label. It
// opens the key too, and the certificate must be for it; else fault.Fatal.
func (t *Token) Certificate(label id.KeyLabel) (*x509.Certificate, error) {
	k, err := t.openKey(label, hsm.RoleSign)
	if err != nil {
		return nil, err
	}
	op := "read certificate " + label.String()
	var der, keyID []byte
	err = t.do(context.Background(), call{op: op, use: func(_ *generation, s p11.SessionHandle) error {
		h, err := t.findOne(s, label, p11.CKO_CERTIFICATE)
		if err != nil {
			return err
		}
		read := reader{t.mod, s, h, label, t.cfg.Tolerate}
		if keyID, err = read.value(p11.CKA_ID); err != nil {
			return err
		}
		der, err = read.value(p11.CKA_VALUE)
		return err
	}})
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if !k.public.Equal(cert.PublicKey) || !bytes.Equal(keyID, k.id) {
		return nil, fault.Newf(fault.Fatal, op, "it is not for the key of that name")
	}
	return cert, nil
}

// randomChunk is small enough for the tokens that limit C_GenerateRandom.
const randomChunk = 1024

type random struct{ t *Token }

// Random reads from the token's generator, within Config.OpTimeout per KiB. It
// may be used by many goroutines.
func (t *Token) Random() io.Reader { return random{t} }

func (r random) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := min(len(p), randomChunk)
	var got []byte
	err := r.t.do(context.Background(), call{op: "draw random octets", use: func(_ *generation, s p11.SessionHandle) (err error) {
		got, err = r.t.random(s, n)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return copy(p, got), nil
}

func (t *Token) random(s p11.SessionHandle, n int) ([]byte, error) {
	got, err := t.mod.GenerateRandom(s, n)
	if err != nil {
		return nil, inCall("C_GenerateRandom", err)
	}
	if len(got) != n {
		return nil, fault.Newf(fault.Reopen, "draw random octets", "the token gave %d of %d", len(got), n)
	}
	return got, nil
}

// checkRandom refuses a generator that is plainly broken.
func (t *Token) checkRandom(g *generation) error {
	s, err := t.mod.OpenSession(g.slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return inCall("C_OpenSession", err)
	}
	one, err := t.random(s, 32)
	if err != nil {
		return err
	}
	two, err := t.random(s, 32)
	if err != nil {
		return err
	}
	if bytes.Equal(one, two) || bytes.Equal(one, make([]byte, 32)) {
		return fault.Newf(fault.Fatal, "test random numbers", "the token repeats itself")
	}
	g.idle = append(g.idle, s)
	return nil
}
