// Package simpin reads the file with a card's PIN and remembers, over restarts, that
// a PIN is being tried: a card locks itself after three wrong ones, so one try a
// change of the file is all there is. Notes are empty files named by the card.
// Nothing here logs or repeats a PIN. Only modem/bay may import it.
package simpin

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"custode/internal/fault"
)

// form is what a PIN looks like (27.007 section 8.3).
var form = regexp.MustCompile(`^[0-9]{4,8}$`)

// maxSIMPINFile bounds the file, in octets; a PIN has four to eight digits.
const maxSIMPINFile = 64

// Read returns the first line of the file. It must be a regular file that
// others may not read; group bits may be the mask of an access control list,
// as systemd makes them for credentials. The caller wipes the result.
func Read(path string) ([]byte, error) {
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
	if !form.Match(line) {
		clear(data)
		return nil, fault.Newf(fault.Fatal, op, "%s does not begin with a line of four to eight digits", path)
	}
	return line, nil
}

// Notes keeps the notes of one bay in a folder; with an empty Dir there are none.
type Notes struct {
	Dir string
	Bay string // stands for a card that does not tell its number
}

// path is the note of a card, "" when nothing is kept.
func (n Notes) path(card string) string {
	if n.Dir == "" {
		return ""
	}
	if card == "" || strings.Trim(card, "0123456789") != "" {
		card = n.Bay
	}
	return filepath.Join(n.Dir, "sim-pin-refused-"+card)
}

// Tried fails with fault.Fatal when a process tried a PIN on the card (by its ICCID)
// and did not see it taken.
func (n Notes) Tried(op, card string) error {
	note := n.path(card)
	if note == "" {
		return nil
	}
	if _, err := os.Lstat(note); !errors.Is(err, fs.ErrNotExist) {
		return fault.Newf(fault.Fatal, op, "the PIN was refused before; correct its file, then remove %s", note)
	}
	return nil
}

// Put makes durable that a PIN is about to be tried. Without the note the next
// process would spend another try, so its failure must keep the PIN unsent.
func (n Notes) Put(card string) error {
	note := n.path(card)
	if note == "" {
		return nil
	}
	f, err := os.OpenFile(note, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), syncFolder(n.Dir))
	}
	if err != nil {
		return fault.New(fault.Unavailable, "note the use of a SIM PIN", err)
	}
	return nil
}

// syncFolder makes the name of a new file durable: a power cut between it and the
// modem's answer must not lose the note.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Drop forgets the note of a PIN that was taken.
func (n Notes) Drop(card string) error {
	note := n.path(card)
	if note == "" {
		return nil
	}
	if err := os.Remove(note); err != nil {
		return fault.New(fault.Unavailable, "remove the note of a tried SIM PIN", err)
	}
	return nil
}
