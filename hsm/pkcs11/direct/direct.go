// Package direct calls a PKCS #11 module past the binding, for what the binding does not do
// well: C_Encrypt and C_Decrypt with a buffer of ours, and all that touches an OATH
// secret, which the binding would copy to C memory and free unwiped. It keeps nothing: no
// session, no login, no policy; those are the business of hsm/pkcs11, which imports it (and the bench below that).
// The module must have been loaded by the binding already. Words are those of LP64
// machines; the function list is that of PKCS #11 v2.40. Errors wrap a p11.Error and
// name the function.
package direct

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include "cryptoki.h"

static struct list *module_load(const char *path) {
	struct list *found = NULL;
	// Loaded already: this only finds it again, and keeps it.
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	word (*get)(struct list **) = lib ? (word (*)(struct list **))dlsym(lib, "C_GetFunctionList") : NULL;
	return get && get(&found) == 0 ? found : NULL;
}

static word user_login(struct list *l, word session, unsigned char *pin, word n) {
	word (*call)(word, word, unsigned char *, word) = l->f[LOGIN];
	return call(session, 1, pin, n); // CKU_USER
}

static word one_part(struct list *l, int f, word session, unsigned char *in, word n, unsigned char *out, word *len) {
	word (*call)(word, unsigned char *, word, unsigned char *, word *) = l->f[f];
	return call(session, in, n, out, len);
}
*/
import "C"

import (
	"unsafe"

	p11 "github.com/miekg/pkcs11"

	"custode/internal/fault"
)

// Module is the function list of a loaded module. With C_Encrypt and C_Decrypt the binding asks
// for the length first, which NSS 3.87 answers for AES-GCM without the tag, and
// then finds the buffer too small; and it leaves a copy of the plaintext in freed
// memory, and crosses into C twice.
type Module struct{ list *C.struct_list }

// CString copies s to C memory, where it stays.
func CString(s string) unsafe.Pointer { return unsafe.Pointer(C.CString(s)) }

// Load finds the functions of a module that the binding has loaded.
func Load(path string) (Module, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	o := Module{C.module_load(name)}
	if o.list == nil {
		return o, fault.Newf(fault.Fatal, "load module", "%s has no function list", path)
	}
	return o, nil
}

// Login logs the user in. The PIN, which must not be empty, is copied nowhere on our side.
func (o Module) Login(s p11.SessionHandle, pin []byte) error {
	if code := C.user_login(o.list, C.word(s), octet(pin), C.word(len(pin))); code != 0 {
		return p11.Error(code)
	}
	return nil
}

// Encrypt ends an operation begun with C_EncryptInit; the result has at most
// room octets.
func (o Module) Encrypt(s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	return o.call(C.ENCRYPT, s, in, room)
}

// Decrypt ends an operation begun with C_DecryptInit, likewise.
func (o Module) Decrypt(s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	return o.call(C.DECRYPT, s, in, room)
}

func (o Module) call(function C.int, s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	out := make([]byte, max(room, 1)) // never NULL: that would be the question for the length
	from := in
	if len(from) == 0 {
		from = make([]byte, 1)
	}
	n := C.word(room)
	rv := C.one_part(o.list, function, C.word(s), (*C.uchar)(unsafe.Pointer(&from[0])), C.word(len(in)), (*C.uchar)(unsafe.Pointer(&out[0])), &n)
	if rv != 0 {
		clear(out)
		return nil, p11.Error(rv)
	}
	if int(n) > room {
		clear(out)
		return nil, p11.Error(p11.CKR_BUFFER_TOO_SMALL)
	}
	return out[:n], nil
}
