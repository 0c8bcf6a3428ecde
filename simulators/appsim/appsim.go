// Package appsim is a small authenticator app: it takes a seed from an otpauth URI
// or from a parcel encrypted to its key, shows codes, and opens pushed codes. It
// is the reference for who writes the app of the other side; the formats are in
// docs/design/otpvault-enrol.md.
//
// It is a simulator: it keeps its secrets in a plain file and shares no code with
// the product, which is what makes it a judge of it.
package appsim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// App is the state of an app with one account. The zero value has none.
type App struct {
	Private   []byte // X25519, once asked for
	DeviceKey []byte // of pushes, after a delivery
	Serial    string
	Issuer    string
	Account   string
	Type      string // totp or hotp
	Secret    []byte
	Algorithm string
	Digits    int
	Period    int64
	Counter   uint64
	Seen      []string // flows of the pushes that were shown
}

// PublicKey returns the app's key, made when there is none.
func (a *App) PublicKey() ([]byte, error) {
	if a.Private == nil {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		a.Private = k.Bytes()
	}
	k, err := ecdh.X25519().NewPrivateKey(a.Private)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// Scan takes the account from an otpauth URI.
func (a *App) Scan(uri string) error {
	u, err := url.Parse(strings.TrimSpace(uri))
	if err != nil || u.Scheme != "otpauth" {
		return errors.New("not an otpauth URI")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("malformed query")
	}
	issuer, account, labelled := strings.Cut(strings.TrimPrefix(u.Path, "/"), ":")
	if !labelled || issuer != q.Get("issuer") {
		return errors.New("the label and the issuer differ")
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(q.Get("secret"))
	if err != nil || len(secret) == 0 {
		return errors.New("malformed secret")
	}
	digits, err := strconv.Atoi(q.Get("digits"))
	if err != nil || digits < 6 || digits > 8 {
		return errors.New("malformed digits")
	}
	b := *a
	b.Type, b.Issuer, b.Account, b.Secret, b.Digits, b.Algorithm = u.Host, issuer, account, secret, digits, q.Get("algorithm")
	switch b.Type {
	case "totp":
		b.Period, err = strconv.ParseInt(q.Get("period"), 10, 32)
	case "hotp":
		b.Counter, err = strconv.ParseUint(q.Get("counter"), 10, 63)
	default:
		err = errors.New("unknown type")
	}
	if err != nil || b.Type == "totp" && b.Period <= 0 || b.hash() == nil {
		return errors.New("malformed type, period, counter or algorithm")
	}
	*a = b
	return nil
}

func (a *App) hash() func() hash.Hash {
	switch a.Algorithm {
	case "SHA1":
		return sha1.New
	case "SHA256":
		return sha256.New
	case "SHA512":
		return sha512.New
	}
	return nil
}

// Code shows a code; by event it moves the counter.
func (a *App) Code(now time.Time) (string, error) {
	if len(a.Secret) == 0 {
		return "", errors.New("no account")
	}
	counter := a.Counter
	if a.Type == "totp" {
		counter = uint64(now.Unix() / a.Period)
	} else {
		a.Counter++
	}
	m := hmac.New(a.hash(), a.Secret)
	m.Write(binary.BigEndian.AppendUint64(nil, counter))
	sum := m.Sum(nil)
	v := uint64(binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & 0x7fffffff)
	text := fmt.Sprintf("%010d", v)
	return text[len(text)-a.Digits:], nil
}

// Receive opens a parcel for the device of that serial number with the
// activation code, takes the account from it and keeps the key of pushes.
func (a *App) Receive(parcel []byte, serial, activation string) error {
	if len(parcel) < 1+32+16 || parcel[0] != 1 || a.Private == nil {
		return errors.New("no parcel, or no key to open it")
	}
	own, err := ecdh.X25519().NewPrivateKey(a.Private)
	if err != nil {
		return err
	}
	peer, err := ecdh.X25519().NewPublicKey(parcel[1:33])
	if err != nil {
		return err
	}
	shared, err := own.ECDH(peer)
	if err != nil {
		return err
	}
	code := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(activation))
	where := string(parcel[1:33]) + string(own.PublicKey().Bytes()) + serial
	keys, err := hkdf.Key(sha256.New, shared, []byte(code), "custode otp delivery 1"+where, 64)
	if err != nil {
		return err
	}
	box, err := gcm(keys[:32])
	if err != nil {
		return err
	}
	uri, err := box.Open(nil, make([]byte, 12), parcel[33:], []byte("\x01"+where))
	if err != nil {
		return errors.New("the parcel is not for this app, serial number or activation code")
	}
	if err := a.Scan(string(uri)); err != nil {
		return err
	}
	a.Serial, a.DeviceKey = serial, keys[32:]
	return nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// Push is what a pushed message says.
type Push struct {
	Serial, Flow, Number, SP, SPName, Code string
	Expires                                time.Time
}

// Open opens a pushed message; a second one for the same flow is refused, and so is
// one that came too late.
func (a *App) Open(message []byte, now time.Time) (Push, error) {
	var p Push
	if len(message) < 1 || message[0] != 1 || len(a.DeviceKey) != 32 {
		return p, errors.New("no push message, or no key to open it")
	}
	rest := message[1:]
	for _, into := range []*string{&p.Serial, &p.Flow} {
		if len(rest) < 1 || len(rest) < 1+int(rest[0]) {
			return Push{}, errors.New("the message is cut")
		}
		*into, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	head := message[:len(message)-len(rest)]
	if len(rest) < 12+16 || p.Serial != a.Serial {
		return Push{}, errors.New("the message is cut, or for another device")
	}
	box, err := gcm(a.DeviceKey)
	if err != nil {
		return Push{}, err
	}
	plain, err := box.Open(nil, rest[:12], rest[12:], append([]byte("custode push code 1"), head...))
	if err != nil {
		return Push{}, errors.New("the message was changed, or is for another device")
	}
	var expires string
	for _, into := range []*string{&p.Number, &p.SP, &p.SPName, &p.Code, &expires} {
		if len(plain) < 2 || len(plain) < 2+int(binary.BigEndian.Uint16(plain)) {
			return Push{}, errors.New("malformed plaintext")
		}
		n := 2 + int(binary.BigEndian.Uint16(plain))
		*into, plain = string(plain[2:n]), plain[n:]
	}
	end, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || len(plain) != 0 {
		return Push{}, errors.New("malformed plaintext")
	}
	p.Expires = time.Unix(end, 0)
	for _, f := range a.Seen {
		if f == p.Flow+p.Number {
			return Push{}, errors.New("this message was shown before")
		}
	}
	if !now.Before(p.Expires) {
		return Push{}, errors.New("this message came too late")
	}
	a.Seen = append(a.Seen[max(0, len(a.Seen)-99):], p.Flow+p.Number)
	return p, nil
}
