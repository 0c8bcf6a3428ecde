package soft

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"runtime"
	"testing"

	"custode/hsm"
	"custode/internal/fault"
)

// The HMAC that clears its buffers is HMAC.
func TestHMAC(t *testing.T) {
	for mechanism, h := range map[uint32]func() hash.Hash{hsm.MechanismSHA1: sha1.New, hsm.MechanismSHA256: sha256.New, hsm.MechanismSHA512: sha512.New} {
		if Block(mechanism) != h().BlockSize() {
			t.Errorf("%#x: block %d", mechanism, Block(mechanism))
		}
		for _, n := range []int{0, 1, 20, 63, 64, 65, 127, 128, 129, 200, hsm.MaxSecret} {
			for _, length := range []int{0, 8, 64} {
				secret, message := bytes.Repeat([]byte{byte(n), 0x5c}, hsm.MaxSecret)[:n], bytes.Repeat([]byte{7}, length)
				before := bytes.Clone(secret)
				got := make([]byte, hsm.HMACSize(mechanism))
				HMAC(mechanism, secret, message, got)
				want := hmac.New(h, secret)
				want.Write(message)
				if !bytes.Equal(got, want.Sum(nil)) || !bytes.Equal(secret, before) {
					t.Errorf("%#x, secret of %d, message of %d: %x", mechanism, n, length, got)
				}
			}
		}
	}
}

// The copy is cleared at once, or when the call that has it is over.
func TestBorrowed(t *testing.T) {
	own := []byte("secret")
	b := Borrow(own)
	var kept []byte
	if err := b.Use(func(s []byte) error { kept = s; return nil }); err != nil || string(kept) != "secret" {
		t.Errorf("%q %v", kept, err)
	}
	b.Wipe()
	if !bytes.Equal(kept, make([]byte, 6)) || string(own) != "secret" {
		t.Errorf("the copy is %q, the caller's %q", kept, own)
	}
	if err := b.Use(func([]byte) error { return nil }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after Wipe: %v", err)
	}
	b.Wipe()

	late := Borrow(own)
	inside, leave, left := make(chan []byte), make(chan bool), make(chan error)
	go func() {
		left <- late.Use(func(s []byte) error {
			inside <- s
			<-leave
			if string(s) != "secret" {
				t.Error("cleared under the call")
			}
			return nil
		})
	}()
	kept = <-inside
	late.Wipe()
	close(leave)
	if err := <-left; err != nil {
		t.Error(err)
	}
	for late.Use(func([]byte) error { return nil }) == nil { // until the wiping goroutine has its turn
		runtime.Gosched()
	}
	if !bytes.Equal(kept, make([]byte, 6)) {
		t.Errorf("left behind: %q", kept)
	}
}
