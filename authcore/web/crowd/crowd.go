// Package crowd bounds how many connections a server holds: of all peers, and of one, an IPv4
// address or an IPv6 /64. Those beyond are closed before the server sees them. It
// outlives a shortage of descriptors, which ends servers that take any error of
// Accept for the end.
//
// It knows nothing of HTTP. It may be imported by authcore/web.
package crowd

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// PeerOf returns the address of a connection's other end, unmapped and without
// a zone; the zero Addr when it is not an IP address.
func PeerOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Listener closes connections beyond the limits. fasthttp's MaxConnsPerIP
// counts IPv4 peers only, and what it answers beyond its limits lacks our
// headers and is written in the accepting loop.
type Listener struct {
	net.Listener
	total int
	limit int
	log   *slog.Logger

	mu    sync.Mutex
	open  map[netip.Prefix]int
	conns map[*conn]struct{}
	told  time.Time
}

// Limit returns a listener on ln that keeps total connections of all peers and most of one
// (not positive: any number).
func Limit(ln net.Listener, total, most int, log *slog.Logger) *Listener {
	return &Listener{Listener: ln, total: total, limit: most, log: log, open: map[netip.Prefix]int{}}
}

// acceptPause is how long accepting rests when the system has no room for one
// more connection.
const acceptPause = 20 * time.Millisecond

// passing reports whether accepting may go on after err: another program, or
// a crowd of our own peers, holds what it takes.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Accept returns the next connection within the limits. fasthttp ends at the
// first error, so a shortage is waited out here.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if passing(err) {
			l.tell("cannot accept a connection", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if err != nil {
			return nil, err
		}
		if pc := l.admit(c); pc != nil {
			return pc, nil
		}
		_ = c.Close()
	}
}

func (l *Listener) admit(c net.Conn) net.Conn {
	p := network(PeerOf(c.RemoteAddr()))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.total || (l.limit > 0 && l.open[p] >= l.limit) {
		l.tell("too many connections", "open", len(l.conns), "peer", p.String(), "of the peer", l.open[p])
		return nil
	}
	l.open[p]++
	pc := &conn{Conn: c, list: l, peer: p}
	if l.conns == nil {
		l.conns = map[*conn]struct{}{}
	}
	l.conns[pc] = struct{}{}
	return pc
}

// tell warns at most once a minute.
func (l *Listener) tell(what string, args ...any) {
	if now := time.Now(); now.Sub(l.told) > time.Minute { // real time: only paces the log
		l.told = now
		l.log.Warn(what, args...)
	}
}

// CloseAll closes every open connection.
func (l *Listener) CloseAll() {
	l.mu.Lock()
	var all []*conn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// network is what counts as one peer: an IPv4 address or an IPv6 /64, the
// smallest block a line is given.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

type conn struct {
	net.Conn
	list *Listener
	peer netip.Prefix
	once sync.Once
}

// Close closes the connection and gives its place back, once.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.list.mu.Lock()
		defer c.list.mu.Unlock()
		delete(c.list.conns, c)
		if c.list.open[c.peer]--; c.list.open[c.peer] <= 0 {
			delete(c.list.open, c.peer)
		}
	})
	return c.Conn.Close()
}
