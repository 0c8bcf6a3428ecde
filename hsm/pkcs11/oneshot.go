package pkcs11

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long word;

// The head of CK_FUNCTION_LIST (PKCS #11 v2.40, section 5.2): the version, then
// the functions in the standard's order.
struct list {
	unsigned char version[2];
	void *f[68];
};

enum { ENCRYPT = 30, DECRYPT = 34 };

static struct list *oneshot_load(const char *path) {
	struct list *found = NULL;
	// Loaded already: this only finds it again, and keeps it.
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	word (*get)(struct list **) = lib ? (word (*)(struct list **))dlsym(lib, "C_GetFunctionList") : NULL;
	return get && get(&found) == 0 ? found : NULL;
}

static word oneshot(struct list *l, int f, word session, unsigned char *in, word n, unsigned char *out, word *len) {
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

// oneshot calls C_Encrypt and C_Decrypt with a buffer of ours. The binding asks
// for the length first, which NSS 3.87 answers for AES-GCM without the tag, and
// then finds the buffer too small; and it leaves a copy of the plaintext in freed
// memory, and crosses into C twice.
type oneshot struct{ list *C.struct_list }

// cString copies s to C memory.
func cString(s string) unsafe.Pointer { return unsafe.Pointer(C.CString(s)) }

// loadOneshot finds the functions of a module that the binding has loaded.
func loadOneshot(path string) (oneshot, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	o := oneshot{C.oneshot_load(name)}
	if o.list == nil {
		return o, fault.Newf(fault.Fatal, "load module", "%s has no function list", path)
	}
	return o, nil
}

// encrypt ends an operation begun with C_EncryptInit; the result has at most
// room octets.
func (o oneshot) encrypt(s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	return o.call(C.ENCRYPT, s, in, room)
}

func (o oneshot) decrypt(s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	return o.call(C.DECRYPT, s, in, room)
}

func (o oneshot) call(function C.int, s p11.SessionHandle, in []byte, room int) ([]byte, error) {
	out := make([]byte, max(room, 1)) // never NULL: that would be the question for the length
	from := in
	if len(from) == 0 {
		from = make([]byte, 1)
	}
	n := C.word(room)
	rv := C.oneshot(o.list, function, C.word(s), (*C.uchar)(unsafe.Pointer(&from[0])), C.word(len(in)), (*C.uchar)(unsafe.Pointer(&out[0])), &n)
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
