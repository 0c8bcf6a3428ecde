package rewrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
)

// fake wraps in form only: octets and what they are bound to behind the key's label.
type fake struct{ label id.KeyLabel }

func (f fake) Wrap(_ context.Context, p, aad []byte) ([]byte, error) {
	return hsm.Blob{Key: f.label, Wrapped: slices.Concat(p, []byte("|"), aad, make([]byte, 16))}.Encode()
}

func (f fake) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	b, err := hsm.DecodeBlob(blob)
	plain, ok := bytes.CutSuffix(b.Wrapped, slices.Concat([]byte("|"), aad, make([]byte, 16)))
	if err != nil || b.Key != f.label || !ok {
		return nil, fault.Newf(fault.Invalid, "unwrap", "damaged")
	}
	return plain, nil
}

// table is a table in memory. before runs ahead of each Replace.
type table struct {
	rows   map[string][]byte
	before func(key string) error
}

func (t *table) Rows(_ context.Context, past string, most int) ([]Row, error) {
	var out []Row
	for _, k := range slices.Sorted(maps.Keys(t.rows)) {
		if k > past && len(out) < most {
			out = append(out, Row{Key: k, Blob: t.rows[k], AAD: []byte(k)})
		}
	}
	return out, nil
}

func (t *table) Replace(_ context.Context, key string, was, is []byte) (bool, error) {
	if t.before != nil {
		if err := t.before(key); err != nil {
			return false, err
		}
	}
	if !bytes.Equal(t.rows[key], was) {
		return false, nil
	}
	t.rows[key] = is
	return true, nil
}

// TestRewrap: an interrupted work goes on where it was, a row written meanwhile is
// kept, a damaged one is counted and left, and everything is readable at any time.
func TestRewrap(t *testing.T) {
	label := func(s string) id.KeyLabel {
		l, err := id.ParseKeyLabel(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	old, today := label("wrap/1"), label("wrap/2")
	keys := hsm.Rotated{Today: fake{today}, ByLabel: map[id.KeyLabel]hsm.Wrapper{old: fake{old}, today: fake{today}}}
	tab := &table{rows: map[string][]byte{}}
	const n = 200
	for i := range n {
		key := fmt.Sprintf("%03d", i)
		blob, err := fake{old}.Wrap(t.Context(), []byte("text "+key), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		tab.rows[key] = blob
	}
	tab.rows["damaged"] = []byte("no blob")
	readable := func() {
		t.Helper()
		for i := range n {
			key := fmt.Sprintf("%03d", i)
			if got, err := keys.Unwrap(t.Context(), tab.rows[key], []byte(key)); err != nil || string(got) != "text "+key && string(got) != "new" {
				t.Fatalf("row %s: %q %v", key, got, err)
			}
		}
	}
	w := &Work{Table: tab, Keys: keys, Today: today}
	broken := errors.New("power cut")
	tab.before = func(key string) error {
		if key == "100" {
			return broken
		}
		return nil
	}
	if err := w.Pass(t.Context()); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	readable()
	if p := w.Progress(); p.Rewrapped != 100 || p.Done || p.Problem == "" {
		t.Errorf("after the interruption: %+v", p)
	}
	// Somebody writes row 150 between our reading and our writing.
	tab.before = func(key string) error {
		if key == "150" {
			blob, err := fake{old}.Wrap(t.Context(), []byte("new"), []byte(key))
			tab.rows[key] = blob
			return err
		}
		return nil
	}
	if err := w.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := w.Progress(); p.Rewrapped != 99 || p.Earlier != 101 || p.Unread != 1 || p.Done {
		t.Errorf("second pass: %+v", p)
	}
	readable()
	tab.before = nil
	if err := w.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := (fake{today}).Unwrap(t.Context(), tab.rows["150"], []byte("150")); err != nil || string(got) != "new" {
		t.Errorf("what was written meanwhile: %q %v", got, err)
	}
	// The damaged row keeps the work from being called done: somebody must look.
	if p := w.Progress(); p.Rewrapped != 1 || p.Unread != 1 || p.Done {
		t.Errorf("third pass: %+v", p)
	}
	delete(tab.rows, "damaged")
	if err := w.Pass(t.Context()); err != nil || !w.Progress().Done {
		t.Errorf("last pass: %v %+v", err, w.Progress())
	}
}
