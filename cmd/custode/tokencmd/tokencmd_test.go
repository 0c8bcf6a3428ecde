package tokencmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	table  = "serial,seed,type,start,digits\nFT-1,3132333435363738393031323334353637383930,hotp,0,6\n"
	base32 = "FT-1;GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ;totp;30;6\n"
	// Figure 6 of RFC 6030: AES-128-CBC under a pre-shared key.
	locked = `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
<EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>
<MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1"><MACKey><xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
<xenc:CipherData><xenc:CipherValue>ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX</xenc:CipherValue></xenc:CipherData></MACKey></MACMethod>
<KeyPackage><DeviceInfo><Manufacturer>Manufacturer</Manufacturer><SerialNo>987654321</SerialNo></DeviceInfo>
<Key Id="12345678" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp"><Issuer>Issuer</Issuer>
<AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters><Data><Secret><EncryptedValue>
<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
<xenc:CipherData><xenc:CipherValue>AAECAwQFBgcICQoLDA0OD+cIHItlB3Wra1DUpxVvOx2lef1VmNPCMl8jwZqIUqGv</xenc:CipherValue></xenc:CipherData>
</EncryptedValue><ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=</ValueMAC></Secret><Counter><PlainValue>0</PlainValue></Counter></Data></Key></KeyPackage></KeyContainer>`
)

func TestReadDelivery(t *testing.T) {
	key := file(t, "12345678901234567890123456789012\n", 0o600)
	for name, c := range map[string]struct {
		in     argument
		serial string // "": refused
	}{
		"hex":             {argument{File: file(t, table, 0o600), Format: "hex"}, "FT-1"},
		"base32":          {argument{File: file(t, base32, 0o600), Format: "base32"}, "FT-1"},
		"pskc":            {argument{File: file(t, locked, 0o600), Format: "pskc", KeyFile: key}, "987654321"},
		"pskc, no key":    {argument{File: file(t, locked, 0o600), Format: "pskc"}, ""},
		"pskc, other key": {argument{File: file(t, locked, 0o600), Format: "pskc", KeyFile: file(t, strings.Repeat("00", 16), 0o600)}, ""},
		"key not hex":     {argument{File: file(t, locked, 0o600), Format: "pskc", KeyFile: file(t, "geheim", 0o600)}, ""},
		"key for all":     {argument{File: file(t, locked, 0o600), Format: "pskc", KeyFile: file(t, strings.Repeat("00", 16), 0o644)}, ""},
		"for all":         {argument{File: file(t, table, 0o644), Format: "hex"}, ""},
		"wrong encoding":  {argument{File: file(t, "FT-1,zz,hotp,0,6\n", 0o600), Format: "hex"}, ""},
		"folder":          {argument{File: t.TempDir(), Format: "hex"}, ""},
		"nothing":         {argument{File: "/nonexistent", Format: "hex"}, ""},
	} {
		batch, _, err := readDelivery(c.in)
		switch {
		case c.serial == "" && (err == nil || len(batch.Keys) != 0):
			t.Errorf("%s: %d devices, %v", name, len(batch.Keys), err)
		case c.serial != "" && (err != nil || len(batch.Keys) != 1 || batch.Keys[0].Serial.String() != c.serial):
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLinkIsNotFollowed: the daemon must not be led to a file of its own.
func TestLinkIsNotFollowed(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file(t, table, 0o600), link); err != nil {
		t.Fatal(err)
	}
	if _, err := readPrivate(link); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestCodes(t *testing.T) {
	for in, want := range map[string][2]string{
		"123456": {"123456", ""}, " 123456 \r\n\n654321\n": {"123456", "654321"},
	} {
		if a, b, err := codes(strings.NewReader(in)); err != nil || a != want[0] || b != want[1] {
			t.Errorf("%q: %q %q %v", in, a, b, err)
		}
	}
	for _, in := range []string{"", "\n\n", "1\n2\n3\n"} {
		if _, _, err := codes(strings.NewReader(in)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestWords: what an operator says is bounded before it is kept.
func TestWords(t *testing.T) {
	m := &methods{Config: Config{Now: time.Now}}
	for reason, ok := range map[string]bool{"": true, strings.Repeat("à", 100): true, strings.Repeat("à", 101): false, "a\nb": false, "a\u009bb": false} {
		arg, err := json.Marshal(argument{Actor: "op", Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.read(t.Context(), arg); ok != (err == nil) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", reason, err)
		}
	}
}
