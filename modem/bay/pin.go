package bay

import (
	"context"
	"errors"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/simpin"
	"custode/modem/verdict"
)

// unlock enters the SIM PIN, once: three wrong ones lock the card.
func (b *Bay) unlock(ctx context.Context) error {
	op := "unlock the SIM of modem " + b.cfg.Place.Name
	r, err := b.askCard(ctx)
	if refusal := verdict.AsRefusal(err); refusal != nil {
		b.alarm(CardBarred, "no card, or a broken one")
		return fault.New(fault.Fatal, op, refusal)
	}
	if err != nil {
		return err
	}
	state := ""
	if len(r.Lines) > 0 {
		state = strings.Trim(strings.TrimSpace(strings.TrimPrefix(r.Lines[0], "+CPIN:")), `"`)
	}
	switch {
	case state == "READY":
		return nil
	case state != "SIM PIN":
		b.alarm(CardBarred, "the card wants more than a PIN")
		return fault.Newf(fault.Fatal, op, "the card wants %.20q", state)
	case b.cfg.Place.SIMPIN == "":
		b.alarm(CardBarred, "the card wants a PIN and none is configured")
		return fault.Newf(fault.Fatal, op, "the card wants a PIN and none is configured")
	}
	return b.enterPIN(ctx, op)
}

// askCard asks for the card's state. A card that "failed" may be starting for a
// minute; 13 and 313 are asked again.
func (b *Bay) askCard(ctx context.Context) (at.Reply, error) {
	until := time.Now().Add(b.busyWait())
	for {
		r, err := b.ask(ctx, at.Command{Text: "AT+CPIN?", Prefix: "+CPIN:", Timeout: 10 * time.Second})
		refusal := verdict.AsRefusal(err)
		if refusal == nil || refusal.Code != 13 && refusal.Code != 313 || !time.Now().Before(until) || !sleep(ctx, time.Second) {
			return r, err
		}
	}
}

func (b *Bay) enterPIN(ctx context.Context, op string) error {
	number, err := b.cardNumber(ctx)
	if err != nil {
		return err
	}
	b.identity.iccid = number
	card := "card " + number
	if b.pinRefused == card {
		return fault.Newf(fault.Fatal, op, "the PIN was refused before and is not tried again")
	}
	if err := b.notes().Tried(op, number); err != nil {
		return err
	}
	left, known, err := b.triesLeft(ctx)
	if err != nil {
		return err
	}
	if known && left < 2 {
		b.alarm(CardBarred, "one try of the PIN is left")
		return fault.Newf(fault.Fatal, op, "only one try is left, which is for an operator")
	}
	pin, err := simpin.Read(b.cfg.Place.SIMPIN)
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	defer clear(pin)
	// Noted before the modem sees it: an answer that never comes counts as a no,
	// also for the next process.
	b.pinRefused = card
	if err := b.notes().Put(number); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	// Not through ask, which repeats.
	_, err = b.eng.Do(ctx, at.Command{Text: `AT+CPIN="` + string(pin) + `"`, Timeout: 20 * time.Second, Secret: true})
	refusal := verdict.AsRefusal(err)
	switch {
	case err == nil, errors.Is(err, at.ErrDirty), verdict.IsBusy(refusal) && known && !b.pinBusy:
		// Taken, or the card never saw it. A busy card is believed once, and only where
		// the tries left tell: three wrong beliefs would lock it.
		b.pinRefused, b.pinBusy = "", err != nil && (b.pinBusy || verdict.IsBusy(refusal))
		if kept := b.notes().Drop(number); kept != nil {
			b.cfg.Log.Error("the next start will not try the SIM PIN", "bay", b.cfg.Place.Name, "err", kept)
		}
		return err
	case refusal != nil:
		b.alarm(CardBarred, "the card refused its PIN")
		return fault.New(fault.Fatal, op, refusal)
	}
	return err
}

func (b *Bay) notes() simpin.Notes {
	return simpin.Notes{Dir: b.cfg.PINNotes, Bay: b.cfg.Place.Name}
}

// triesLeft asks how many tries of the PIN are left; false when nothing tells.
func (b *Bay) triesLeft(ctx context.Context) (int, bool, error) {
	for _, q := range []string{b.profile.PINRetries, "AT+CPINR"} {
		prefix := strings.TrimSuffix(strings.TrimPrefix(q, "AT"), "?") + ":"
		r, ok, err := b.try(ctx, at.Command{Text: q, Prefix: prefix, Timeout: 5 * time.Second})
		if err != nil {
			return 0, false, err
		}
		if n, known := at.TriesLeft(r.Lines, prefix); ok && known {
			return n, true, nil
		}
	}
	return 0, false, nil
}
