// Package catalogue holds the rules that the auditor of internal/conformance
// runs: for each its identifier, the place it comes from, the change that makes
// its request out of a valid one, and what has to be seen. It is data; nothing
// here sends anything.
//
// The expectations are written by hand from the technical rules and the table of
// anomalies, of which this package has its own copy, compared in a test with
// the machine-readable table (testdata/errors.tsv). They are not computed by
// the code that they judge. What the rules leave open follows
// docs/divergences.md, and the rule's source says so.
package catalogue
