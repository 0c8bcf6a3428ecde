package enrol

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"strconv"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

const (
	parcelVersion = 1
	pushVersion   = 1
	deliverInfo   = "custode otp delivery 1"
	pushPurpose   = "custode push code 1"
	maxURI        = 1000
	// KeyLen is the length of a device key in octets.
	KeyLen = 32
)

// Deliver encrypts uri to the public key of an app (X25519, 32 octets) that was
// given the activation code, and returns the parcel and the device key, which
// the caller wraps and clears. The code salts the key derivation: a key put in the app's
// place by somebody in between opens nothing without it.
//
// Parcel: version 1, ephemeral public key (32), AES-256-GCM of the URI with a zero
// nonce (each key encrypts once) and the additional data version, ephemeral key, app's key,
// serial. Keys: HKDF-SHA-256 of the shared secret, salt the 16 characters of the code, info
// "custode otp delivery 1", ephemeral key, app's key, serial; 32 octets for the
// parcel, then 32 for pushes.
func Deliver(random io.Reader, appKey []byte, code string, serial id.Serial, uri []byte) (parcel, deviceKey []byte, err error) {
	const op = "deliver seed to app"
	canonical, err := CanonicalCode(code)
	if err != nil {
		return nil, nil, err
	}
	if serial.IsZero() || len(uri) == 0 || len(uri) > maxURI {
		return nil, nil, fault.Newf(fault.Invalid, op, "no serial, or a URI of %d octets", len(uri))
	}
	to, err := ecdh.X25519().NewPublicKey(appKey)
	if err != nil {
		return nil, nil, fault.Newf(fault.Invalid, op, "the app's key has %d octets", len(appKey))
	}
	// Not GenerateKey: it reads a random source of its own, not the one given.
	var scalar [32]byte
	defer clear(scalar[:])
	if _, err := io.ReadFull(random, scalar[:]); err != nil {
		return nil, nil, fault.New(trouble(err), op, err)
	}
	own, err := ecdh.X25519().NewPrivateKey(scalar[:])
	if err != nil {
		return nil, nil, fault.New(fault.Internal, op, err)
	}
	shared, err := own.ECDH(to)
	if err != nil { // a point of small order: the secret would be known to all
		return nil, nil, fault.Newf(fault.Invalid, op, "the app's key is a point of small order")
	}
	defer clear(shared)
	context := string(own.PublicKey().Bytes()) + string(appKey) + serial.String()
	keys, err := hkdf.Key(sha256.New, shared, []byte(canonical), deliverInfo+context, 2*KeyLen)
	if err != nil {
		return nil, nil, fault.New(fault.Internal, op, err)
	}
	defer clear(keys)
	aead, err := newGCM(keys[:KeyLen])
	if err != nil {
		return nil, nil, fault.New(fault.Internal, op, err)
	}
	parcel = append([]byte{parcelVersion}, own.PublicKey().Bytes()...)
	parcel = aead.Seal(parcel, make([]byte, aead.NonceSize()), uri, append([]byte{parcelVersion}, context...))
	return parcel, append([]byte(nil), keys[KeyLen:]...), nil
}

// KeyContext is the additional data under which the HSM wraps the key of a device's app.
func KeyContext(s id.Serial) []byte { return []byte("custode push key 1 " + s.String()) }

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Push is a code on its way to one app, for one flow. The app shows Number and
// SPName, so that the subject sees whether it is their own login.
type Push struct {
	Serial  id.Serial
	Flow    id.FlowID
	Number  string      // the two digits that the page shows, too
	SP      id.EntityID // of the service provider
	SPName  string      // 1 to 128 octets
	Code    []byte      // 6 to 8 digits, for the caller to clear
	Expires time.Time
}

// Seal encrypts the push under the device key: AES-256-GCM with a random nonce.
//
// Message: version 1, serial and flow each with its length in one octet, nonce
// (12), ciphertext. Plaintext: number, SP, SP's name, code, and the expiry as Unix seconds in
// decimal, each preceded by its length in 2 octets, big endian. Additional data: "custode push
// code 1" and the message up to the nonce. Number and SP are inside, so that they are
// bound to the code and not told to who carries the message.
func (p Push) Seal(random io.Reader, deviceKey []byte) ([]byte, error) {
	const op = "seal push code"
	if err := p.check(op); err != nil {
		return nil, err
	}
	if len(deviceKey) != KeyLen {
		return nil, fault.Newf(fault.Invalid, op, "a key of %d octets", len(deviceKey))
	}
	aead, err := newGCM(deviceKey)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	head := []byte{pushVersion}
	for _, s := range []string{p.Serial.String(), p.Flow.String()} {
		head = append(append(head, byte(len(s))), s...)
	}
	plain := make([]byte, 0, 2048) // never grows: no copy of the code stays behind
	defer func() { clear(plain[:cap(plain)]) }()
	for _, s := range [][]byte{[]byte(p.Number), []byte(p.SP.String()), []byte(p.SPName), p.Code, []byte(decimal(p.Expires.Unix()))} {
		plain = binary.BigEndian.AppendUint16(plain, uint16(len(s)))
		plain = append(plain, s...)
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fault.New(trouble(err), op, err)
	}
	message := append(append([]byte(nil), head...), nonce...)
	return aead.Seal(message, nonce, plain, append([]byte(pushPurpose), head...)), nil
}

func (p Push) check(op string) error {
	digits := func(s string, least, most int) bool {
		for _, c := range []byte(s) {
			if c < '0' || c > '9' {
				return false
			}
		}
		return len(s) >= least && len(s) <= most
	}
	switch {
	case p.Serial.IsZero() || p.Flow.IsZero() || p.SP.IsZero() || p.Expires.Unix() <= 0:
		return fault.Newf(fault.Invalid, op, "no device, flow, service provider or end")
	case !digits(p.Number, 2, 2) || !digits(string(p.Code), 6, 8):
		return fault.Newf(fault.Invalid, op, "number or code has a wrong form")
	case p.SPName == "" || len(p.SPName) > 128:
		return fault.Newf(fault.Invalid, op, "the service provider's name has %d octets", len(p.SPName))
	}
	return nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
