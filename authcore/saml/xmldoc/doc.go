// Package xmldoc is what SAML needs of XML and no more: documents read behind a
// guard, enveloped signatures checked and made, canonical form written.
//
// Reading: [Bounds] limits a document before a parser sees it and refuses what
// SAML never uses (DOCTYPE, processing instructions, CDATA, more than one
// root); [VerifyEnveloped] checks the one signature a document may have, in the
// one shape and with the few algorithms that are allowed, and returns the
// element rebuilt from the octets that signature covers, so that what was
// verified and what is used cannot differ.
//
// Writing: [Writer] emits exclusive canonical form (Exclusive XML
// Canonicalization 1.0) directly and signs it with a crypto.Signer; nothing is
// canonicalised on the way out.
//
// It knows no SAML message. Imported by authcore/saml and authcore/registry only.
package xmldoc
