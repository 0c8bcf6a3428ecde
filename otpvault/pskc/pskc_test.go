package pskc

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

var texts = cmp.Comparer(func(a, b id.Serial) bool { return a == b })

func serial(t testing.TB, s string) id.Serial {
	t.Helper()
	v, err := id.ParseSerial(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// rfc6 has the values of RFC 6030, figure 6: AES-128-CBC under a pre-shared key,
// with MAC.
const rfc6 = `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
  <EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>
  <MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1"><MACKey>
    <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
    <xenc:CipherData><xenc:CipherValue>ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX</xenc:CipherValue></xenc:CipherData>
  </MACKey></MACMethod>
  <!-- one device -->
  <KeyPackage>
    <DeviceInfo><Manufacturer>Manufacturer</Manufacturer><SerialNo>987654321</SerialNo></DeviceInfo>
    <CryptoModuleInfo><Id>CM_ID_001</Id></CryptoModuleInfo>
    <Key Id="12345678" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">
      <Issuer>Issuer</Issuer>
      <AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>
      <Data>
        <Secret><EncryptedValue>
          <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
          <xenc:CipherData><xenc:CipherValue>AAECAwQFBgcICQoLDA0OD+cIHItlB3Wra1DUpxVvOx2lef1VmNPCMl8jwZqIUqGv</xenc:CipherValue></xenc:CipherData>
        </EncryptedValue><ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=</ValueMAC></Secret>
        <Counter><PlainValue>0</PlainValue></Counter>
      </Data>
    </Key>
  </KeyPackage>
</KeyContainer>`

var rfcKey = []byte{0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12}

func TestRFC6030(t *testing.T) {
	doc := []byte(rfc6)
	b, err := Read(doc, Options{Key: rfcKey})
	if err != nil {
		t.Fatal(err)
	}
	want := Batch{Keys: []Key{{
		Serial: serial(t, "987654321"), Manufacturer: "Manufacturer", Seed: []byte("12345678901234567890"),
		Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 8},
	}}}
	if diff := cmp.Diff(want, b, texts); diff != "" {
		t.Error(diff)
	}
	if len(bytes.Trim(doc, "\x00")) != 0 {
		t.Error("the file was not cleared")
	}
	seed := b.Keys[0].Seed
	b.Wipe()
	if !bytes.Equal(seed, make([]byte, 20)) {
		t.Error("Wipe left a seed")
	}
}

// made runs python3-pskc, which makes the files that vendors deliver.
func made(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	const python = "/usr/bin/python3" // Debian's, which has Debian's modules
	cmd := exec.CommandContext(t.Context(), python, "-")
	cmd.Stdin, cmd.Dir = strings.NewReader("import datetime\nfrom dateutil.tz import tzutc\nfrom pskc import PSKC\n"+script), dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("python3-pskc: %v (is the Debian package python3-pskc missing?)\n%s", err, out)
	}
	return dir
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// container has all kinds of devices; SEEDS of every length.
const container = `
def fill(p):
    for n in range(40):
        secret = bytes((n * 7 + i * 13) % 256 for i in range(10 + n * 2))
        event = n % 2 == 0
        key = p.add_key(id='k%d' % n, serial='ft-%d' % n, manufacturer='Feitian & Söhne <x>', secret=secret, response_length=6 + n % 3,
            response_encoding='DECIMAL', algorithm='urn:ietf:params:xml:ns:keyprov:pskc:' + ('hotp' if event else 'totp'))
        if event:
            key.counter = n * 1000
        else:
            key.time_interval = 60 if n % 3 == 0 else 30
            key.algorithm_suite = ['HMAC-SHA1', 'HMAC-SHA256', 'HMAC-SHA512'][n % 3]
        if n == 5:
            key.policy.expiry_date = datetime.datetime(2031, 1, 2, 3, 4, 5, tzinfo=tzutc())
        if n == 6:
            key.policy.key_usage.append('OTP')
    return p
`

func wantContainer(t *testing.T) (want Batch) {
	for n := range 40 {
		k := Key{Serial: serial(t, fmt.Sprintf("FT-%d", n)), Manufacturer: "Feitian & Söhne <x>"}
		for i := range 10 + n*2 {
			k.Seed = append(k.Seed, byte(n*7+i*13))
		}
		k.Parameters = oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6 + n%3}
		if n%2 == 0 {
			k.Counter = uint64(n) * 1000
		} else {
			k.Parameters.Kind, k.Parameters.Period = oath.Time, 30*time.Second
			if n%3 == 0 {
				k.Parameters.Period = time.Minute
			}
			k.Parameters.Hash = oath.Hash(1 + n%3)
		}
		if n == 5 {
			k.Expires = time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
		}
		want.Keys = append(want.Keys, k)
	}
	return want
}

// TestForeignFiles reads what another implementation wrote, in clear and
// encrypted each way.
func TestForeignFiles(t *testing.T) {
	dir := made(t, container+`
fill(PSKC()).write('plain.xml')
for bits in (128, 192, 256):
    p = fill(PSKC())
    p.encryption.setup_preshared_key(algorithm='aes%d-cbc' % bits, key=bytes(range(bits // 8)), key_name='Test')
    p.write('key%d.xml' % bits)
for prf in ('hmac-sha1', 'hmac-sha256', 'hmac-sha512'):
    p = fill(PSKC())
    p.encryption.setup_pbkdf2('perché no?', iterations=2000, algorithm='aes256-cbc', prf=prf)
    p.write('password-%s.xml' % prf)
p = fill(PSKC())
p.mac.setup(algorithm='hmac-sha256')
p.encryption.setup_pbkdf2('perché no?', iterations=1, salt=b'12345678')
p.write('password-mac256.xml')
`)
	files, err := filepath.Glob(filepath.Join(dir, "*.xml"))
	if err != nil || len(files) != 8 {
		t.Fatal(files, err)
	}
	password := []byte("perché no?")
	for _, file := range files {
		name := filepath.Base(file)
		key := []byte(nil)
		var bits int
		if n, _ := fmt.Sscanf(name, "key%d.xml", &bits); n == 1 {
			for i := range bits / 8 {
				key = append(key, byte(i))
			}
		}
		b, err := Read(readFile(t, file), Options{AllowPlain: name == "plain.xml", Key: key, Password: password})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(wantContainer(t), b, texts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		wrong := append([]byte(nil), key...)
		if key != nil {
			wrong[3] ^= 1
		}
		for what, o := range map[string]Options{"nothing": {}, "wrong": {Key: wrong, Password: []byte("perche no?")}, "other kind": {Key: make([]byte, 5)}} {
			if b, err := Read(readFile(t, file), o); !fault.Is(err, fault.Invalid) || b.Keys != nil {
				t.Errorf("%s opened with %s: %v", name, what, err)
			}
		}
	}
}

// TestPskctool lets the judge read the same files: it accepts them, and finds the
// seeds that we find.
func TestPskctool(t *testing.T) {
	tool, err := exec.LookPath("pskctool")
	if err != nil {
		t.Fatal("pskctool is missing: install the Debian package pskctool")
	}
	dir := made(t, container+`
fill(PSKC()).write('plain.xml')
p = fill(PSKC())
p.encryption.setup_preshared_key(algorithm='aes128-cbc', key=b'0123456789abcdef', key_name='Test')
p.write('key.xml')
`)
	file := filepath.Join(dir, "plain.xml")
	for _, f := range []string{file, filepath.Join(dir, "key.xml")} {
		if out, err := exec.CommandContext(t.Context(), tool, "--validate", f).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), tool, "--info", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := Read(readFile(t, file), Options{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours []string
	for _, m := range regexp.MustCompile(`(?s)SerialNo: (\S+).*?base64\): (\S+).*?(?:Counter|TimeInterval): (\d+).*?Format Length: (\d)`).FindAllStringSubmatch(string(out), -1) {
		theirs = append(theirs, strings.ToUpper(m[1])+" "+strings.Join(m[2:], " "))
	}
	for _, k := range b.Keys {
		start := k.Counter
		if k.Parameters.Kind == oath.Time {
			start = uint64(k.Parameters.Period.Seconds())
		}
		ours = append(ours, fmt.Sprintf("%s %s %d %d", k.Serial, base64.StdEncoding.EncodeToString(k.Seed), start, k.Parameters.Digits))
	}
	if diff := cmp.Diff(theirs, ours); diff != "" || len(ours) != 40 {
		t.Errorf("%d devices: %s", len(ours), diff)
	}
}

// TestSigned: a signature by pskctool is reported.
func TestSigned(t *testing.T) {
	dir := made(t, "p = PSKC()\np.add_key(id='1', serial='1', secret=b'12345678901234567890', algorithm='hotp', response_length=6, response_encoding='DECIMAL', counter=0)\np.write('plain.xml')\n")
	run := func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s (are the Debian packages openssl and pskctool missing?)", name, err, stderr.Bytes())
		}
		return out
	}
	run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "crt.pem", "-subj", "/CN=vendor")
	signed := run("pskctool", "--sign", "--sign-key=key.pem", "--sign-crt=crt.pem", "plain.xml")
	b, err := Read(signed, Options{AllowPlain: true})
	if err != nil || !b.Signed || len(b.Keys) != 1 || string(b.Keys[0].Seed) != "12345678901234567890" {
		t.Errorf("%+v %v", b, err)
	}
}

const plain = `<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"><KeyPackage><DeviceInfo><SerialNo>1</SerialNo></DeviceInfo>` +
	`<Key Id="1" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp"><AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>` +
	`<Data><Secret><PlainValue>R0VIRUlNR0VIRUlN</PlainValue></Secret><Time><PlainValue>0</PlainValue></Time><TimeInterval><PlainValue>30</PlainValue></TimeInterval></Data></Key></KeyPackage></KeyContainer>`

// TestRefused changes one thing at a time.
func TestRefused(t *testing.T) {
	open := Options{AllowPlain: true, Key: rfcKey}
	for _, doc := range []string{plain, rfc6, "\xef\xbb\xbf" + plain, "<?xml version='1.0'?>\n<!-- a -->" + plain + "\n<!-- b -->\n"} {
		if _, err := Read([]byte(doc), open); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][3]string{
		{plain, `<KeyContainer `, `<!DOCTYPE KeyContainer [<!ENTITY a "b">]><KeyContainer `},
		{plain, `<KeyContainer `, `<!DOCTYPE KeyContainer><KeyContainer `},
		{plain, `<KeyContainer `, `<?php x?><KeyContainer `},
		{plain, `<KeyContainer `, `<?xml version="1.0" encoding="utf-16"?><KeyContainer `},
		{plain, `<PlainValue>R0`, `<PlainValue><![CDATA[R0]]>`},
		{plain, `R0VI`, `&a;`},
		{plain, `R0VI`, `&#0;`},
		{plain, `R0VI`, `R0VI<!-- x -->`},
		{plain, `R0VI`, `R0V`},
		{plain, `R0VI`, `R0V*`},
		{plain, `R0VIRUlNR0VIRUlN`, ``},
		{plain, `R0VIRUlNR0VIRUlN`, `R0VI`},
		{plain, `R0VIRUlNR0VIRUlN`, strings.Repeat("R0VI", 100)},
		{plain, `</KeyContainer>`, `</KeyContainer>x`},
		{plain, `</KeyContainer>`, `</KeyContainer><a/>`},
		{plain, `</KeyContainer>`, ``},
		{plain, `</KeyPackage>`, `</KeyPackage>text`},
		{plain, `Version="1.0"`, `Version="2.0"`},
		{plain, `Version="1.0"`, `Version="1.0" Version="1.0"`},
		{plain, `keyprov:pskc"`, `keyprov:other"`},
		{plain, `<KeyPackage>`, `<KeyPackage><x:y/>`},
		{plain, `<KeyPackage>`, `<KeyPackage><Novelty/>`},
		{plain, `<SerialNo>1</SerialNo>`, `<SerialNo>1 2</SerialNo>`},
		{plain, `<SerialNo>1</SerialNo>`, `<SerialNo>1</SerialNo><SerialNo>2</SerialNo>`},
		{plain, `pskc:totp`, `pskc:OCRA`},
		{plain, `Length="6"`, `Length="5"`},
		{plain, `Length="6"`, `Length="9"`},
		{plain, `Length="6"`, ``},
		{plain, `DECIMAL`, `HEXADECIMAL`},
		{plain, `Encoding="DECIMAL"`, `Encoding="DECIMAL" CheckDigits="true"`},
		{plain, `</ResponseFormat>`, ``},
		{plain, `<AlgorithmParameters>`, `<AlgorithmParameters><Suite>MD5</Suite>`},
		{plain, `<AlgorithmParameters>`, `<AlgorithmParameters><ChallengeFormat/>`},
		{plain, `<Time><PlainValue>0<`, `<Time><PlainValue>1<`},
		{plain, `<PlainValue>30<`, `<PlainValue>45<`},
		{plain, `<PlainValue>30<`, `<PlainValue>99999999999999999999<`},
		{plain, `<PlainValue>30</PlainValue>`, `<EncryptedValue/>`},
		{plain, `<Data>`, `<Policy><KeyUsage>CR</KeyUsage></Policy><Data>`},
		{plain, `<Data>`, `<Policy><NumberOfTransactions>5</NumberOfTransactions></Policy><Data>`},
		{plain, `<Data>`, `<Policy><PINPolicy PINUsageMode="Append"/></Policy><Data>`},
		{plain, `<Data>`, `<Policy><ExpiryDate>soon</ExpiryDate></Policy><Data>`},
		{plain, `<Data>`, `<Policy/><Policy/><Data>`},
		{plain, `<Data>`, `<Data><Novelty/>`},
		{plain, `<KeyPackage>`, `<KeyPackage><a:b xmlns:a=""/>`},
		{plain, `<KeyPackage>`, `<KeyPackage a=b>`},
		{plain, `<KeyPackage>`, `<KeyPackage a="<">`},
		{plain, `<KeyPackage>`, strings.Repeat("<KeyPackage>", 30)},
		{rfc6, `<ValueMAC>Su+`, `<ValueMAC>Sv+`},
		{rfc6, `<ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=</ValueMAC>`, ``},
		{rfc6, `AAECAwQF`, `AAECAwQG`},
		{rfc6, `ESIzRFVm`, `ESIzRFVn`},
		{rfc6, `#hmac-sha1`, `#hmac-md5`},
		{rfc6, `<ds:KeyName>Pre-shared-key</ds:KeyName>`, `<ds:X509Data/>`},
		{rfc6, `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>`, `<xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>`},
		{rfc6, `<EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>`, ``},
		{rfc6, `<EncryptedValue>`, `<PlainValue>R0VIRUlNR0VIRUlN</PlainValue><EncryptedValue>`},
	} {
		if c[1] != `</ResponseFormat>` && !strings.Contains(c[0], c[1]) {
			t.Fatalf("the test's file has no %s", c[1])
		}
		doc := strings.Replace(c[0], c[1], c[2], 1)
		if c[1] == `</ResponseFormat>` {
			doc = strings.Replace(doc, `<ResponseFormat Length="6" Encoding="DECIMAL"/>`, ``, 1)
		}
		b, err := Read([]byte(doc), open)
		if !fault.Is(err, fault.Invalid) || b.Keys != nil {
			t.Errorf("%q for %q: accepted, or %v", c[2], c[1], err)
			continue
		}
		if s := err.Error(); strings.Contains(s, "R0VI") || strings.Contains(s, "GEHEIM") || strings.Contains(s, "AAEC") {
			t.Errorf("an error shows a secret: %s", s)
		}
	}
	if _, err := Read([]byte(plain), Options{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("in clear: %v", err)
	}
	doc := []byte(strings.Replace(plain, "</KeyContainer>", plain[strings.Index(plain, "<KeyPackage>"):], 1))
	if _, err := Read(doc, open); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("same serial twice: %v", err)
	}
	if len(bytes.Trim(doc, "\x00")) != 0 {
		t.Error("a refused file was not cleared")
	}
	if _, err := Read(make([]byte, MaxBytes+1), open); !fault.Is(err, fault.Invalid) {
		t.Errorf("huge: %v", err)
	}
}

func TestTable(t *testing.T) {
	const body = "FT1,3132333435363738393031323334353637383930,HOTP,7,6\r\n\r\n# a note\nft2, \"3132333435363738393031323334353637383930\" ,time,60,8,SHA-256\n"
	want := Batch{Keys: []Key{
		{Serial: serial(t, "FT1"), Seed: []byte("12345678901234567890"), Counter: 7, Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6}},
		{Serial: serial(t, "FT2"), Seed: []byte("12345678901234567890"), Parameters: oath.Parameters{Kind: oath.Time, Hash: oath.SHA256, Digits: 8, Period: time.Minute}},
	}}
	b32 := func(s string) string {
		return strings.ReplaceAll(s, "3132333435363738393031323334353637383930", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq")
	}
	for _, c := range []struct {
		doc string
		enc Encoding
	}{
		{body, Hex}, {b32(body), Base32}, {strings.ReplaceAll(body, ",", ";"), Hex}, {strings.ReplaceAll(body, ",", "\t"), Hex},
		{"\xef\xbb\xbfSerial Number,Secret,Type,Counter/Interval,OTP length,Hash\n" + body, Hex},
		{"digits,algorithm,seed,serial_no,counter,kind\n6,,3132333435363738393031323334353637383930,FT1,7,event\n8,sha256,3132333435363738393031323334353637383930,FT2,60,totp", Hex},
	} {
		doc := []byte(c.doc)
		b, problems, err := ReadTable(doc, c.enc)
		if err != nil || problems != nil {
			t.Errorf("%q: %v %v", c.doc, problems, err)
			continue
		}
		if diff := cmp.Diff(want, b, texts); diff != "" {
			t.Error(diff)
		}
		if len(bytes.Trim(doc, "\x00")) != 0 {
			t.Error("the file was not cleared")
		}
	}
}

// TestTableProblems: each bad line is named, none of its seed is told.
func TestTableProblems(t *testing.T) {
	const seed = "3132333435363738393031323334353637383930"
	lines := []string{
		"1," + seed + ",hotp,0,6",
		"2," + seed + ",hotp,0",
		"3," + seed + ",hotp,0,6,sha1,x",
		"4 4," + seed + ",hotp,0,6",
		"5," + seed + "x,hotp,0,6",
		"6," + seed + ",ocra,0,6",
		"7," + seed + ",hotp,-1,6",
		"8," + seed + ",hotp,0,5",
		"9," + seed + ",totp,45,6",
		"10," + seed + ",totp,30,6,md5",
		"1," + seed + ",hotp,0,6",
		"12,31323334,hotp,0,6",
		"13," + strings.Repeat("ab", 300) + ",hotp,0,6",
		"14," + seed + ",totp,99999999,6",
		"15," + seed + ",hotp,0,six",
	}
	b, problems, err := ReadTable([]byte(strings.Join(lines, "\n")), Hex)
	if !fault.Is(err, fault.Invalid) || b.Keys != nil {
		t.Errorf("%v %v", b, err)
	}
	var got []int
	for _, p := range problems {
		got = append(got, p.Line)
		if strings.Contains(p.Err.Error(), "3132") || strings.Contains(p.Err.Error(), "abab") {
			t.Errorf("line %d shows its seed: %v", p.Line, p.Err)
		}
	}
	if diff := cmp.Diff([]int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, got); diff != "" {
		t.Error(diff)
	}
	for name, doc := range map[string]string{
		"empty": "\n\n#x\n", "unknown heading": "serial,seed,type,counter,digits,colour\n" + lines[0], "two columns": "serial,seed,type,counter,interval,digits\n",
		"missing column": "serial,seed,type,digits\n",
	} {
		if _, _, err := ReadTable([]byte(doc), Hex); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, problems, _ := ReadTable([]byte(strings.Repeat("x,y\n", 1000)), Hex); len(problems) != maxProblems {
		t.Errorf("%d problems", len(problems))
	}
	if _, _, err := ReadTable([]byte(lines[0]), 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("no encoding: %v", err)
	}
	if _, _, err := ReadTable([]byte("A,GEZDGNBVGY3TQOJ1GEZDGNBV,hotp,0,6"), Base32); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "GEZD") {
		t.Errorf("base32 with a 1: %v", err)
	}
}

// TestMany: the last device that fits, and one more.
func TestMany(t *testing.T) {
	b := Batch{Keys: make([]Key, MaxKeys-1)}
	seen := map[id.Serial]bool{}
	key := func(s string) Key {
		return Key{Serial: serial(t, s), Seed: []byte("12345678901234567890"), Parameters: oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6}}
	}
	if err := b.add(key("a"), seen); err != nil {
		t.Error(err)
	}
	more := key("b")
	if err := b.add(more, seen); !fault.Is(err, fault.Invalid) || more.Seed[0] != 0 {
		t.Errorf("one more: %v, seed %q", err, more.Seed)
	}
}

// FuzzXML compares our reader with the standard library's: what we accept, it
// accepts and understands alike.
func FuzzXML(f *testing.F) {
	for _, s := range []string{plain, rfc6, `<a/>`, `<a b='c'>&lt;&#x41;</a>`, `<x:a xmlns:x="u"><b xmlns="v">t</b></x:a>`, `<!-- - --><a> <b/> </a>`, `<a>]]&gt;</a>`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		theirs, terr := flatten(bytes.Clone(doc))
		root, err := parseXML(doc)
		if err != nil {
			return
		}
		if terr != nil {
			t.Fatalf("we accept what encoding/xml refuses: %v", terr)
		}
		var ours []string
		var walk func(e *element)
		walk = func(e *element) {
			ours = append(ours, "<"+e.space+" "+e.name)
			if len(e.kids) == 0 && len(e.text) > 0 {
				ours = append(ours, strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(e.text)))
			}
			for _, k := range e.kids {
				walk(k)
			}
			ours = append(ours, ">")
		}
		walk(root)
		// encoding/xml turns carriage returns into line feeds, ours stay.
		for i := range theirs {
			theirs[i] = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(theirs[i])
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Fatal(diff)
		}
	})
}

func flatten(doc []byte) (flat []string, err error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))))
	open := 0
	leaf := false
	text := ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return flat, nil
		}
		if err != nil {
			return nil, err
		}
		switch v := tok.(type) {
		case xml.StartElement:
			flat, leaf, text = append(flat, "<"+v.Name.Space+" "+v.Name.Local), true, ""
			open++
		case xml.EndElement:
			if leaf && text != "" {
				flat = append(flat, text)
			}
			flat, leaf = append(flat, ">"), false
			open--
		case xml.CharData:
			text += string(v)
		case xml.Comment:
		}
	}
}

// FuzzRead: no file panics, and what is accepted holds to the bounds.
func FuzzRead(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(rfc6))
	f.Fuzz(func(t *testing.T, doc []byte) {
		b, err := Read(doc, Options{AllowPlain: true, Key: rfcKey})
		judge(t, doc, b, err)
	})
}

// FuzzTable is the same for tables.
func FuzzTable(f *testing.F) {
	f.Add([]byte("1,3132333435363738393031323334353637383930,hotp,0,6\n"), true)
	f.Add([]byte("serial;seed;type;interval;digits;hash\n\"x\";GEZDGNBVGY3TQOJQ;totp;30;8;sha512\n"), false)
	f.Fuzz(func(t *testing.T, doc []byte, hex bool) {
		enc := Base32
		if hex {
			enc = Hex
		}
		b, _, err := ReadTable(doc, enc)
		judge(t, doc, b, err)
	})
}

func judge(t *testing.T, doc []byte, b Batch, err error) {
	t.Helper()
	if len(bytes.Trim(doc, "\x00")) != 0 {
		t.Fatal("the file was not cleared")
	}
	if err != nil {
		if !fault.Is(err, fault.Invalid) || b.Keys != nil {
			t.Fatal(err)
		}
		return
	}
	if len(b.Keys) == 0 {
		t.Fatal("accepted without a device")
	}
	for _, k := range b.Keys {
		if k.Serial.IsZero() || k.Parameters.Check() != nil || len(k.Seed) < minSeed || len(k.Seed) > maxSeed {
			t.Fatalf("%+v", k)
		}
	}
}
