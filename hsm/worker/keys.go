package worker

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"io"
	"math"

	"custode/hsm"
	"custode/hsm/worker/judge"
	"custode/internal/fault"
	"custode/internal/id"
)

var (
	_ hsm.Token            = (*Client)(nil)
	_ hsm.SecretKey        = (*Client)(nil)
	_ hsm.CodeMatcher      = (*Client)(nil)
	_ crypto.MessageSigner = signer{}
	_ hsm.MAC              = macKey{}
	_ hsm.Wrapper          = wrapKey{}
)

type signer struct {
	c      *Client
	label  id.KeyLabel
	public *rsa.PublicKey
}

// Signer returns the RSA key called label. It is a crypto.MessageSigner: it signs octets of a
// kind that the worker allows this key, by PKCS #1 v1.5 with SHA-256. Its method Sign, which is given a
// digest, is fault.Denied.
func (c *Client) Signer(label id.KeyLabel) (crypto.Signer, error) {
	if err := labelled(label, "sign"); err != nil {
		return nil, err
	}
	q := question(opPublic, label.String())
	der, err := c.octets(context.Background(), "open sign key "+label.String(), q)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(der)
	key, ok := public.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, fault.Newf(fault.Fatal, "open sign key "+label.String(), "the worker gave a %T: %w", public, err)
	}
	if err := c.remember(label.String(), known{label: label.String(), role: "sign", ask: q, want: der}); err != nil {
		return nil, err
	}
	return signer{c, label, key}, nil
}

// Public implements crypto.Signer.
func (s signer) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer. Nobody can judge a digest.
func (s signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fault.Newf(fault.Denied, "sign with key "+s.label.String(), "the worker signs octets that it can judge, not digests")
}

// SignMessage implements crypto.MessageSigner within Config.OpTimeout. Options with a method
// Content() []byte give the element that a SignedInfo is about.
func (s signer) SignMessage(_ io.Reader, octets []byte, opts crypto.SignerOpts) ([]byte, error) {
	op := "sign with key " + s.label.String()
	if _, pss := opts.(*rsa.PSSOptions); pss || opts.HashFunc() != crypto.SHA256 {
		return nil, fault.Newf(fault.Invalid, op, "the signature is PKCS #1 v1.5 with SHA-256")
	}
	var content []byte
	if about, ok := opts.(interface{ Content() []byte }); ok {
		content = about.Content()
	}
	kind, err := judge.Octets(octets, content)
	if err != nil {
		return nil, fault.New(fault.Denied, op, err)
	}
	q := question(opSign, s.label.String(), octets, content)
	q.numbers = []uint64{uint64(kind)}
	return s.c.octets(context.Background(), op, q)
}

// Certificate returns the certificate stored beside the sign key label.
func (c *Client) Certificate(label id.KeyLabel) (*x509.Certificate, error) {
	if err := labelled(label, "sign"); err != nil {
		return nil, err
	}
	op := "read certificate " + label.String()
	der, err := c.octets(context.Background(), op, question(opCertificate, label.String()))
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	return cert, nil
}

type macKey struct {
	c     *Client
	label id.KeyLabel
}

// MAC returns the mac key called label.
func (c *Client) MAC(label id.KeyLabel) (hsm.MAC, error) {
	if err := labelled(label, "mac"); err != nil {
		return nil, err
	}
	op := "open mac key " + label.String()
	if _, err := c.do(context.Background(), op, question(opOpenMAC, label.String())); err != nil {
		return nil, err
	}
	q := question(opMAC, label.String(), []byte(canary))
	sum, err := c.octets(context.Background(), op, q)
	if err != nil {
		return nil, err
	}
	if err := c.remember(label.String(), known{label: label.String(), role: "mac", ask: q, want: sum}); err != nil {
		return nil, err
	}
	return macKey{c, label}, nil
}

// MAC implements hsm.MAC.
func (m macKey) MAC(ctx context.Context, data []byte) ([]byte, error) {
	op := "compute MAC with key " + m.label.String()
	if len(data) > hsm.MaxMACInput {
		return nil, fault.Newf(fault.Invalid, op, "%d octets are more than %d", len(data), hsm.MaxMACInput)
	}
	return m.c.octets(ctx, op, question(opMAC, m.label.String(), data))
}

type wrapKey struct {
	c     *Client
	label id.KeyLabel
}

// Wrapper returns the wrap key called label.
func (c *Client) Wrapper(label id.KeyLabel) (hsm.Wrapper, error) {
	if err := labelled(label, "wrap"); err != nil {
		return nil, err
	}
	op := "open wrap key " + label.String()
	if _, err := c.do(context.Background(), op, question(opOpenWrap, label.String())); err != nil {
		return nil, err
	}
	c.mu.Lock()
	_, have := c.known[label.String()]
	c.mu.Unlock()
	if !have {
		blob, err := c.octets(context.Background(), op, question(opWrap, label.String(), []byte(canary), nil))
		if err != nil {
			return nil, err
		}
		k := known{label: label.String(), role: "wrap", ask: question(opUnwrap, label.String(), blob, nil), want: []byte(canary)}
		if err := c.remember(label.String(), k); err != nil {
			return nil, err
		}
	}
	return wrapKey{c, label}, nil
}

// Wrap implements hsm.Wrapper.
func (w wrapKey) Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	op := "wrap with key " + w.label.String()
	if len(plaintext) > hsm.MaxPlaintext || len(aad) > hsm.MaxAAD {
		return nil, fault.Newf(fault.Invalid, op, "%d octets with %d of additional data are more than %d with %d", len(plaintext), len(aad), hsm.MaxPlaintext, hsm.MaxAAD)
	}
	return w.c.octets(ctx, op, question(opWrap, w.label.String(), plaintext, aad))
}

// Unwrap implements hsm.Wrapper.
func (w wrapKey) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	op := "unwrap with key " + w.label.String()
	if len(blob) > hsm.MaxPlaintext+1024 || len(aad) > hsm.MaxAAD {
		return nil, fault.Newf(fault.Invalid, op, "%d octets with %d of additional data are too long", len(blob), len(aad))
	}
	return w.c.octets(ctx, op, question(opUnwrap, w.label.String(), blob, aad))
}

// octets asks for one field and returns a copy of it; the frame is wiped.
func (c *Client) octets(ctx context.Context, op string, q message) ([]byte, error) {
	a, err := c.do(ctx, op, q)
	if err != nil {
		return nil, err
	}
	defer clear(a.frame)
	if len(a.fields) != 1 || len(a.numbers) != 0 {
		return nil, fault.Newf(fault.Internal, op, "the worker answered with %d fields", len(a.fields))
	}
	return append(make([]byte, 0, len(a.fields[0])), a.fields[0]...), nil
}

// SecretForm opens the key called label, which wraps OATH secrets, and says what to give WrapSecret with it:
// the wrap mechanism, and the key type that the token wants, 0 for one per hash.
func (c *Client) SecretForm(label id.KeyLabel) (wrap, keyType uint32, err error) {
	if err := labelled(label, "seed"); err != nil {
		return 0, 0, err
	}
	op := "open seed key " + label.String()
	a, err := c.do(context.Background(), op, question(opSecretForm, label.String()))
	if err != nil {
		return 0, 0, err
	}
	if len(a.numbers) != 2 || a.numbers[0] > math.MaxUint32 || a.numbers[1] > math.MaxUint32 {
		return 0, 0, fault.Newf(fault.Internal, op, "the worker answered with %d numbers", len(a.numbers))
	}
	wrap, keyType = uint32(a.numbers[0]), uint32(a.numbers[1])
	tried := keyType
	if tried == 0 {
		tried = hsm.KeyTypeOf(hsm.MechanismSHA256)
	}
	return wrap, keyType, c.knowSeedKey(context.Background(), label, wrap, tried)
}

// OpenSeed opens the key called label, which wraps OATH secrets.
func (c *Client) OpenSeed(label id.KeyLabel) error {
	_, _, err := c.SecretForm(label)
	return err
}

// WrapSecret implements hsm.SecretKey.
func (c *Client) WrapSecret(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32, secret []byte) ([]byte, error) {
	wrapped, err := c.octets(ctx, "wrap secret with key "+kek.String(), secretQuestion(kek, wrap, keyType, secret))
	if err != nil {
		return nil, err
	}
	return wrapped, c.knowSeedKey(ctx, kek, wrap, keyType)
}

// MatchCodes implements hsm.CodeMatcher.
func (c *Client) MatchCodes(ctx context.Context, query hsm.CodeQuery) ([]int, error) {
	op := "match codes with key " + query.KEK.String()
	if err := query.Check(); err != nil {
		return nil, err
	}
	a, err := c.do(ctx, op, codeQuestion(query))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, n := range a.numbers {
		if n >= uint64(len(query.Counters)) {
			return nil, fault.Newf(fault.Internal, op, "the worker answered with index %d", n)
		}
		found = append(found, int(n))
	}
	return found, c.knowSeedKey(ctx, query.KEK, query.Wrap, query.KeyType)
}

// knowSeedKey has the known answer of a key for OATH secrets kept when it is first used.
func (c *Client) knowSeedKey(ctx context.Context, kek id.KeyLabel, wrap, keyType uint32) error {
	as := kek.String() + " seed"
	c.mu.Lock()
	_, have := c.known[as]
	c.mu.Unlock()
	if have {
		return nil
	}
	q := question(opSeedCanary, kek.String(), nil)
	q.numbers = []uint64{uint64(wrap), uint64(keyType)}
	want, err := c.octets(ctx, "open seed key "+kek.String(), q)
	if err != nil {
		return err
	}
	if wrap == hsm.MechanismAESGCM {
		q.fields[0], want = want, []byte(canary)
	}
	return c.remember(as, known{label: kek.String(), role: "seed", ask: q, want: want})
}

type random struct{ c *Client }

// Random reads from the token's generator, within Config.OpTimeout per KiB.
func (c *Client) Random() io.Reader { return random{c} }

func (r random) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := min(len(p), maxRandom)
	got, err := r.c.octets(context.Background(), "draw random octets", message{code: byte(opRandom), numbers: []uint64{uint64(n)}})
	if err != nil {
		return 0, err
	}
	if len(got) != n {
		return 0, fault.Newf(fault.Internal, "draw random octets", "the worker gave %d of %d", len(got), n)
	}
	return copy(p, got), nil
}
