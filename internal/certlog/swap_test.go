package certlog

import (
	"strings"
	"testing"
	"time"

	"custode/internal/certlog/folder/foldertest"
	"custode/internal/certlog/index"
	"custode/internal/fault"
)

const hour = time.Hour

// closed makes a log with one closed segment that could not be sealed: three
// records of one subject, two of another.
func closed(t *testing.T) (*bench, *foldertest.Disk, *Log) {
	t.Helper()
	b := newBench(t)
	d := foldertest.NewDisk(1)
	l, err := Open(t.Context(), b.config(d))
	if err != nil {
		t.Fatal(err)
	}
	for i, tag := range []string{"ada", "bob", "ada", "bob", "ada"} {
		if got := put(l, Record{Tag: tag, Data: record(i).Data}); got[0].err != nil {
			t.Fatal(got[0].err)
		}
	}
	l.closeOpen(t.Context())
	return b, d, l
}

// find returns how many of ada's records a search finds.
func find(t *testing.T, b *bench, d *foldertest.Disk) (int, error) {
	t.Helper()
	r, err := NewReader(d, &b.seal)
	if err != nil {
		t.Fatal(err)
	}
	from := b.clock.t.Add(-hour)
	found, _, err := r.Find(t.Context(), vault{}, "ada", from, from.Add(2*hour))
	return len(found), err
}

// TestIndexSwappedBeforeTheSeal: who can write to the folder while a segment
// waits for its seal must not be able to hide a subject's records under it.
func TestIndexSwappedBeforeTheSeal(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			b, d, l := closed(t)
			good := d.Entries["000000000001.idx"].Data
			var less []byte
			var k *[index.TagLen]byte
			for i := 0; i+24 <= len(good); i += 24 {
				if tag := [index.TagLen]byte(good[i:]); k == nil || tag == *k {
					k = &tag
					continue // the records of the first tag
				}
				less = append(less, good[i:i+24]...)
			}
			d.Swap("000000000001.idx", less)
			if restart {
				var err error
				if l, err = Open(t.Context(), b.config(d)); err != nil {
					t.Fatal(err)
				}
				if b.rebuilt == 0 {
					t.Error("nothing is said of a changed index")
				}
			}
			if err := l.sealAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			n, err := find(t, b, d)
			if restart && (n != 3 || err != nil) {
				t.Errorf("made anew it shows %d records, %v", n, err)
			}
			if !restart && !fault.Is(err, fault.Fatal) {
				t.Errorf("the search finds %d of 3 records, and %v", n, err)
			}
		})
	}
}

// TestSegmentSwappedBeforeTheSeal: what is sealed is what was written.
func TestSegmentSwappedBeforeTheSeal(t *testing.T) {
	b, d, l := closed(t)
	seg := d.Entries["000000000001.seg"].Data
	want := l.segments[0].sums.file
	d.Swap("000000000001.seg", seg[:len(seg)-100])
	if err := l.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _, err := readCheckpoint(d, &b.seal, "000000000001.p7m")
	if err != nil || c.File != want || c.Size != 5 {
		t.Errorf("sealed: %+v, %v", c, err)
	}
	// At a start, a closed segment that lost something is fatal.
	b, d, _ = closed(t)
	seg = d.Entries["000000000001.seg"].Data
	d.Swap("000000000001.seg", seg[:len(seg)-100])
	if _, err := Open(t.Context(), b.config(d)); !fault.Is(err, fault.Fatal) {
		t.Errorf("opened: %v", err)
	}
	b, d, _ = closed(t)
	hsh := d.Entries["000000000001.hsh"].Data
	d.Swap("000000000001.hsh", append(append([]byte{}, hsh[32:]...), hsh[:32]...))
	if _, err := Open(t.Context(), b.config(d)); !fault.Is(err, fault.Fatal) || !strings.Contains(err.Error(), "closed") {
		t.Errorf("opened with other hashes: %v", err)
	}
}

// TestTreeChangedUnderTheLog: no root is sealed over hashes of earlier segments
// that are not those which were sealed.
func TestTreeChangedUnderTheLog(t *testing.T) {
	b, d, l := closed(t)
	if err := l.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	hsh := append([]byte{}, d.Entries["000000000001.hsh"].Data...)
	for i := range hsh {
		hsh[i] ^= 1
	}
	put(l, record(9))
	d.Swap("000000000001.hsh", hsh)
	l.closeOpen(t.Context())
	if err := l.sealAll(t.Context()); err == nil && l.Status().Segments == 2 {
		t.Error("a root was sealed over hashes that were changed")
	}
	_ = b
}

// TestOpenSegmentRemoved: the records that follow would be durable nowhere.
func TestOpenSegmentRemoved(t *testing.T) {
	b := newBench(t)
	d := foldertest.NewDisk(1)
	l, err := Open(t.Context(), b.config(d))
	if err != nil {
		t.Fatal(err)
	}
	put(l, record(1))
	l.look()
	if l.Status().Broken {
		t.Fatal("broken for no reason")
	}
	delete(d.Entries, "000000000001.seg")
	l.look()
	if !l.Status().Broken {
		t.Fatal("the open segment was removed, and the log goes on")
	}
	b.clock.t = b.clock.t.Add(2 * reopenPause)
	if got := put(l, record(2)); !fault.Is(got[0].err, fault.Fatal) {
		t.Errorf("a proof after an acknowledged record was removed: %+v", got[0])
	}
}

// TestClockSetBack: a segment that was opened before the clock was set back is
// searched, and held, for the time after it.
func TestClockSetBack(t *testing.T) {
	b := newBench(t)
	d := foldertest.NewDisk(1)
	l, err := Open(t.Context(), b.config(d))
	if err != nil {
		t.Fatal(err)
	}
	put(l, Record{Tag: "ada", Data: []byte("before")})
	b.clock.t = b.clock.t.Add(-3 * hour)
	put(l, Record{Tag: "ada", Data: []byte("after")})
	l.closeOpen(t.Context())
	if err := l.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(d, &b.seal)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 3} {
		from := b.clock.t.Add(-hour / 2).Add(hour * time.Duration(at))
		found, _, err := r.Find(t.Context(), vault{}, "ada", from, from.Add(hour))
		if err != nil || len(found) == 0 {
			t.Errorf("%v: %d records, %v", from, len(found), err)
		}
	}
}
