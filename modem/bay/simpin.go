package bay

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"custode/internal/fault"
)

// maxSIMPINFile bounds the file, in octets; a PIN has four to eight digits.
const maxSIMPINFile = 64

// readSIMPIN returns the first line of the file. It must be a regular file that
// others may not read; group bits may be the mask of an access control list,
// as systemd makes them for credentials. The caller wipes the result.
func readSIMPIN(path string) ([]byte, error) {
	const op = "read SIM PIN file"
	// O_NONBLOCK: a FIFO in its place must not hang the bay and its shutdown.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fault.New(fault.Fatal, op, err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o027 != 0:
		return nil, fault.Newf(fault.Fatal, op, "%s must be a regular file that only its owner may read (mode is %v)", path, info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSIMPINFile))
	if err != nil {
		clear(data)
		return nil, fault.New(fault.Fatal, op, err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSpace(line)
	if !simPIN.Match(line) {
		clear(data)
		return nil, fault.Newf(fault.Fatal, op, "%s does not begin with a line of four to eight digits", path)
	}
	return line, nil
}

// pinNote is the file that says that a card refused its PIN, so that a restart
// does not spend another of its three tries; "" when nothing is kept.
func (b *Bay) pinNote(card string) string {
	if b.cfg.PINNotes == "" {
		return ""
	}
	digits := digitsOnly.FindString(card)
	if digits == "" {
		digits = b.cfg.Place.Name // a modem that does not tell the card's number
	}
	return filepath.Join(b.cfg.PINNotes, "sim-pin-refused-"+digits)
}

// refusedBefore fails when the card refused a PIN in this process or, by its
// note, in an earlier one.
func (b *Bay) refusedBefore(op, card string) error {
	note := b.pinNote(card)
	if b.pinRefused == card {
		return fault.Newf(fault.Fatal, op, "the PIN was refused before and is not tried again")
	}
	if note == "" {
		return nil
	}
	if _, err := os.Lstat(note); !errors.Is(err, fs.ErrNotExist) {
		return fault.Newf(fault.Fatal, op, "the PIN was refused before; correct its file, then remove %s", note)
	}
	return nil
}

// noteRefusal makes durable that a PIN is about to be tried. Without the note the
// next process would spend another try, so its failure keeps the PIN unsent.
func (b *Bay) noteRefusal(card string) error {
	note := b.pinNote(card)
	if note == "" {
		return nil
	}
	f, err := os.OpenFile(note, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fault.New(fault.Unavailable, "note the use of a SIM PIN", err)
	}
	return nil
}

// dropNote forgets the note of a PIN that was taken.
func (b *Bay) dropNote(card string) {
	note := b.pinNote(card)
	if note == "" {
		return
	}
	if err := os.Remove(note); err != nil {
		b.cfg.Log.Error("note of a tried SIM PIN not removed: the next start will not try it", "bay", b.cfg.Place.Name, "note", note, "err", err)
	}
}
