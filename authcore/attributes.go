package authcore

import (
	"slices"
	"strings"

	"custode/authcore/saml"
)

// value returns what the identity asserts for a SPID attribute, "" when it is
// unknown to us or not valued.
func (i Identity) value(name string) string {
	switch v := i.Attributes[name]; {
	case name == "spidCode":
		return i.SPIDCode.String()
	case v != "":
		return v
	case name == "mobilePhone":
		// The table wants digits only, as dialled in Italy.
		return strings.TrimPrefix(i.Phone.String(), "+39")
	}
	return ""
}

// assemble returns exactly the requested attributes, in the requested order and
// each once, and the names among them that have no value: service providers
// compare the set with the one of their metadata.
func (i Identity) assemble(r saml.Request) (all []saml.Attribute, empty []string) {
	for _, name := range distinct(r) {
		a := saml.Attribute{Name: name, Value: i.value(name)}
		if a.Value == "" {
			empty = append(empty, name)
		}
		all = append(all, a)
	}
	return all, empty
}

// attributes returns what is shown and asserted: by the policy with or without the
// attributes that have no value.
func (l *Login) attributes(who Identity, r saml.Request) (sent []saml.Attribute, empty []string) {
	sent, empty = who.assemble(r)
	if l.policy.OmitEmpty {
		sent = slices.DeleteFunc(sent, func(a saml.Attribute) bool { return a.Value == "" })
	}
	return sent, empty
}

// distinct returns the requested names, each once, in the requested order.
func distinct(r saml.Request) []string {
	if !r.HasAttributes {
		return nil
	}
	names := make([]string, 0, len(r.Attributes))
	seen := make(map[string]bool, len(r.Attributes))
	for _, n := range r.Attributes {
		if !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}
