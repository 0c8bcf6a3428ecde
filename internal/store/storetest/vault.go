package storetest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/otpvault"
)

var _ authcore.Codes = (*otpvault.Vault)(nil)

// keys stands for the HSM's keys.
type keys [32]byte

func (k *keys) MAC(_ context.Context, data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, k[:])
	m.Write(data)
	return m.Sum(nil), nil
}

func (k *keys) aead() (cipher.AEAD, error) {
	c, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

func (k *keys) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	a, err := k.aead()
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, make([]byte, a.NonceSize()), plaintext, aad), nil
}

func (b *Bench) vault(t *testing.T, k *keys, db *store.DB) *otpvault.Vault {
	t.Helper()
	v, err := otpvault.New(otpvault.Config{MAC: k, Wrapper: k, Random: rand.Reader, Store: db, Now: func() time.Time { return b.Now }})
	must(t, err)
	return v
}

// sentCode reads the code from the newest queued message, as its phone would.
func (b *Bench) sentCode(t *testing.T, k *keys) string {
	t.Helper()
	queued := get(b.DB.Queued(b.ctx, 100))(t)
	m := queued[len(queued)-1]
	a, err := k.aead()
	must(t, err)
	text, err := a.Open(nil, make([]byte, a.NonceSize()), m.Wrapped, []byte(m.ID.String()))
	must(t, err)
	return string(text[:6])
}

// testVaultRace verifies one right code from two processes at once.
func testVaultRace(t *testing.T, b *Bench) {
	k := &keys{1}
	vaults := []*otpvault.Vault{b.vault(t, k, b.DB), b.vault(t, k, b.another(t))}
	flow, subject := newID(t, id.NewFlowID), newID(t, id.NewSubject)
	c := get(vaults[0].Issue(b.ctx, flow, subject, parse(t, id.ParsePhone, "+393401234567"), "Comune di Esempio"))(t)
	code := b.sentCode(t, k)
	oneWinner(t, race(50, func(n int) error {
		return discard(vaults[n%2].Verify(b.ctx, c, flow, subject, code))
	}), fault.Conflict, fault.Exhausted)
}

// testVaultLife is the life of codes over the real store.
func testVaultLife(t *testing.T, b *Bench) {
	k := &keys{2}
	v := b.vault(t, k, b.DB)
	flow, subject, phone := newID(t, id.NewFlowID), newID(t, id.NewSubject), parse(t, id.ParsePhone, "+393401234567")
	first := get(v.Issue(b.ctx, flow, subject, phone, "Comune"))(t)
	code := b.sentCode(t, k)
	wrong := string(bytes.Map(func(r rune) rune { return '0' + ('9' - r) }, []byte(code)))
	left, err := v.Verify(b.ctx, first, flow, subject, wrong)
	wantKind(t, "wrong code", err, fault.Denied)
	if left != 2 {
		t.Errorf("%d left, want 2", left)
	}
	b.reopen(t)
	v = b.vault(t, k, b.DB)
	wantKind(t, "wrong code after a restart", discard(v.Verify(b.ctx, first, flow, subject, wrong)), fault.Denied)
	wantKind(t, "third wrong code", discard(v.Verify(b.ctx, first, flow, subject, wrong)), fault.Exhausted)
	wantKind(t, "right code too late", discard(v.Verify(b.ctx, first, flow, subject, code)), fault.Exhausted)

	b.Now = b.Now.Add(time.Second)
	second := get(v.Issue(b.ctx, flow, subject, phone, "Comune"))(t)
	code = b.sentCode(t, k)
	wantKind(t, "new code for the old challenge", discard(v.Verify(b.ctx, first, flow, subject, code)), fault.Conflict)
	must(t, discard(v.Verify(b.ctx, second, flow, subject, code)))
	wantKind(t, "used", discard(v.Verify(b.ctx, second, flow, subject, code)), fault.Conflict)

	b.Now = b.Now.Add(time.Second)
	third := get(v.Issue(b.ctx, flow, subject, phone, "Comune"))(t)
	code = b.sentCode(t, k)
	b.Now = b.Now.Add(otpvault.DefaultLifetime)
	wantKind(t, "expired", discard(v.Verify(b.ctx, third, flow, subject, code)), fault.Expired)
	for range 3 {
		_, err = v.Issue(b.ctx, flow, subject, phone, "Comune")
	}
	wantKind(t, "sixth message", err, fault.Exhausted)
}
