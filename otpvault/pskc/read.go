package pskc

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// Name spaces of RFC 6030, XML encryption and XML signature.
const (
	nsPSKC    = "urn:ietf:params:xml:ns:keyprov:pskc"
	nsEnc     = "http://www.w3.org/2001/04/xmlenc#"
	nsEnc11   = "http://www.w3.org/2009/xmlenc11#"
	nsSig     = "http://www.w3.org/2000/09/xmldsig#"
	nsPKCS5   = "http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#"
	algPrefix = nsPSKC + ":"
)

// Options say how a PSKC file may be opened.
type Options struct {
	AllowPlain bool   // accept seeds in clear
	Key        []byte // pre-shared, of 16, 24 or 32 octets
	Password   []byte // instead of Key
}

// Read reads a PSKC file and clears doc in any case. fault.Invalid for a file
// that is malformed, is refused by the options, holds a wrong MAC, or asks for what this package
// does not know: then no seed of it remains.
func Read(doc []byte, o Options) (batch Batch, err error) {
	const op = "read PSKC file"
	defer clear(doc)
	if len(doc) > MaxBytes {
		return Batch{}, fault.Newf(fault.Invalid, op, "%d octets exceed %d", len(doc), MaxBytes)
	}
	root, err := parseXML(doc)
	if err != nil {
		return Batch{}, fault.New(fault.Invalid, op, err)
	}
	defer func() {
		if err != nil {
			batch.Wipe()
			batch, err = Batch{}, fault.New(fault.Invalid, op, err)
		}
	}()
	if root.space != nsPSKC || root.name != "KeyContainer" || root.attr("Version") != "1.0" {
		return batch, fmt.Errorf("not a PSKC key container of version 1.0")
	}
	r := reader{batch: &batch, plain: o.AllowPlain, seen: map[id.Serial]bool{}}
	if err := root.only("EncryptionKey", "MACMethod", "KeyPackage", "Signature", "Extensions"); err != nil {
		return batch, err
	}
	batch.Signed = len(root.all("Signature")) > 0
	if err := r.unlock(root, o); err != nil {
		return batch, err
	}
	defer r.lock.wipe()
	packages := root.all("KeyPackage")
	if len(packages) == 0 {
		return batch, fmt.Errorf("no key package")
	}
	for i, p := range packages {
		if err := r.keyPackage(p); err != nil {
			return batch, fmt.Errorf("key package %d: %w", i+1, err)
		}
	}
	return batch, nil
}

// reader is one file being read.
type reader struct {
	batch *Batch
	plain bool
	lock  lock
	seen  map[id.Serial]bool
}

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

// known are the name spaces in which an element counts. Some writers leave
// PBKDF2's parameters without one.
func known(space string) bool {
	switch space {
	case nsPSKC, nsEnc, nsEnc11, nsSig, nsPKCS5, "":
		return true
	}
	return false
}

func (e *element) all(name string) (found []*element) {
	for _, k := range e.kids {
		if k.name == name && known(k.space) {
			found = append(found, k)
		}
	}
	return found
}

// one returns the only child of that name, nil when there is none.
func (e *element) one(name string) (*element, error) {
	found := e.all(name)
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%s is there %d times", name, len(found))
}

// path descends through only children; it fails where one is missing.
func (e *element) path(names ...string) (*element, error) {
	for _, n := range names {
		next, err := e.one(n)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, fmt.Errorf("%s has no %s", e.name, n)
		}
		e = next
	}
	return e, nil
}

// only refuses children of other names: what we do not understand could change
// what the rest means.
func (e *element) only(names ...string) error {
	for _, k := range e.kids {
		ok := false
		for _, n := range names {
			ok = ok || k.name == n && known(k.space)
		}
		if !ok {
			return fmt.Errorf("%s holds %s, which is not understood", e.name, k.name)
		}
	}
	return nil
}

func (e *element) trimmed() []byte { return bytes.TrimSpace(e.text) }

// number reads a decimal number from what is not secret.
func (e *element) number(least, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(e.trimmed()), 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is not a number of %d to %d", e.name, least, most)
	}
	return n, nil
}

// octets decodes base64, with line breaks, into fresh memory.
func (e *element) octets() ([]byte, error) {
	in := make([]byte, 0, len(e.text))
	for _, c := range e.text {
		if !blank(c) {
			in = append(in, c)
		}
	}
	defer clear(in)
	out := make([]byte, base64.StdEncoding.DecodedLen(len(in)))
	n, err := base64.StdEncoding.Strict().Decode(out, in)
	if err != nil || n == 0 {
		clear(out)
		return nil, fmt.Errorf("%s is not base64", e.name) // the decoder's error quotes nothing, but has a place in the secret
	}
	return out[:n], nil
}

func (r *reader) keyPackage(p *element) error {
	if err := p.only("DeviceInfo", "CryptoModuleInfo", "Key", "Extensions"); err != nil {
		return err
	}
	k := Key{}
	keyElement, err := p.path("Key")
	if err != nil {
		return err
	}
	serial := []byte(keyElement.attr("Id")) // RFC 6030, 4.3.1: when the device has no number of its own
	device, err := p.one("DeviceInfo")
	if err != nil {
		return err
	}
	if device != nil {
		if serial, err = r.device(device, serial, &k); err != nil {
			return err
		}
	}
	if k.Serial, err = id.ParseSerial(string(serial)); err != nil {
		return err
	}
	if err := r.key(keyElement, &k); err != nil {
		clear(k.Seed)
		return fmt.Errorf("serial %s: %w", k.Serial, err)
	}
	return r.batch.add(k, r.seen)
}

func (r *reader) device(d *element, serial []byte, k *Key) ([]byte, error) {
	number, err := d.one("SerialNo")
	if err != nil {
		return nil, err
	}
	if number != nil {
		serial = number.trimmed()
	}
	maker, err := d.one("Manufacturer")
	if err != nil {
		return nil, err
	}
	if maker != nil {
		k.Manufacturer = printable(maker.trimmed())
	}
	expires, err := d.one("ExpiryDate")
	if err != nil || expires == nil {
		return serial, err
	}
	k.Expires, err = expires.date()
	return serial, err
}

func (e *element) date() (time.Time, error) {
	t, err := time.Parse(time.RFC3339, string(e.trimmed()))
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is not a date with its zone", e.name)
	}
	return t.UTC(), nil
}

func (r *reader) key(e *element, k *Key) error {
	if err := e.only("Issuer", "AlgorithmParameters", "KeyProfileId", "KeyReference", "FriendlyName", "Data", "UserId", "Policy", "Extensions"); err != nil {
		return err
	}
	switch alg := strings.TrimPrefix(strings.ToLower(e.attr("Algorithm")), algPrefix); alg {
	case "hotp":
		k.Parameters.Kind = oath.Event
	case "totp":
		k.Parameters.Kind, k.Parameters.Period = oath.Time, 30*time.Second
	default:
		return fmt.Errorf("the algorithm is neither HOTP nor TOTP")
	}
	if err := parameters(e, k); err != nil {
		return err
	}
	if err := policy(e, k); err != nil {
		return err
	}
	data, err := e.path("Data")
	if err != nil {
		return err
	}
	return r.data(data, k)
}

// parameters reads Suite and ResponseFormat (RFC 6030, 4.3.4 and 10).
func parameters(e *element, k *Key) error {
	format, err := e.path("AlgorithmParameters", "ResponseFormat")
	if err != nil {
		return err
	}
	digits, err := strconv.Atoi(format.attr("Length"))
	if err != nil || format.attr("Encoding") != "DECIMAL" {
		return fmt.Errorf("the response is not decimal, or has no length")
	}
	if c := format.attr("CheckDigits"); c != "" && c != "false" && c != "0" {
		return fmt.Errorf("codes with a check digit are not served")
	}
	k.Parameters.Digits, k.Parameters.Hash = digits, oath.SHA1
	params, err := e.path("AlgorithmParameters")
	if err != nil {
		return err
	}
	if err := params.only("Suite", "ResponseFormat", "Extensions"); err != nil {
		return err
	}
	suite, err := params.one("Suite")
	if err != nil || suite == nil {
		return err
	}
	switch s := strings.ToUpper(string(suite.trimmed())); strings.NewReplacer("-", "", "HMAC", "").Replace(s) {
	case "SHA1", "":
	case "SHA256":
		k.Parameters.Hash = oath.SHA256
	case "SHA512":
		k.Parameters.Hash = oath.SHA512
	default:
		return fmt.Errorf("the suite is not known")
	}
	return nil
}

// policy refuses what would forbid our use (RFC 6030, 5): unknown elements too.
func policy(e *element, k *Key) error {
	p, err := e.one("Policy")
	if err != nil || p == nil {
		return err
	}
	if err := p.only("StartDate", "ExpiryDate", "KeyUsage", "PINPolicy"); err != nil {
		return err
	}
	usages, otp := p.all("KeyUsage"), false
	for _, u := range usages {
		otp = otp || string(u.trimmed()) == "OTP"
	}
	if len(usages) > 0 && !otp {
		return fmt.Errorf("the key may not be used for one-time codes")
	}
	pin, err := p.one("PINPolicy")
	if err != nil {
		return err
	}
	if pin != nil && pin.attr("PINUsageMode") != "Local" {
		return fmt.Errorf("devices with a PIN in or beside the code are not served")
	}
	expires, err := p.one("ExpiryDate")
	if err != nil || expires == nil {
		return err
	}
	end, err := expires.date()
	if err == nil && (k.Expires.IsZero() || end.Before(k.Expires)) {
		k.Expires = end
	}
	return err
}

func (r *reader) data(d *element, k *Key) error {
	if err := d.only("Secret", "Counter", "Time", "TimeInterval", "TimeDrift"); err != nil {
		return err
	}
	secret, err := d.path("Secret")
	if err != nil {
		return err
	}
	if k.Seed, err = r.secret(secret); err != nil {
		return err
	}
	for name, set := range map[string]func(n uint64) error{
		"Counter": func(n uint64) error {
			if k.Parameters.Kind == oath.Event {
				k.Counter = n
			}
			return nil
		},
		"TimeInterval": func(n uint64) error {
			if k.Parameters.Kind == oath.Time && n <= 3600 {
				k.Parameters.Period = time.Duration(n) * time.Second
				return nil
			}
			return fmt.Errorf("a time interval that does not fit")
		},
		"Time": func(n uint64) error {
			if n != 0 {
				return fmt.Errorf("time steps that do not begin in 1970 are not served")
			}
			return nil
		},
	} {
		e, err := d.one(name)
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		plain, err := e.path("PlainValue")
		if err != nil {
			return err // an encrypted counter: nobody makes them
		}
		n, err := plain.number(0, 1<<62)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := set(n); err != nil {
			return err
		}
	}
	return nil
}

// secret opens the value of a Secret into fresh memory.
func (r *reader) secret(e *element) ([]byte, error) {
	if err := e.only("PlainValue", "EncryptedValue", "ValueMAC"); err != nil {
		return nil, err
	}
	plain, err := e.one("PlainValue")
	if err != nil {
		return nil, err
	}
	sealed, err := e.one("EncryptedValue")
	if err != nil {
		return nil, err
	}
	switch {
	case plain != nil && sealed == nil && !r.plain:
		return nil, fmt.Errorf("the seed is in clear, and that was not allowed")
	case plain != nil && sealed == nil:
		return plain.octets()
	case sealed == nil || plain != nil:
		return nil, fmt.Errorf("not exactly one value")
	}
	mac, err := e.path("ValueMAC")
	if err != nil {
		return nil, err // CBC without a MAC can be bent
	}
	return r.lock.open(sealed, mac)
}
