// Package at is a command engine for modems that speak V.250 "AT" commands over
// a port of tokens. It runs one transaction at a time and knows nothing of SMS.
//
// The rules of the wire it keeps:
//
//   - A line belongs to the open transaction only if it is a final result code,
//     or has the prefix the command expects, or the command takes bare text. All
//     else is an Indication (unsolicited result code, "URC"), wherever it stands:
//     also between a command and its prompt, or between a PDU and its reference.
//   - Indications never move a deadline. Each phase has one timer.
//   - A final result code that nobody waits for, and a transaction that ran out
//     of time, make the engine dirty: the next answer may be the previous one's.
//     A dirty engine refuses commands until Resync has seen a marker it asked for.
//   - A transaction that timed out after its payload left may still be answered;
//     Resume goes on listening for it.
//   - Echo is stripped wherever it appears (a late echo after ATE0 is normal).
//
// An Engine has no goroutine and no lock: it belongs to one goroutine, which
// calls Do, and between commands passes what it receives from Tokens to Idle.
// Only package modem may import this package.
package at

import (
	"context"
	"errors"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/modem/port"
)

// The causes of engine errors, to be told apart with errors.Is. An answer of
// the modem itself is a *Refusal.
var (
	ErrTimeout   = errors.New("no answer in time")
	ErrDirty     = errors.New("answers and commands are out of step")
	ErrRestarted = errors.New("the modem restarted")
	ErrDead      = errors.New("the port is dead")
	ErrNoPrompt  = errors.New("no prompt")
	ErrUnclear   = errors.New("an answer that may be an earlier command's")
)

// Port is what the engine needs from a line; *port.Port is one.
type Port interface {
	Write(ctx context.Context, b []byte) error
	Tokens() <-chan port.Token
	Close() error
}

// Indication is an unsolicited line. PDU is the second line of the two-line ones
// (+CMT, +CDS, +CBM in PDU mode), hexadecimal. Both may be content of a message
// or a telephone number: not for logs.
type Indication struct {
	Line string
	PDU  string
	Boot Boot
}

// Step is a moment inside a transaction with a payload.
type Step uint8

// The steps.
const (
	Prompted Step = iota // the modem asked for the payload
	Written              // payload and Ctrl-Z are with the modem
	Slow                 // Command.SlowAfter passed since Written; the transaction goes on
)

// Command is one command line and what its answer looks like.
type Command struct {
	Text   string // "AT+CSQ"; no CR, no control characters
	Prefix string // "+CSQ:": lines that belong to the answer; "" for none
	Bare   bool   // lines that look like no indication belong to the answer (AT+CGSN)
	// Accept narrows Prefix where an indication has the same one (+CREG:). May be nil.
	Accept func(line string) bool
	// Timeout bounds the transaction, or with a Payload the phase after it. 0 means 2 s.
	Timeout time.Duration

	// Stale recognises lines of an earlier transaction whose answer comes only now:
	// such a line and the final result code after it are not ours. May be nil.
	Stale func(line string) bool
	// StaleGrace is how long after such an answer our own is waited for; then the
	// command fails with ErrUnclear. 0 means until Timeout.
	StaleGrace time.Duration

	// Payload, when not nil, is sent with Ctrl-Z after it once the modem prompts;
	// the prompt may take PromptTimeout (0 means 10 s). The engine does not keep it.
	Payload       []byte
	PromptTimeout time.Duration
	SlowAfter     time.Duration // 0 means never
	OnStep        func(Step)    // called in the engine's goroutine; may be nil

	// Secret keeps Text out of errors.
	Secret bool
}

// Reply is the answer. PayloadLeft says that the payload, or part of it, was
// written: after an error the effect of the command is then unknown.
type Reply struct {
	Lines       []string
	PayloadLeft bool
}

// Config parameterises an Engine. Every field may be zero.
type Config struct {
	Indication func(Indication) // called in the engine's goroutine
	Dialect    Dialect
	// Marker is the query whose answer proves that both sides are in step; its
	// Prefix must be set. The zero value means AT+CSQ.
	Marker Command
}

// Dialect is what differs between modems on this level. The zero value knows the
// common boot lines and ignores nothing.
type Dialect struct {
	CommandGap time.Duration // pause before each command, for old DCEs
	CtrlZGap   time.Duration // pause between payload and Ctrl-Z
	Boot       []string      // beginnings of lines of a modem that starts or goes down
	Ready      []string      // beginnings of lines of the late stages of a start
	Ignore     []string      // beginnings of lines that are counted and dropped
}

// Stats counts odd events since New.
type Stats struct {
	Indications, Ignored, Timeouts, Resyncs, StrayFinals, StrayPrompts, StaleAnswers uint64
}

// maxLines bounds the lines of one answer; more are dropped.
const maxLines = 512

// Engine runs commands over one port.
type Engine struct {
	port  Port
	cfg   Config
	open  *transaction // last one that timed out, for Resume
	head  string       // first line of a two-line indication
	boots string       // the ^BOOT line of this start
	dirty bool
	armed bool
	stats Stats
}

// New builds an engine; the port must be open and have no other reader.
func New(p Port, cfg Config) *Engine {
	if cfg.Marker.Prefix == "" {
		cfg.Marker = Command{Text: "AT+CSQ", Prefix: "+CSQ:"}
	}
	if cfg.Indication == nil {
		cfg.Indication = func(Indication) {}
	}
	return &Engine{port: p, cfg: cfg}
}

// Arm says whether lines of a booting modem now mean that it restarted (after
// initialisation) or are the rest of the boot we know of (before).
func (e *Engine) Arm(on bool) { e.armed = on }

// Adapt changes the dialect, once the modem is known.
func (e *Engine) Adapt(d Dialect) { e.cfg.Dialect = d }

// Dirty reports that Resync is needed before the next command.
func (e *Engine) Dirty() bool { return e.dirty }

// Stats returns the counters.
func (e *Engine) Stats() Stats { return e.stats }

// Tokens returns the port's channel, for the idle owner.
func (e *Engine) Tokens() <-chan port.Token { return e.port.Tokens() }

// Port returns the line, for what only some lines can (DTR).
func (e *Engine) Port() Port { return e.port }

// Shout writes a command line whose answer nobody waits for, even when the engine
// is out of step; it is, afterwards.
func (e *Engine) Shout(ctx context.Context, text string) error {
	e.dirty = true
	return e.writeShort(ctx, []byte(text+"\r"))
}

// Close closes the port.
func (e *Engine) Close() error { return e.port.Close() }

// Idle takes a token received between commands. It fails with ErrDead when the
// port died and with ErrRestarted when an armed engine sees the modem boot.
func (e *Engine) Idle(t port.Token) error {
	switch t.Kind {
	case port.Dead:
		return dead(t.Err)
	case port.Prompt:
		e.stats.StrayPrompts++
		e.dirty = true
		return nil
	}
	if e.indication(t.Text) {
		return e.restarted(t.Text)
	}
	if _, ok := ParseFinal(t.Text); ok {
		e.stats.StrayFinals++
		e.dirty = true
		return nil
	}
	e.dispatch(t.Text)
	return e.restarted(t.Text)
}

// Do runs one transaction. Errors: *Refusal (the modem said no; in step), else a
// fault wrapping ErrTimeout or ErrNoPrompt (Retry, engine dirty), ErrDirty
// (Retry, nothing was written), ErrRestarted or ErrDead (Reopen), or the
// context's error (Retry, dirty if anything was written).
func (e *Engine) Do(ctx context.Context, c Command) (Reply, error) {
	op := "modem command " + c.Text
	if c.Secret {
		op = "modem command (withheld)"
	}
	if strings.ContainsFunc(c.Text, func(r rune) bool { return r < ' ' || r > '~' }) || c.Text == "" {
		return Reply{}, fault.Newf(fault.Invalid, "modem command", "control characters in a command")
	}
	if err := e.settle(ctx); err != nil {
		return Reply{}, err
	}
	if e.dirty {
		return Reply{}, fault.New(fault.Retry, op, ErrDirty)
	}
	if err := e.pause(ctx); err != nil {
		return Reply{}, fault.New(fault.Retry, op, err)
	}
	t := &transaction{Command: c, op: op}
	e.open = nil
	return e.run(ctx, t)
}

// Resume goes on waiting, for at most d, for the answer of the transaction that
// last ended with ErrTimeout. The engine stays dirty.
func (e *Engine) Resume(ctx context.Context, d time.Duration) (Reply, error) {
	t := e.open
	if t == nil {
		return Reply{}, fault.Newf(fault.Internal, "resume modem command", "no command timed out")
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	err := e.await(ctx, t, timer.C, nil, (*transaction).finished)
	if err == nil {
		e.open = nil
	}
	return t.Reply, err
}

func (e *Engine) pause(ctx context.Context) error {
	return wait(ctx, e.cfg.Dialect.CommandGap)
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settleMax bounds how long a command waits for a gap between indications.
const settleMax = time.Second

// settle handles what already arrived, so that it cannot pass for the answer of
// the next command. Lines that come faster than they are handled are left to a
// resynchronisation, whose waits are bounded.
func (e *Engine) settle(ctx context.Context) error {
	for end := time.Now().Add(settleMax); ctx.Err() == nil; {
		select {
		case t := <-e.port.Tokens():
			if err := e.Idle(t); err != nil {
				return err
			}
		default:
			return nil
		}
		if time.Now().After(end) {
			e.dirty = true
			return nil
		}
	}
	return nil
}

// transaction is a command in progress.
type transaction struct {
	Command
	Reply
	op       string
	prompted bool
	done     bool
	stale    bool // the next final is an earlier transaction's
	grace    bool // it came: our own answer is due
	terse    bool // a digit is a final code, too (ATV0)
	digit    bool // and one was seen
}

func (t *transaction) finished() bool  { return t.done }
func (t *transaction) readyToGo() bool { return t.prompted || t.done }

func (t *transaction) step(s Step) {
	if t.OnStep != nil {
		t.OnStep(s)
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

func (e *Engine) run(ctx context.Context, t *transaction) (Reply, error) {
	timeout := orDefault(t.Timeout, 2*time.Second)
	if t.Payload == nil {
		err := e.exchange(ctx, t, []byte(t.Text+"\r"), timeout, 0, (*transaction).finished)
		return t.Reply, err
	}
	err := e.exchange(ctx, t, []byte(t.Text+"\r"), orDefault(t.PromptTimeout, 10*time.Second), 0, (*transaction).readyToGo)
	switch {
	case errors.Is(err, ErrTimeout):
		e.open = nil
		return t.Reply, fault.Newf(fault.Retry, t.op, "%w: %w", ErrNoPrompt, ErrTimeout)
	case err != nil:
		return t.Reply, err
	case !t.prompted:
		// A final code instead of the prompt, and a good one: not ours.
		e.dirty = true
		return t.Reply, fault.New(fault.Retry, t.op, ErrNoPrompt)
	}
	t.step(Prompted)
	out := make([]byte, 0, len(t.Payload)+1)
	out = append(append(out, t.Payload...), ctrlZ)
	defer clear(out)
	t.PayloadLeft = true
	defer func() { t.Payload = nil }()
	if gap := e.cfg.Dialect.CtrlZGap; gap > 0 {
		if err := e.writeShort(ctx, out[:len(out)-1]); err != nil {
			return t.Reply, err
		}
		if err := wait(ctx, gap); err != nil {
			e.dirty = true // no Ctrl-Z: nothing was submitted, and Resync leaves with ESC
			t.PayloadLeft = false
			return t.Reply, fault.New(fault.Retry, t.op, err)
		}
		out = out[len(out)-1:]
	}
	err = e.exchange(ctx, t, out, timeout, t.SlowAfter, (*transaction).finished)
	return t.Reply, err
}

const (
	ctrlZ  = 0x1a
	escape = 0x1b
)

// exchange writes out and waits until ready says so, both within timeout.
func (e *Engine) exchange(ctx context.Context, t *transaction, out []byte, timeout, slow time.Duration, ready func(*transaction) bool) error {
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := e.port.Write(wctx, out); err != nil {
		e.dirty = true
		return fault.Newf(fault.Reopen, t.op, "%w: %w", ErrDead, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var slowC <-chan time.Time
	if t.PayloadLeft {
		t.step(Written)
		if slow > 0 {
			slowTimer := time.NewTimer(slow)
			defer slowTimer.Stop()
			slowC = slowTimer.C
		}
	}
	err := e.await(ctx, t, timer.C, slowC, ready)
	if errors.Is(err, ErrTimeout) {
		e.open = t
	}
	return err
}

// await feeds tokens to the transaction until ready, an error, or the deadline.
func (e *Engine) await(ctx context.Context, t *transaction, deadline, slow <-chan time.Time, ready func(*transaction) bool) error {
	var unclear <-chan time.Time
	for !ready(t) {
		if t.grace && unclear == nil && t.StaleGrace > 0 {
			timer := time.NewTimer(t.StaleGrace)
			defer timer.Stop()
			unclear = timer.C
		}
		// A flood of indications must not starve the deadline: look at it first.
		select {
		case <-deadline:
			return e.late(t)
		default:
		}
		select {
		case tok := <-e.port.Tokens():
			if err := e.take(t, tok); err != nil {
				return err
			}
		case <-deadline:
			return e.late(t)
		case <-unclear:
			e.dirty = true
			return fault.New(fault.Retry, t.op, ErrUnclear)
		case <-slow:
			slow = nil
			t.step(Slow)
		case <-ctx.Done():
			e.dirty = true
			return fault.New(fault.Retry, t.op, ctx.Err())
		}
	}
	return nil
}

func (e *Engine) late(t *transaction) error {
	e.stats.Timeouts++
	e.dirty = true
	return fault.New(fault.Retry, t.op, ErrTimeout)
}

// take gives one token to the open transaction.
func (e *Engine) take(t *transaction, tok port.Token) error {
	switch tok.Kind {
	case port.Dead:
		e.dirty = true
		return dead(tok.Err)
	case port.Prompt:
		if t.Payload != nil && !t.PayloadLeft && !t.prompted {
			t.prompted = true
		} else {
			e.stats.StrayPrompts++
		}
		return nil
	}
	line := tok.Text
	switch {
	case e.indication(line):
	case t.isEcho(line):
		return nil
	case t.Stale != nil && t.Stale(line):
		e.stats.StaleAnswers++
		t.stale = true
		return nil
	case t.wants(line):
		if len(t.Lines) < maxLines {
			t.Lines = append(t.Lines, line)
		}
		return nil
	default:
		f, ok := ParseFinal(line)
		if t.terse && (line == "0" || line == "4") {
			ok, t.digit = true, true
		}
		if ok && t.stale && f.Refused == nil {
			t.stale, t.grace = false, true
			return nil
		}
		if ok {
			t.done = true
			return f.asError(t.op)
		}
		e.dispatch(line)
	}
	if err := e.restarted(line); err != nil {
		e.dirty = true
		return err
	}
	return nil
}

// isEcho reports that line repeats what was written. The echoed PDU may carry
// the caret form of Ctrl-Z.
func (t *transaction) isEcho(line string) bool {
	if strings.EqualFold(line, t.Text) {
		return true
	}
	return t.PayloadLeft && len(line) >= 20 && strings.EqualFold(strings.TrimSuffix(line, "^Z"), string(t.Payload))
}

func (t *transaction) wants(line string) bool {
	if t.Prefix != "" && strings.HasPrefix(line, t.Prefix) {
		return t.Accept == nil || t.Accept(line)
	}
	if !t.Bare || looksUnsolicited(line) {
		return false
	}
	_, final := ParseFinal(line)
	return !final
}

// indication handles two-line indications: it reports that line was the second
// line of one.
func (e *Engine) indication(line string) bool {
	if e.head == "" {
		return false
	}
	head := e.head
	e.head = ""
	if !follows(head, line) {
		e.stats.Indications++
		e.cfg.Indication(Indication{Line: head})
		return false
	}
	e.stats.Indications++
	e.cfg.Indication(Indication{Line: head, PDU: line})
	return true
}

func (e *Engine) dispatch(line string) {
	for _, p := range twoLine {
		if strings.HasPrefix(line, p) {
			e.head = line
			return
		}
	}
	boot := e.boot(line)
	if boot == BootNo && hasPrefix(line, e.cfg.Dialect.Ignore) {
		e.stats.Ignored++
		return
	}
	e.stats.Indications++
	e.cfg.Indication(Indication{Line: line, Boot: boot})
}

// boot says what line tells of a restart. Huawei sticks repeat ^BOOT with a number
// drawn at the start: only another number means another start.
func (e *Engine) boot(line string) Boot {
	if strings.HasPrefix(line, "^BOOT:") {
		if e.boots == line {
			return BootNo
		}
		return BootHard
	}
	d := e.cfg.Dialect
	switch {
	case hasPrefix(line, d.Boot):
		return BootHard
	case hasPrefix(line, d.Ready):
		return BootSoft
	}
	return bootLines[line]
}

func (e *Engine) restarted(line string) error {
	was := e.boot(line)
	if strings.HasPrefix(line, "^BOOT:") {
		first := e.boots == ""
		e.boots = line
		if first {
			return nil // the one of the start we know of
		}
	}
	if e.armed && was == BootHard {
		return fault.New(fault.Reopen, "modem", ErrRestarted)
	}
	return nil
}

func hasPrefix(line string, list []string) bool {
	for _, p := range list {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

func dead(err error) error {
	if err == nil {
		return fault.New(fault.Reopen, "modem port", ErrDead)
	}
	return fault.Newf(fault.Reopen, "modem port", "%w: %w", ErrDead, err)
}
