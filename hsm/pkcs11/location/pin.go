package location

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// maxPIN is SoftHSM's limit; the standard has none and real tokens less.
const maxPIN = 255

// ReadPIN returns the PIN in l.PINFile without its final line ending. The file
// must be a regular file, not a symbolic link, that nobody but its owner and
// this process may read; else fault.Fatal. The caller wipes the result.
func (l Location) ReadPIN() ([]byte, error) {
	const op = "read PIN file"
	refuse := func(format string, args ...any) ([]byte, error) {
		return nil, fault.Newf(fault.Fatal, op, l.PINFile+": "+format, args...)
	}
	// O_NONBLOCK: a FIFO in its place must not hang the login.
	f, err := os.OpenFile(l.PINFile, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if !info.Mode().IsRegular() {
		return refuse("is not a regular file")
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 || (perm&0o070 != 0 && !groupBitsAreMask(f)) {
		return refuse("mode %04o lets group or others in; it must be 0400 or 0600", perm)
	}
	buf := make([]byte, maxPIN+3)
	n, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(buf)
		return nil, fault.New(fault.Fatal, op, err)
	}
	pin := bytes.TrimSuffix(bytes.TrimSuffix(buf[:n], []byte("\n")), []byte("\r"))
	if len(pin) == 0 || len(pin) > maxPIN || bytes.ContainsAny(pin, "\r\n\x00") {
		clear(buf)
		return refuse("is not one line of 1 to %d octets", maxPIN)
	}
	return pin, nil
}

// groupBitsAreMask reports whether the group bits of f are only the mask of an
// access control list that lets in nobody but this process's user. systemd
// grants a service its credentials that way (LoadCredential= with User=): mode
// 0440, the owning group has no right.
func groupBitsAreMask(f *os.File) bool {
	buf := make([]byte, 1024)
	n, err := unix.Fgetxattr(int(f.Fd()), "system.posix_acl_access", buf)
	return err == nil && onlyUser(buf[:n], uint32(os.Geteuid()))
}

// onlyUser decodes a POSIX access control list as Linux stores it (version 2,
// then entries of tag, permissions and id) and reports whether it lets in only
// the owner and the user uid.
func onlyUser(acl []byte, uid uint32) bool {
	const (
		tagUserObj, tagUser, tagMask = 0x01, 0x02, 0x10 // the rest: owning group 0x04, groups 0x08, others 0x20
	)
	if len(acl) < 4 || len(acl)%8 != 4 || binary.LittleEndian.Uint32(acl) != 2 {
		return false
	}
	for acl = acl[4:]; len(acl) > 0; acl = acl[8:] {
		tag, perm := binary.LittleEndian.Uint16(acl), binary.LittleEndian.Uint16(acl[2:])
		switch {
		case perm == 0 || tag == tagUserObj || tag == tagMask:
		case tag == tagUser && binary.LittleEndian.Uint32(acl[4:]) == uid:
		default:
			return false
		}
	}
	return true
}
