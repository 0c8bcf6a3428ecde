package spsim

import (
	"crypto"
	"crypto/rsa"
	"fmt"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// add appends a child with the given prefix-qualified tag and attributes
// (name, value, name, value ...) and returns it.
func add(parent *etree.Element, tag string, attrs ...string) *etree.Element {
	el := parent.CreateElement(tag)
	for i := 0; i+1 < len(attrs); i += 2 {
		el.CreateAttr(attrs[i], attrs[i+1])
	}
	return el
}

// signEnveloped signs el by reference to its ID (or to the whole document when
// it has none) and puts the signature at child position at among the elements.
func signEnveloped(el *etree.Element, key *rsa.PrivateKey, cert []byte, hash crypto.Hash, at int) error {
	ctx, err := dsig.NewSigningContext(key, [][]byte{cert})
	if err != nil {
		return fmt.Errorf("prepare the signature: %w", err)
	}
	ctx.Hash = hash
	ctx.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	// The canonicaliser works in place and would drop namespace declarations
	// from el, so it gets a copy. el is a document's root: nothing is inherited.
	sig, err := ctx.ConstructSignature(el.Copy(), true)
	if err != nil {
		return fmt.Errorf("sign %s: %w", el.Tag, err)
	}
	children := el.ChildElements()
	if at >= len(children) {
		el.AddChild(sig)
		return nil
	}
	el.InsertChildAt(children[at].Index(), sig)
	return nil
}
