package frame

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"custode/internal/certlog/index"
	"custode/internal/certlog/merkle"
	"custode/internal/certlog/pack"
	"custode/internal/fault"
)

// Record is one entry before it is stored.
type Record struct {
	Tag  string // finds the record again (Find); never stored in clear
	Data []byte // at most MaxRecord octets
}

// Keys are what one segment is encrypted with.
type Keys struct {
	log    ID
	number uint64
	master [KeyLen]byte
	tags   [32]byte
}

// NewKeys derives them from the segment key, KeyLen octets.
func NewKeys(log ID, number uint64, key []byte) (*Keys, error) {
	k := &Keys{log: log, number: number, master: [KeyLen]byte(key)}
	tags, err := hkdf.Key(sha256.New, key, nil, "custode certlog tags", len(k.tags))
	if err != nil {
		return nil, err
	}
	k.tags = [32]byte(tags)
	return k, nil
}

// Wipe makes the keys useless.
func (k *Keys) Wipe() { clear(k.master[:]); clear(k.tags[:]) }

// RecordKey opens one record and no other.
type RecordKey [32]byte

// Record derives the key of one record.
func (k *Keys) Record(seq uint64) (RecordKey, error) {
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

// Tag is what the index holds of a record's tag.
func (k *Keys) Tag(s string) (out [index.TagLen]byte) {
	mac := hmac.New(sha256.New, k.tags[:])
	mac.Write([]byte(s))
	return [index.TagLen]byte(mac.Sum(nil))
}

// Append encrypts the record into a frame at the end of dst.
func (k *Keys) Append(dst []byte, seq uint64, r Record, p *pack.Packer) ([]byte, [32]byte, error) {
	if len(r.Tag) > MaxTag {
		return dst, [32]byte{}, fault.Newf(fault.Invalid, "append record", "a tag of %d octets", len(r.Tag))
	}
	plain := binary.BigEndian.AppendUint16(make([]byte, 0, len(r.Data)/2+len(r.Tag)+64), uint16(len(r.Tag)))
	plain = append(plain, r.Tag...)
	plain, err := p.Pack(plain, r.Data)
	if err != nil {
		return dst, [32]byte{}, err
	}
	key, err := k.Record(seq)
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

// Open decrypts what one frame holds.
func (k *Keys) Open(seq uint64, sealed []byte) (Record, error) {
	key, err := k.Record(seq)
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
