package direct

/*
#include "cryptoki.h"

// Attribute and object numbers of pkcs11t.h, v2.40.
enum {
	CLASS = 0x0, TOKEN = 0x1, PRIVATE = 0x2, VALUE = 0x11, KEY_TYPE = 0x100, SENSITIVE = 0x103, SIGNS = 0x108,
	VERIFIES = 0x10A, DERIVES = 0x10C, VALUE_LEN = 0x161, EXTRACTABLE = 0x162, SECRET_KEY = 4, AES_KEY_WRAP = 0x2109,
};

static unsigned char yes = 1, no = 0;

// What a seed key insists on in whatever it unwraps. SoftHSM wants each of these
// repeated in the call.
static struct attribute heeded[] = {
	{TOKEN, &no, 1}, {PRIVATE, &yes, 1}, {SENSITIVE, &yes, 1}, {EXTRACTABLE, &no, 1}, {SIGNS, &yes, 1}, {DERIVES, &no, 1},
};

static void *heeded_octets(void) { return heeded; }
static int heeded_length(void) { return sizeof heeded; }

static word object_create(struct list *l, word session, word type, unsigned char *secret, word n, word *object) {
	word (*call)(word, struct attribute *, word, word *) = l->f[CREATE];
	word class = SECRET_KEY;
	struct attribute template[] = {
		{CLASS, &class, sizeof class}, {KEY_TYPE, &type, sizeof type}, {TOKEN, &no, 1}, {PRIVATE, &yes, 1},
		{SENSITIVE, &yes, 1}, {EXTRACTABLE, &yes, 1}, {VALUE, secret, n},
	};
	return call(session, template, sizeof template / sizeof *template, object);
}

static word object_wrap(struct list *l, word session, word key, word object, unsigned char *out, word *n) {
	word (*call)(word, struct mechanism *, word, word, unsigned char *, word *) = l->f[WRAP];
	struct mechanism m = {AES_KEY_WRAP, 0, 0};
	return call(session, &m, key, object, out, n);
}

// n is the value's length, or 0 for a token that does not want to be told.
static word object_unwrap(struct list *l, word session, word key, unsigned char *in, word len, word type, word n,
                          unsigned char sensitive, unsigned char extractable, word *object) {
	word (*call)(word, struct mechanism *, word, unsigned char *, word, struct attribute *, word, word *) = l->f[UNWRAP];
	struct mechanism m = {AES_KEY_WRAP, 0, 0};
	word class = SECRET_KEY;
	struct attribute template[] = {
		{CLASS, &class, sizeof class}, {KEY_TYPE, &type, sizeof type}, {TOKEN, &no, 1}, {PRIVATE, &yes, 1},
		{SENSITIVE, &sensitive, 1}, {EXTRACTABLE, &extractable, 1}, {SIGNS, &yes, 1}, {VERIFIES, &no, 1}, {DERIVES, &no, 1},
		{VALUE_LEN, &n, sizeof n},
	};
	return call(session, &m, key, in, len, template, sizeof template / sizeof *template - (n == 0), object);
}

static word object_destroy(struct list *l, word session, word object) {
	word (*call)(word, word) = l->f[DESTROY];
	return call(session, object);
}

// One part, one crossing: multi-part HMAC crashes opencryptoki 3.8.
static word object_hmac(struct list *l, word session, word key, word mechanism, unsigned char *in, word len,
                        unsigned char *out, word *n, int *signing) {
	word (*init)(word, struct mechanism *, word) = l->f[SIGN_INIT];
	word (*sign)(word, unsigned char *, word, unsigned char *, word *) = l->f[SIGN];
	struct mechanism m = {mechanism, 0, 0};
	word rv = init(session, &m, key);
	*signing = rv == 0;
	return rv ? rv : sign(session, in, len, out, n);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	p11 "github.com/miekg/pkcs11"

	"custode/internal/fault"
)

// UnwrapTemplate returns the value of CKA_UNWRAP_TEMPLATE of a seed key: CK_ATTRIBUTEs that
// point to constants in C memory of this process.
func UnwrapTemplate() []byte { return C.GoBytes(C.heeded_octets(), C.heeded_length()) }

func octet(b []byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(&b[0])) }

// rv is nil for CKR_OK, else the function's error.
func rv(function string, code C.word) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", function, p11.Error(code))
}

// Create makes secret, which must not be empty, a session object that can be wrapped.
func (o Module) Create(s p11.SessionHandle, keyType uint32, secret []byte) (p11.ObjectHandle, error) {
	var h C.word
	code := C.object_create(o.list, C.word(s), C.word(keyType), octet(secret), C.word(len(secret)), &h)
	return p11.ObjectHandle(h), rv("C_CreateObject", code)
}

// Wrap wraps object under key; the result has just size octets, else fault.Reopen.
func (o Module) Wrap(s p11.SessionHandle, key, object p11.ObjectHandle, size int) ([]byte, error) {
	out := make([]byte, size)
	n := C.word(size)
	if err := rv("C_WrapKey", C.object_wrap(o.list, C.word(s), C.word(key), C.word(object), octet(out), &n)); err != nil {
		return nil, err
	}
	if int(n) != size {
		return nil, fault.Newf(fault.Reopen, "wrap secret", "the token made %d octets, not %d", n, size)
	}
	return out, nil
}

// Unwrapped says what an unwrapped secret is to become. Only the self-test asks for one that is
// not sensitive, or extractable.
type Unwrapped struct {
	KeyType        uint32
	Length         int // of its value, 0 for a token that does not want to be told
	Bare, MayLeave bool
}

func flag(b bool) C.uchar {
	if b {
		return 1
	}
	return 0
}

// Unwrap unwraps to a session object that can sign and is what as says.
func (o Module) Unwrap(s p11.SessionHandle, key p11.ObjectHandle, wrapped []byte, as Unwrapped) (p11.ObjectHandle, error) {
	var h C.word
	code := C.object_unwrap(o.list, C.word(s), C.word(key), octet(wrapped), C.word(len(wrapped)), C.word(as.KeyType), C.word(as.Length),
		flag(!as.Bare), flag(as.MayLeave), &h)
	return p11.ObjectHandle(h), rv("C_UnwrapKey", code)
}

// Destroy destroys a session object.
func (o Module) Destroy(s p11.SessionHandle, object p11.ObjectHandle) error {
	return rv("C_DestroyObject", C.object_destroy(o.list, C.word(s), C.word(object)))
}

// HMAC fills out, which has the HMAC's length.
func (o Module) HMAC(s p11.SessionHandle, key p11.ObjectHandle, mechanism uint32, message, out []byte) error {
	n := C.word(len(out))
	var signing C.int
	from := message
	if len(from) == 0 {
		from = make([]byte, 1)
	}
	code := C.object_hmac(o.list, C.word(s), C.word(key), C.word(mechanism), octet(from), C.word(len(message)), octet(out), &n, &signing)
	if signing == 0 {
		return rv("C_SignInit", code)
	}
	if err := rv("C_Sign", code); err != nil {
		return err
	}
	if int(n) != len(out) {
		clear(out)
		return fault.Newf(fault.Reopen, "compute HMAC", "the token gave %d octets, not %d", n, len(out))
	}
	return nil
}
