package pkcs11_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"custode/hsm"
	"custode/hsm/pkcs11"
)

// copies counts how often the memory of this process, C's and the stacks included, holds what
// masked is with every bit turned over: the needle itself must not be the only find.
func copies(t *testing.T, masked []byte) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	n := 0
	const chunk = 1 << 20
	buf := make([]byte, chunk)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil || !strings.HasPrefix(rights, "rw") || to-from > 1<<30 {
			continue // not for data, or the race detector's own books
		}
		for at := from; at < to; at += chunk - uint64(len(masked)) {
			got, err := mem.ReadAt(buf[:min(chunk, to-at)], int64(at))
			if err != nil && !errors.Is(err, io.EOF) {
				break // a part that cannot be read is not ours
			}
			for rest := buf[:got]; ; rest = rest[1:] {
				i := bytes.IndexByte(rest, ^masked[0])
				if i < 0 || len(rest)-i < len(masked) {
					break
				}
				if rest = rest[i:]; turned(rest[:len(masked)], masked) {
					n++
				}
			}
			clear(buf)
		}
	}
	return n
}

func turned(got, masked []byte) bool {
	for i := range masked {
		if got[i] != ^masked[i] {
			return false
		}
	}
	return true
}

// What docs/design/hsm.md says of memory, looked up in it: once a secret was wrapped and its
// owner has cleared it, no copy is left anywhere in the process, nor does verifying bring one.
// A few are allowed for: when the scheduler interrupts a thread in the module, the kernel
// writes the vector registers with which memcpy moved the secret to that thread's signal stack. Each
// operation is made often enough for one that forgets to clear to leave more.
func TestNoCopyOfASecret(t *testing.T) {
	const often, few = 60, 12
	for name, c := range map[string]struct {
		decrypt bool
		wrap    uint32
	}{"unwrap": {false, hsm.MechanismAESKeyWrap}, "decrypt": {true, hsm.MechanismAESGCM}} {
		t.Run(name, func(t *testing.T) {
			tok := open(t, newSim(t), func(cfg *pkcs11.Config) { cfg.DecryptSeeds = c.decrypt })
			m, _ := keys(t, tok)
			kek := seedLabel
			if c.decrypt {
				kek = wrapLabel
			}
			secret := make([]byte, 64)
			if _, err := rand.Read(secret[:20]); err != nil {
				t.Fatal(err)
			}
			masked := make([]byte, 20)
			for i := range masked {
				masked[i] = ^secret[i]
			}
			if copies(t, masked) == 0 {
				t.Fatal("the search does not find a secret that is there")
			}
			q := hsm.CodeQuery{KEK: kek, Wrap: c.wrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Binder: macLabel, Digits: 6, Counters: []uint64{1, 2, 3}, Code: "000000"}
			var err error
			for range often {
				if q.Wrapped, err = tok.WrapSecret(t.Context(), q.KEK, q.Wrap, q.KeyType, secret); err != nil {
					t.Fatal(err)
				}
			}
			clear(secret)
			runtime.KeepAlive(secret)
			q.Binding = slices.Clone(q.Wrapped)
			q.BindingMAC = must1(t)(m.MAC(t.Context(), q.Binding))
			if n := copies(t, masked); n > few {
				t.Errorf("%d copies after wrapping", n)
			} else {
				t.Logf("%d copies after wrapping %d times", n, often)
			}
			for range often {
				if _, err := tok.MatchCodes(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			if n := copies(t, masked); n > few {
				t.Errorf("%d copies after verifying", n)
			} else {
				t.Logf("%d copies after verifying %d times", n, often)
			}
		})
	}
}
