// Package otptest has a token in memory for tests of the packages of otpvault: it wraps,
// binds and compares as the HSM does, and can be made to fail. Imported by tests only.
package otptest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/seed"
)

// Token is one. Its zero value works.
type Token struct {
	mu   sync.Mutex
	err  error
	asks int
}

// Fail makes every call fail; nil ends that.
func (k *Token) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// Asked is how many questions about codes there were.
func (k *Token) Asked() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asks
}

func (k *Token) failing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// pad hides a secret: it is a test.
func pad(b []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out
}

// WrapSecret implements seed.Wrapper.
func (k *Token) WrapSecret(_ context.Context, _ id.KeyLabel, _, _ uint32, secret []byte) ([]byte, error) {
	return append([]byte("wrapped:"), pad(secret)...), k.failing()
}

// MAC implements seed.Binder, and all the others that want one.
func (k *Token) MAC(_ context.Context, data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte("key"))
	m.Write(data)
	return m.Sum(nil), k.failing()
}

// Match implements seed.Matcher.
func (k *Token) Match(ctx context.Context, q seed.Question) (out []int, _ error) {
	k.mu.Lock()
	k.asks++
	k.mu.Unlock()
	mac, err := k.MAC(ctx, q.Binding)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, q.BindingMAC) || !bytes.HasSuffix(q.Binding, q.Wrapped) {
		return nil, fault.Newf(fault.Denied, "match", "the binding does not fit")
	}
	hashes := map[uint32]func() hash.Hash{0x221: sha1.New, 0x251: sha256.New, 0x271: sha512.New}
	for i, c := range q.Counters {
		if Code(hashes[q.MAC], pad(q.Wrapped[8:]), c, q.Digits) == q.Code {
			out = append(out, i)
		}
	}
	return out, nil
}

// Code is what a device shows (RFC 4226, 5.3).
func Code(h func() hash.Hash, secret []byte, counter uint64, digits int) string {
	m := hmac.New(h, secret)
	_ = binary.Write(m, binary.BigEndian, counter)
	sum := m.Sum(nil)
	text := fmt.Sprintf("%010d", binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:])&0x7fffffff)
	return text[10-digits:]
}

func gcm() cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err) // the key's length is right
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

// Wrap implements issuing.Keys.
func (k *Token) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	return gcm().Seal(nil, make([]byte, 12), plaintext, aad), k.failing()
}

// Unwrap implements proof.Wrapper.
func (k *Token) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	if err := k.failing(); err != nil {
		return nil, err
	}
	return gcm().Open(nil, make([]byte, 12), blob, aad)
}
