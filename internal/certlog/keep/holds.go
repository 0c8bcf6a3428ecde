package keep

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/folder"
	"custode/internal/fault"
)

// Hold keeps the segments of an interval from being destroyed: somebody with the
// right to ask said so.
type Hold struct {
	Number   int       `json:"number"` // from 1, never used twice
	From     time.Time `json:"from"`
	To       time.Time `json:"to"` // excluded
	Case     string    `json:"case"`
	Reason   string    `json:"reason"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Released time.Time `json:"released,omitzero"`
	ByWhom   string    `json:"releasedBy,omitempty"`
}

const (
	holdsName = "holds.json" // in the log's folder
	maxHolds  = 4 << 20      // octets
)

// Holds are the holds of one log. The file is always there once the log holds
// something: without it nothing is destroyed.
type Holds struct {
	fs   folder.FS
	turn *sync.Mutex // one change at a time
}

// NewHolds returns the holds of the log in that folder.
func NewHolds(fs folder.FS) Holds { return Holds{fs, &sync.Mutex{}} }

// Begin makes an empty list for a log that holds nothing yet.
func (h Holds) Begin() error {
	f, err := h.fs.Open(holdsName)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Unavailable, "read "+holdsName, err)
	}
	return h.write([]Hold{})
}

// List returns all holds, released ones too. A file that is not there, or is not
// one of ours, is fault.Fatal.
func (h Holds) List() ([]Hold, error) {
	const op = "read " + holdsName
	text, err := folder.ReadAll(h.fs, holdsName, maxHolds)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	var all []Hold
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	for i, one := range all {
		if one.Number != i+1 {
			return nil, fault.Newf(fault.Fatal, op, "hold %d is missing", i+1)
		}
	}
	return all, nil
}

// Add adds a hold and returns it with its number; fault.Invalid.
func (h Holds) Add(one Hold) (Hold, error) {
	if !one.To.After(one.From) || one.Case == "" || one.Reason == "" || one.By == "" {
		return Hold{}, fault.Newf(fault.Invalid, "hold records", "an interval, a case, a reason and a name are needed")
	}
	h.turn.Lock()
	defer h.turn.Unlock()
	all, err := h.List()
	if err != nil {
		return Hold{}, err
	}
	one.Number, one.Released, one.ByWhom = len(all)+1, time.Time{}, ""
	return one, h.write(append(all, one))
}

// Release ends a hold; fault.NotFound.
func (h Holds) Release(number int, by string, at time.Time) (Hold, error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	all, err := h.List()
	if err != nil {
		return Hold{}, err
	}
	if number < 1 || number > len(all) || !all[number-1].Released.IsZero() {
		return Hold{}, fault.Newf(fault.NotFound, "release hold", "no hold %d is open", number)
	}
	all[number-1].Released, all[number-1].ByWhom = at, by
	return all[number-1], h.write(all)
}

// Held returns the test that certlog.Destroy asks.
func (h Holds) Held() (func(certlog.Checkpoint) bool, error) {
	all, err := h.List()
	if err != nil {
		return nil, err
	}
	return func(c certlog.Checkpoint) bool {
		for _, one := range all {
			// A record may be a little older than the segment it lies in.
			if one.Released.IsZero() && c.Overlaps(one.From.Add(-time.Nanosecond), one.To.Add(margin)) {
				return true
			}
		}
		return false
	}, nil
}

// margin is above the time between a Response and the opening of its segment.
const margin = 10 * time.Minute

func (h Holds) write(all []Hold) error {
	const op = "write " + holdsName
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	if len(text) > maxHolds {
		return fault.Newf(fault.Exhausted, op, "longer than %d octets", maxHolds)
	}
	err = folder.Publish(h.fs, holdsName, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}
