package worker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"custode/internal/fault"
)

// canary is what known answers are made of. It can never be a message of the product: nothing
// there begins with NUL.
const canary = "\x00custode worker canary"

// known is a key in use and what recognises it: a question with one right answer.
type known struct {
	label   string
	role    string // sign, mac, wrap or seed
	version int    // Client.version when it came into use
	ask     message
	want    []byte
}

// fingerprint shows equal keys as equal without giving anything else away.
func (k known) fingerprint() string {
	if string(k.want) == canary {
		return "" // the known answer is the same for all, the question is not
	}
	sum := sha256.Sum256(k.want)
	return hex.EncodeToString(sum[:10])
}

func question(op Operation, label string, fields ...[]byte) message {
	return message{code: byte(op), label: label, fields: fields}
}

// recogniseLimit bounds the comparison of one key.
const recogniseLimit = 5 * time.Second

// recognise asks for every known key newer than seen. The error is an *otherKey when the token is
// another one; else the keys could not be compared.
func recognise(ctx context.Context, k *conn, token string, keys []known, seen int) error {
	for _, key := range keys {
		if key.version <= seen {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, recogniseLimit)
		a, err := k.ask(limit, key.ask)
		cancel()
		switch {
		case errors.Is(err, errLost):
			return err
		case fault.Is(err, fault.NotFound):
			return another(token, key.label, "does not hold it")
		case fault.Is(err, fault.Denied) && key.role == "sign" && seen == 0:
			// A worker that is newer than the roll-over that retired the key, which needs no restart. It does nothing
			// with the key for anybody.
			continue
		case fault.Is(err, fault.Denied):
			return another(token, key.label, "is served by a worker that may not use it: %w", err)
		case (key.role == "wrap" || key.role == "seed") && fault.Is(err, fault.Invalid):
			return another(token, key.label, "holds another key than the one in use: re-initialised, replaced or not a copy")
		case fault.Is(err, fault.Fatal):
			return fault.New(fault.Fatal, "recognise key "+key.label, err)
		case err != nil:
			return fault.New(fault.Unavailable, "recognise key "+key.label, err)
		case len(a.fields) != 1 || !hmac.Equal(a.fields[0], key.want):
			return another(token, key.label, "holds another key than the one in use: re-initialised, replaced or not a copy")
		}
		clear(a.frame)
	}
	return nil
}

// probe asks the token for a known answer.
func probe(ctx context.Context, k *conn, token string, keys []known) error {
	for _, key := range keys {
		if key.role != "mac" {
			continue
		}
		a, err := k.ask(ctx, key.ask)
		if err != nil {
			return err
		}
		if len(a.fields) != 1 || !bytes.Equal(a.fields[0], key.want) {
			return another(token, key.label, "answers wrongly")
		}
		return nil
	}
	_, err := k.ask(ctx, message{code: byte(opRandom), numbers: []uint64{16}})
	return err
}

// ask gets the worker's report.
func ask(ctx context.Context, k *conn) (Report, error) {
	var r Report
	a, err := k.ask(ctx, message{code: byte(opReport)})
	if err != nil {
		return r, err
	}
	if len(a.fields) != 1 || len(a.fields[0]) > 16<<10 {
		return r, fault.New(fault.Internal, "ask the worker for its report", errFrame)
	}
	if err := json.Unmarshal(a.fields[0], &r); err != nil {
		return r, fault.New(fault.Internal, "ask the worker for its report", err)
	}
	return r, nil
}
