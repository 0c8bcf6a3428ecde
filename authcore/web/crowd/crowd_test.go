package crowd

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

func TestLimit(t *testing.T) {
	all := Limit(nil, 2, 0, slog.New(slog.DiscardHandler))
	for i := range 3 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		if kept := all.admit(ours); (kept != nil) != (i < 2) {
			t.Errorf("connection %d: %v", i, kept)
		}
	}
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		if got := network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// shortage is a listener that has no descriptor left at first.
type shortage struct {
	net.Listener
	errs []error
}

func (s *shortage) Accept() (net.Conn, error) {
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	ours, _ := net.Pipe()
	return ours, nil
}

// TestAcceptOutlivesAShortage: fasthttp takes any error of Accept for the end;
// whoever fills the table of open files must not stop the server.
func TestAcceptOutlivesAShortage(t *testing.T) {
	l := Limit(&shortage{errs: []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED}}, 2, 0, slog.New(slog.DiscardHandler))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Listener = &shortage{errs: []error{syscall.EINVAL}}
	if _, err := l.Accept(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v", err)
	}
}
