// Package pkcs11 is the one home of PKCS #11: it opens one token through its
// vendor's module and offers its keys as crypto.Signer, hsm.MAC, hsm.Wrapper,
// hsm.SecretKey and hsm.CodeMatcher. It makes no keys (the ceremony package below it does) and knows
// nothing of what is signed or wrapped.
//
// Device handles are mortal, so the package is mostly about their death:
//
//   - One Token owns a module in a process, and logs in once, on an anchor
//     session that nothing else uses. A refused PIN closes the Token for good:
//     tokens count wrong PINs and lock.
//   - Every operation borrows a session. A session that saw any error is closed,
//     never reused: PKCS #11 leaves an operation active on it, which would fail
//     one later call in N for ever.
//   - An error is the request's fault (fault.Invalid), the session's (fault.Retry:
//     log in again when the anchor lost its login), the device's (fault.Reopen:
//     C_Finalize and C_Initialize, with back-off) or an operator's (fault.Fatal).
//     CKR_GENERAL_ERROR means "device" in the standard but also "damaged
//     ciphertext" in SoftHSM, so a canary operation decides before the device
//     is blamed.
//   - A login starts a generation; object handles are valid in one generation
//     only and are looked up once in it. There is no C_FindObjects per operation.
//   - C_Finalize waits until no call is inside the module (SoftHSM crashes
//     otherwise). A call that does not return makes the Token fatally ill; only
//     ending the process cures that, which is why a process of its own is meant
//     to own the module.
//   - After each login the token's serial number, and each known key's policy,
//     public part and a known answer are compared: a token re-initialised under
//     us is refused by name.
//
// Signing, MAC, wrapping and random are repeated after a repair: repeating them
// harms nobody. Nothing here makes a key, which must not be repeated.
//
// The PIN is read from a file named by the pin-source of an RFC 7512 URI, at
// each login; it is never in the URI, a log or an error. The binding copies it
// to C memory and frees that unwiped: one more reason for the process of its own.
//
// Only cmd, the ceremony and tests import this package.
package pkcs11
