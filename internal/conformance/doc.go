// Package conformance is the auditor of the SPID technical rules: it acts as a
// synthetic service provider towards a running identity provider, over HTTP and
// from outside, and tells rule by rule whether the instance answers as the rules
// say. `custode conformance` prints what it finds; the end-to-end tests are
// driven by the same catalogue.
//
// A [Rule] has an identifier, the place it comes from (a row of the table of
// anomalies, a paragraph of the technical rules, an Avviso, or a decision of
// docs/divergences.md), the change that makes its request out of a valid one,
// and what must be seen: HTTP status, sentence of the page, or SAML status pair,
// StatusMessage, destination, RelayState, InResponseTo and signature of the
// Response. The expectations are written by hand from the rules and from the
// table of anomalies, which this package holds in its own copy.
//
// An auditor that shares code with what it audits agrees with its mistakes. So
// nothing of the product is imported but internal/fault: requests are text
// templates (they have to be wrong in ways no XML library would write), and the
// reader of XML, the canonical form and the signatures are this package's own,
// on crypto/rsa. They are made for the few shapes SPID uses and refuse the rest;
// they are no general XML library and nothing else may use them.
//
// It does not audit what needs a person's telephone unless the caller can read
// it, it changes nothing on the instance but flows that it begins, and it needs
// the instance to have the auditor's metadata ([SP.Metadata]) in its registry.
// Imported by cmd/custode and the end-to-end tests.
package conformance
