package ceremony_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/hsm/custody"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/simulators/hsmsim"
)

// copyPlan is plan with every key copied, and one that is not.
var copyPlan = strings.NewReplacer("bits: 3072\n", "bits: 2048\n    copy: true\n", "bits: 256\n", "bits: 256\n    copy: true\n").Replace(plan) + `  - label: custode/seed/2026-1
    role: seed
    bits: 256
    copy: true
  - label: custode/mac/stays
    role: mac
    bits: 256
copies:
  custodians: [anna, bruno, carla]
  threshold: 2
`

// results is what a token's keys make of one text.
type results struct {
	mac, blob, sig []byte
	public         *rsa.PublicKey
}

// use asks every key of the token; an earlier token's blob must open too.
func use(t *testing.T, sim *hsmsim.Sim, copied []id.KeyLabel, earlier *results) (results, error) {
	t.Helper()
	t.Setenv("SOFTHSM2_CONF", sim.Conf)
	ctx, text := t.Context(), []byte("one text")
	tok, err := pkcs11.Open(ctx, pkcs11.Config{URI: sim.URI(), Copied: copied})
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	var r results
	m, err := tok.MAC(label(t, "custode/mac/2026-1"))
	if err != nil {
		return r, err
	}
	w, err := tok.Wrapper(label(t, "custode/wrap/2026-1"))
	if err != nil {
		return r, err
	}
	s, err := tok.Signer(label(t, "custode/sign/2026-1"))
	if err != nil {
		return r, err
	}
	if r.mac, err = m.MAC(ctx, text); err != nil {
		return r, err
	}
	if r.blob, err = w.Wrap(ctx, text, nil); err != nil {
		return r, err
	}
	if earlier != nil {
		if got, err := w.Unwrap(ctx, earlier.blob, nil); err != nil || !bytes.Equal(got, text) {
			t.Errorf("the other token's blob: %v", err)
		}
	}
	digest := sha256.Sum256(text)
	r.public = s.Public().(*rsa.PublicKey)
	r.sig, err = s.Sign(nil, digest[:], crypto.SHA256)
	return r, err
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCopyToAnotherToken: the backup of one token, opened by two custodians of
// three, gives another token keys that make the same MACs and signatures; with one
// custodian it gives nothing; and both tokens' keys are refused unless the
// configuration says that they are copies.
func TestCopyToAnotherToken(t *testing.T) {
	first, dir := newSim(t), t.TempDir()
	if kind, message := hold(t, first, copyPlan, dir); message != "" {
		t.Fatal(kind, message)
	}
	report := string(read(t, filepath.Join(dir, "prova-1.report.txt")))
	for _, want := range []string{"opened by any 2 of: anna, bruno, carla", "CKA_LOCAL COPIED, not checked", "CKA_EXTRACTABLE=false", "COPIED        into the backup", "KEY custode/mac/stays"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	seen := objects(t, first)
	if n := strings.Count(seen, "label:"); n != 7 { // private, public, certificate, wrap and two macs
		t.Errorf("the token holds %d objects, want 7:\n%s", n, seen)
	}
	copied := []id.KeyLabel{label(t, "custode/mac/2026-1"), label(t, "custode/wrap/2026-1"), label(t, "custode/sign/2026-1"), label(t, "custode/seed/2026-1")}
	if _, err := use(t, first, copied[1:], nil); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "custode/mac/2026-1") || !strings.Contains(err.Error(), "CKA_LOCAL") {
		t.Errorf("a copied key that the configuration does not name: %v", err)
	}
	one, err := use(t, first, copied, nil)
	if err != nil {
		t.Fatal(err)
	}

	backup := read(t, filepath.Join(dir, "prova-1.backup"))
	var shares []custody.Share
	for _, name := range []string{"1-anna", "2-bruno", "3-carla"} {
		file := filepath.Join(dir, "prova-1.share-"+name+".txt")
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Fatal(st, err)
		}
		s, err := custody.ParseShare(read(t, file))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(backup, s.Value[:]) {
			t.Error("the backup holds a share")
		}
		shares = append(shares, s)
	}
	second := newSim(t)
	t.Setenv("SOFTHSM2_CONF", second.Conf)
	to := ceremony.Access{URI: second.URI()}
	empty := objects(t, second)
	altered := bytes.Replace(backup, []byte(`"bits": 2048`), []byte(`"bits": 3072`), 1)
	wrong := shares[0]
	wrong.Value[7] ^= 1
	for name, c := range map[string]struct {
		file   []byte
		shares []custody.Share
		kind   fault.Kind
	}{
		"one share":     {backup, shares[:1], fault.Denied},
		"altered":       {altered, shares[:2], fault.Denied},
		"a wrong share": {backup, []custody.Share{wrong, shares[1]}, fault.Denied},
		"no backup":     {[]byte("x"), shares[:2], fault.Invalid},
	} {
		if _, err := ceremony.Restore(t.Context(), to, c.file, c.shares, false); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
	if now := objects(t, second); now != empty {
		t.Errorf("a refused restoration made something:\n%s", now)
	}
	rest, err := ceremony.Restore(t.Context(), to, backup, []custody.Share{shares[2], shares[0]}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Keys) != 4 || strings.Join(rest.Custodians, " ") != "carla anna" {
		t.Errorf("%d keys restored by %v", len(rest.Keys), rest.Custodians)
	}
	rest.Token.Label = "rehearsal-1"
	if text := rest.Text(time.Now(), ceremony.People{}); strings.Contains(text, "these keys are for practice") || !strings.Contains(text, "TEST OF A BACKUP") {
		t.Errorf("the appliance's own keys in a token for rehearsals are told as practice:\n%s", text)
	}
	two, err := use(t, second, copied, &one)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.mac, two.mac) {
		t.Error("the tokens' MACs differ")
	}
	digest := sha256.Sum256([]byte("one text"))
	if !bytes.Equal(one.sig, two.sig) || rsa.VerifyPKCS1v15(one.public, crypto.SHA256, digest[:], two.sig) != nil {
		t.Error("the tokens' signatures differ")
	}
	if _, err := use(t, second, nil, nil); !fault.Is(err, fault.Fatal) {
		t.Errorf("restored keys that the configuration does not name: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", second.Conf)
	if _, err := ceremony.Restore(context.Background(), to, backup, shares[:2], false); !fault.Is(err, fault.Conflict) {
		t.Errorf("restored twice: %v", err)
	}
}
