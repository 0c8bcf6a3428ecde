package storetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"

	"custode/internal/fault"
)

// Keys is a store.Wrapper under a key made from its name. Two of one name are the same key, also in two processes.
type Keys string

func (k Keys) aead() (cipher.AEAD, error) {
	key := sha256.Sum256([]byte(k))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Wrap implements store.Wrapper.
func (k Keys) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	a, err := k.aead()
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plaintext, aad), nil
}

// Unwrap implements store.Wrapper.
func (k Keys) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	a, err := k.aead()
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, nil, blob, aad)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "unwrap", "not of key %s", string(k))
	}
	return plain, nil
}
