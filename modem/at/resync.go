package at

import (
	"context"
	"errors"
	"time"

	"custode/internal/fault"
	"custode/modem/port"
)

const (
	quiet       = 300 * time.Millisecond // no octet for so long: the modem has said all
	drainMax    = 2 * time.Second        // a flood of indications never gets quiet
	attnTries   = 5
	attnPause   = 500 * time.Millisecond
	attnTimeout = 2 * time.Second // of a write
	markTimeout = 5 * time.Second
)

// Resync brings both sides into step: ESC leaves a half-entered prompt (its OK is
// drained), "AT" wakes the command parser, and the marker query proves that the
// answer read is the answer to what was asked: finals before the marker's own
// line are stale and ignored. On success the engine is clean. It never sends
// Ctrl-Z: that would submit garbage.
func (e *Engine) Resync(ctx context.Context) error {
	e.stats.Resyncs++
	e.open = nil
	const op = "resynchronise modem"
	if err := e.writeShort(ctx, []byte{escape, '\r'}); err != nil {
		return err
	}
	if err := e.drain(ctx); err != nil {
		return err
	}
	if err := e.attention(ctx); err != nil {
		return err
	}
	e.dirty = true
	t := &transaction{Command: e.cfg.Marker, op: op}
	if err := e.writeShort(ctx, []byte(t.Text+"\r")); err != nil {
		return err
	}
	timer := time.NewTimer(markTimeout)
	defer timer.Stop()
	// The final code counts only after the marker's line.
	for len(t.Lines) == 0 || !t.done {
		t.done = false
		err := e.await(ctx, t, timer.C, nil, (*transaction).finished)
		var refused *Refusal
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		if err != nil {
			t.Lines = nil // a stale refusal, or the marker's: either proves nothing
		}
	}
	e.dirty, e.head = false, ""
	return nil
}

// attention sends AT until any final code comes back (auto-baud modems need some);
// a modem that took our ESC as text may answer ERROR. One that says digits (ATV0) or nothing
// (ATQ1) is told its manners.
func (e *Engine) attention(ctx context.Context) error {
	var err error
	text := "AT\r"
	for range attnTries {
		t := &transaction{Command: Command{Text: text[:len(text)-1]}, op: "modem command AT", terse: true}
		if err = e.writeShort(ctx, []byte(text)); err != nil {
			return err
		}
		timer := time.NewTimer(attnPause)
		err = e.await(ctx, t, timer.C, nil, (*transaction).finished)
		timer.Stop()
		if err == nil && !t.digit {
			return nil
		}
		text = "ATE0V1Q0\r"
		var refused *Refusal
		if errors.As(err, &refused) {
			return nil // it is awake; the marker tells the rest
		}
		if err != nil && !errors.Is(err, ErrTimeout) {
			return err
		}
	}
	return err
}

func (e *Engine) writeShort(ctx context.Context, b []byte) error {
	wctx, cancel := context.WithTimeout(ctx, attnTimeout)
	defer cancel()
	if err := e.port.Write(wctx, b); err != nil {
		e.dirty = true
		return fault.Newf(fault.Reopen, "resynchronise modem", "%w: %w", ErrDead, err)
	}
	return nil
}

// drain discards finals and prompts, and dispatches indications, until quiet.
func (e *Engine) drain(ctx context.Context) error {
	end := time.NewTimer(drainMax)
	defer end.Stop()
	still := time.NewTimer(quiet)
	defer still.Stop()
	for {
		select {
		case tok := <-e.port.Tokens():
			if tok.Kind == port.Line && e.head == "" {
				if _, final := ParseFinal(tok.Text); final {
					still.Reset(quiet)
					continue
				}
			}
			if err := e.Idle(tok); err != nil {
				return err
			}
			still.Reset(quiet)
		case <-still.C:
			return nil
		case <-end.C:
			return nil
		case <-ctx.Done():
			return fault.New(fault.Retry, "resynchronise modem", ctx.Err())
		}
	}
}
