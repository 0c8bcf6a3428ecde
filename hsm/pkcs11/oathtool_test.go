package pkcs11_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"custode/hsm"
)

// codesOf asks oathtool (Debian package oathtool) for the codes of a seed, from a moment on.
func codesOf(ctx context.Context, seed []byte, args ...string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "oathtool", append(args, "-")...)
	cmd.Stdin = strings.NewReader(hex.EncodeToString(seed) + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("oathtool (Debian package oathtool) %v: %w: %s", args, err, out)
	}
	return strings.Fields(string(out)), nil
}

// oathCase is a random device at a random moment.
func oathCase(ctx context.Context, r *rand.Rand) (seed []byte, mechanism uint32, counters []uint64, codes []string, err error) {
	seed = make([]byte, 10+r.IntN(55))
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	const more = 2 // codes after the first
	digits := 6 + r.IntN(3)
	args := []string{fmt.Sprintf("--digits=%d", digits), fmt.Sprintf("--window=%d", more)}
	var first uint64
	switch kind := r.IntN(4); kind {
	case 0:
		mechanism, first = hsm.MechanismSHA1, r.Uint64N(1<<(1+r.UintN(48)))
		args = append(args, fmt.Sprintf("--counter=%d", first))
	default:
		mechanism = []uint32{hsm.MechanismSHA1, hsm.MechanismSHA256, hsm.MechanismSHA512}[kind-1]
		step, at := uint64(30*(1+r.IntN(2))), r.Uint64N(1<<33)
		first = at / step
		args = append(args, "--totp="+[]string{"sha1", "sha256", "sha512"}[kind-1], fmt.Sprintf("--time-step-size=%ds", step), fmt.Sprintf("--now=@%d", at))
	}
	codes, err = codesOf(ctx, seed, args...)
	if err == nil && len(codes) != 1+more {
		err = fmt.Errorf("oathtool gave %d codes", len(codes))
	}
	for i := range uint64(1 + more) {
		counters = append(counters, first+i)
	}
	return seed, mechanism, counters, codes, err
}

// Ten thousand random seeds and moments: what the token computes is what oathtool prints.
func TestOathtool(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 200
	}
	tok := open(t, newSim(t))
	m, _ := keys(t, tok)
	one := func(r *rand.Rand) error {
		seed, mechanism, counters, codes, err := oathCase(t.Context(), r)
		if err != nil {
			return err
		}
		block := 64
		if mechanism == hsm.MechanismSHA512 {
			block = 128
		}
		q := hsm.CodeQuery{
			KEK: seedLabel, Wrap: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, MAC: mechanism, Binder: macLabel, Counters: counters,
		}
		q.Wrapped, err = tok.WrapSecret(t.Context(), q.KEK, q.Wrap, q.KeyType, append(slices.Clone(seed), make([]byte, block-len(seed))...))
		if err != nil {
			return err
		}
		q.Binding = q.Wrapped
		if q.BindingMAC, err = m.MAC(t.Context(), q.Binding); err != nil {
			return err
		}
		for i, code := range codes {
			q.Code, q.Digits = code, len(code)
			got, err := tok.MatchCodes(t.Context(), q)
			// Neighbours may have the same code; a code never matches none.
			if err != nil || !slices.Contains(got, i) {
				return fmt.Errorf("seed %x, mechanism %#x, counter %d: oathtool says %s, the token matches it with %v, %w", seed, mechanism, counters[i], code, got, err)
			}
			for _, other := range got {
				if codes[other] != code {
					return fmt.Errorf("seed %x: counter %d matches %s", seed, counters[other], code)
				}
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	const workers = 4
	for w := range uint64(workers) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(4226, w))
			for range n / workers {
				if err := one(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds, %d codes", n, 3*n)
}
