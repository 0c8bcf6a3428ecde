// Package ceremony does what operators do to keys: it executes a reviewed key ceremony
// (one plan in; keys in the token, certificates, backup and report out), restores a
// backup in another token, requests and imports certificates, changes the PIN and
// destroys keys. It is the only place that makes keys, for tests too, and the
// only one that changes a token.
//
// A ceremony works in stages, each the only owner of the PKCS #11 module while it
// lasts:
//
//  1. the product's own pool opens the token, checks what it is, and refuses the
//     ceremony when anything is called by a planned label;
//  2. crypto11 makes the keys with exactly the attributes of the policy, a test
//     signature and the certificates, and stores the certificates;
//  3. a plain session, the desk, writes CKA_ID into both halves of each key pair,
//     since it is derived from the public key and can be known only now; and makes
//     the keys that are to be copied (docs/adr/0005-copied-keys.md);
//  4. the pool opens the token again and every key through the very checks that
//     the daemon makes at its start;
//  5. certificates, backup, shares and report are written, never over an existing file.
//
// Nothing is repeated, and nothing is deleted but by Destroy: when a stage fails, the
// error names what was made and stays in the token, for the operators to judge.
//
// Who approved, what a key is still needed for and what the security log is told
// are the caller's. A ceremony is meant to be a process of its own that ends after
// it: crypto11 and the pool must not be loaded together, and crypto11 keeps the PIN
// as a Go string. Only cmd and tests import this package.
package ceremony
