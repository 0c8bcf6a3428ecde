package pskc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// lock opens the encrypted values of one file.
type lock struct {
	key     []byte // of the encryption; nil when the file has none
	macKey  []byte
	macHash func() hash.Hash // nil when the file has no MACs
}

func (l *lock) wipe() {
	clear(l.key)
	clear(l.macKey)
}

// unlock finds the keys: the caller's own or derived from the password, and the
// MAC key (RFC 6030, 6.1.1 and 6.2).
func (r *reader) unlock(root *element, o Options) (err error) {
	defer func() {
		if err != nil {
			r.lock.wipe()
		}
	}()
	how, err := root.one("EncryptionKey")
	if err != nil || how == nil {
		return err // values in clear, if they are allowed; encrypted ones fail without a key
	}
	derived, err := how.one("DerivedKey")
	if err != nil {
		return err
	}
	switch {
	case derived != nil && len(o.Password) > 0:
		r.lock.key, err = derive(derived, o.Password)
	case derived != nil:
		err = errors.New("the file is encrypted by a password, and none was given")
	case len(how.all("KeyName")) > 0 && len(o.Key) > 0:
		r.lock.key = append([]byte(nil), o.Key...)
	case len(how.all("KeyName")) > 0:
		err = errors.New("the file is encrypted by a pre-shared key, and none was given")
	default:
		err = errors.New("the file is encrypted neither by a pre-shared key nor by a password")
	}
	if err != nil {
		return err
	}
	if n := len(r.lock.key); n != 16 && n != 24 && n != 32 {
		return fmt.Errorf("a key of %d octets is none of AES", n)
	}
	return r.macMethod(root)
}

func (r *reader) macMethod(root *element) error {
	method, err := root.one("MACMethod")
	if err != nil || method == nil {
		return err
	}
	if r.lock.macHash, err = hmacHash(method.attr("Algorithm")); err != nil {
		return err
	}
	key, err := method.one("MACKey")
	if err != nil {
		return err
	}
	if key == nil { // RFC 6030, 6.1.1: then it is the encryption key
		r.lock.macKey = append([]byte(nil), r.lock.key...)
		return nil
	}
	value, err := cipherValue(key)
	if err != nil {
		return err
	}
	if r.lock.macKey, err = r.lock.decrypt(key, value); err != nil {
		return fmt.Errorf("MAC key: %w", err)
	}
	if len(r.lock.macKey) < 16 {
		return errors.New("the key or password is wrong: no MAC key came out")
	}
	return nil
}

// hmacHash knows the URIs of XML signature's HMACs and of PKCS #5's.
func hmacHash(uri string) (func() hash.Hash, error) {
	at := strings.LastIndexByte(uri, '#')
	switch strings.ToLower(uri[at+1:]) {
	case "hmac-sha1":
		return sha1.New, nil
	case "hmac-sha256":
		return sha256.New, nil
	case "hmac-sha512":
		return sha512.New, nil
	}
	return nil, errors.New("the MAC algorithm is not HMAC with SHA-1, SHA-256 or SHA-512")
}

// derive is PBKDF2 by the parameters in the file (RFC 8018, 5.2; RFC 6030, 6.2).
func derive(e *element, password []byte) ([]byte, error) {
	method, err := e.path("KeyDerivationMethod")
	if err != nil {
		return nil, err
	}
	if alg := method.attr("Algorithm"); alg != nsPKCS5+"pbkdf2" && alg != nsEnc11+"pbkdf2" {
		return nil, errors.New("the key derivation is not PBKDF2")
	}
	params, err := method.path("PBKDF2-params")
	if err != nil {
		return nil, err
	}
	salted, err := params.path("Salt", "Specified")
	if err != nil {
		return nil, err
	}
	salt, err := salted.octets()
	if err != nil || len(salt) < 8 || len(salt) > 128 {
		return nil, errors.New("the salt is not 8 to 128 octets in base64")
	}
	count, err := params.path("IterationCount")
	if err != nil {
		return nil, err
	}
	rounds, err := count.number(1, MaxIterations)
	if err != nil {
		return nil, err
	}
	long, err := params.path("KeyLength")
	if err != nil {
		return nil, err
	}
	size, err := long.number(16, 32)
	if err != nil {
		return nil, err
	}
	by := sha1.New
	prf, err := params.one("PRF")
	if err != nil {
		return nil, err
	}
	if prf != nil {
		alg := prf.attr("Algorithm")
		if alg == "" { // python3-pskc writes it as text
			alg = string(prf.trimmed())
		}
		if by, err = hmacHash(alg); err != nil {
			return nil, err
		}
	}
	return pbkdf2.Key(by, string(password), salt, int(rounds), int(size))
}

// cipherValue returns the octets of EncryptedDataType's value: IV and ciphertext.
func cipherValue(e *element) ([]byte, error) {
	v, err := e.path("CipherData", "CipherValue")
	if err != nil {
		return nil, err
	}
	return v.octets()
}

// open checks the MAC of an encrypted value before it decrypts it.
func (l *lock) open(e, mac *element) ([]byte, error) {
	if l.key == nil || l.macHash == nil {
		return nil, errors.New("an encrypted value in a file that names no key or no MAC method")
	}
	value, err := cipherValue(e)
	if err != nil {
		return nil, err
	}
	got, err := mac.octets()
	if err != nil {
		return nil, err
	}
	m := hmac.New(l.macHash, l.macKey)
	m.Write(value)
	if !hmac.Equal(m.Sum(nil), got) {
		return nil, errors.New("the MAC does not fit: the key or password is wrong, or the file was changed")
	}
	return l.decrypt(e, value)
}

// decrypt is AES-CBC with the padding of XML encryption (5.2.1): only its last
// octet says something.
func (l *lock) decrypt(e *element, value []byte) ([]byte, error) {
	method, err := e.path("EncryptionMethod")
	if err != nil {
		return nil, err
	}
	if want := fmt.Sprintf("%saes%d-cbc", nsEnc, 8*len(l.key)); method.attr("Algorithm") != want {
		return nil, fmt.Errorf("the encryption is not AES-CBC with a key of %d octets", len(l.key))
	}
	if len(value) < 2*aes.BlockSize || len(value)%aes.BlockSize != 0 || len(value) > 4096 {
		return nil, errors.New("the encrypted value has a wrong length")
	}
	block, err := aes.NewCipher(l.key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(value)-aes.BlockSize)
	cipher.NewCBCDecrypter(block, value[:aes.BlockSize]).CryptBlocks(out, value[aes.BlockSize:])
	pad := int(out[len(out)-1])
	if pad < 1 || pad > aes.BlockSize {
		clear(out)
		return nil, errors.New("the key or password is wrong: malformed padding")
	}
	clear(out[len(out)-pad:])
	return out[:len(out)-pad], nil
}
