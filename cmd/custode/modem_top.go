package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
	"custode/modem"
)

type modemTopCmd struct {
	Every time.Duration `default:"1s" help:"Pause between looks."`
	Count int           `help:"End after so many looks; 0 goes on."`
}

// Run draws the pool again and again. On a terminal it uses the alternate screen and
// plain ANSI; elsewhere it prints one block a look, without control sequences.
func (m modemTopCmd) Run(c *cli) error {
	if m.Every < 100*time.Millisecond {
		return fault.Newf(fault.Invalid, "watch modems", "looks are at least 100 ms apart")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	tty := isTerminal(os.Stdout)
	if tty {
		restore := rawKeys(os.Stdin, stop)
		defer restore()
		fmt.Print("\x1b[?1049h\x1b[?25l")
		defer fmt.Print("\x1b[?25h\x1b[?1049l")
	}
	tick := time.NewTicker(m.Every)
	defer tick.Stop()
	for n := 1; ; n++ {
		var o modem.Overview
		err := c.call("watch/modems", nil, &o)
		if err != nil && !fault.Is(err, fault.Unavailable) {
			return err
		}
		var b bytes.Buffer
		if err != nil {
			fmt.Fprintf(&b, "no answer: %v\n", err) // a restart of the daemon ends nothing
		} else {
			drawTop(&b, o)
		}
		show(os.Stdout, b.Bytes(), tty)
		if m.Count > 0 && n >= m.Count {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// drawTop writes one look.
func drawTop(w io.Writer, o modem.Overview) {
	code := o.Handoff["code"]
	fmt.Fprintf(w, "custode modem top  %s\n", o.At.Local().Format(time.DateTime))
	fmt.Fprintf(w, "queue: %d codes, %d alerts, %d bulk   on the air: %d   codes: %.1f/min   load %.1f of %.1f   reserve %d\n",
		o.Waiting["code"], o.Waiting["alert"], o.Waiting["bulk"], o.OnTheAir, o.CodeRate, o.Load, o.Allowed, o.Reserve)
	fmt.Fprintf(w, "code hand-off p50 %s p95 %s of %d   sent %d   delivered %d   failed %d   expired %d   in doubt %d\n\n", short(code.P50), short(code.P95),
		code.Count, o.Steps["sent"], o.Steps["delivered"], o.Steps["failed"], o.Steps["expired"], o.Steps["maybe-sent"])
	bayTable(w, o)
	for _, a := range o.Alarms {
		fmt.Fprintf(w, "ALARM %s %s: %s, since %s\n", a.Name, a.Bay, printable(a.Detail, 60), a.Since.Local().Format(time.TimeOnly))
	}
}

// show puts a look on the terminal, cut to its size; else it prints it whole.
func show(w io.Writer, look []byte, tty bool) {
	if !tty {
		_, _ = w.Write(append(look, '\n'))
		return
	}
	rows, columns := 24, 80
	if s, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil && s.Row > 0 && s.Col > 0 {
		rows, columns = int(s.Row), int(s.Col)
	}
	_, _ = io.WriteString(w, fitted(string(look), rows, columns))
}

// fitted cuts a look to rows and columns and clears what it does not cover.
func fitted(look string, rows, columns int) string {
	lines := strings.Split(strings.TrimRight(look, "\n"), "\n")
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines[:min(len(lines), rows)] {
		if r := []rune(l); len(r) > columns {
			l = string(r[:columns])
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		if strings.HasPrefix(l, "ALARM") {
			l = "\x1b[1;31m" + l + "\x1b[0m"
		}
		b.WriteString(l + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// rawKeys lets q end the view: keys come at once and unseen. Ctrl-C stays a
// signal. The result puts the terminal back.
func rawKeys(f *os.File, quit func()) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	t := *old
	t.Lflag &^= unix.ICANON | unix.ECHO
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &t); err != nil {
		return func() {}
	}
	go func() { // ends with the process: a read of a terminal cannot be cut
		key := make([]byte, 1)
		for {
			if n, err := f.Read(key); err != nil || n == 1 && (key[0] == 'q' || key[0] == 'Q') {
				quit()
				return
			}
		}
	}()
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
