// Package location says where a token is: it reads the one form of PKCS #11 URI (RFC 7512)
// that we accept, judges the module it names, and reads the PIN file it names. It
// touches files and no token. The PIN never stands in a URI, an error or the
// environment; it is read anew at each login, from a file that only its owner may
// read. Only hsm/pkcs11 and its tests import this package; others find it under the names
// that hsm/pkcs11 gives it.
package location

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"

	pkcs11uri "github.com/stefanberger/go-pkcs11uri"

	"custode/internal/fault"
)

// Location says where a token is: machine facts only, Parse makes one.
type Location struct {
	Module  string // absolute path of the PKCS #11 module
	Label   string // token label, "" when only the serial number selects
	Serial  string // token serial number, "" when only the label selects
	PINFile string // absolute path of the file that holds the user PIN
}

const maxURI = 2048

// Parse reads an RFC 7512 URI such as
//
//	pkcs11:token=custode;serial=0123abcd?module-path=/usr/lib/x.so&pin-source=file:/run/credentials/pin
//
// module-path and pin-source (a file URL or an absolute path) are required, and
// at least one of token and serial. Every other attribute is refused with
// fault.Invalid: those that name an object have no place here, and pin-value
// would put a PIN where it can be read.
func Parse(uri string) (Location, error) {
	const op = "read PKCS #11 URI"
	refuse := func(format string, args ...any) (Location, error) {
		return Location{}, fault.Newf(fault.Invalid, op, format, args...)
	}
	if len(uri) > maxURI {
		return refuse("longer than %d octets", maxURI)
	}
	// Before anything that may quote the text in an error.
	if strings.Contains(strings.ToLower(uri), "pin-value") {
		return refuse("pin-value is not accepted: give pin-source=file:/path")
	}
	u := pkcs11uri.New()
	if err := u.Parse(uri); err != nil {
		return Location{}, fault.New(fault.Invalid, op, err)
	}
	if err := onlyKnown(uri); err != nil {
		return Location{}, err
	}
	var l Location
	l.Label, _ = u.GetPathAttribute("token", false)
	l.Serial, _ = u.GetPathAttribute("serial", false)
	if l.Label == "" && l.Serial == "" {
		return refuse("neither token nor serial is given")
	}
	l.Module, _ = u.GetQueryAttribute("module-path", false)
	if !filepath.IsAbs(l.Module) {
		return refuse("module-path is missing or not absolute")
	}
	source, _ := u.GetQueryAttribute("pin-source", false)
	pin, err := url.Parse(source)
	if err != nil || (pin.Scheme != "" && pin.Scheme != "file") || pin.Host != "" || pin.Opaque != "" ||
		pin.RawQuery != "" || pin.Fragment != "" || !filepath.IsAbs(pin.Path) {
		return refuse("pin-source is missing, or not file: and an absolute path")
	}
	l.PINFile = pin.Path
	return l, nil
}

// onlyKnown exists because the URI library keeps attributes it does not know
// and offers no way to list them.
func onlyKnown(uri string) error {
	path, query, _ := strings.Cut(strings.TrimPrefix(uri, "pkcs11:"), "?")
	for _, part := range []struct{ text, sep, known string }{
		{path, ";", " token serial "}, {query, "&", " module-path pin-source "},
	} {
		for _, attr := range strings.Split(part.text, part.sep) {
			name, _, _ := strings.Cut(attr, "=")
			if attr != "" && !strings.Contains(part.known, " "+name+" ") {
				return fault.Newf(fault.Invalid, "read PKCS #11 URI", "attribute %.40q is not accepted", name)
			}
		}
	}
	return nil
}

// CheckModule refuses, with fault.Fatal, a module that others could replace: its code
// runs in the process that knows the PIN.
func (l Location) CheckModule() error {
	const op = "check PKCS #11 module"
	info, err := os.Stat(l.Module)
	switch {
	case err != nil:
		return fault.New(fault.Fatal, op, err)
	case !info.Mode().IsRegular():
		return fault.Newf(fault.Fatal, op, "%s is not a regular file", l.Module)
	case info.Mode().Perm()&0o022 != 0:
		return fault.Newf(fault.Fatal, op, "%s can be written by group or others", l.Module)
	}
	return nil
}

// Name is how errors and logs call the token.
func (l Location) Name() string {
	if l.Label != "" {
		return l.Label
	}
	return "with serial " + l.Serial
}
