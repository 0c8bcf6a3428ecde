// Package enrol brings the seed of a virtual OATH device into a subject's app, and
// later codes to it.
//
// Two ways for the seed, by the operating manual's 8.6.3.1 both within 30 minutes: the
// page shows a QR code of an otpauth URI ([URI], [PNG]), which every authenticator
// app understands; or an app of ours sends its public key with an activation
// code ([Activation]) and gets the URI encrypted to that key ([Deliver]). The
// second also agrees on a key of that one app instance, under which codes may be
// pushed to it ([Push]): whoever carries the push learns serial and flow only.
//
// Everything is pure: octets in, octets out, the clock and the random source are
// parameters, and rules return the record to store. Primitives are the standard
// library's (X25519, HKDF, AES-256-GCM). The formats are those of
// docs/design/otpvault-enrol.md; simulators/appsim is the reference of the other side and
// shares no code with this package.
//
// It is not a notifier, a page or a store. It may be imported by cmd; it imports
// otpvault/oath, internal/id, internal/fault, the QR code encoder and the standard library.
package enrol

import (
	"bytes"
	"encoding/base32"
	"image/png"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"

	"custode/internal/fault"
	"custode/otpvault/oath"
)

// Label is what an app shows beside the code.
type Label struct {
	Issuer  string // 1 to 64 octets, no colon
	Account string // 1 to 128 octets, no colon
}

func (l Label) check() error {
	const op = "name a virtual device"
	for _, s := range []struct {
		text string
		max  int
	}{{l.Issuer, 64}, {l.Account, 128}} {
		bad := strings.ContainsFunc(s.text, func(r rune) bool { return r < ' ' || r == 0x7f || r == ':' })
		if s.text == "" || len(s.text) > s.max || bad || !utf8.ValidString(s.text) {
			return fault.Newf(fault.Invalid, op, "issuer or account is empty, too long, or holds a colon or control character")
		}
	}
	return nil
}

// URI returns the otpauth URI (Key URI format) of a device as octets, which the
// caller clears as it clears secret. counter is the first one, of oath.Event.
func URI(l Label, p oath.Parameters, counter uint64, secret []byte) ([]byte, error) {
	const op = "write otpauth URI"
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if len(secret) < 16 || len(secret) > 64 { // RFC 4226, R6: 128 bits at least
		return nil, fault.Newf(fault.Invalid, op, "a seed of %d octets is not 16 to 64", len(secret))
	}
	issuer := escape(l.Issuer)
	head := "otpauth://" + p.Kind.String() + "/" + issuer + ":" + escape(l.Account) + "?secret="
	tail := "&issuer=" + issuer + "&algorithm=" + p.Hash.String() + "&digits=" + strconv.Itoa(p.Digits)
	if p.Kind == oath.Time {
		tail += "&period=" + strconv.Itoa(int(p.Period.Seconds()))
	} else {
		tail += "&counter=" + strconv.FormatUint(counter, 10)
	}
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	n := enc.EncodedLen(len(secret))
	out := make([]byte, len(head)+n, len(head)+n+len(tail)) // never grows: no copy stays behind
	copy(out, head)
	enc.Encode(out[len(head):], secret)
	return append(out, tail...), nil
}

// escape percent-encodes all but the unreserved characters of RFC 3986, 2.3. A
// blank is %20: apps show a + as it is.
func escape(s string) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		const digits = "0123456789ABCDEF"
		out.WriteByte('%')
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// modulePixels is the side of a module in the picture; quiet the white border in
// modules that ISO/IEC 18004 wants.
const (
	modulePixels = 6
	quiet        = 4
)

// Text returns the QR code of uri for a terminal with dark ground: two modules a character,
// with the quiet zone.
func Text(uri []byte) (string, error) {
	code, err := qr.Encode(string(uri), qr.M, qr.Unicode)
	if err != nil {
		return "", fault.Newf(fault.Internal, "draw QR code", "the encoder refused %d octets", len(uri))
	}
	side := code.Bounds().Dx()
	light := func(x, y int) bool {
		if x < 0 || y < 0 || x >= side || y >= side {
			return true
		}
		r, _, _, _ := code.At(x, y).RGBA()
		return r > 0x7fff
	}
	var out strings.Builder
	for y := -quiet; y < side+quiet; y += 2 {
		for x := -quiet; x < side+quiet; x++ {
			switch top, bottom := light(x, y), light(x, y+1); {
			case top && bottom:
				out.WriteRune('█')
			case top:
				out.WriteRune('▀')
			case bottom:
				out.WriteRune('▄')
			default:
				out.WriteByte(' ')
			}
		}
		out.WriteByte('\n')
	}
	return out.String(), nil
}

// PNG returns the QR code of uri as a PNG picture, error correction level M. The
// encoder takes a string: a copy of the URI stays in memory until it is collected.
func PNG(uri []byte) ([]byte, error) {
	const op = "draw QR code"
	if len(uri) > 1000 {
		return nil, fault.Newf(fault.Invalid, op, "%d octets are too many for a telephone's camera", len(uri))
	}
	code, err := qr.Encode(string(uri), qr.M, qr.Unicode)
	if err != nil {
		return nil, fault.Newf(fault.Internal, op, "the encoder refused %d octets", len(uri)) // its error quotes them
	}
	side := code.Bounds().Dx()
	code, err = barcode.Scale(code, side*modulePixels, side*modulePixels)
	if err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, bordered{code}); err != nil {
		return nil, fault.New(fault.Internal, op, err)
	}
	return out.Bytes(), nil
}
