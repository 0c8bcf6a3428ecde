// Package veil hides columns of a database from whoever reads its file. A [Ring] holds the data keys;
// [Ring.Hide] turns a value into a box that only [Ring.Show] opens, at the same column of the
// same row; [Ring.Blind] turns a value into a name by which it can be looked up.
//
// # Box
//
//	octet 0        identifier of the data key, 1 to 255
//	24 octets      nonce, random
//	rest           ciphertext and tag of XAES-256-GCM (C2SP): AES-256-GCM under a key derived from the
//	               data key and the first half of the nonce
//
// Random nonces of plain AES-GCM would wear a key out after 2^32 values (NIST SP 800-38D, section
// 8.3), which is six weeks of ten million logins a day; these last for 2^80. The additional data is octet 0, the
// column's name, a zero octet and the row's key: a box that somebody moved does not open.
//
// # Blind names
//
// HMAC-SHA-256 of the column's name, a zero octet and the value. Equal values of one column have equal
// names, which is what a look-up needs and all that they tell without the key.
//
// Both keys come from the data key by HKDF-SHA-256 with different labels. Names are made with the key of the
// lowest identifier, boxes with that of the highest, so that a further data key changes no name.
//
// It knows no SQL and no HSM. Only internal/store may import it.
package veil

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"slices"

	"custode/internal/fault"
)

// KeySize is the length of a data key in octets.
const KeySize = 32

const nonceSize = 24

// Overhead is how much longer a box is than what is in it, in octets.
const Overhead = 1 + nonceSize + 16

// A Column names what is hidden: "table.column". It is part of what was stored and never changes.
type Column string

// Ring holds the data keys of a database. It is safe for concurrent use.
type Ring struct {
	boxes   map[uint8]*deriver
	current uint8
	names   []byte
}

// NewRing takes the data keys by identifier. fault.Invalid for none, an identifier 0 and a key that
// has not KeySize octets. It keeps no reference to them.
func NewRing(keys map[uint8][]byte) (*Ring, error) {
	const op = "use the data keys"
	if len(keys) == 0 {
		return nil, fault.Newf(fault.Invalid, op, "there is none")
	}
	r := &Ring{boxes: map[uint8]*deriver{}}
	lowest := uint8(255)
	for n, key := range keys {
		if n == 0 || len(key) != KeySize {
			return nil, fault.Newf(fault.Invalid, op, "key %d has %d octets, want %d and a number from 1", n, len(key), KeySize)
		}
		box, err := hkdf.Key(sha256.New, key, nil, "custode store boxes 1", KeySize)
		if err != nil {
			return nil, fault.New(fault.Internal, op, err)
		}
		if r.boxes[n], err = newDeriver(box); err != nil {
			return nil, err
		}
		r.current, lowest = max(r.current, n), min(lowest, n)
	}
	var err error
	if r.names, err = hkdf.Key(sha256.New, keys[lowest], nil, "custode store names 1", KeySize); err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	return r, nil
}

// Hide returns plain in a box that opens for the same column and row only.
func (r *Ring) Hide(c Column, row string, plain []byte) []byte {
	box := make([]byte, 1+nonceSize, Overhead+len(plain))
	box[0] = r.current
	nonce := box[1:]
	_, _ = rand.Read(nonce) // never fails: the program ends
	return r.boxes[r.current].aead(nonce[:12]).Seal(box, nonce[12:], plain, additional(box[0], c, row))
}

// Show opens a box. fault.Internal when it was damaged, moved, or hidden with a key that the ring has not.
func (r *Ring) Show(c Column, row string, box []byte) ([]byte, error) {
	op := "show " + string(c)
	if len(box) < Overhead {
		return nil, fault.Newf(fault.Internal, op, "%d octets are no box", len(box))
	}
	d := r.boxes[box[0]]
	if d == nil {
		return nil, fault.Newf(fault.Internal, op, "there is no data key %d", box[0])
	}
	nonce := box[1 : 1+nonceSize]
	plain, err := d.aead(nonce[:12]).Open(nil, nonce[12:], box[1+nonceSize:], additional(box[0], c, row))
	if err != nil {
		return nil, fault.Newf(fault.Internal, op, "the box was damaged or moved, or it is of another key")
	}
	return plain, nil
}

// Blind returns the name of value in column c: 32 octets.
func (r *Ring) Blind(c Column, value []byte) []byte {
	h := hmac.New(sha256.New, r.names)
	h.Write([]byte(c))
	h.Write([]byte{0})
	h.Write(value)
	return h.Sum(nil)
}

func additional(key byte, c Column, row string) []byte {
	return slices.Concat([]byte{key}, []byte(c), []byte{0}, []byte(row))
}

// deriver makes the keys of XAES-256-GCM: CMAC in counter mode (NIST SP 800-108) over 12 octets.
type deriver struct {
	block  cipher.Block
	subkey [16]byte // K1 of CMAC
}

func newDeriver(key []byte) (*deriver, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.New(fault.Internal, "use the data keys", err)
	}
	d := &deriver{block: block}
	block.Encrypt(d.subkey[:], d.subkey[:])
	carry := d.subkey[0] >> 7
	for i := range d.subkey {
		next := byte(0)
		if i+1 < len(d.subkey) {
			next = d.subkey[i+1] >> 7
		}
		d.subkey[i] = d.subkey[i]<<1 | next
	}
	d.subkey[15] ^= carry * 0x87
	return d, nil
}

// aead returns AES-256-GCM under the key for the first half of a nonce.
func (d *deriver) aead(half []byte) cipher.AEAD {
	var key [KeySize]byte
	for n := range 2 {
		part := key[16*n : 16*n+16]
		copy(part, []byte{0, byte(n + 1), 'X', 0})
		copy(part[4:], half)
		for i := range part {
			part[i] ^= d.subkey[i]
		}
		d.block.Encrypt(part, part)
	}
	block, err := aes.NewCipher(key[:])
	clear(key[:])
	if err != nil {
		panic(err) // 32 octets are a key
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	return gcm
}
