package ceremony

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"custode/hsm/pkcs11"
	"custode/internal/fault"
)

// MinPIN is the shortest new PIN, in octets: it is made by a machine and typed by nobody.
const MinPIN = 12

// ChangePIN gives the token the user PIN in newFile, which must pass the checks of a
// PIN file, and replaces the URI's PIN file by it, atomically. The new PIN is beside
// the old one, durably, before the token learns it: after a crash in between, one of
// the two files has the PIN in force. fault.Conflict when an earlier change was
// interrupted so.
func ChangePIN(ctx context.Context, a Access, newFile string) (err error) {
	op := "change PIN"
	loc, err := pkcs11.ParseLocation(a.URI)
	if err != nil {
		return err
	}
	fresh := loc
	fresh.PINFile = newFile
	pin, err := fresh.ReadPIN()
	if err != nil {
		return err
	}
	defer clear(pin)
	if len(pin) < MinPIN {
		return fault.Newf(fault.Invalid, op, "the new PIN is shorter than %d octets", MinPIN)
	}
	old, err := loc.ReadPIN()
	if err != nil {
		return err
	}
	defer clear(old)
	if bytes.Equal(old, pin) {
		return fault.Newf(fault.Invalid, op, "the new PIN is the old one")
	}
	info, err := a.Inspect(ctx) // with the old PIN, one try
	if err != nil {
		return err
	}
	next := loc.PINFile + ".next"
	if err := writePIN(next, loc.PINFile, pin); err != nil {
		return err
	}
	taken := false
	err = atDesk(loc, info, op, func(d desk) error {
		if err := d.mod.SetPIN(d.s, string(old), string(pin)); err != nil {
			return fault.New(fault.Fatal, op, err)
		}
		taken = true
		return nil
	})
	if !taken {
		// An answer that was lost may hide that it is taken: the file stays then.
		return errors.Join(err, fault.Newf(fault.Fatal, op, "%s stays: log in with the old PIN once; when that is refused, the new one is in force and the file belongs in the old one's place", next))
	}
	if rerr := os.Rename(next, loc.PINFile); rerr != nil {
		return fault.Newf(fault.Fatal, op, "the token has the new PIN, which is in %s and must take the place of %s: %w", next, loc.PINFile, rerr)
	}
	if serr := syncDir(filepath.Dir(loc.PINFile)); err == nil {
		err = serr
	}
	if err != nil {
		return err
	}
	// The daemon's own way in must work with the new file.
	_, err = a.Inspect(ctx)
	return err
}

// writePIN writes the file that will take the place of like: the same owner may
// read it, nobody else.
func writePIN(path, like string, pin []byte) error {
	var owner unix.Stat_t
	if err := unix.Stat(like, &owner); err != nil {
		return fault.New(fault.Fatal, "look at "+like, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if errors.Is(err, os.ErrExist) {
		return fault.Newf(fault.Conflict, "write "+path, "it is there: an earlier change of the PIN was interrupted, and one of the two files has the PIN in force")
	}
	if err != nil {
		return fault.New(fault.Fatal, "write "+path, err)
	}
	line := append(bytes.Clone(pin), '\n')
	defer clear(line)
	_, err = f.Write(line)
	if err == nil {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path))); err != nil {
		return errors.Join(fault.New(fault.Fatal, "write "+path, err), os.Remove(path))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.New(fault.Fatal, "make "+dir+" durable", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fault.New(fault.Fatal, "make "+dir+" durable", err)
	}
	return nil
}
