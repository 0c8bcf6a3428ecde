package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
)

const (
	version    = 1
	headLen    = 4 + 1 + 4 + 1 + 4    // length, version, call, code, wait
	maxFrame   = 192 << 10            // octets after the length
	maxFields  = 8                    // of one frame
	maxNumbers = hsm.MaxCounters + 16 // of one frame
	maxWait    = 60 * time.Second     // longest that a question is worked on
	maxText    = 1 << 10              // octets of an error's text
)

// message is one frame. Its fields may point into the frame they were decoded from.
type message struct {
	call    uint32
	code    byte // question: an operation; answer: 0 or 1 + fault.Kind
	wait    time.Duration
	label   string
	fields  [][]byte
	numbers []uint64
}

// Operation is what is asked of a worker.
type Operation byte

// The operations.
const (
	opHello Operation = iota
	opPublic
	opCertificate
	opOpenMAC
	opOpenWrap
	opSign
	opMAC
	opWrap
	opUnwrap
	opSecretForm
	opSeedCanary
	opWrapSecret
	opMatchCodes
	opRandom
	opHealth
	opReport
	operations
)

var operationNames = [operations]string{"hello", "public", "certificate", "open-mac", "open-wrap", "sign", "mac", "wrap", "unwrap",
	"secret-form", "seed-canary", "wrap-secret", "match-codes", "random", "health", "report"}

// String returns the operation's name, as in metrics.
func (o Operation) String() string {
	if o < operations {
		return operationNames[o]
	}
	return fmt.Sprintf("operation(%d)", byte(o))
}

// encode returns the frame. The message must be within the limits of decode.
func (m *message) encode() ([]byte, error) {
	n := headLen + 1 + len(m.label) + 1 + 2 + 8*len(m.numbers)
	for _, f := range m.fields {
		n += 4 + len(f)
	}
	if n-4 > maxFrame || len(m.label) > math.MaxUint8 || len(m.fields) > maxFields || len(m.numbers) > maxNumbers {
		return nil, fault.Newf(fault.Invalid, "ask the worker", "the question of %d octets is too long", n)
	}
	b := make([]byte, 0, n)
	b = binary.BigEndian.AppendUint32(b, uint32(n-4))
	b = append(b, version)
	b = binary.BigEndian.AppendUint32(b, m.call)
	b = append(b, m.code)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(m.wait.Milliseconds(), 0), math.MaxUint32)))
	b = append(b, byte(len(m.label)))
	b = append(b, m.label...)
	b = append(b, byte(len(m.fields)))
	for _, f := range m.fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.numbers)))
	for _, v := range m.numbers {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b, nil
}

var errFrame = errors.New("malformed frame")

// decode reads what follows a frame's length. The fields point into frame.
func decode(frame []byte) (message, error) {
	var m message
	if len(frame) < headLen-4+1+1+2 {
		return m, errFrame
	}
	if frame[0] != version {
		return m, fmt.Errorf("the other side speaks version %d, this one %d: both must be of the same release", frame[0], version)
	}
	m.call = binary.BigEndian.Uint32(frame[1:])
	m.code = frame[5]
	m.wait = min(time.Duration(binary.BigEndian.Uint32(frame[6:]))*time.Millisecond, maxWait)
	rest := frame[headLen-4:]
	take := func(n int) []byte {
		if n < 0 || n > len(rest) {
			return nil
		}
		got := rest[:n:n]
		rest = rest[n:]
		return got
	}
	label := take(1 + int(rest[0]))
	if label == nil {
		return message{}, errFrame
	}
	m.label = string(label[1:])
	count := take(1)
	if count == nil || count[0] > maxFields {
		return message{}, errFrame
	}
	for range count[0] {
		size := take(4)
		if size == nil {
			return message{}, errFrame
		}
		n := binary.BigEndian.Uint32(size)
		if uint64(n) > uint64(len(rest)) {
			return message{}, errFrame
		}
		m.fields = append(m.fields, take(int(n)))
	}
	size := take(2)
	if size == nil {
		return message{}, errFrame
	}
	n := int(binary.BigEndian.Uint16(size))
	if n > maxNumbers || len(rest) != 8*n {
		return message{}, errFrame
	}
	if n > 0 {
		m.numbers = make([]uint64, n)
	}
	for i := range m.numbers {
		m.numbers[i] = binary.BigEndian.Uint64(rest[8*i:])
	}
	return m, nil
}

// readFrame reads one frame and not an octet more.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return nil, errFrame
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

// refusal is the answer that carries err. Texts of errors hold no secrets (internal/fault).
func refusal(err error) message {
	var op, text string
	var fe *fault.Error
	if errors.As(err, &fe) {
		op = fe.Op
		if fe.Err != nil {
			text = fe.Err.Error()
		}
	} else {
		text = err.Error()
	}
	cut := func(s string) []byte { return []byte(s[:min(len(s), maxText)]) }
	return message{code: 1 + byte(fault.KindOf(err)), fields: [][]byte{cut(op), cut(text)}}
}

// refused returns the error that an answer carries, nil for none.
func (m *message) refused() error {
	if m.code == 0 {
		return nil
	}
	kind := fault.Kind(m.code - 1)
	if kind > fault.Expired || len(m.fields) != 2 {
		return fault.Newf(fault.Internal, "ask the worker", "it answered with code %d", m.code)
	}
	var cause error
	if len(m.fields[1]) > 0 {
		cause = errors.New(string(m.fields[1]))
	}
	return fault.New(kind, string(m.fields[0]), cause)
}

// shape insists on so many fields and numbers; least numbers may be followed by more.
func (m *message) shape(label bool, fields, numbers int, more bool) error {
	if label != (m.label != "") || len(m.fields) != fields || len(m.numbers) < numbers || !more && len(m.numbers) > numbers {
		return fault.Newf(fault.Invalid, "read a question", "it has %d fields and %d numbers", len(m.fields), len(m.numbers))
	}
	return nil
}

// secretQuestion asks for an OATH secret to be wrapped.
func secretQuestion(kek id.KeyLabel, wrap, keyType uint32, secret []byte) message {
	return message{code: byte(opWrapSecret), label: kek.String(), fields: [][]byte{secret}, numbers: []uint64{uint64(wrap), uint64(keyType)}}
}

// codeQuestion asks for a code to be looked for.
func codeQuestion(q hsm.CodeQuery) message {
	m := message{code: byte(opMatchCodes), label: q.KEK.String(),
		fields:  [][]byte{q.Wrapped, []byte(q.Binder.String()), q.Binding, q.BindingMAC, []byte(q.Code)},
		numbers: append([]uint64{uint64(q.Wrap), uint64(q.KeyType), uint64(q.MAC), uint64(q.Digits)}, q.Counters...)}
	return m
}

func (m *message) codeQuery() (hsm.CodeQuery, error) {
	if err := m.shape(true, 5, 5, true); err != nil {
		return hsm.CodeQuery{}, err
	}
	kek, err := id.ParseKeyLabel(m.label)
	if err != nil {
		return hsm.CodeQuery{}, err
	}
	binder, err := id.ParseKeyLabel(string(m.fields[1]))
	if err != nil {
		return hsm.CodeQuery{}, err
	}
	for _, n := range m.numbers[:4] {
		if n > math.MaxUint32 {
			return hsm.CodeQuery{}, fault.Newf(fault.Invalid, "read a question", "%d is no PKCS #11 number", n)
		}
	}
	q := hsm.CodeQuery{
		KEK: kek, Wrap: uint32(m.numbers[0]), KeyType: uint32(m.numbers[1]), MAC: uint32(m.numbers[2]), Wrapped: m.fields[0],
		Binder: binder, Binding: m.fields[2], BindingMAC: m.fields[3], Digits: int(m.numbers[3]), Counters: m.numbers[4:], Code: string(m.fields[4]),
	}
	return q, q.Check()
}
