// Package mail carries seals of the certified log by mail, to somebody who keeps
// what arrives (an auditor's mailbox, a certified mail service), and reads them
// again from saved letters.
//
// A letter is plain MIME: a text for people, and the seal as attachment
// checkpoint.p7m (destruction.p7m for a statement of destruction),
// application/pkcs7-mime. Subject and the header fields X-Custode-Log,
// X-Custode-File and X-Custode-SHA256 name log, file and the SHA-256 of the
// attachment; they are for sorting, only the seal proves. What goes out is SMTP
// (RFC 5321) with STARTTLS (RFC 3207) or TLS from the start (RFC 8314); without
// TLS to a loopback address alone.
//
// cmd makes a Sender for internal/certlog/witness; whoever verifies calls Read.
package mail

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"strings"
	"time"

	"custode/internal/fault"
)

// TLS says how a connection is protected.
type TLS string

// The ways. None is for a loopback address only.
const (
	StartTLS TLS = "starttls"
	Implicit TLS = "implicit"
	None     TLS = "none"
)

// Sender sends letters. Its fields must not be changed once it is used.
type Sender struct {
	Server   string // host:port
	TLS      TLS
	Roots    *x509.CertPool // of the server's certificate; nil: the system's
	From     string         // address alone, as are To
	To       []string
	Username string // "": no login
	Password []byte
	Timeout  time.Duration // for one letter
	Now      func() time.Time
}

// Send hands one letter over; nil says that the server took it for every
// recipient. name is the file's, N.p7m, N.bes or destroyed-N.p7m. Every failure
// but a refused configuration is fault.Unavailable; no text holds the password.
func (s *Sender) Send(ctx context.Context, log, name string, octets []byte) error {
	op := "mail " + name + " of " + log + " to " + strings.Join(s.To, ", ")
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	host, _, err := net.SplitHostPort(s.Server)
	if err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.Server)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	defer conn.Close()
	// Closing is what ends a conversation that takes too long.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := s.converse(ctx, conn, host, log, name, octets); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if fault.Is(err, fault.Invalid) {
			return err
		}
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}

func (s *Sender) converse(ctx context.Context, conn net.Conn, host, log, name string, octets []byte) error {
	config := &tls.Config{ServerName: host, RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
	switch s.TLS {
	case Implicit:
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	case None:
		if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			return fault.Newf(fault.Invalid, "send mail", "without TLS only to a loopback address")
		}
	case StartTLS:
	default:
		return fault.Newf(fault.Invalid, "send mail", "%q is no way to protect a connection", s.TLS)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if err := c.Hello(domain(s.From)); err != nil {
		return err
	}
	if s.TLS == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errors.New("the server offers no STARTTLS")
		}
		if err := c.StartTLS(config); err != nil {
			return err
		}
	}
	if s.Username != "" {
		if err := c.Auth(smtp.PlainAuth("", s.Username, string(s.Password), host)); err != nil {
			return fmt.Errorf("login: %w", err)
		}
	}
	if err := c.Mail(s.From); err != nil {
		return err
	}
	for _, to := range s.To {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(s.letter(log, name, octets)); err != nil {
		return err
	}
	if err := w.Close(); err != nil { // the server's yes
		return err
	}
	_ = c.Quit() // it has the letter
	return nil
}

func domain(address string) string {
	_, d, _ := strings.Cut(address, "@")
	return d
}

// letter composes the octets. The boundary and the Message-ID come from the
// attachment: the same seal twice is the same letter.
func (s *Sender) letter(log, name string, octets []byte) []byte {
	sum := fmt.Sprintf("%x", sha256.Sum256(octets))
	stem, suffix, _ := strings.Cut(name, ".")
	what, file := "checkpoint", "checkpoint.p7m"
	if rest, ok := strings.CutPrefix(stem, "destroyed-"); ok {
		what, file, stem = "statement of destruction", "destruction.p7m", rest
	}
	state := "sealed and time-stamped"
	if suffix == "bes" {
		state = "sealed, not yet time-stamped"
	}
	segment := strings.TrimLeft(stem, "0")
	boundary := "=_" + sum[:40]
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", "<" + s.From + ">"}, {"To", "<" + strings.Join(s.To, ">, <") + ">"},
		{"Subject", "Custode " + what + ", log " + log + ", segment " + segment + ", sha256 " + sum},
		{"Date", s.Now().UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + sum[:40] + "." + log + "@" + domain(s.From) + ">"},
		{"Auto-Submitted", "auto-generated"}, {"X-Custode-Log", log}, {"X-Custode-File", name}, {"X-Custode-SHA256", sum},
		{"MIME-Version", "1.0"}, {"Content-Type", `multipart/mixed; boundary="` + boundary + `"`},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", boundary)
	fmt.Fprintf(&b, "The attached %s belongs to segment %s of the log %s (%s).\r\nSHA-256 of the attachment: %s\r\n\r\n"+
		"Keep this letter as it is: with it anybody can show that the log was not\r\nshortened or rewritten since (custode-verify --mail).\r\n", what, segment, log, state, sum)
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: application/pkcs7-mime; name=\"%s\"\r\nContent-Disposition: attachment; filename=\"%s\"\r\nContent-Transfer-Encoding: base64\r\n\r\n", boundary, file, file)
	text := base64.StdEncoding.EncodeToString(octets)
	for len(text) > 0 {
		n := min(len(text), 76)
		b.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return b.Bytes()
}
