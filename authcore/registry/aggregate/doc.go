// Package aggregate reads a signed SAML metadata aggregate (EntitiesDescriptor
// with one enveloped signature on its root) of any size in bounded memory.
//
// [Read] is one pass: a tokenizer feeds an exclusive canonicaliser (Exclusive
// XML Canonicalization 1.0, without comments), whose octets go to the digest and
// to the caller's writer at once, and it tells where each EntityDescriptor
// begins and ends in what was written. Nothing is built of a document but its
// stack of open elements. Nothing of it may be used before [Document.Verify]
// has said whose it is; from then on what the caller wrote is what was signed, octet for
// octet, so that no second reading of the original can disagree. What was
// written is itself a signed document: reading it again gives the same octets.
//
// The shape of the signature and its algorithms are those of
// authcore/saml/xmldoc, which checks them. Refused: DOCTYPE, processing
// instructions, CDATA, entities other than the five of XML, encodings other than
// UTF-8, nested groups, a signature elsewhere than as the root's first child.
//
// It knows nothing of service providers: an entity is an entityID and a range of
// octets. Imported by authcore/registry only.
package aggregate
