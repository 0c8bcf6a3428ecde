package registry

import (
	"context"
	"fmt"
	"io"
	"os"

	"custode/internal/fault"
)

// Mark recognises a document that did not change.
type Mark struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
	Pages        int    `json:"pages,omitempty"` // of a paged aggregate, with this page
	Total        int    `json:"total,omitempty"` // entities in all pages, as the source counts
}

// Arrival is a document that a source hands over. The source closes Body.
type Arrival struct {
	Name string    // recognises the document at the next refresh
	Mark Mark      // to be kept
	Body io.Reader // nil: as it was when the mark that known returned was kept
}

// Source hands over the federation registry's documents. known returns what was
// kept of a name, the zero Mark for nothing. An error of take ends the work and is
// returned. Other errors: fault.Unavailable for the source, fault.Invalid for what it says.
type Source interface {
	// Aggregate hands over the signed documents in order and returns how many
	// entities the source says they hold, -1 when it does not say.
	Aggregate(ctx context.Context, known func(name string) Mark, take func(Arrival) error) (int, error)
	// Listing hands over the listing; a source without one does not call take.
	Listing(ctx context.Context, known func(name string) Mark, take func(Arrival) error) error
	// String names the source for operators.
	String() string
}

// File is a source of files that somebody else brings.
type File struct {
	AggregatePath string // absolute
	ListingPath   string // absolute; "" for none
}

// Aggregate hands over the file.
func (f File) Aggregate(_ context.Context, known func(string) Mark, take func(Arrival) error) (int, error) {
	return -1, f.hand(f.AggregatePath, known, take)
}

// Listing hands over the file, if there is one.
func (f File) Listing(_ context.Context, known func(string) Mark, take func(Arrival) error) error {
	if f.ListingPath == "" {
		return nil
	}
	return f.hand(f.ListingPath, known, take)
}

// String returns the aggregate's path.
func (f File) String() string { return f.AggregatePath }

func (f File) hand(path string, known func(string) Mark, take func(Arrival) error) error {
	op := "read " + path
	// Opening a pipe would wait for its other end.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fault.Newf(fault.Invalid, op, "not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	a := Arrival{Name: path, Mark: Mark{ETag: fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano())}, Body: file}
	if known(path) == a.Mark {
		a.Body = nil
	}
	return take(a)
}
