// Package modemtest is a scripted port: an in-process fake of a modem's line for
// unit tests of modem/at and modem. It has no goroutine and no clock of its own,
// so it works inside testing/synctest.
//
// A test gives a reaction, called for every write with what was written; the
// reaction answers with Say, Prompt and Die, now or from a timer. Polite is a
// ready reaction of a well-behaved generic modem. For a modem on a real pty,
// which shares no code with the product, see simulators/modemsim. Only tests may
// import this package.
package modemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"custode/internal/fault"
	"custode/modem/port"
)

// Port is the fake. Its token buffer holds 1024 tokens; a test that says more
// without a reader blocks.
type Port struct {
	react  func(p *Port, got string)
	tokens chan port.Token

	mu      sync.Mutex
	written []string
	dead    bool
	broken  error
}

// New builds a fake whose reaction is react; nil never answers.
func New(react func(p *Port, got string)) *Port {
	if react == nil {
		react = func(*Port, string) {}
	}
	return &Port{react: react, tokens: make(chan port.Token, 1024)}
}

// Write records b and calls the reaction.
func (p *Port) Write(ctx context.Context, b []byte) error {
	p.mu.Lock()
	if p.dead || p.broken != nil {
		err := p.broken
		p.mu.Unlock()
		return fault.New(fault.Reopen, "write to fake port", errors.Join(os.ErrClosed, err))
	}
	p.written = append(p.written, string(b))
	p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fault.New(fault.Retry, "write to fake port", err)
	}
	p.react(p, string(b))
	return nil
}

// Tokens returns what was said.
func (p *Port) Tokens() <-chan port.Token { return p.tokens }

// Close ends the fake; it may be called again.
func (p *Port) Close() error { p.end(nil); return nil }

// Die lets the line fail with err, as an unplug does.
func (p *Port) Die(err error) { p.end(err) }

func (p *Port) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return
	}
	p.dead = true
	if err != nil {
		p.tokens <- port.Token{Kind: port.Dead, Err: err}
	}
	close(p.tokens)
}

// Break makes further writes fail with err while reads stay open.
func (p *Port) Break(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

// Say emits lines; a dead port swallows them.
func (p *Port) Say(lines ...string) {
	for _, l := range lines {
		p.emit(port.Token{Kind: port.Line, Text: l})
	}
}

// Prompt emits the prompt.
func (p *Port) Prompt() { p.emit(port.Token{Kind: port.Prompt}) }

func (p *Port) emit(t port.Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.tokens <- t
	}
}

// Written returns all writes so far.
func (p *Port) Written() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.written...)
}

// Wrote reports whether any write began with prefix.
func (p *Port) Wrote(prefix string) bool {
	for _, w := range p.Written() {
		if strings.HasPrefix(w, prefix) {
			return true
		}
	}
	return false
}

// Polite is the reaction of a registered generic modem with a ready SIM. An
// entry of over (keyed by the command without CR; "PDU" for a payload) replaces
// an answer; an empty, non-nil answer is silence. References count from 1.
func Polite(over map[string][]string) func(*Port, string) {
	answers := map[string][]string{
		"AT+CGMI":     {"Generic", "OK"},
		"AT+CGMM":     {"M1", "OK"},
		"AT+CGMR":     {"1.0", "OK"},
		"AT+CGSN":     {"350000000000001", "OK"},
		"AT+CPIN?":    {"+CPIN: READY", "OK"},
		"AT+CIMI":     {"222010000000001", "OK"},
		"AT+CREG?":    {"+CREG: 1,1", "OK"},
		"AT+CSMS=0":   {"+CSMS: 1,1,1", "OK"},
		"AT+CSCA?":    {`+CSCA: "+393359609600",145`, "OK"},
		"AT+CSQ":      {"+CSQ: 20,0", "OK"},
		"AT+CFUN?":    {"+CFUN: 1", "OK"},
		"AT+CPINR":    {"+CPINR: SIM PIN,3,3", "OK"},
		"AT+COPS?":    {`+COPS: 0,2,"22201"`, "OK"},
		"AT+CEREG?":   {"+CEREG: 0,1", "OK"},
		"AT+CCID":     {"8939010000000000001", "OK"},
		"AT+CNMI?":    {"+CNMI: 2,1,0,1,0", "OK"},
		"\x1b":        {"OK"},
		"AT+CGSMS?":   {"+CGSMS: 1", "OK"},
		"AT+CFUN=1,1": {"OK"},
	}
	var mu sync.Mutex
	ref := 0
	return func(p *Port, got string) {
		cmd := strings.TrimSuffix(got, "\r")
		if pdu, ok := strings.CutSuffix(got, "\x1a"); ok {
			_ = pdu
			cmd = "PDU"
		}
		if lines, ok := over[cmd]; ok {
			p.Say(lines...)
			return
		}
		switch lines, ok := answers[cmd]; {
		case ok:
			p.Say(lines...)
		case cmd == "PDU":
			mu.Lock()
			ref++
			n := ref % 256
			mu.Unlock()
			p.Say(fmt.Sprintf("+CMGS: %d", n), "OK")
		case strings.HasPrefix(cmd, "AT+CMGS="):
			p.Prompt()
		default:
			p.Say("OK")
		}
	}
}
