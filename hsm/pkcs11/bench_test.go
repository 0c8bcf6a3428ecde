package pkcs11_test

import (
	"crypto"
	"crypto/sha256"
	"testing"

	"custode/hsm"
)

// On SoftHSM the pool should cost nothing next
// to the operation. Run with -cpu 1,2 and compare columns, not days.

func BenchmarkSignRSA2048(b *testing.B) {
	tok := open(b, newSim(b))
	s, err := tok.Signer(signLabel)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Sign(nil, digest[:], crypto.SHA256); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkMAC(b *testing.B) {
	tok := open(b, newSim(b))
	m, _ := keys(b, tok)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := m.MAC(b.Context(), []byte("one code")); err != nil {
				b.Error(err)
			}
		}
	})
}

func benchWrapper(b *testing.B, run func(w hsm.Wrapper, blob []byte) error) {
	tok := open(b, newSim(b))
	_, w := keys(b, tok)
	blob, err := w.Wrap(b.Context(), make([]byte, 32), []byte("subject"))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := run(w, blob); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkWrap includes the reading back.
func BenchmarkWrap(b *testing.B) {
	benchWrapper(b, func(w hsm.Wrapper, _ []byte) error {
		_, err := w.Wrap(b.Context(), make([]byte, 32), []byte("subject"))
		return err
	})
}

func BenchmarkUnwrap(b *testing.B) {
	benchWrapper(b, func(w hsm.Wrapper, blob []byte) error {
		_, err := w.Unwrap(b.Context(), blob, []byte("subject"))
		return err
	})
}

// BenchmarkMatchCodes verifies one code against three counters.
func BenchmarkMatchCodes(b *testing.B) {
	tok := open(b, newSim(b))
	m, _ := keys(b, tok)
	q := hsm.CodeQuery{
		KEK: seedLabel, Wrap: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Binder: macLabel,
		Digits: 6, Counters: []uint64{0, 1, 2}, Code: "287082",
	}
	var err error
	if q.Wrapped, err = tok.WrapSecret(b.Context(), q.KEK, q.Wrap, q.KeyType, rfcSecret()); err != nil {
		b.Fatal(err)
	}
	q.Binding = append(make([]byte, 250), q.Wrapped...)
	if q.BindingMAC, err = m.MAC(b.Context(), q.Binding); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := tok.MatchCodes(b.Context(), q); err != nil {
				b.Error(err)
			}
		}
	})
}
