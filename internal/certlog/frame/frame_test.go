package frame

import (
	"bytes"
	"testing"
	"time"

	"custode/internal/certlog/pack"
	"custode/internal/fault"
)

func file(t testing.TB, k *Keys, records ...Record) []byte {
	t.Helper()
	out := Header{Log: k.log, Number: k.number, First: 7, Opened: time.UnixMilli(1).UTC()}.Encode()
	var p pack.Packer
	var err error
	for i, r := range records {
		if out, _, err = k.Append(out, 7+uint64(i), r, &p); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func someKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := NewKeys(ID{1}, 3, bytes.Repeat([]byte{9}, KeyLen))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRecords(t *testing.T) {
	k := someKeys(t)
	records := []Record{{"ada", []byte("x")}, {"", bytes.Repeat([]byte("long "), 1000)}, {"bob", make([]byte, MaxRecord)}}
	octets := file(t, k, records...)
	var seen [][]byte
	h, n, end, err := Scan(bytes.NewReader(octets), int64(len(octets)), func(_ Header, seq uint64, sealed []byte) error {
		r, err := k.Open(seq, sealed)
		if i := int(seq - 7); err != nil || r.Tag != records[i].Tag || !bytes.Equal(r.Data, records[i].Data) {
			t.Errorf("record %d: %q, %v", seq, r.Tag, err)
		}
		if _, err := k.Open(seq+1, sealed); !fault.Is(err, fault.Invalid) {
			t.Errorf("record %d in another's place: %v", seq, err)
		}
		seen = append(seen, bytes.Clone(sealed))
		return nil
	})
	if err != nil || n != 3 || end != int64(len(octets)) || h.First != 7 || h.Number != 3 || h.Log != (ID{1}) {
		t.Fatalf("%+v, %d, %d, %v", h, n, end, err)
	}
	// A record's key opens that record alone, in its place alone.
	key, err := k.Record(7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Disclose(ID{1}, 3, 7, key, seen[0]); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another record":  second(Disclose(ID{1}, 3, 7, key, seen[1])),
		"another segment": second(Disclose(ID{1}, 4, 7, key, seen[0])),
		"another log":     second(Disclose(ID{2}, 3, 7, key, seen[0])),
		"cut":             second(Disclose(ID{1}, 3, 7, key, seen[0][:minSealed-1])),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Cut anywhere, the whole records before the cut are there and no more.
	short := file(t, k, records[:2]...)
	for cut := HeaderLen; cut < len(short); cut += 7 {
		_, n, end, err := Scan(bytes.NewReader(short[:cut]), int64(cut), func(Header, uint64, []byte) error { return nil })
		if err != nil || n > 1 || end > int64(cut) {
			t.Errorf("cut at %d: %d records, %d octets, %v", cut, n, end, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzScan(f *testing.F) {
	k := someKeys(f)
	f.Add(file(f, k, Record{"ada", []byte("x")}, Record{"bob", []byte("y")}))
	f.Add([]byte("custlog1"))
	f.Fuzz(func(t *testing.T, octets []byte) {
		_, n, end, err := Scan(bytes.NewReader(octets), int64(len(octets)), func(_ Header, seq uint64, sealed []byte) error {
			if len(sealed) < minSealed || len(sealed) > maxSealed {
				t.Errorf("a frame of %d octets", len(sealed))
			}
			_, _ = k.Open(seq, sealed)
			return nil
		})
		if err == nil && (end > int64(len(octets)) || end < HeaderLen || n > uint64(len(octets))) {
			t.Errorf("%d records, %d of %d octets", n, end, len(octets))
		}
	})
}
