// Package process is the one home of processes: it starts this binary in another role and
// watches it, locks memory, and sees to it that one process owns the state directory. What the roles are is cmd/custode's
// business; there is no shell, no other program and no argument from outside.
//
// A child is this very file (/proc/self/exe, also after an upgrade replaced it), with its own
// end of a socket pair as file 3, in a process group of its own, so that a Ctrl-C meant for the
// parent does not end it first, and killed by the kernel when the parent dies.
//
// Only cmd/custode and its subcommands import this package.
package process

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// Config says what to start.
type Config struct {
	Args   []string  // without the program's name; nothing secret
	Env    []string  // over this process's environment; nothing secret
	Stderr io.Writer // where the child's standard error goes
}

// Child is one started process.
type Child struct {
	Conn net.Conn // our end of the socket pair
	cmd  *exec.Cmd
	tail tail
	over chan struct{}
	err  error // valid once over is closed
}

// inherited is the number of the file that a child finds its end of the socket pair at.
const inherited = 3

// Start starts this binary again.
func Start(cfg Config) (*Child, error) {
	const op = "start a process of our own"
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "worker"), os.NewFile(uintptr(pair[1]), "worker")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	c := &Child{Conn: conn, over: make(chan struct{}), tail: tail{to: cfg.Stderr}}
	c.cmd = exec.Command("/proc/self/exe", cfg.Args...)
	c.cmd.Env = append(os.Environ(), cfg.Env...)
	c.cmd.ExtraFiles = []*os.File{theirs} // becomes file 3
	c.cmd.Stderr = &c.tail
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c.cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread ends that made the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
		}
		close(c.over)
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(fault.New(fault.Unavailable, op, err), conn.Close())
	}
	return c, nil
}

// PID is the child's process number.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// End waits until the child has ended, at most so long, and kills it then. It returns the exit
// status, -1 for a signal, and the last line of standard error.
func (c *Child) End(limit time.Duration) (status int, said string) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.over:
	case <-timer.C:
		_ = c.cmd.Process.Kill() // it may have ended just now
		<-c.over
	}
	said = c.tail.last()
	if said == "" && c.err != nil {
		said = c.err.Error()
	}
	return c.cmd.ProcessState.ExitCode(), said
}

// Inherited returns a child's end of the socket pair. It may be called once.
func Inherited() (net.Conn, error) {
	f := os.NewFile(inherited, "parent")
	if f == nil {
		return nil, fault.Newf(fault.Fatal, "take the parent's socket", "there is none")
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fault.New(fault.Fatal, "take the parent's socket", err)
	}
	return c, nil
}

// tail passes on what is written and keeps the beginning of the last line.
type tail struct {
	to io.Writer

	mu   sync.Mutex
	line []byte
	done bool // line is complete
}

const maxTail = 1 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	for rest := p; len(rest) > 0; {
		part, more, ended := bytes.Cut(rest, []byte("\n"))
		if t.done {
			t.line, t.done = t.line[:0], false
		}
		t.line = append(t.line, part[:min(len(part), maxTail-len(t.line))]...)
		t.done, rest = ended, more
	}
	t.mu.Unlock()
	if t.to == nil {
		return len(p), nil
	}
	return t.to.Write(p)
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.line)
}
