package certlog

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"custode/internal/certlog/folder"
	"custode/internal/certlog/index"
	"custode/internal/certlog/merkle"
	"custode/internal/certlog/pack"
	"custode/internal/fault"
)

// A segment file is a header of 56 octets
//
//	8   "custlog1"
//	16  log id
//	8   segment number, from 1          (all numbers big-endian)
//	8   number of its first record
//	8   time of opening, Unix milliseconds
//	4   CRC-32C of the 44 octets before
//	4   zero
//
// and one frame for each record
//
//	4   n, length of what follows
//	n   32 octets commitment, ciphertext, 16 octets tag: AES-256-GCM under the
//	    record key, nonce 4 zero octets and the record's number, additional
//	    data log id, segment number and record number
//	4   CRC-32C of the n+4 octets before: tells a torn frame from a whole one
//	    without the key; it protects against nobody
//
// The record key is HKDF-SHA-256 of the segment key, with the record's number
// as information; the commitment is SHA-256 of the record key after a label. So
// a record can be disclosed with its own key, and nothing else with it, and the
// key that opens a leaf is fixed when the leaf is written (AES-GCM alone would
// let its writer prepare two keys for one ciphertext).
//
// The plaintext of a frame is 2 octets length of the tag, the tag, 1 octet 0
// (stored) or 1 (DEFLATE, RFC 1951), and the data.
const (
	magic      = "custlog1"
	headerLen  = 56
	frameExtra = 8
	commitLen  = 32
	minSealed  = commitLen + 2 + 1 + 16
	maxTag     = 256
	maxSealed  = commitLen + 2 + maxTag + 1 + MaxRecord + 16
	maxKeyFile = 16 << 10
	segmentKey = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentName(n uint64, suffix string) string { return fmt.Sprintf("%012d.%s", n, suffix) }

type header struct {
	log    ID
	number uint64
	first  uint64
	opened time.Time
}

func (h header) encode() []byte {
	b := append(make([]byte, 0, headerLen), magic...)
	b = append(b, h.log[:]...)
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = binary.BigEndian.AppendUint64(b, uint64(h.opened.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, 0, 0, 0, 0)
}

func decodeHeader(b []byte) (header, error) {
	const op = "read segment header"
	if len(b) != headerLen || string(b[:8]) != magic || binary.BigEndian.Uint32(b[52:]) != 0 {
		return header{}, fault.Newf(fault.Invalid, op, "not a segment of format 1")
	}
	if crc32.Checksum(b[:48], castagnoli) != binary.BigEndian.Uint32(b[48:]) {
		return header{}, fault.Newf(fault.Invalid, op, "damaged")
	}
	return header{
		log: ID(b[8:24]), number: binary.BigEndian.Uint64(b[24:]), first: binary.BigEndian.Uint64(b[32:]),
		opened: time.UnixMilli(int64(binary.BigEndian.Uint64(b[40:]))).UTC(),
	}, nil
}

// scan reads a segment file from the front and gives each whole frame's
// ciphertext to visit, which must not keep it. It returns the length of the
// whole part. Octets after it are no error here: end < size says so.
func scan(f io.ReaderAt, size int64, visit func(h header, seq uint64, sealed []byte) error) (h header, count uint64, end int64, err error) {
	in := io.NewSectionReader(f, 0, size)
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(in, head); err != nil {
		return header{}, 0, 0, fault.Newf(fault.Invalid, "read segment header", "%d octets", size)
	}
	if h, err = decodeHeader(head); err != nil {
		return header{}, 0, 0, err
	}
	r := newFrames(in)
	end = headerLen
	for {
		sealed, ok, err := r.next()
		if err != nil {
			return h, count, end, err
		}
		if !ok {
			return h, count, end, nil
		}
		if err := visit(h, h.first+count, sealed); err != nil {
			return h, count, end, err
		}
		count++
		end += int64(len(sealed)) + frameExtra
	}
}

// keys are what one segment is encrypted with.
type keys struct {
	log    ID
	number uint64
	master [segmentKey]byte
	tags   [32]byte
}

func newKeys(log ID, number uint64, key []byte) (*keys, error) {
	k := &keys{log: log, number: number, master: [segmentKey]byte(key)}
	tags, err := hkdf.Key(sha256.New, key, nil, "custode certlog tags", len(k.tags))
	if err != nil {
		return nil, err
	}
	k.tags = [32]byte(tags)
	return k, nil
}

// wipe makes the keys useless.
func (k *keys) wipe() { clear(k.master[:]); clear(k.tags[:]) }

// RecordKey opens one record and no other.
type RecordKey [32]byte

func (k *keys) record(seq uint64) (RecordKey, error) {
	key, err := hkdf.Key(sha256.New, k.master[:], nil, fmt.Sprintf("custode certlog record %d", seq), len(RecordKey{}))
	if err != nil {
		return RecordKey{}, err
	}
	return RecordKey(key), nil
}

// MarshalText returns 64 hexadecimal digits.
func (k RecordKey) MarshalText() ([]byte, error) { return Hash(k).MarshalText() }

// UnmarshalText reads what MarshalText writes; anything else is fault.Invalid.
func (k *RecordKey) UnmarshalText(text []byte) error { return (*Hash)(k).UnmarshalText(text) }

func (k RecordKey) commitment() [commitLen]byte {
	return sha256.Sum256(append([]byte("custode certlog record key\x00"), k[:]...))
}

func (k RecordKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func place(log ID, number, seq uint64) (nonce [12]byte, aad []byte) {
	binary.BigEndian.PutUint64(nonce[4:], seq)
	aad = append(make([]byte, 0, 32), log[:]...)
	aad = binary.BigEndian.AppendUint64(aad, number)
	return nonce, binary.BigEndian.AppendUint64(aad, seq)
}

// tag is what the index holds of a record's tag.
func (k *keys) tag(s string) (out [index.TagLen]byte) {
	mac := hmac.New(sha256.New, k.tags[:])
	mac.Write([]byte(s))
	return [index.TagLen]byte(mac.Sum(nil))
}

// appendFrame encrypts the record into a frame at the end of dst.
func (k *keys) appendFrame(dst []byte, seq uint64, r Record, p *pack.Packer) ([]byte, [32]byte, error) {
	if len(r.Tag) > maxTag {
		return dst, [32]byte{}, fault.Newf(fault.Invalid, "append record", "a tag of %d octets", len(r.Tag))
	}
	plain := binary.BigEndian.AppendUint16(make([]byte, 0, len(r.Data)/2+len(r.Tag)+64), uint16(len(r.Tag)))
	plain = append(plain, r.Tag...)
	plain, err := p.Pack(plain, r.Data)
	if err != nil {
		return dst, [32]byte{}, err
	}
	key, err := k.record(seq)
	if err != nil {
		return dst, [32]byte{}, err
	}
	aead, err := key.aead()
	if err != nil {
		return dst, [32]byte{}, err
	}
	nonce, aad := place(k.log, k.number, seq)
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(commitLen+len(plain)+aead.Overhead()))
	commitment := key.commitment()
	dst = append(dst, commitment[:]...)
	dst = aead.Seal(dst, nonce[:], plain, aad)
	leaf := merkle.LeafHash(dst[start+4:])
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli)), leaf, nil
}

// open decrypts what one frame holds.
func (k *keys) open(seq uint64, sealed []byte) (Record, error) {
	key, err := k.record(seq)
	if err != nil {
		return Record{}, err
	}
	return Disclose(k.log, k.number, seq, key, sealed)
}

// Disclose decrypts a leaf with the record's own key. It needs nothing of the
// log and proves, with Included, that the record is what was logged. A key that
// the leaf does not commit to, and any damage, is fault.Invalid.
func Disclose(log ID, segment, seq uint64, key RecordKey, sealed []byte) (Record, error) {
	op := fmt.Sprintf("read record %d", seq)
	if len(sealed) < minSealed || len(sealed) > maxSealed {
		return Record{}, fault.Newf(fault.Invalid, op, "%d octets", len(sealed))
	}
	if key.commitment() != [commitLen]byte(sealed) {
		return Record{}, fault.Newf(fault.Invalid, op, "the record does not commit to this key")
	}
	aead, err := key.aead()
	if err != nil {
		return Record{}, fault.New(fault.Internal, op, err)
	}
	nonce, aad := place(log, segment, seq)
	plain, err := aead.Open(nil, nonce[:], sealed[commitLen:], aad)
	if err != nil {
		return Record{}, fault.New(fault.Invalid, op, err)
	}
	n := int(binary.BigEndian.Uint16(plain))
	if len(plain) < 2+n+1 {
		return Record{}, fault.Newf(fault.Invalid, op, "too short")
	}
	data, err := pack.Open(plain[2+n:], MaxRecord)
	if err != nil {
		return Record{}, fault.New(fault.Invalid, op, err)
	}
	return Record{Tag: string(plain[2 : 2+n]), Data: data}, nil
}

// frames reads frames.
type frames struct {
	in  io.Reader
	buf []byte
}

func newFrames(in io.Reader) *frames { return &frames{in: newBuffered(in)} }

// next returns the next whole frame's ciphertext, valid until the call after;
// false at the end or where a torn frame begins.
func (r *frames) next() ([]byte, bool, error) {
	var n [4]byte
	if _, err := io.ReadFull(r.in, n[:]); err != nil {
		return nil, false, torn(err)
	}
	length := int(binary.BigEndian.Uint32(n[:]))
	if length < minSealed || length > maxSealed {
		return nil, false, nil
	}
	if cap(r.buf) < length+frameExtra {
		r.buf = make([]byte, length+frameExtra)
	}
	frame := r.buf[:length+frameExtra]
	copy(frame, n[:])
	if _, err := io.ReadFull(r.in, frame[4:]); err != nil {
		return nil, false, torn(err)
	}
	if crc32.Checksum(frame[:length+4], castagnoli) != binary.BigEndian.Uint32(frame[length+4:]) {
		return nil, false, nil
	}
	return frame[4 : length+4], true, nil
}

// torn makes the end of the file no error.
func torn(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

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
func (l *Log) newSegmentKey(ctx context.Context, number uint64) (*keys, error) {
	key := make([]byte, segmentKey)
	defer clear(key)
	if _, err := io.ReadFull(l.cfg.Random, key); err != nil {
		return nil, err
	}
	label := keyLabel(l.id, number)
	f := keyFile{Log: l.id, Segment: number}
	var err error
	if f.Operational, err = l.cfg.Keys.Wrap(ctx, key, label); err != nil {
		return nil, err
	}
	if l.cfg.Escrow != nil {
		if f.Escrow, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, l.cfg.Escrow, key, label); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	err = folder.Publish(l.cfg.FS, segmentName(number, "key"), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newKeys(l.id, number, key)
}

// ReadKey unwraps the key of a segment. The wrapper is the HSM's, or the
// escrow's (EscrowKey) when the HSM is gone.
func readKey(ctx context.Context, fs Folder, w Wrapper, log ID, number uint64) (*keys, error) {
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
	if len(key) != segmentKey {
		return nil, fault.Newf(fault.Invalid, op, "a key of %d octets", len(key))
	}
	return newKeys(log, number, key)
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
