package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"custode/internal/fault"
)

// The last good copy is one file: a line that names the format, the signed
// documents in canonical form one after the other, the listing as received, a
// footer in JSON that says where they are, and a trailer: SHA-256 and length
// of the footer, and an end mark. The documents carry their own proof; the
// digest over the rest finds accidents, not attackers.
const (
	copyHead    = "custode registry copy 1\n"
	copyEnd     = "CUSTREG1"
	trailerSize = sha256.Size + 8 + len(copyEnd)
	maxFooter   = 64 << 20
	copySuffix  = ".part" // of a copy that is being written
)

// footer describes a copy.
type footer struct {
	Source   string    `json:"source"`
	Fetched  time.Time `json:"fetched"`
	Parts    []part    `json:"parts"`
	Listing  *part     `json:"listing,omitempty"`
	Replaced []string  `json:"replaced,omitempty"` // digests of aggregates that came before, oldest first
}

// part is one document in a copy.
type part struct {
	Name   string            `json:"name"`
	Mark   Mark              `json:"mark"`
	Offset int64             `json:"offset"`
	Length int64             `json:"length"`
	Digest [sha256.Size]byte `json:"digest"` // of the octets
}

// section returns the part's octets in the copy.
func (p *part) section(f io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(f, p.Offset, p.Length)
}

// copyWriter writes the next copy beside the current one.
type copyWriter struct {
	path string
	file *os.File
	size int64
}

func newCopyWriter(path string) (*copyWriter, error) {
	const op = "write registry copy"
	f, err := os.OpenFile(path+copySuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	w := &copyWriter{path: path, file: f}
	if _, err := io.WriteString(w, copyHead); err != nil {
		w.discard()
		return nil, fault.New(fault.Unavailable, op, err)
	}
	return w, nil
}

func (w *copyWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.size += int64(n)
	return n, err
}

// commit ends the copy and puts it in the place of the last one; a power cut
// leaves the one or the other.
func (w *copyWriter) commit(f *footer) error {
	const op = "write registry copy"
	text, err := json.Marshal(f)
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	sum := sha256.Sum256(text)
	tail := binary.BigEndian.AppendUint64(append(text, sum[:]...), uint64(len(text)))
	if _, err := w.Write(append(tail, copyEnd...)); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := w.file.Sync(); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := os.Rename(w.path+copySuffix, w.path); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	dir, err := os.Open(filepath.Dir(w.path))
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}

// discard gives the copy up. It is harmless after commit.
func (w *copyWriter) discard() {
	_ = w.file.Close()
	_ = os.Remove(w.path + copySuffix)
}

// openCopy opens the copy at path and reads its footer; fault.NotFound when there is none.
func openCopy(path string) (*os.File, *footer, error) {
	const op = "open registry copy"
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, fault.New(fault.NotFound, op, err)
	case err != nil:
		return nil, nil, fault.New(fault.Unavailable, op, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(fault.New(fault.Unavailable, op, err), f.Close())
	}
	foot, err := readFooter(f, info.Size())
	if err != nil {
		return nil, nil, errors.Join(fault.New(fault.Invalid, op, err), f.Close())
	}
	return f, foot, nil
}

func readFooter(f io.ReaderAt, size int64) (*footer, error) {
	if size < int64(len(copyHead)+trailerSize) {
		return nil, errors.New("file is too short")
	}
	var trailer [trailerSize]byte
	if _, err := f.ReadAt(trailer[:], size-int64(trailerSize)); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(trailer[:], []byte(copyEnd)) {
		return nil, errors.New("file has no end mark")
	}
	length := binary.BigEndian.Uint64(trailer[sha256.Size:])
	if length > maxFooter || int64(length) > size-int64(len(copyHead)+trailerSize) {
		return nil, errors.New("footer length out of range")
	}
	text := make([]byte, length)
	end := size - int64(trailerSize) - int64(length)
	if _, err := f.ReadAt(text, end); err != nil {
		return nil, err
	}
	if sha256.Sum256(text) != [sha256.Size]byte(trailer[:sha256.Size]) {
		return nil, errors.New("footer was changed")
	}
	foot := new(footer)
	if err := json.Unmarshal(text, foot); err != nil {
		return nil, err
	}
	for _, p := range append(foot.Parts, listingParts(foot)...) {
		if p.Offset < int64(len(copyHead)) || p.Length < 0 || p.Offset+p.Length > end || p.Offset+p.Length < p.Offset {
			return nil, errors.New("part out of range")
		}
	}
	return foot, nil
}

func listingParts(f *footer) []part {
	if f.Listing == nil {
		return nil
	}
	return []part{*f.Listing}
}
