package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line opens a pty pair and a Port on its slave; master plays the modem.
func line(t *testing.T) (master *os.File, device string, p *Port) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	device = slave.Name()
	p, err = Open(Config{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	slave.Close()
	t.Cleanup(func() { p.Close(); master.Close() })
	return master, device, p
}

func next(t *testing.T, p *Port) Token {
	t.Helper()
	select {
	case tok := <-p.Tokens():
		return tok
	case <-time.After(2 * time.Second):
		t.Fatal("no token in 2 s")
		return Token{}
	}
}

func closeFast(t *testing.T, p *Port) {
	t.Helper()
	start := time.Now()
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("close took %v", took)
	}
}

func TestExchange(t *testing.T) {
	master, _, p := line(t)
	if err := p.Write(t.Context(), []byte("AT\r")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, err := master.Read(buf)
	if err != nil || string(buf[:n]) != "AT\r" {
		t.Fatalf("modem got %q, %v", buf[:n], err)
	}
	fmt.Fprint(master, "\r\nOK\r\n\r\n> ")
	if got := []Token{next(t, p), next(t, p)}; !cmp.Equal(got, []Token{{Kind: Line, Text: "OK"}, {Kind: Prompt}}) {
		t.Errorf("got %v", got)
	}
	closeFast(t, p)
	if tok, ok := <-p.Tokens(); ok || tok.Kind != Dead {
		t.Errorf("after close: %v %v", tok, ok)
	}
	if err := p.Write(t.Context(), []byte("x")); !fault.Is(err, fault.Reopen) {
		t.Errorf("write after close: %v", err)
	}
	closeFast(t, p)
}

func TestUnplug(t *testing.T) {
	master, _, p := line(t)
	fmt.Fprint(master, "\r\nlast words\r\n")
	if tok := next(t, p); tok.Text != "last words" {
		t.Fatalf("got %v", tok)
	}
	before := cpuTime(t)
	master.Close()
	if tok := next(t, p); tok.Kind != Dead || !fault.Is(tok.Err, fault.Reopen) {
		t.Fatalf("after unplug: %v", tok)
	}
	if _, ok := <-p.Tokens(); ok {
		t.Error("the token channel stayed open")
	}
	// The reader is gone, so nothing can spin; the figure guards against a
	// future reader that is not.
	time.Sleep(200 * time.Millisecond)
	if used := cpuTime(t) - before; used > 100*time.Millisecond {
		t.Errorf("a dead port used %v of CPU in 200 ms", used)
	}
	if err := p.Write(t.Context(), []byte("AT\r")); !fault.Is(err, fault.Reopen) {
		t.Errorf("write: %v", err)
	}
	closeFast(t, p)
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func TestCloseUnblocksEverything(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		_, _, p := line(t)
		closeFast(t, p)
	})
	t.Run("nobody takes the tokens", func(t *testing.T) {
		master, _, p := line(t)
		for range 3 * tokenRoom {
			fmt.Fprint(master, "\r\n^RSSI: 12\r\n")
		}
		closeFast(t, p)
	})
	t.Run("write stalled", func(t *testing.T) {
		_, _, p := line(t)
		result := make(chan error, 1)
		go func() { result <- p.Write(context.Background(), make([]byte, 1<<20)) }()
		select {
		case err := <-result:
			t.Fatalf("a write nobody reads ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		closeFast(t, p)
		if err := <-result; !fault.Is(err, fault.Reopen) {
			t.Errorf("stalled write: %v", err)
		}
	})
	t.Run("reader asleep with foreign settings", func(t *testing.T) {
		master, device, p := line(t)
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		tio, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		tio.Cc[unix.VMIN], tio.Cc[unix.VTIME] = 200, 0
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, tio); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(master, "x")
		time.Sleep(20 * time.Millisecond)
		closeFast(t, p)
	})
}

func TestWriteDeadline(t *testing.T) {
	_, _, p := line(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := p.Write(ctx, make([]byte, 1<<20))
	if !fault.Is(err, fault.Retry) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stalled write: %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestExclusive(t *testing.T) {
	_, device, p := line(t)
	_, err := Open(Config{Device: device})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	closeFast(t, p)
	again, err := Open(Config{Device: device})
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	closeFast(t, again)
}

func TestOpenRefusals(t *testing.T) {
	if _, err := Open(Config{Device: "/nonexistent/tty"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("missing device: %v", err)
	}
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if _, err := Open(Config{Device: slave.Name(), Baud: 12345}); !fault.Is(err, fault.Invalid) {
		t.Errorf("odd speed: %v", err)
	}
	p, err := Open(Config{Device: slave.Name(), HardwareFlow: true})
	if err != nil {
		t.Fatalf("the refused opening kept the lock: %v", err)
	}
	if err := p.SetDTR(false); !fault.Is(err, fault.Unavailable) {
		t.Errorf("DTR on a pty: %v", err)
	}
	closeFast(t, p)
}

func TestEmptyReads(t *testing.T) {
	var e emptyReads
	for i, c := range []struct {
		n    int
		err  error
		took time.Duration
		dead bool
	}{
		{0, io.EOF, 104 * time.Millisecond, false},
		{0, io.EOF, time.Microsecond, false},
		{0, io.EOF, time.Microsecond, false},
		{5, nil, time.Microsecond, false},
		{0, io.EOF, time.Microsecond, false},
		{0, io.EOF, time.Microsecond, false},
		{0, io.EOF, time.Microsecond, true},
		{0, syscall.EIO, time.Millisecond, true},
	} {
		if got := e.dead(c.n, c.err, c.took); (got != nil) != c.dead {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func split(chunks ...string) (out []Token, s splitter) {
	for _, c := range chunks {
		s.feed([]byte(c), func(t Token) bool { out = append(out, t); return true })
	}
	return out, s
}

func TestSplit(t *testing.T) {
	l := func(s string) Token { return Token{Kind: Line, Text: s} }
	pr := Token{Kind: Prompt}
	for in, want := range map[string][]Token{
		"\r\nOK\r\n":                         {l("OK")},
		"\r\r\nOK\r\r\n":                     {l("OK")},
		"OK\n\r+CSQ: 1\n":                    {l("OK"), l("+CSQ: 1")},
		"\r\nOK\r\n\r\n+CMTI: \"ME\",1\r\n":  {l("OK"), l(`+CMTI: "ME",1`)},
		"\r\n> ":                             {pr},
		">":                                  {pr},
		"\r\n> 0011AB\r\n+CMGS: 5\r\n":       {pr, l("0011AB"), l("+CMGS: 5")},
		"AT+CMGS=20\r\r\n> \r\n+CMGS: 5\r\n": {l("AT+CMGS=20"), pr, l("+CMGS: 5")},
		"\x00\xff\x00RDY\r\n":                {l("RDY")},
		"a > b\r\n":                          {l("a > b")},
		strings.Repeat("x", MaxLine+1) + "\r\nOK\r": {l("OK")},
		strings.Repeat("x", MaxLine) + "\r":         {l(strings.Repeat("x", MaxLine))},
		"half":                                      nil,
	} {
		whole, _ := split(in)
		bytewise, s := split(strings.Split(in, "")...)
		if !cmp.Equal(whole, want) || !cmp.Equal(bytewise, want) {
			t.Errorf("%.40q: got %v / %v, want %v", in, whole, bytewise, want)
		}
		if cap(s.line) > 2*MaxLine {
			t.Errorf("%.40q: %d octets kept", in, cap(s.line))
		}
	}
}

// FuzzSplit checks that tokens do not depend on how reads cut the stream, and
// that each is bounded and printable.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("\r\nOK\r\n> "), 3)
	f.Add([]byte("\x00\xff>>\r\n+CDS: 26\r\n0006"), 5)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > 0 {
			cut = ((cut % len(b)) + len(b)) % len(b)
		} else {
			cut = 0
		}
		whole, s := split(string(b))
		parts, _ := split(string(b[:cut]), string(b[cut:]))
		if !cmp.Equal(whole, parts) {
			t.Fatalf("cut at %d: %v, whole: %v", cut, parts, whole)
		}
		for _, tok := range whole {
			if len(tok.Text) > MaxLine || strings.ContainsFunc(tok.Text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("token %q", tok.Text)
			}
		}
		if len(s.line) > MaxLine {
			t.Fatal("line buffer over its bound")
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	master, slave, err := pty.Open()
	if err != nil {
		b.Fatal(err)
	}
	p, err := Open(Config{Device: slave.Name()})
	if err != nil {
		b.Fatal(err)
	}
	slave.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			if _, err := master.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(master, "\r\nOK\r\n"); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if err := p.Write(context.Background(), []byte("AT\r")); err != nil {
			b.Fatal(err)
		}
		<-p.Tokens()
	}
	p.Close()
	master.Close()
}
