// Package request makes what the auditor of internal/conformance sends, right or
// wrong on purpose, and reads what comes back: AuthnRequests out of text
// templates, signatures for both bindings, the auditor's metadata; XML, its
// canonical forms (Exclusive XML Canonicalization 1.0, and the inclusive form
// that has to be refused) and enveloped signatures of RSA.
//
// All of it is written apart from authcore/saml, so that a mistake there is not
// agreed with here. It reads and writes the few shapes SPID uses and refuses the
// rest; it is no XML library and nothing but the auditor may use it.
package request
