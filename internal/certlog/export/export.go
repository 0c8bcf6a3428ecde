// Package export takes a certified log out of its folder: the files of sealed
// segments as they are, for an archive or an auditor, or records in clear, as JSON
// lines, for who may read them. It changes nothing in the log.
//
// It imports internal/certlog and attest; cmd imports it.
package export

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/fault"
)

// Sealed copies what belongs to sealed and time-stamped segments from one folder
// to another, which is made if missing; a file that is there stays. It returns the
// number of files copied.
func Sealed(from, to string) (n int, err error) {
	op := "copy sealed segments to " + to
	if err := os.MkdirAll(to, 0o700); err != nil {
		return 0, fault.New(fault.Unavailable, op, err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return 0, fault.New(fault.Unavailable, op, err)
	}
	sealed := map[string]bool{}
	for _, e := range entries {
		if stem, ok := strings.CutSuffix(e.Name(), ".p7m"); ok {
			sealed[stem] = true
		}
	}
	for _, e := range entries {
		stem, suffix, _ := strings.Cut(e.Name(), ".")
		if e.Name() != "log.json" && e.Name() != "holds.json" && (!sealed[stem] || suffix == "bes") {
			continue
		}
		copied, err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil {
			return n, fault.New(fault.Unavailable, op, err)
		}
		if copied {
			n++
		}
	}
	return n, nil
}

func copyFile(from, to string) (bool, error) {
	in, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if os.IsExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(to)
	}
	return err == nil, err
}

// line is a record in clear.
type line struct {
	Seq         uint64          `json:"seq"`
	Unsealed    bool            `json:"unsealed,omitempty"`
	Access      *attest.Access  `json:"access,omitempty"`
	RequestXML  string          `json:"requestXML,omitempty"`
	ResponseXML string          `json:"responseXML,omitempty"`
	Event       json.RawMessage `json:"event,omitempty"`
}

// Selection says what Plain writes. A zero From or To is no bound.
type Selection struct {
	From, To time.Time // segments that were open between them
	Unsealed bool      // also segments without a checkpoint, which nothing proves to be whole
}

func (s Selection) takes(c certlog.Checkpoint) bool {
	to := s.To
	if to.IsZero() {
		to = time.Unix(1<<40, 0)
	}
	return c.Overlaps(s.From, to)
}

// Plain writes records as JSON lines and returns their number. Records are JSON,
// or attest.Access.
func Plain(ctx context.Context, out io.Writer, r *certlog.Reader, w certlog.Wrapper, s Selection) (n int, err error) {
	const op = "export records"
	lines := json.NewEncoder(out)
	write := func(f certlog.Found, unsealed bool) error {
		if err := ctx.Err(); err != nil {
			return fault.New(fault.Unavailable, op, err)
		}
		one := line{Seq: f.Seq, Unsealed: unsealed}
		if json.Valid(f.Record.Data) {
			one.Event = f.Record.Data
		} else {
			a, err := attest.ParseAccess(f.Record.Data)
			if err != nil {
				return err
			}
			one.Access, one.RequestXML, one.ResponseXML = &a, string(a.Request.XML), string(a.Response.XML)
		}
		n++
		if err := lines.Encode(one); err != nil {
			return fault.New(fault.Unavailable, op, err)
		}
		return nil
	}
	for _, c := range r.Checkpoints() {
		if r.Destroyed(c.Segment) || !s.takes(c) {
			continue
		}
		if err := r.Each(ctx, w, c, func(f certlog.Found) error { return write(f, false) }); err != nil {
			return n, fault.New(fault.KindOf(err), op, err)
		}
	}
	if !s.Unsealed {
		return n, nil
	}
	for _, segment := range r.Unsealed() {
		if err := r.EachUnsealed(ctx, w, segment, func(f certlog.Found) error { return write(f, true) }); err != nil {
			return n, fault.New(fault.KindOf(err), op, err)
		}
	}
	return n, nil
}
