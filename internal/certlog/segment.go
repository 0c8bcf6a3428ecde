package certlog

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"

	"custode/internal/certlog/folder"
	"custode/internal/certlog/frame"
	"custode/internal/fault"
)

func segmentName(n uint64, suffix string) string { return fmt.Sprintf("%012d.%s", n, suffix) }

const maxKeyFile = 16 << 10

// keyFile is N.key.
type keyFile struct {
	Log         ID     `json:"log"`
	Segment     uint64 `json:"segment"`
	Operational []byte `json:"operational"`      // by the HSM's wrap key; names it
	Escrow      []byte `json:"escrow,omitempty"` // RSA-OAEP, SHA-256, same label
}

func keyLabel(log ID, number uint64) []byte {
	return fmt.Appendf(nil, "custode certlog segment key\x00%s\x00%d", log, number)
}

// newSegmentKey makes a segment's key and stores its wraps durably.
func (l *Log) newSegmentKey(ctx context.Context, number uint64) (*frame.Keys, Hash, error) {
	key := make([]byte, frame.KeyLen)
	defer clear(key)
	if _, err := io.ReadFull(l.cfg.Random, key); err != nil {
		return nil, Hash{}, err
	}
	label := keyLabel(l.id, number)
	f := keyFile{Log: l.id, Segment: number}
	var err error
	if f.Operational, err = l.cfg.Keys.Wrap(ctx, key, label); err != nil {
		return nil, Hash{}, err
	}
	if l.cfg.Escrow != nil {
		if f.Escrow, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, l.cfg.Escrow, key, label); err != nil {
			return nil, Hash{}, err
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, Hash{}, err
	}
	if err := l.put(segmentName(number, "key"), text); err != nil {
		return nil, Hash{}, err
	}
	k, err := frame.NewKeys(l.id, number, key)
	return k, sha256.Sum256(text), err
}

// readKey unwraps the key of a segment. The wrapper is the HSM's, or the
// escrow's (Escrow) when the HSM is gone.
func readKey(ctx context.Context, fs Folder, w Wrapper, log ID, number uint64) (*frame.Keys, error) {
	op := fmt.Sprintf("read key of segment %d", number)
	text, err := folder.ReadAll(fs, segmentName(number, "key"), maxKeyFile)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	var f keyFile
	if err := json.Unmarshal(text, &f); err != nil || f.Log != log || f.Segment != number {
		return nil, fault.Newf(fault.Invalid, op, "not the key file of this segment")
	}
	blob := f.Operational
	if _, ok := w.(escrow); ok {
		blob = f.Escrow
	}
	key, err := w.Unwrap(ctx, blob, keyLabel(log, number))
	if err != nil {
		return nil, fault.New(fault.KindOf(err), op, err)
	}
	defer clear(key)
	if len(key) != frame.KeyLen {
		return nil, fault.Newf(fault.Invalid, op, "a key of %d octets", len(key))
	}
	return frame.NewKeys(log, number, key)
}

// escrow opens the second wrap with the recovery key.
type escrow struct{ key *rsa.PrivateKey }

// Escrow makes a Wrapper that opens the escrow wraps; it wraps nothing.
func Escrow(key *rsa.PrivateKey) Wrapper { return escrow{key} }

func (e escrow) Wrap(context.Context, []byte, []byte) ([]byte, error) {
	return nil, fault.Newf(fault.Invalid, "wrap segment key", "the escrow key only opens")
}

func (e escrow) Unwrap(_ context.Context, blob, label []byte) ([]byte, error) {
	key, err := rsa.DecryptOAEP(sha256.New(), rand.Reader, e.key, blob, label)
	if err != nil {
		return nil, fault.New(fault.Invalid, "open escrow wrap", err)
	}
	return key, nil
}
