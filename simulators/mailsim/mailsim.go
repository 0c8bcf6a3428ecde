// Package mailsim is a mail server for tests: it speaks enough SMTP (RFC 5321) to
// take a letter on a loopback port, with STARTTLS, TLS from the start or neither,
// with or without a login, and keeps letters in memory or as .eml files. It is
// honest until it is told to refuse.
package mailsim

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config says how the server behaves.
type Config struct {
	Implicit   bool   // TLS from the start
	NoSTARTTLS bool   // it offers none
	User, Pass string // wanted before MAIL; "" for none
	Dir        string // letters are kept here as N.eml; "": in memory alone
}

// Server is a running server.
type Server struct {
	Addr string
	Root *x509.Certificate // to trust it by

	cfg  Config
	tls  *tls.Config
	ln   net.Listener
	mu   sync.Mutex
	got  [][]byte
	no   string // refusal of MAIL, "" for none
	open map[net.Conn]bool
}

// Start listens on a loopback port; its certificate is for localhost and 127.0.0.1.
func Start(cfg Config) (*Server, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Simulated mail server"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, open: map[net.Conn]bool{}, tls: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}}
	if s.Root, err = x509.ParseCertificate(raw); err != nil {
		return nil, err
	}
	if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.Addr = s.ln.Addr().String()
	go s.accept()
	return s, nil
}

// RootPEM is the certificate as PEM.
func (s *Server) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Root.Raw})
}

// Refuse makes it answer MAIL with that line (for instance "451 later"); "" ends it.
func (s *Server) Refuse(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.no = line
}

// Letters returns what was taken.
func (s *Server) Letters() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.got...)
}

// Close stops it and ends its conversations.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close()
	}
	return s.ln.Close()
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		go func() {
			defer func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.open, c)
				_ = c.Close()
			}()
			if s.cfg.Implicit {
				s.talk(tls.Server(c, s.tls), true)
				return
			}
			s.talk(c, false)
		}()
	}
}

func (s *Server) talk(c net.Conn, secure bool) {
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	say("220 mailsim")
	in, known := bufio.NewReader(c), s.cfg.User == ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mailsim")
			if !secure && !s.cfg.NoSTARTTLS {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go")
			c = tls.Server(c, s.tls)
			in, secure = bufio.NewReader(c), true
		case "AUTH":
			_, proof, _ := strings.Cut(rest, " ")
			text, _ := base64.StdEncoding.DecodeString(proof)
			if known = string(text) == "\x00"+s.cfg.User+"\x00"+s.cfg.Pass; !known {
				say("535 no")
				continue
			}
			say("235 welcome")
		case "MAIL":
			s.mu.Lock()
			no := s.no
			s.mu.Unlock()
			if no == "" && !known {
				no = "530 who are you"
			}
			if no == "" {
				no = "250 ok"
			}
			say(no)
		case "RCPT", "NOOP", "RSET":
			say("250 ok")
		case "DATA":
			say("354 speak")
			letter, err := data(in)
			if err != nil {
				return
			}
			if err := s.keep(letter); err != nil {
				say("452 " + err.Error())
				continue
			}
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what")
		}
	}
}

// data reads a letter up to the lone dot (RFC 5321, section 4.5.2).
func data(in *bufio.Reader) ([]byte, error) {
	var b bytes.Buffer
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if bytes.Equal(line, []byte(".\r\n")) {
			return b.Bytes(), nil
		}
		b.Write(bytes.TrimPrefix(line, []byte(".")))
	}
}

func (s *Server) keep(letter []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, letter)
	if s.cfg.Dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(s.cfg.Dir, fmt.Sprintf("%d.eml", len(s.got))), letter, 0o600)
}
