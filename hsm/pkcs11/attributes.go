package pkcs11

import (
	"bytes"
	"encoding/binary"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
	"custode/internal/id"
)

// reader reads the attributes of one object, one at a time: NSS fails a whole
// C_GetAttributeValue when it lacks one of the attributes asked for.
type reader struct {
	mod     *p11.Ctx
	session p11.SessionHandle
	object  p11.ObjectHandle
	label   id.KeyLabel
	lacks   hsm.Lacks
	copied  bool
}

func (r reader) value(attribute uint) ([]byte, error) {
	got, err := r.mod.GetAttributeValue(r.session, r.object, []*p11.Attribute{p11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, inCall("C_GetAttributeValue", err)
	}
	return got[0].Value, nil
}

func (r reader) number(attribute uint) (uint, error) {
	v, err := r.value(attribute)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, r.broken(nil, "attribute %#x has %d octets, not 8", attribute, len(v))
	}
	return uint(binary.NativeEndian.Uint64(v)), nil
}

// broken refuses the key by name. A cause from the token goes first: then the
// attribute could not be read at all.
func (r reader) broken(cause error, format string, args ...any) error {
	if cause != nil {
		return cause
	}
	return fault.Newf(fault.Fatal, "check key "+r.label.String(), "breaks the key policy: "+format, args...)
}

// policy checks every rule of the role, the mechanisms, and that the secret part
// cannot be read.
func (r reader) policy(role hsm.Role) error {
	if err := r.rules(hsm.Rules(role)); err != nil {
		return err
	}
	allowed, err := r.value(p11.CKA_ALLOWED_MECHANISMS)
	switch {
	case rv.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID) && r.lacks.Has(hsm.LackAllowedMechanisms):
		allowed, err = AllowedMechanisms(role), nil
	case rv.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID):
		return r.broken(nil, "the token does not know CKA_ALLOWED_MECHANISMS")
	}
	if err != nil || !bytes.Equal(allowed, AllowedMechanisms(role)) {
		return r.broken(err, "CKA_ALLOWED_MECHANISMS does not list just the mechanism of role %s", role)
	}
	_, _, _, secret := shape(role)
	// A token may ignore CKA_SENSITIVE (opencryptoki 3.8 did, for unwrapped
	// keys): only a refused reading proves it.
	v, err := r.value(secret)
	clear(v)
	switch {
	case err == nil:
		return r.broken(nil, "its secret part can be read in clear")
	case !rv.Is(err, p11.CKR_ATTRIBUTE_SENSITIVE, p11.CKR_ATTRIBUTE_TYPE_INVALID):
		return err
	}
	return nil
}

func (r reader) rules(rules []hsm.Rule) error {
	for _, rule := range rules {
		if r.lacks.Pardons(rule) || r.copied && rule.Origin() {
			continue
		}
		v, err := r.value(AttributeType(rule.Attribute))
		switch {
		case rv.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID) && rule.Absent:
			continue
		case rv.Is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID):
			return r.broken(nil, "the token does not know %s", rule.Attribute)
		case err != nil:
			return err
		case len(v) == 0 && rule.Absent:
			continue
		case len(v) != 1 || (v[0] != 0) != rule.Want:
			return r.broken(nil, "%s is %v, and must be %v", rule.Attribute, len(v) == 1 && v[0] != 0, rule.Want)
		}
	}
	return nil
}
