// Package port is a serial line to a modem, made of github.com/tarm/serial and
// the safeguards that library lacks. It is the only home of a serial library.
//
// What the library does on Linux, and what this package does about it:
//
//   - A read time-out is reported as (0, io.EOF), and so is every read after an
//     unplug, at once and for ever. Reads here happen only when poll(2) says
//     that something is there, and an empty read is judged by the time it took:
//     three quick ones in a row mean a dead line, not a busy loop.
//   - Close waits for a pending Read, for ever when no time-out is set. Here the
//     reader sleeps in poll(2) together with an event descriptor, so Close ends
//     it at once; the library's own read time-out of 100 ms is the second belt.
//   - Write has no deadline: a modem that holds CTS low blocks it until unplug.
//     Writes here go through a second, non-blocking descriptor of the same tty
//     and obey a context.
//   - Two programs may open one port. The second descriptor carries a flock, and
//     a lock file of the old kind (/var/lock/LCK..ttyUSB2) is made where that is
//     possible; a refusal names the process that holds the port.
//   - Modem lines and hardware flow control do not exist in the library; they are
//     set through the second descriptor and are never fatal (a pty has none).
//
// Above the line the unit is the Token: a line without its end, the prompt ">",
// or the news that the port is dead. Lines are at most MaxLine octets of
// printable ASCII; noise (wrong speed, a booting modem) is dropped and counted.
// The package knows nothing of AT commands. Only package modem and modem/at
// (for the Token type) may import it.
package port

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarm/serial"
	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// TokenKind says what the port saw.
type TokenKind uint8

// The kinds. Dead is the zero value on purpose: a receive from the closed token
// channel reads as Dead.
const (
	Dead   TokenKind = iota // the line is gone; the channel is closed after it
	Line                    // one line, without its end
	Prompt                  // ">" at the start of a line (27.005 section 3.5.1), not ended by a newline
)

// Token is one thing the modem said. Text is set for Line only, Err for Dead
// only (nil after Close). Text may be the content of a received message: it does
// not belong in a log.
type Token struct {
	Kind TokenKind
	Text string
	Err  error
}

// Config names a line. Device is a path, preferably one of /dev/serial/by-path.
// Baud 0 means 115200. HardwareFlow turns RTS/CTS on.
type Config struct {
	Device       string
	Baud         int
	HardwareFlow bool
}

// Stats counts what was dropped since Open.
type Stats struct {
	LongLines uint64 // lines over MaxLine, dropped whole
	Noise     uint64 // octets that are not printable ASCII
}

const (
	// readTimeout is VTIME 1, the library's smallest useful value.
	readTimeout = 100 * time.Millisecond
	// closeWait bounds Close when the reader does not obey (another program
	// changed the terminal settings under us).
	closeWait = 120 * time.Millisecond
	tokenRoom = 64
)

// Port is an open line. One goroutine reads it from Open to Close.
type Port struct {
	device  string
	uucp    string // lock file of the old kind, "" for none
	tty     *serial.Port
	fd      int // second descriptor: poll, write, lock, modem lines
	wakeFD  int
	tokens  chan Token
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
	closeE  error

	mu     sync.Mutex // held by a Write in progress; guards closed
	closed bool

	longLines, noise atomic.Uint64
}

// Open locks the device, sets 8N1 raw mode and starts the reader. A missing or
// held device is fault.Unavailable (the text names the holder), a wrong
// configuration fault.Invalid.
func Open(cfg Config) (*Port, error) {
	op := "open modem port " + cfg.Device
	if cfg.Baud == 0 {
		cfg.Baud = 115200
	}
	// The lock comes before the library touches the terminal settings: they
	// belong to whoever holds the port now.
	fd, err := unix.Open(cfg.Device, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := lockHolder(fd)
		_ = unix.Close(fd)
		return nil, fault.Newf(fault.Unavailable, op, "held by %s: %w", holder, err)
	}
	uucp, err := uucpLock(lockDir, cfg.Device)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	drop := func() {
		_ = unix.Close(fd)
		if uucp != "" {
			_ = os.Remove(uucp)
		}
	}
	wakeFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		drop()
		return nil, fault.New(fault.Unavailable, op, err)
	}
	tty, err := serial.OpenPort(&serial.Config{Name: cfg.Device, Baud: cfg.Baud, ReadTimeout: readTimeout})
	if err != nil {
		drop()
		_ = unix.Close(wakeFD)
		kind := fault.Unavailable
		var errno unix.Errno
		if !errors.As(err, &errno) {
			kind = fault.Invalid // the library's own refusals: speed, word size
		}
		return nil, fault.New(kind, op, err)
	}
	p := &Port{
		device: cfg.Device, uucp: uucp, tty: tty, fd: fd, wakeFD: wakeFD,
		tokens: make(chan Token, tokenRoom), closing: make(chan struct{}), done: make(chan struct{}),
	}
	if cfg.HardwareFlow {
		p.setFlow()
	}
	_ = p.SetDTR(true) // a pty has no modem lines
	go p.read()
	return p, nil
}

// Tokens returns the channel of what the modem says. It is closed after a Dead
// token or after Close. A consumer that does not read it stops the modem by
// back-pressure, not by memory.
func (p *Port) Tokens() <-chan Token { return p.tokens }

// Stats returns the drop counters.
func (p *Port) Stats() Stats {
	return Stats{LongLines: p.longLines.Load(), Noise: p.noise.Load()}
}

// Write sends b whole or fails: fault.Retry when ctx ended first (how much left
// is unknown then), fault.Reopen when the line is dead or closed.
func (p *Port) Write(ctx context.Context, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	op := "write to modem port " + p.device
	for len(b) > 0 {
		if p.closed {
			return fault.New(fault.Reopen, op, os.ErrClosed)
		}
		n, err := unix.Write(p.fd, b)
		switch {
		case err == nil && n > 0:
			b = b[n:]
			continue
		case err == nil || errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return fault.New(fault.Reopen, op, err)
		}
		if err := ctx.Err(); err != nil {
			return fault.Newf(fault.Retry, op, "%d octets not taken: %w", len(b), err)
		}
		if p.waitWritable() {
			return fault.New(fault.Reopen, op, os.ErrClosed)
		}
	}
	return nil
}

// waitWritable sleeps until the tty takes more, at most 20 ms so that the caller
// can look at its context; it reports that the port is being closed.
func (p *Port) waitWritable() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLOUT}, {Fd: int32(p.wakeFD), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, 20)
	return fds[1].Revents != 0
}

// SetDTR raises or drops the DTR line. On a pty it fails with fault.Unavailable,
// which callers may ignore.
func (p *Port) SetDTR(up bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fault.New(fault.Reopen, "set DTR of "+p.device, os.ErrClosed)
	}
	req := uint(unix.TIOCMBIC)
	if up {
		req = unix.TIOCMBIS
	}
	if err := unix.IoctlSetPointerInt(p.fd, req, unix.TIOCM_DTR); err != nil {
		return fault.New(fault.Unavailable, "set DTR of "+p.device, err)
	}
	return nil
}

// setFlow turns RTS/CTS on; a driver without it keeps working.
func (p *Port) setFlow() {
	t, err := unix.IoctlGetTermios(p.fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Cflag |= unix.CRTSCTS
	_ = unix.IoctlSetTermios(p.fd, unix.TCSETS, t)
}

// Close ends the reader, a Write in progress, and the lock. It takes less than
// 300 ms in every state of the line and may be called again and from any
// goroutine.
func (p *Port) Close() error {
	p.once.Do(func() {
		close(p.closing)
		_, _ = unix.Write(p.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		p.mu.Lock() // a blocked Write sees wakeFD within 20 ms and leaves
		p.closed = true
		p.mu.Unlock()
		if p.readerGone() {
			p.closeE = p.release()
			return
		}
		// A read that does not end: hand the descriptors to a goroutine that
		// outlives us rather than hang the caller.
		go func() { <-p.done; _ = p.release() }()
		p.closeE = fault.Newf(fault.Internal, "close modem port "+p.device, "the reader did not end in time")
	})
	return p.closeE
}

// readerGone waits for the reader; if it sleeps in read(2) with foreign terminal
// settings, writing our own settings wakes it.
func (p *Port) readerGone() bool {
	for range 2 {
		select {
		case <-p.done:
			return true
		case <-time.After(closeWait):
		}
		if t, err := unix.IoctlGetTermios(p.fd, unix.TCGETS); err == nil {
			t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 0, 1
			_ = unix.IoctlSetTermios(p.fd, unix.TCSETS, t)
		}
	}
	return false
}

func (p *Port) release() error {
	// What a stalled modem has not taken would hold close(2) up for the driver's
	// closing_wait, 30 s by default (Linux, tty_port_close_start).
	_ = unix.IoctlSetInt(p.fd, unix.TCFLSH, unix.TCOFLUSH)
	err := p.tty.Close()
	if p.uucp != "" {
		_ = os.Remove(p.uucp)
	}
	_ = unix.Close(p.fd) // drops the lock
	_ = unix.Close(p.wakeFD)
	if err != nil {
		return fault.New(fault.Internal, "close modem port "+p.device, err)
	}
	return nil
}

// read turns octets into tokens until the line dies or Close.
func (p *Port) read() {
	defer close(p.done)
	defer close(p.tokens)
	var s splitter
	var judge emptyReads
	buf := make([]byte, 4096)
	for {
		if stop, err := p.waitReadable(); stop || err != nil {
			p.lastToken(err)
			return
		}
		start := time.Now()
		n, err := p.tty.Read(buf)
		if dead := judge.dead(n, err, time.Since(start)); dead != nil {
			p.lastToken(dead)
			return
		}
		if !s.feed(buf[:max(n, 0)], p.emit) {
			return
		}
		clear(buf[:max(n, 0)])
		p.longLines.Store(s.longLines)
		p.noise.Store(s.noise)
	}
}

// waitReadable sleeps until there is something to read; stop means Close.
func (p *Port) waitReadable() (stop bool, err error) {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}, {Fd: int32(p.wakeFD), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, err
		case fds[1].Revents != 0:
			return true, nil
		case fds[0].Revents&unix.POLLIN != 0:
			return false, nil // even with POLLHUP: the last words are still to be read
		case fds[0].Revents != 0:
			return false, errHangUp
		}
	}
}

var errHangUp = errors.New("hang-up")

func (p *Port) emit(t Token) bool {
	select {
	case p.tokens <- t:
		return true
	case <-p.closing:
		return false
	}
}

func (p *Port) lastToken(err error) {
	if err != nil {
		p.emit(Token{Kind: Dead, Err: fault.New(fault.Reopen, "read modem port "+p.device, err)})
	}
}

// emptyReads tells a time-out from a dead line by how long an empty read took.
type emptyReads struct{ quick int }

// dead returns the reason why the line is dead, or nil.
func (e *emptyReads) dead(n int, err error, took time.Duration) error {
	switch {
	case n > 0:
		e.quick = 0
		return nil
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case took >= readTimeout/2:
		e.quick = 0
		return nil
	}
	e.quick++
	if e.quick >= 3 {
		return errHangUp
	}
	return nil
}

// lockHolder names who holds a flock on the file of fd, from /proc/locks.
func lockHolder(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return "another process"
	}
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return "another process"
	}
	inode := strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		// "1: FLOCK ADVISORY WRITE 812 00:05:337 0 EOF"
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+inode) {
			continue
		}
		return processName(f[4])
	}
	return "another process"
}
