package pkcs11_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"custode/hsm"
	"custode/hsm/hsmtest"
	"custode/hsm/pkcs11"
	"custode/internal/fault"
	"custode/simulators/hsmsim"
)

// newNSS returns an NSS token with the test plan's keys, and some that break the
// policy. The ceremony reaches it
// through a shim, since crypto11 cannot pass what NSS wants in C_Initialize.
func newNSS(t *testing.T) *hsmsim.NSS {
	t.Helper()
	nss, err := hsmsim.NewNSS(filepath.Join(t.TempDir(), "nss"))
	if err != nil {
		t.Fatal(err)
	}
	shim, err := hsmsim.NewShim(filepath.Join(t.TempDir(), "shim"), nss.Module, nss.Reserved)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range nss.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	if err := runCeremony(nss.URIThrough(shim.Module), nil, filepath.Join(t.TempDir(), "out"), "_TOLERATE", "_BAD"); err != nil {
		t.Fatal(err)
	}
	return nss
}

func nssConfig(nss *hsmsim.NSS) pkcs11.Config {
	return pkcs11.Config{URI: nss.URIThrough(nss.Module), InitArgs: nss.Reserved, Tolerate: hsm.LackAllowedMechanisms | hsm.LackLocal | hsm.LackUnwrapTemplate}
}

// The same suite on a token that shares no code with SoftHSM. The shim is there
// for the misfortunes only: it hands on what C_Initialize is given.
func TestConformanceNSS(t *testing.T) {
	nss := newNSS(t)
	shim, err := hsmsim.NewShim(filepath.Join(t.TempDir(), "pass"), nss.Module, "")
	if err != nil {
		t.Fatal(err)
	}
	hsmtest.Run(t, func(t *testing.T) hsmtest.Backend {
		cfg := nssConfig(nss)
		cfg.URI, cfg.Backoff = nss.URIThrough(shim.Module), time.Millisecond
		tok, err := pkcs11.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := tok.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return hsmtest.Backend{
			Token: tok, Sign: signLabel, MAC: macLabel, Wrap: wrapLabel, Seed: seedLabel,
			Refused: slices.DeleteFunc(badKeys(), func(r hsmtest.Refused) bool {
				// It makes every private key sensitive, whatever is asked.
				return r.Names == "CKA_ALLOWED_MECHANISMS" || r.Names == "CKA_LOCAL" || r.Names == "CKA_SENSITIVE" || r.Names == "CKA_UNWRAP_TEMPLATE"
			}),
			DropSessions: shim.DropSessions, Logout: shim.Logout, Remove: shim.Hide, Restore: shim.Show,
		}
	})
}

// Nothing is tolerated that was not named.
func TestNSSWithoutTolerance(t *testing.T) {
	nss := newNSS(t)
	cfg := nssConfig(nss)
	for lacks, named := range map[hsm.Lacks]string{
		0: "CKA_LOCAL", hsm.LackLocal: "CKA_ALLOWED_MECHANISMS", hsm.LackAllowedMechanisms: "CKA_LOCAL",
	} {
		log := newCounter()
		cfg.Tolerate, cfg.Log = lacks, slog.New(log)
		tok, err := pkcs11.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if n := log.count("THE KEY POLICY IS NOT ENFORCED IN FULL: the token is allowed to lack a rule"); n != len(lacks.Strings()) {
			t.Errorf("tolerating %v: said %d times", lacks.Strings(), n)
		}
		_, serr := tok.Signer(signLabel)
		_, merr := tok.MAC(macLabel)
		_, werr := tok.Wrapper(wrapLabel)
		for _, err := range []error{serr, merr, werr, tok.OpenSeed(seedLabel)} {
			if !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), named) {
				t.Errorf("tolerating %v: %v, want fatal naming %s", lacks.Strings(), err, named)
			}
		}
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	}
	cfg.Tolerate = hsm.LackLocal | hsm.LackAllowedMechanisms
	tok, err := pkcs11.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.OpenSeed(seedLabel); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "CKA_UNWRAP_TEMPLATE") || !strings.Contains(err.Error(), "test/seed") {
		t.Errorf("without unwrap-template: %v, want fatal naming it and the key", err)
	}
	if err := tok.Close(); err != nil {
		t.Error(err)
	}
}
