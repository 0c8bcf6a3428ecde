package location

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestParseLocation(t *testing.T) {
	got, err := Parse("pkcs11:token=a%20b;serial=01?module-path=/x/y.so&pin-source=file:/run/pin%2Dx")
	if want := (Location{Module: "/x/y.so", Label: "a b", Serial: "01", PINFile: "/run/pin-x"}); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	for name, uri := range map[string]string{
		"empty":           "",
		"other scheme":    "file:/x",
		"no selection":    "pkcs11:?module-path=/x&pin-source=file:/p",
		"no module":       "pkcs11:token=a?pin-source=file:/p",
		"no PIN":          "pkcs11:token=a?module-path=/x",
		"PIN in it":       "pkcs11:token=a?module-path=/x&pin-value=s3cret",
		"PIN in capitals": "pkcs11:token=a?module-path=/x&PIN-VALUE=s3cret",
		"both":            "pkcs11:token=a?module-path=/x&pin-source=file:/p&pin-value=s3cret",
		"relative module": "pkcs11:token=a?module-path=x&pin-source=file:/p",
		"relative PIN":    "pkcs11:token=a?module-path=/x&pin-source=file:p",
		"remote PIN":      "pkcs11:token=a?module-path=/x&pin-source=file://h/p",
		"http PIN":        "pkcs11:token=a?module-path=/x&pin-source=http:/p",
		"object":          "pkcs11:token=a;object=k?module-path=/x&pin-source=file:/p",
		"slot":            "pkcs11:token=a;slot-id=1?module-path=/x&pin-source=file:/p",
		"module name":     "pkcs11:token=a?module-path=/x&module-name=y&pin-source=file:/p",
		"twice":           "pkcs11:token=a;token=b?module-path=/x&pin-source=file:/p",
		"unknown":         "pkcs11:token=a;x=y?module-path=/x&pin-source=file:/p",
		"too long":        "pkcs11:token=" + strings.Repeat("a", 3000),
	} {
		if l, err := Parse(uri); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %+v %v, want invalid", name, l, err)
		}
	}
}

func FuzzParseLocation(f *testing.F) {
	f.Add("pkcs11:token=a;serial=01?module-path=/x/y.so&pin-source=file:/run/pin")
	f.Add("pkcs11:token=%zz?module-path=/x&pin-value=1")
	f.Fuzz(func(t *testing.T, uri string) {
		l, err := Parse(uri)
		if err != nil {
			return
		}
		if !filepath.IsAbs(l.Module) || !filepath.IsAbs(l.PINFile) || l.Label+l.Serial == "" {
			t.Errorf("%q gives %+v", uri, l)
		}
	})
}

func TestReadPIN(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]string{"1234\n": "1234", "1234\r\n": "1234", " 12 ": " 12 "} {
		pin, err := (Location{PINFile: write("good", text, 0o400)}).ReadPIN()
		if err != nil || string(pin) != want {
			t.Errorf("%q: %q %v", text, pin, err)
		}
		if err := os.Remove(filepath.Join(dir, "good")); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(write("target", "1234", 0o400), link); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"group":     write("group", "1234", 0o440),
		"others":    write("others", "1234", 0o404),
		"writable":  write("writable", "1234", 0o620),
		"empty":     write("empty", "", 0o400),
		"two lines": write("lines", "1234\n5678\n", 0o400),
		"NUL":       write("nul", "12\x0034", 0o400),
		"long":      write("long", strings.Repeat("1", 256), 0o400),
		"link":      link,
		"directory": dir,
		"missing":   filepath.Join(dir, "none"),
	} {
		pin, err := (Location{PINFile: path}).ReadPIN()
		if !fault.Is(err, fault.Fatal) || pin != nil || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %q %v, want fatal", name, pin, err)
		}
	}
}

// acl builds a POSIX access control list as Linux keeps it.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

func TestPINFileACL(t *testing.T) {
	const none = 0xffffffff
	systemd := [][3]uint32{{1, 4, none}, {2, 4, 1000}, {4, 0, none}, {0x10, 4, none}, {0x20, 0, none}}
	with := func(i int, e [3]uint32) []byte {
		c := append([][3]uint32{}, systemd...)
		c[i] = e
		return acl(c...)
	}
	for name, c := range map[string]struct {
		acl []byte
		ok  bool
	}{
		"as systemd makes it": {acl(systemd...), true},
		"another user":        {with(1, [3]uint32{2, 4, 1001}), false},
		"owning group":        {with(2, [3]uint32{4, 4, none}), false},
		"a group":             {with(2, [3]uint32{8, 4, 1000}), false},
		"others":              {with(4, [3]uint32{0x20, 4, none}), false},
		"cut":                 {acl(systemd...)[:11], false},
		"version 1":           {append([]byte{1}, acl(systemd...)[1:]...), false},
		"nothing":             {nil, false},
	} {
		if got := onlyUser(c.acl, 1000); got != c.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzOnlyUser(f *testing.F) {
	f.Add(acl([3]uint32{1, 4, 0}, [3]uint32{2, 4, 1000}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if onlyUser(b, 1000) && len(b)%8 != 4 {
			t.Errorf("%x accepted", b)
		}
	})
}
