package appsim

import (
	"bytes"
	"testing"
	"time"
)

// FuzzScan: no text panics, and a scanned account shows codes of its length.
func FuzzScan(f *testing.F) {
	f.Add("otpauth://totp/A:b?secret=GEZDGNBVGY3TQOJQ&issuer=A&algorithm=SHA512&digits=8&period=60")
	f.Add("otpauth://hotp/A:b?secret=GEZDGNBVGY3TQOJQ&issuer=A&algorithm=SHA1&digits=6&counter=7")
	f.Add("otpauth://totp/A?secret=x")
	f.Fuzz(func(t *testing.T, uri string) {
		var a App
		if err := a.Scan(uri); err != nil {
			if len(a.Secret) != 0 {
				t.Fatal("refused, and taken")
			}
			return
		}
		if code, err := a.Code(time.Unix(1e9, 0)); err != nil || len(code) != a.Digits {
			t.Fatal(code, err)
		}
	})
}

// FuzzOpen: no message panics, and none opens without its key.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x01\x01a\x01b0123456789ab0123456789abcdef"))
	f.Add(bytes.Repeat([]byte{1}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := App{DeviceKey: bytes.Repeat([]byte{9}, 32), Serial: "a", Private: bytes.Repeat([]byte{7}, 32)}
		if _, err := a.Open(b, time.Unix(0, 0)); err == nil {
			t.Fatal("opened a push")
		}
		if err := a.Receive(b, "a", "AAAA"); err == nil {
			t.Fatal("opened a parcel")
		}
	})
}
