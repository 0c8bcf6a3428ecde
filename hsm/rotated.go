package hsm

import (
	"context"

	"custode/internal/fault"
	"custode/internal/id"
)

// Rotated is a Wrapper whose key was changed from time to time: it wraps with
// Today and unwraps with whichever key wrapped.
type Rotated struct {
	Today   Wrapper
	ByLabel map[id.KeyLabel]Wrapper // Today's too
}

// Wrap implements Wrapper.
func (r Rotated) Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return r.Today.Wrap(ctx, plaintext, aad)
}

// Unwrap implements Wrapper. A blob of a key that is not in ByLabel is
// fault.NotFound.
func (r Rotated) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	b, err := DecodeBlob(blob)
	if err != nil {
		return nil, err
	}
	w, ok := r.ByLabel[b.Key]
	if !ok {
		return nil, fault.Newf(fault.NotFound, "unwrap", "it was wrapped by key %s, which is not configured", b.Key)
	}
	return w.Unwrap(ctx, blob, aad)
}
