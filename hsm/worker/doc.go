// Package worker puts the token into a process of its own. The process that serves
// logins has a Client, which is a hsm.Token; the process that alone loads the module and
// holds the PIN has a Server around the real one. Between them goes a narrow protocol
// over a Unix stream socket.
//
// # What may be asked
//
// The public part and the certificate of a key; a signature, a MAC, a blob wrapped or
// unwrapped, an OATH secret wrapped, a code compared with a wrapped secret; random octets;
// health and figures. There is no question that gives a key, a seed or a PIN, and none that
// signs a digest: the server is given the octets, judges that they are of a kind (package judge) that
// its configuration allows this key, hashes and signs. A key that the configuration does not
// name is refused, whatever the token holds.
//
// # Frames
//
// Integers are big-endian. Both sides send frames of
//
//	uint32       length of what follows, at most maxFrame
//	uint8        version of the protocol, 1
//	uint32       number of the call; an answer has its question's
//	uint8        question: what is asked; answer: 0, or 1 + fault.Kind
//	uint32       question: milliseconds the caller will wait
//	uint8, ...   key label
//	uint8, ...   fields, each a uint32 and so many octets
//	uint16, ...  numbers, each a uint64
//
// and nothing after it. The server speaks first: call 0, one field of 16 random octets
// that tell this process from any other. Calls may be answered in any order. Every call may
// be repeated without harm, which is what the Client does when a process is lost.
//
// # Who is there
//
// Both sides read the other's credentials from the kernel (SO_PEERCRED) before the first
// octet. A process that `custode serve` starts inherits one end of a socket pair, and there is
// no name for anybody to connect to.
//
// # Two tokens
//
// A Client may have a second worker, of a standby token with the same keys. It remembers the
// public part or a known answer of each key in use and compares them at each new
// connection, of either: a token with another key is refused by name. It moves to the standby
// when the primary does not answer well, and back when it has for a while.
//
// Only cmd/custode and tests import this package. It loads no module (hsm/pkcs11 does) and
// starts no process (internal/process does).
package worker
