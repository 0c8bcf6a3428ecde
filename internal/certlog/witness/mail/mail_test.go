package mail

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/simulators/mailsim"
)

func start(t *testing.T, cfg mailsim.Config) *mailsim.Server {
	t.Helper()
	s, err := mailsim.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func sender(s *mailsim.Server, how TLS) *Sender {
	roots := x509.NewCertPool()
	roots.AddCert(s.Root)
	return &Sender{Server: s.Addr, TLS: how, Roots: roots, From: "custode@idp.example.it", To: []string{"auditor@example.it", "two@example.it"},
		Timeout: 5 * time.Second, Now: func() time.Time { return time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC) }}
}

// seal is octets like a seal's: every value, and long.
func seal(n byte) []byte {
	out := make([]byte, 3000)
	for i := range out {
		out[i] = byte(i)*n + n
	}
	return out
}

func TestSendAndRead(t *testing.T) {
	for _, how := range []TLS{StartTLS, Implicit, None} {
		dir := t.TempDir()
		server := start(t, mailsim.Config{Implicit: how == Implicit, Dir: dir, User: "custode", Pass: "a secret"})
		s := sender(server, how)
		s.Username, s.Password = "custode", []byte("a secret")
		if how == None {
			// The library speaks no password in clear but to a name it takes for this machine.
			s.Server = "localhost:" + s.Server[strings.LastIndex(s.Server, ":")+1:]
		}
		for name, octets := range map[string][]byte{"000000000012.p7m": seal(1), "destroyed-000000000007.p7m": seal(3)} {
			if err := s.Send(t.Context(), "transactions", name, octets); err != nil {
				t.Fatalf("%s: %v", how, err)
			}
		}
		all := bytes.Join(server.Letters(), nil)
		for _, want := range []string{
			fmt.Sprintf("Subject: Custode checkpoint, log transactions, segment 12, sha256 %x\r\n", sha256.Sum256(seal(1))),
			"Subject: Custode statement of destruction, log transactions, segment 7, sha256 ",
			"X-Custode-Log: transactions\r\n", "X-Custode-File: 000000000012.p7m\r\n", `filename="checkpoint.p7m"`, `filename="destruction.p7m"`,
			"To: <auditor@example.it>, <two@example.it>\r\n", "Date: Sun, 22 Nov 2026 01:02:03 +0000\r\n",
		} {
			if !bytes.Contains(all, []byte(want)) {
				t.Errorf("%s: the letters do not have %q", how, want)
			}
		}
		for line := range bytes.Lines(all) {
			if len(line) > 200 {
				t.Errorf("a line of %d octets", len(line))
			}
		}
		got, err := Read(dir)
		if err != nil || len(got) != 2 || !holds(got, seal(1)) || !holds(got, seal(3)) {
			t.Errorf("%s: read back %d attachments, %v", how, len(got), err)
		}
	}
}

func holds(all [][]byte, one []byte) bool {
	for _, x := range all {
		if bytes.Equal(x, one) {
			return true
		}
	}
	return false
}

func TestSendRefuses(t *testing.T) {
	plain := start(t, mailsim.Config{NoSTARTTLS: true})
	locked := start(t, mailsim.Config{User: "custode", Pass: "a secret"})
	later := start(t, mailsim.Config{})
	later.Refuse("451 later")
	closed := start(t, mailsim.Config{})
	_ = closed.Close()
	wrong := sender(locked, StartTLS)
	wrong.Username, wrong.Password = "custode", []byte("open sesame")
	untrusted := sender(later, StartTLS)
	untrusted.Roots = x509.NewCertPool()
	for name, c := range map[string]struct {
		s    *Sender
		want string
	}{
		"no STARTTLS":    {sender(plain, StartTLS), "offers no STARTTLS"},
		"wrong password": {wrong, "login"},
		"no login":       {sender(locked, StartTLS), "530"},
		"later":          {sender(later, StartTLS), "451"},
		"other root":     {untrusted, "certificate"},
		"nobody there":   {sender(closed, StartTLS), "refused"},
	} {
		err := c.s.Send(t.Context(), "transactions", "000000000001.p7m", seal(1))
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the text holds the password", name)
		}
	}
	if n := len(plain.Letters()) + len(locked.Letters()) + len(later.Letters()); n != 0 {
		t.Errorf("%d letters were taken", n)
	}
}

// TestSilentServer: one that never speaks does not hold the witness.
func TestSilentServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := &Sender{Server: ln.Addr().String(), TLS: None, From: "a@b.it", To: []string{"c@d.it"}, Timeout: 200 * time.Millisecond, Now: time.Now}
	if err := s.Send(t.Context(), "x", "000000000001.p7m", seal(1)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

// TestReadBoxes: mbox, forwarded letters, subfolders, and what is not ours.
func TestReadBoxes(t *testing.T) {
	s := sender(&mailsim.Server{Root: &x509.Certificate{}}, None)
	one := s.letter("transactions", "000000000001.bes", seal(1))
	two := s.letter("security", "000000000002.p7m", seal(5))
	unix := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }
	dir := t.TempDir()
	write := func(name string, parts ...[]byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := []byte("From MAILER Sun Nov 22 01:02:03 2026\n")
	write("box", from, unix(one), []byte("\n"), from, []byte("Subject: lunch?\n\nAt one.\n\n"), from, unix(two), []byte("\n"))
	if got, err := Read(filepath.Join(dir, "box")); err != nil || len(got) != 2 || !holds(got, seal(1)) || !holds(got, seal(5)) {
		t.Errorf("mbox: %d, %v", len(got), err)
	}
	write("sub/forwarded.eml", []byte("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"),
		s.letter("transactions", "000000000003.p7m", seal(7)), []byte("\r\n--x--\r\n"))
	write("sub/long.eml", []byte("Content-Type: application/pkcs7-mime\r\n\r\n"), make([]byte, maxLetter))
	write("sub/garbage.eml", []byte("\x00\xff"))
	got, err := Read(dir)
	if err != nil || len(got) != 3 || !holds(got, seal(7)) {
		t.Errorf("folder: %d, %v", len(got), err)
	}
	if _, err := Read(filepath.Join(dir, "nowhere")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no folder: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	s := &Sender{From: "a@b.it", To: []string{"c@d.it"}, Now: func() time.Time { return time.Unix(0, 0) }}
	f.Add(append([]byte("From x\n"), s.letter("x", "000000000001.p7m", []byte("octets"))...))
	f.Add([]byte("Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: quoted-printable\n\n=41"))
	f.Fuzz(func(t *testing.T, box []byte) {
		if err := letters(bytes.NewReader(box), func(l []byte) {
			for _, a := range attachments(l) {
				if len(a) > maxSeal {
					t.Errorf("%d octets", len(a))
				}
			}
		}); err != nil {
			t.Error(err)
		}
	})
}
