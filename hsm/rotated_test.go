package hsm

import (
	"bytes"
	"context"
	"testing"

	"custode/internal/fault"
	"custode/internal/id"
)

// labelled wraps in form only: blob of its label.
type labelled struct{ label id.KeyLabel }

func (l labelled) Wrap(_ context.Context, p, _ []byte) ([]byte, error) {
	return Blob{Key: l.label, IV: [IVLen]byte{1}, Wrapped: append(bytes.Clone(p), make([]byte, 16)...)}.Encode()
}

func (l labelled) Unwrap(_ context.Context, blob, _ []byte) ([]byte, error) {
	b, err := DecodeBlob(blob)
	if err != nil || b.Key != l.label {
		return nil, fault.Newf(fault.Invalid, "unwrap", "another key's")
	}
	return b.Wrapped[:len(b.Wrapped)-16], nil
}

func TestRotated(t *testing.T) {
	label := func(s string) id.KeyLabel {
		l, err := id.ParseKeyLabel(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	october, november := label("log/10"), label("log/11")
	before := Rotated{Today: labelled{october}, ByLabel: map[id.KeyLabel]Wrapper{october: labelled{october}}}
	after := Rotated{Today: labelled{november}, ByLabel: map[id.KeyLabel]Wrapper{october: labelled{october}, november: labelled{november}}}
	for name, w := range map[string]Rotated{"before": before, "after": after} {
		blob, err := w.Wrap(t.Context(), []byte("key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := after.Unwrap(t.Context(), blob, nil); err != nil || string(got) != "key" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	blob, err := after.Wrap(t.Context(), []byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Unwrap(t.Context(), blob, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("a key that is not configured: %v", err)
	}
	if _, err := after.Unwrap(t.Context(), []byte("x"), nil); err == nil {
		t.Error("unwrapped noise")
	}
}
