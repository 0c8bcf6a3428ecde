package ceremony

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"strings"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/direct"
	"custode/internal/fault"
)

// generate is stage 2. Only crypto11 is in the module while it runs.
func (r *run) generate(ctx context.Context) (err error) {
	cfg, err := r.choose()
	if err != nil {
		return err
	}
	pin, err := r.loc.ReadPIN()
	if err != nil {
		return err
	}
	cfg.Path, cfg.Pin, cfg.MaxSessions = r.loc.Module, string(pin), 4
	c, err := crypto11.Configure(&cfg)
	cfg.Pin = ""
	clear(pin)
	if err != nil {
		return fault.New(fault.Fatal, "open token for making keys", err)
	}
	defer func() {
		if cerr := c.Close(); err == nil && cerr != nil {
			err = fault.New(fault.Fatal, "close token after making keys", cerr)
		}
	}()
	random, err := c.NewRandomReader()
	if err != nil {
		return fault.New(fault.Fatal, "open the token's random", err)
	}
	for _, k := range r.plan.Keys {
		if err := ctx.Err(); err != nil {
			return fault.New(fault.Unavailable, "make key "+k.Label.String(), err)
		}
		kr := KeyReport{PlannedKey: k, File: r.out.certificates[k.Label.String()]}
		if k.Role == hsm.RoleSign {
			err = r.makePair(c, random, &kr)
		} else {
			err = r.makeSecret(c, random, &kr)
		}
		if err != nil {
			return err
		}
		r.rep.Keys = append(r.rep.Keys, kr)
	}
	return nil
}

// template turns rules into what crypto11 generates a key from. crypto11 adds
// its own default for what is absent, DECRYPT on a signing key among them: the
// rules name every usage flag, so nothing is left to it.
func template(label string, keyID []byte, rules []hsm.Rule) (crypto11.AttributeSet, error) {
	set, err := crypto11.NewAttributeSetWithIDAndLabel(keyID, []byte(label))
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if !rule.Set {
			continue
		}
		if err := set.Set(pkcs11.AttributeType(rule.Attribute), rule.Want); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// limit keeps a key to its one mechanism. A token that may lack the attribute is
// not asked for it: NSS answers CKR_GENERAL_ERROR.
func (r *run) limit(set crypto11.AttributeSet, role hsm.Role) error {
	if r.plan.Tolerate.Has(hsm.LackAllowedMechanisms) {
		return nil
	}
	return set.Set(crypto11.CkaAllowedMechanisms, pkcs11.AllowedMechanisms(role))
}

func (r *run) makePair(c *crypto11.Context, random io.Reader, k *KeyReport) error {
	op := "make key " + k.Label.String()
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	provisional := make([]byte, hsm.KeyIDLen)
	if _, err := io.ReadFull(random, provisional); err != nil {
		return failed(err)
	}
	public, err := template(k.Label.String(), provisional, hsm.PublicRules())
	if err != nil {
		return failed(err)
	}
	private, err := template(k.Label.String(), provisional, hsm.Rules(hsm.RoleSign))
	if err != nil {
		return failed(err)
	}
	if err := r.limit(private, hsm.RoleSign); err != nil {
		return failed(err)
	}
	signer, err := c.GenerateRSAKeyPairWithAttributes(public, private, k.Bits)
	if err != nil {
		return failed(err)
	}
	r.made = append(r.made, k.Label.String())
	if err := checkRules(k, r.plan.Tolerate, hsm.Rules(hsm.RoleSign), "", func(a crypto11.AttributeType) (*crypto11.Attribute, error) {
		return c.GetAttribute(signer, a)
	}); err != nil {
		return err
	}
	if err := checkRules(k, r.plan.Tolerate, hsm.PublicRules(), "public ", func(a crypto11.AttributeType) (*crypto11.Attribute, error) {
		return c.GetPubAttribute(signer, a)
	}); err != nil {
		return err
	}
	rsaKey, ok := signer.Public().(*rsa.PublicKey)
	if !ok || rsaKey.N.BitLen() != k.Bits {
		return fault.Newf(fault.Fatal, op, "the token made another key than RSA of %d bits", k.Bits)
	}
	if k.SPKI, err = x509.MarshalPKIXPublicKey(rsaKey); err != nil {
		return failed(err)
	}
	if k.ID, err = hsm.KeyID(rsaKey); err != nil {
		return err
	}
	digest := sha256.Sum256([]byte("\x00custode ceremony " + r.plan.Name))
	sig, err := signer.Sign(random, digest[:], crypto.SHA256)
	if err != nil {
		return failed(err)
	}
	if err := rsa.VerifyPKCS1v15(rsaKey, crypto.SHA256, digest[:], sig); err != nil {
		return fault.Newf(fault.Fatal, op, "the test signature is wrong: %w", err)
	}
	k.passed("a test digest was signed by the token and verified in software")
	return r.certify(c, signer, rsaKey, random, k)
}

func (r *run) makeSecret(c *crypto11.Context, random io.Reader, k *KeyReport) error {
	op := "make key " + k.Label.String()
	failed := func(err error) error { return fault.New(fault.Fatal, op, err) }
	k.ID = make([]byte, hsm.KeyIDLen)
	if _, err := io.ReadFull(random, k.ID); err != nil {
		return failed(err)
	}
	set, err := template(k.Label.String(), k.ID, hsm.Rules(k.Role))
	if err != nil {
		return failed(err)
	}
	if err := r.limit(set, k.Role); err != nil {
		return failed(err)
	}
	cipher := crypto11.CipherGeneric
	switch k.Role {
	case hsm.RoleWrap:
		cipher = crypto11.CipherAES
	case hsm.RoleSeed:
		cipher = crypto11.CipherAES
		if !r.plan.Tolerate.Has(hsm.LackUnwrapTemplate) {
			if err := set.Set(p11.CKA_UNWRAP_TEMPLATE, direct.UnwrapTemplate()); err != nil {
				return failed(err)
			}
		}
	}
	secret, err := c.GenerateSecretKeyWithAttributes(set, k.Bits, cipher)
	if err != nil {
		return failed(err)
	}
	r.made = append(r.made, k.Label.String())
	return checkRules(k, r.plan.Tolerate, hsm.Rules(k.Role), "", func(a crypto11.AttributeType) (*crypto11.Attribute, error) {
		return c.GetAttribute(secret, a)
	})
}

// checkRules reads back every attribute, one at a time, and notes it for the
// report.
func checkRules(k *KeyReport, lacks hsm.Lacks, rules []hsm.Rule, half string, get func(crypto11.AttributeType) (*crypto11.Attribute, error)) error {
	for _, rule := range rules {
		if lacks.Pardons(rule) {
			k.Attributes = append(k.Attributes, fmt.Sprintf("%s%s TOLERATED, not checked", half, rule.Attribute))
			continue
		}
		a, err := get(pkcs11.AttributeType(rule.Attribute))
		switch {
		case err != nil && rule.Absent && strings.Contains(err.Error(), "CKR_ATTRIBUTE_TYPE_INVALID"):
			k.Attributes = append(k.Attributes, fmt.Sprintf("%s%s not known to the token", half, rule.Attribute))
			continue
		case err != nil:
			return fault.Newf(fault.Fatal, "check key "+k.Label.String(), "%s cannot be read: %w", rule.Attribute, err)
		case a == nil || len(a.Value) != 1 || (a.Value[0] != 0) != rule.Want:
			return fault.Newf(fault.Fatal, "check key "+k.Label.String(), "the token made it with another %s%s than %v", half, rule.Attribute, rule.Want)
		}
		k.Attributes = append(k.Attributes, fmt.Sprintf("%s%s=%v", half, rule.Attribute, rule.Want))
	}
	return nil
}
