// Package ceremony executes a reviewed key ceremony: one plan in; keys in the
// token, self-signed signing certificates and a report out. It is the only place
// that makes keys, for tests too.
//
// It works in stages, each the only owner of the PKCS #11 module while it lasts:
//
//  1. the product's own pool opens the token, checks what it is, and refuses the
//     ceremony when anything is called by a planned label;
//  2. crypto11 makes the keys with exactly the attributes of the policy, a test
//     signature and the certificates, and stores the certificates;
//  3. a plain session writes CKA_ID into both halves of each key pair, since it
//     is derived from the public key and can be known only now;
//  4. the pool opens the token again and every key through the very checks that
//     the daemon makes at its start;
//  5. certificates and report are written, never over an existing file.
//
// Nothing is repeated and nothing is deleted: when a stage fails, the error names
// what was made and stays in the token, for the operators to judge.
//
// The ceremony is meant to be a process of its own that ends after it: crypto11
// and the pool must not be loaded together, and crypto11 keeps the PIN as a Go
// string. Only cmd and tests import this package.
package ceremony
