package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"custode/internal/config"
	"custode/internal/fault"
)

// TestHealthIsCheap: a flood of /health must not be a flood of write locks.
func TestHealthIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, ill := 0, errors.New("ill")
		health := lately(func() error { asked++; return ill }, time.Second)
		for range 1000 {
			if err := health(); err != ill {
				t.Fatal(err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times within a second", asked)
		}
		ill = nil
		time.Sleep(time.Second)
		if err := health(); err != nil || asked != 2 {
			t.Errorf("%v after %d", err, asked)
		}
	})
}

// TestNoPinnedCertificateIsAnError: a truncated or wrong file must not open the
// registry to whoever signs for themselves.
func TestNoPinnedCertificateIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pinned.pem")
	if _, err := config.Certificates(path); !fault.Is(err, fault.Fatal) {
		t.Errorf("missing file: %v", err)
	}
	for _, text := range []string{"", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if certs, err := config.Certificates(path); !fault.Is(err, fault.Fatal) || certs != nil {
			t.Errorf("%q: %v, %v", text, certs, err)
		}
	}
	if certs, err := config.Certificates(""); err != nil || certs != nil {
		t.Error(certs, err)
	}
}

func TestTLSKeyIsPrivate(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := checkTLSKey(key); !fault.Is(err, fault.Fatal) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o604: false} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if err := checkTLSKey(key); (err == nil) != fine {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := checkTLSKey(""); err != nil {
		t.Error(err)
	}
}
