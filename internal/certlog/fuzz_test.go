package certlog

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// FuzzPayloads: what is accepted has one text.
func FuzzPayloads(f *testing.F) {
	c, err := Checkpoint{Format: 1, Log: ID{1}, Name: "transactions", Segment: 1, Size: 5, Opened: time.Unix(1, 0).UTC(), Sealed: time.Unix(2, 0).UTC()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	d, err := json.Marshal(Destruction{Format: 1, Log: ID{1}, Segments: []uint64{1}, Size: 5, Reason: "r", At: time.Unix(3, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c)
	f.Add(d)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if c, err := ParseCheckpoint(payload); err == nil {
			if again, err := c.Encode(); err != nil || !bytes.Equal(again, payload) || c.Size <= c.First {
				t.Errorf("%+v, %v", c, err)
			}
		}
		if d, err := ParseDestruction(payload); err == nil {
			if again, err := json.Marshal(d); err != nil || !bytes.Equal(again, payload) || len(d.Segments) == 0 {
				t.Errorf("%+v, %v", d, err)
			}
		}
	})
}
