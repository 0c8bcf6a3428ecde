package hsmcmd

import (
	"crypto"
	"testing"

	"custode/hsm"
	"custode/hsm/pkcs11"
)

// What the other process costs: the same token in this process and through a worker. Run both in one
// go and compare them with each other, not with other days.

func benchmark(b *testing.B, run func(b *testing.B, tok hsm.Token)) {
	b.Run("in-process", func(b *testing.B) {
		sim := newSim(b)
		b.Setenv("SOFTHSM2_CONF", sim.Conf)
		tok, err := pkcs11.Open(b.Context(), pkcs11.Config{URI: sim.URI()})
		if err != nil {
			b.Fatal(err)
		}
		defer tok.Close()
		run(b, tok)
	})
	b.Run("worker", func(b *testing.B) {
		sim := newSim(b)
		env := map[string]string{machineEnv: sim.URI() + "|", "SOFTHSM2_CONF": sim.Conf}
		run(b, openSource(b, &supervised{env: env, cfg: Config{MachineFile: "m", PolicyFile: "p", Stderr: testLog}}))
	})
}

// calls measures one caller, then as many as the module takes.
func calls(b *testing.B, once func() error) {
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			if err := once(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crowd", func(b *testing.B) {
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := once(); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkMAC(b *testing.B) {
	benchmark(b, func(b *testing.B, tok hsm.Token) {
		m, err := tok.MAC(macLabel)
		if err != nil {
			b.Fatal(err)
		}
		calls(b, func() error { _, err := m.MAC(b.Context(), []byte("one code")); return err })
	})
}

func BenchmarkSign(b *testing.B) {
	octets := attributes()
	benchmark(b, func(b *testing.B, tok hsm.Token) {
		s, err := tok.Signer(signLabel)
		if err != nil {
			b.Fatal(err)
		}
		calls(b, func() error { _, err := crypto.SignMessage(s, nil, octets, crypto.SHA256); return err })
	})
}

// BenchmarkRandom is nearly nothing in the module: the price of one call.
func BenchmarkRandom(b *testing.B) {
	benchmark(b, func(b *testing.B, tok hsm.Token) {
		r, octets := tok.Random(), make([]byte, 16)
		calls(b, func() error { _, err := r.Read(octets); return err })
	})
}
