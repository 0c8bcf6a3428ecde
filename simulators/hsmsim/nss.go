package hsmsim

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
)

// NSS is a throw-away token of Mozilla's softokn (Debian packages libnss3 and
// libnss3-tools): an implementation that shares nothing with SoftHSM. Its module
// learns where the token is from pReserved in C_Initialize (Reserved), so it is
// used through a program that passes it on, or through a Shim. All its tokens
// have serial number 0000000000000000, and another slot holds one that has no
// PIN: only the label Label tells them apart.
type NSS struct {
	Dir      string
	Module   string
	Reserved string // for pReserved, without the NUL
	PINFile  string // mode 0400
}

// quickPIN has NSS derive its keys from the PIN in one step, when the database is
// made and when it is used; its own ten thousand are paid at every use of a key.
const quickPIN = "NSS_MAX_MP_PBE_ITERATION_COUNT=1"

// NewNSS makes dir, if need be, and an initialised token without keys in it.
func NewNSS(dir string) (*NSS, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	n := &NSS{Dir: dir, PINFile: filepath.Join(dir, "pin")}
	found, err := filepath.Glob("/usr/lib/*/libsoftokn3.so")
	if err != nil {
		return nil, err
	}
	more, err := filepath.Glob("/usr/lib/*/nss/libsoftokn3.so")
	if found = append(found, more...); err != nil || len(found) == 0 {
		return nil, errors.Join(errors.New("hsmsim: libsoftokn3.so is not installed (Debian package libnss3)"), err)
	}
	n.Module = found[0]
	db := filepath.Join(dir, "db")
	if err := os.MkdirAll(db, 0o700); err != nil {
		return nil, err
	}
	n.Reserved = "configdir='sql:" + db + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags= dbTokenDescription='" + Label + "'"
	if err := os.WriteFile(n.PINFile, []byte(rand.Text()[:16]+"\n"), 0o400); err != nil {
		return nil, err
	}
	cmd := exec.Command("certutil", "-N", "-d", "sql:"+db, "-f", n.PINFile)
	cmd.Env = append(os.Environ(), n.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("hsmsim: certutil (Debian package libnss3-tools): %w: %s", err, out)
	}
	return n, nil
}

// Env is what the process that loads the module needs in its environment not to
// be slow.
func (n *NSS) Env() []string { return []string{quickPIN} }

// URIThrough is the RFC 7512 URI of the token, by a module that reaches it.
func (n *NSS) URIThrough(module string) string {
	return "pkcs11:token=" + Label + "?module-path=" + url.PathEscape(module) + "&pin-source=" + url.PathEscape("file:"+n.PINFile)
}
