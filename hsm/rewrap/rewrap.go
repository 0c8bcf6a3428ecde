// Package rewrap brings what was wrapped by earlier keys under today's, row by row,
// while everything stays readable (hsm.Rotated reads both). It keeps no place of
// its own: every blob names its key, so an interrupted work goes on by looking
// again, and a row that somebody wrote meanwhile is left as it is.
//
// The plaintext is in this process's memory for the time between the three calls of
// one row (unwrap, wrap, and unwrap again to see that it can be read), as it is whenever the row is used. It knows no database and no token.
package rewrap

import (
	"bytes"
	"context"
	"sync"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
)

// Row is one blob and where it is.
type Row struct {
	Key  string // unique and ordered in the table
	Blob []byte
	AAD  []byte // what it is bound to
}

// Table is a place of wrapped blobs.
type Table interface {
	// Rows returns up to most rows with a key after past, in the order of their keys.
	Rows(ctx context.Context, past string, most int) ([]Row, error)
	// Replace writes is where was still stands, and reports whether it did.
	Replace(ctx context.Context, key string, was, is []byte) (bool, error)
}

// Progress of one table. The counts are of the present pass.
type Progress struct {
	Seen      int    `json:"seen"`
	Earlier   int    `json:"earlier"` // wrapped by another key than today's when they were seen
	Rewrapped int    `json:"rewrapped"`
	Unread    int    `json:"unread"` // that could not be unwrapped: damaged, or of a key that is not configured
	Passes    int    `json:"passes"`
	Done      bool   `json:"done"` // the last pass found nothing of earlier keys
	Problem   string `json:"problem,omitempty"`
}

// Work is the rewrapping of one table.
type Work struct {
	Table Table
	Keys  hsm.Wrapper // reads every key's blobs and wraps with today's
	Today id.KeyLabel

	mu sync.Mutex
	p  Progress
}

// batch is how many rows are read at a time.
const batch = 64

// Progress returns how far the work is.
func (w *Work) Progress() Progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.p
}

func (w *Work) note(change func(p *Progress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.p)
}

// Pass goes through the whole table once. After an error the next Pass goes on,
// since what is done is done.
func (w *Work) Pass(ctx context.Context) error {
	w.note(func(p *Progress) { *p = Progress{Passes: p.Passes + 1} })
	err := w.pass(ctx)
	w.note(func(p *Progress) {
		p.Done = err == nil && p.Earlier == 0
		if err != nil {
			p.Problem = fault.KindOf(err).String()
		}
	})
	return err
}

func (w *Work) pass(ctx context.Context) error {
	past := ""
	for {
		rows, err := w.Table.Rows(ctx, past, batch)
		if err != nil {
			return err
		}
		for _, r := range rows {
			past = r.Key
			if err := w.row(ctx, r); err != nil {
				return err
			}
		}
		if len(rows) < batch {
			return nil
		}
	}
}

func (w *Work) row(ctx context.Context, r Row) error {
	w.note(func(p *Progress) { p.Seen++ })
	b, err := hsm.DecodeBlob(r.Blob)
	if err == nil && b.Key == w.Today {
		return nil
	}
	w.note(func(p *Progress) { p.Earlier++ })
	plain, err := w.Keys.Unwrap(ctx, r.Blob, r.AAD)
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.NotFound) {
		w.note(func(p *Progress) { p.Unread++ }) // one bad row must not stop the others
		return nil
	}
	if err != nil {
		return err
	}
	defer clear(plain)
	fresh, err := w.Keys.Wrap(ctx, plain, r.AAD)
	if err != nil {
		return err
	}
	// The earlier blob goes for good: what takes its place must have been read once.
	again, err := w.Keys.Unwrap(ctx, fresh, r.AAD)
	if err != nil {
		return err
	}
	defer clear(again)
	if !bytes.Equal(again, plain) {
		return fault.Newf(fault.Fatal, "rewrap "+r.Key, "what was wrapped reads otherwise than before")
	}
	replaced, err := w.Table.Replace(ctx, r.Key, r.Blob, fresh)
	if err == nil && replaced {
		w.note(func(p *Progress) { p.Rewrapped++ })
	}
	return err
}
