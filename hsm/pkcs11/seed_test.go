package pkcs11_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/hsmtest"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/simulators/hsmsim"
)

var seedLabel = label("test/seed")

const secretForTests = "a seed that nobody may see......" + "................................"

// thief is somebody who got hold of a session that is logged in, and has what the database
// holds: hsm.md calls it the tested attacks.
type thief struct {
	mod     *p11.Ctx
	session p11.SessionHandle
}

func newThief(t *testing.T, tok *pkcs11.Token) thief {
	t.Helper()
	s, err := tok.Module().OpenSession(tok.Slot(), p11.CKF_SERIAL_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Module().CloseSession(s) })
	return thief{tok.Module(), s}
}

func (f thief) find(t *testing.T, name string) p11.ObjectHandle {
	t.Helper()
	if err := f.mod.FindObjectsInit(f.session, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, name)}); err != nil {
		t.Fatal(err)
	}
	found, _, err := f.mod.FindObjects(f.session, 2)
	if ferr := f.mod.FindObjectsFinal(f.session); err != nil || ferr != nil || len(found) != 1 {
		t.Fatal(found, err, ferr)
	}
	return found[0]
}

// read unwraps with changes to the honest template and returns what can be read.
func (f thief) read(t *testing.T, kek p11.ObjectHandle, mechanism uint, wrapped []byte, changes ...*p11.Attribute) ([]byte, error) {
	t.Helper()
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
		p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), p11.NewAttribute(p11.CKA_SIGN, true), p11.NewAttribute(p11.CKA_DERIVE, false),
	}
	for _, c := range changes {
		i := slices.IndexFunc(template, func(a *p11.Attribute) bool { return a.Type == c.Type })
		if template[i] = c; c.Value == nil {
			template = slices.Delete(template, i, i+1)
		}
	}
	h, err := f.mod.UnwrapKey(f.session, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, kek, wrapped, template)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := f.mod.DestroyObject(f.session, h); err != nil {
			t.Error(err)
		}
	}()
	got, err := f.mod.GetAttributeValue(f.session, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	return got[0].Value, nil
}

func wrapForTests(t *testing.T, tok *pkcs11.Token) []byte {
	t.Helper()
	wrapped, err := tok.WrapSecret(t.Context(), seedLabel, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, []byte(secretForTests))
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func yes(a uint) *p11.Attribute { return p11.NewAttribute(a, true) }
func no(a uint) *p11.Attribute  { return p11.NewAttribute(a, false) }

func TestThiefWithASession(t *testing.T) {
	tok := open(t, newSim(t))
	wrapped := wrapForTests(t, tok)
	f := newThief(t, tok)
	kek := f.find(t, "test/seed")
	for name, c := range map[string]struct {
		mechanism uint
		changes   []*p11.Attribute
		says      uint
	}{
		"honest, then read":       {p11.CKM_AES_KEY_WRAP, nil, p11.CKR_ATTRIBUTE_SENSITIVE},
		"readable":                {p11.CKM_AES_KEY_WRAP, []*p11.Attribute{no(p11.CKA_SENSITIVE), yes(p11.CKA_EXTRACTABLE)}, p11.CKR_TEMPLATE_INCONSISTENT},
		"not sensitive":           {p11.CKM_AES_KEY_WRAP, []*p11.Attribute{no(p11.CKA_SENSITIVE)}, p11.CKR_TEMPLATE_INCONSISTENT},
		"extractable":             {p11.CKM_AES_KEY_WRAP, []*p11.Attribute{yes(p11.CKA_EXTRACTABLE)}, p11.CKR_TEMPLATE_INCONSISTENT},
		"for derivation":          {p11.CKM_AES_KEY_WRAP, []*p11.Attribute{yes(p11.CKA_DERIVE)}, p11.CKR_TEMPLATE_INCONSISTENT},
		"to stay in the token":    {p11.CKM_AES_KEY_WRAP, []*p11.Attribute{yes(p11.CKA_TOKEN)}, p11.CKR_SESSION_READ_ONLY},
		"padded wrap":             {p11.CKM_AES_KEY_WRAP_PAD, nil, p11.CKR_MECHANISM_INVALID},
		"readable by padded wrap": {p11.CKM_AES_KEY_WRAP_PAD, []*p11.Attribute{no(p11.CKA_SENSITIVE), yes(p11.CKA_EXTRACTABLE)}, p11.CKR_MECHANISM_INVALID},
	} {
		if got, err := f.read(t, kek, c.mechanism, wrapped, c.changes...); !rv.Is(err, c.says) || got != nil {
			t.Errorf("%s: %q %v, want %v", name, got, err, p11.Error(c.says))
		}
	}
	// RFC 3394 undone by hand, and made by hand.
	for name, init := range map[string]func([]*p11.Mechanism) error{
		"decrypt": func(m []*p11.Mechanism) error { return f.mod.DecryptInit(f.session, m, kek) },
		"encrypt": func(m []*p11.Mechanism) error { return f.mod.EncryptInit(f.session, m, kek) },
	} {
		if err := init([]*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_ECB, nil)}); !rv.Is(err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_MECHANISM_INVALID) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the attributes are for: the same attack on a key without the template.
	bare := f.find(t, "bad/no-template")
	own := wrapRaw(t, f, bare)
	if got, err := f.read(t, bare, p11.CKM_AES_KEY_WRAP, own, no(p11.CKA_SENSITIVE), yes(p11.CKA_EXTRACTABLE)); string(got) != secretForTests {
		t.Errorf("the attack does not work where nothing stands against it: %q %v", got, err)
	}
}

func wrapRaw(t *testing.T, f thief, kek p11.ObjectHandle) []byte {
	t.Helper()
	h, err := f.mod.CreateObject(f.session, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
		no(p11.CKA_TOKEN), yes(p11.CKA_EXTRACTABLE), p11.NewAttribute(p11.CKA_VALUE, []byte(secretForTests)),
	})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := f.mod.WrapKey(f.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_WRAP, nil)}, kek, h)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// NSS does not know the template: what is tolerated there by name is worth nothing less than
// the secret.
func TestThiefInNSS(t *testing.T) {
	tok, err := pkcs11.Open(t.Context(), nssConfig(newNSS(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	})
	wrapped := wrapForTests(t, tok)
	f := newThief(t, tok)
	kek := f.find(t, "test/seed")
	if got, err := f.read(t, kek, p11.CKM_AES_KEY_WRAP, wrapped); !rv.Is(err, p11.CKR_ATTRIBUTE_SENSITIVE) {
		t.Errorf("what our own code unwraps: %q %v", got, err)
	}
	if got, err := f.read(t, kek, p11.CKM_AES_KEY_WRAP, wrapped, no(p11.CKA_SENSITIVE), yes(p11.CKA_EXTRACTABLE)); string(got) != secretForTests {
		t.Errorf("NSS has learnt to refuse, and need not be tolerated: %v", err)
	}
}

// The fall-back is in force only where it was configured.
func TestDecryptedSeeds(t *testing.T) {
	sim := newSim(t)
	strict := open(t, sim)
	if _, err := strict.WrapSecret(t.Context(), wrapLabel, hsm.MechanismAESGCM, hsm.KeyTypeGeneric, make([]byte, 64)); !fault.Is(err, fault.Fatal) {
		t.Errorf("not configured: %v, want fatal", err)
	}
	if err := strict.Close(); err != nil {
		t.Fatal(err)
	}
	log := newCounter()
	said := false
	hsmtest.RunSeeds(t, func(t *testing.T) hsmtest.Backend {
		tok := open(t, newSim(t), func(c *pkcs11.Config) { c.DecryptSeeds, c.Log = true, slog.New(log) })
		if err := tok.OpenSeed(wrapLabel); err != nil {
			t.Fatal(err)
		}
		if err := tok.OpenSeed(seedLabel); !fault.Is(err, fault.Fatal) {
			t.Errorf("a seed key opened as a wrap key: %v", err)
		}
		said = said || log.count("OATH SECRETS ARE DECRYPTED INTO THE MEMORY OF THIS PROCESS at each use: hsm.seeds is decrypt") > 0
		return hsmtest.Backend{Token: tok, Sign: signLabel, MAC: macLabel, Wrap: wrapLabel, Seed: wrapLabel, Sealing: hsm.MechanismAESGCM}
	})
	if !said {
		t.Error("it was not said")
	}
}

func TestSecretForm(t *testing.T) {
	for _, decrypt := range []bool{false, true} {
		tok := open(t, newSim(t), func(c *pkcs11.Config) { c.DecryptSeeds = decrypt })
		want, kek := hsm.MechanismAESKeyWrap, seedLabel
		if decrypt {
			want, kek = hsm.MechanismAESGCM, wrapLabel
		}
		if wrap, keyType, err := tok.SecretForm(kek); err != nil || wrap != want || keyType != hsm.KeyTypeGeneric {
			t.Errorf("decrypt %v: %#x %#x %v", decrypt, wrap, keyType, err)
		}
		if _, _, err := tok.SecretForm(macLabel); !fault.Is(err, fault.Fatal) {
			t.Errorf("a mac key: %v, want fatal", err)
		}
		if err := tok.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Both kinds of blob are readable where decrypting is configured, and each by its own key only.
func TestBothKindsOfBlob(t *testing.T) {
	tok := open(t, newSim(t), func(c *pkcs11.Config) { c.DecryptSeeds = true })
	m, _ := keys(t, tok)
	for name, c := range map[string]struct {
		kek, other id.KeyLabel
		wrap       uint32
	}{"unwrapped": {seedLabel, wrapLabel, hsm.MechanismAESKeyWrap}, "decrypted": {wrapLabel, seedLabel, hsm.MechanismAESGCM}} {
		wrapped, err := tok.WrapSecret(t.Context(), c.kek, c.wrap, hsm.KeyTypeGeneric, append([]byte("12345678901234567890"), make([]byte, 44)...))
		if err != nil {
			t.Fatal(name, err)
		}
		q := hsm.CodeQuery{
			KEK: c.kek, Wrap: c.wrap, KeyType: hsm.KeyTypeGeneric, MAC: hsm.MechanismSHA1, Wrapped: wrapped, Binder: macLabel, Binding: wrapped,
			BindingMAC: must1(t)(m.MAC(t.Context(), wrapped)), Digits: 6, Counters: []uint64{0, 1}, Code: "287082",
		}
		if got, err := tok.MatchCodes(t.Context(), q); err != nil || !slices.Equal(got, []int{1}) {
			t.Errorf("%s: %v %v", name, got, err)
		}
		q.KEK = c.other
		if got, err := tok.MatchCodes(t.Context(), q); !fault.Is(err, fault.Fatal) && !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("%s with the other's key: %v %v", name, got, err)
		}
	}
}

// A seed key is not found twice: nothing is searched per code, and nothing is left behind.
func TestSecretsLeaveNothing(t *testing.T) {
	r := newRig(t)
	before, err := r.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		for _, err := range r.use(t, 5e9) {
			if err != nil {
				t.Error(err)
			}
		}
	}
	after, err := r.Counts()
	if err != nil {
		t.Fatal(err)
	}
	grown := func(call string) int { return after.Calls[call] - before.Calls[call] }
	if grown("C_UnwrapKey") == 0 || grown("C_CreateObject") == 0 || grown("C_CreateObject")+grown("C_UnwrapKey") != grown("C_DestroyObject") {
		t.Errorf("%d created, %d unwrapped, %d destroyed", grown("C_CreateObject"), grown("C_UnwrapKey"), grown("C_DestroyObject"))
	}
	for _, call := range []string{"C_FindObjectsInit", "C_OpenSession", "C_GetAttributeValue", "C_GetSessionInfo"} {
		if grown(call) > 0 {
			t.Errorf("%d calls of %s", grown(call), call)
		}
	}
	if after.Objects != 0 {
		t.Errorf("%d session objects are left", after.Objects)
	}
	if !strings.HasPrefix(secretForTests, "a seed") || len(secretForTests) != 64 {
		t.Error("the test's secret is not 64 octets")
	}
}

// A row that the token answers like a broken device (SoftHSM: CKR_GENERAL_ERROR) is met by the canaries:
// nobody logs in again for it, and nothing is restarted.
func TestBadRowTripsNothing(t *testing.T) {
	r := newRig(t)
	bad := r.codes
	bad.Wrapped = slices.Clone(bad.Wrapped)
	bad.Wrapped[20] ^= 1
	bad.Binding = bad.Wrapped
	bad.BindingMAC = must1(t)(r.mac.MAC(t.Context(), bad.Binding))
	generation := r.tok.Generation()
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if got, err := r.tok.MatchCodes(t.Context(), bad); !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("%v %v, want invalid", got, err)
		}
		if got, err := r.tok.MatchCodes(t.Context(), r.codes); err != nil || !slices.Equal(got, []int{1}) {
			t.Errorf("the next one: %v %v", got, err)
		}
	}
	c, err := r.Counts()
	if err != nil || c.Calls["C_Login"] != 0 || c.Calls["C_Finalize"] != 0 || c.Objects != 0 || r.tok.Generation() != generation {
		t.Errorf("%d logins, %d restarts, %d objects left: %v", c.Calls["C_Login"], c.Calls["C_Finalize"], c.Objects, err)
	}
}

// Tokens that want unwrapped secrets described otherwise: one that refuses the first way gets the next,
// and stays with it. SoftHSM takes a key type per hash, NSS the length of the value.
func TestShapes(t *testing.T) {
	sim, nss := newSim(t), newNSS(t)
	for name, c := range map[string]struct {
		module, reserved string
		uri              func(module string) string
		config           pkcs11.Config
		keyType          uint32 // as SecretForm says
	}{
		"type per hash": {sim.Module, "", sim.URIThrough, pkcs11.Config{}, 0},
		"length":        {nss.Module, nss.Reserved, nss.URIThrough, nssConfig(nss), hsm.KeyTypeGeneric},
	} {
		t.Run(name, func(t *testing.T) {
			shim, err := hsmsim.NewShim(filepath.Join(t.TempDir(), "shim"), c.module, c.reserved)
			if err != nil {
				t.Fatal(err)
			}
			c.config.URI = c.uri(shim.Module)
			tok, err := pkcs11.Open(t.Context(), c.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := tok.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := shim.Add(hsmsim.Fault{Call: "C_UnwrapKey", RV: p11.CKR_TEMPLATE_INCOMPLETE, Count: 1}); err != nil {
				t.Fatal(err)
			}
			wrap, keyType, err := tok.SecretForm(seedLabel)
			if err != nil || keyType != c.keyType {
				t.Fatalf("key type %#x, %v", keyType, err)
			}
			m, _ := keys(t, tok)
			q := hsm.CodeQuery{KEK: seedLabel, Wrap: wrap, KeyType: keyType, MAC: hsm.MechanismSHA1, Binder: macLabel, Digits: 6, Counters: []uint64{0, 1}, Code: "287082"}
			if keyType == 0 {
				q.KeyType = hsm.KeyTypeOf(q.MAC)
			}
			q.Wrapped = must1(t)(tok.WrapSecret(t.Context(), q.KEK, q.Wrap, q.KeyType, rfcSecret()))
			q.Binding, q.BindingMAC = q.Wrapped, must1(t)(m.MAC(t.Context(), q.Wrapped))
			if got, err := tok.MatchCodes(t.Context(), q); err != nil || !slices.Equal(got, []int{1}) {
				t.Errorf("%v %v", got, err)
			}
		})
	}
}
