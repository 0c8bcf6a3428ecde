package worker

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/hsm"
	"custode/internal/fault"
)

func TestRoundTrip(t *testing.T) {
	for _, m := range []message{
		{},
		{call: 1<<32 - 1, code: 255, wait: maxWait, label: strings.Repeat("x", 255), fields: [][]byte{{}, {1}, make([]byte, 100_000)}, numbers: []uint64{0, 1<<64 - 1}},
		codeQuestion(query()),
	} {
		frame, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		read, err := readFrame(bytes.NewReader(frame))
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(read)
		if err != nil || !cmp.Equal(got, m, cmp.AllowUnexported(message{})) {
			t.Errorf("%v %s", err, cmp.Diff(m, got, cmp.AllowUnexported(message{})))
		}
	}
	q := query()
	m := codeQuestion(q)
	if got, err := m.codeQuery(); err != nil || got.Code != q.Code || got.KEK != q.KEK || got.Digits != 6 || len(got.Counters) != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, m := range map[string]message{
		"long":    {fields: [][]byte{make([]byte, maxFrame)}},
		"label":   {label: strings.Repeat("x", 256)},
		"fields":  {fields: make([][]byte, maxFields+1)},
		"numbers": {numbers: make([]uint64, maxNumbers+1)},
	} {
		if _, err := m.encode(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLimitsFit: the largest questions fit into a frame.
func TestLimitsFit(t *testing.T) {
	q := query()
	q.Counters = make([]uint64, hsm.MaxCounters)
	for _, m := range []message{codeQuestion(q), question(opMAC, "x", make([]byte, hsm.MaxMACInput)), question(opWrap, "x", make([]byte, hsm.MaxPlaintext), make([]byte, hsm.MaxAAD)),
		question(opSign, "x", make([]byte, 4<<10), make([]byte, 128<<10))} {
		if _, err := m.encode(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, err := range []error{
		fault.Newf(fault.Fatal, "do x", "because %s", "y"), fault.New(fault.Expired, "do x", nil), errors.New("plain"),
		fault.Newf(fault.Busy, strings.Repeat("o", 5000), "%s", strings.Repeat("t", 5000)),
	} {
		m := refusal(err)
		frame, e := m.encode()
		if e != nil {
			t.Fatal(e)
		}
		back, e := decode(frame[4:])
		if e != nil {
			t.Fatal(e)
		}
		got := back.refused()
		if fault.KindOf(got) != fault.KindOf(err) || len(got.Error()) > 2*maxText+100 || len(err.Error()) < 100 && !strings.Contains(got.Error(), err.Error()) {
			t.Errorf("%v became %v", err, got)
		}
	}
	for _, m := range []message{{code: 200}, {code: 3}} {
		if err := m.refused(); !fault.Is(err, fault.Internal) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// FuzzDecode: no frame panics or allocates beyond its own length, and what is accepted is what encode writes.
func FuzzDecode(f *testing.F) {
	for _, m := range []message{{}, codeQuestion(query()), question(opSign, "a/b", []byte("x"), nil), refusal(errors.New("x")), {wait: time.Second, numbers: []uint64{1}}} {
		frame, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[4:])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := decode(frame)
		if err != nil {
			return
		}
		_ = m.refused()
		_, _ = m.codeQuery()
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if m.wait < maxWait && !bytes.Equal(again[4:], frame) {
			t.Errorf("%x became %x", frame, again[4:])
		}
	})
}
