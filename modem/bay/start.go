package bay

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
)

// identity is what a modem and its card said of themselves.
type identity struct{ manufacturer, model, imei, imsi string }

var (
	// regAnswer is the answer to AT+CREG?: "n,stat" and perhaps a quoted area.
	// regIndication is the unsolicited form: "stat" and perhaps a quoted area.
	regAnswer     = regexp.MustCompile(`^\+CE?REG:\s*\d\s*,\s*(\d{1,3})\s*(?:,.*)?$`)
	regIndication = regexp.MustCompile(`^\+CREG:\s*(\d{1,3})\s*(?:,\s*".*)?$`)
	digitsOnly    = regexp.MustCompile(`[0-9]{10,22}`)
	simPIN        = regexp.MustCompile(`^[0-9]{4,8}$`)
)

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// registered lists the +CREG states in which SMS work: home, roaming, SMS only
// (an LTE module on TIM Italia says 6), and CSFB not preferred (27.007 section 7.2).
func registered(stat int) bool {
	switch stat {
	case 1, 5, 6, 7, 9, 10:
		return true
	}
	return false
}

// ask runs an initialisation command. A busy SIM or modem is asked again for a
// while; an engine out of step is resynchronised once.
func (b *Bay) ask(ctx context.Context, c at.Command) (at.Reply, error) {
	until := time.Now().Add(b.cfg.Timing.Busy)
	resynced := false
	for {
		r, err := b.eng.Do(ctx, c)
		refusal := asRefusal(err)
		switch {
		case refusal != nil && judge(refusal) == OnBusy && time.Now().Before(until):
			if !sleep(ctx, time.Second) {
				return r, err
			}
		case (errors.Is(err, at.ErrDirty) || errors.Is(err, at.ErrTimeout)) && !resynced && !c.Secret:
			resynced = true
			if err := b.resync(ctx); err != nil {
				return r, err
			}
		default:
			return r, err
		}
	}
}

// try runs a command that a modem may refuse; only line trouble is an error.
func (b *Bay) try(ctx context.Context, c at.Command) (at.Reply, bool, error) {
	r, err := b.ask(ctx, c)
	if asRefusal(err) != nil {
		return r, false, nil
	}
	return r, err == nil, err
}

// first tries commands in order until one is accepted.
func (b *Bay) first(ctx context.Context, timeout time.Duration, commands ...string) (bool, error) {
	for _, text := range commands {
		_, ok, err := b.try(ctx, at.Command{Text: text, Timeout: timeout})
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// start initialises the modem after opening its port or after it restarted.
func (b *Bay) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		b.resync, b.manners, b.identify, b.unlock, b.subscriber, b.messaging, b.signal, b.registration,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.cfg.Log.Info("modem ready", "bay", b.cfg.Place.Name, "manufacturer", b.identity.manufacturer, "model", b.identity.model, "registration", b.stat)
	return nil
}

// manners: no echo, verbose finals, numeric errors.
func (b *Bay) manners(ctx context.Context) error {
	if ok, err := b.first(ctx, 2*time.Second, "ATE0V1Q0", "ATE0"); err != nil || !ok {
		return refusedStep(err, b, "turn echo off")
	}
	if _, err := b.first(ctx, 2*time.Second, "AT+CMEE=1", "AT+CMEE=2"); err != nil {
		return err
	}
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CFUN?", Prefix: "+CFUN:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	if ok && len(r.Lines) > 0 && strings.TrimSpace(strings.TrimPrefix(r.Lines[0], "+CFUN:")) != "1" {
		_, _, err = b.try(ctx, at.Command{Text: "AT+CFUN=1", Timeout: 15 * time.Second})
	}
	return err
}

// refusedStep builds the error of a step that must not be refused.
func refusedStep(err error, b *Bay, what string) error {
	if err != nil {
		return err
	}
	return fault.Newf(fault.Reopen, "initialise modem "+b.cfg.Place.Name, "%s: refused", what)
}

func (b *Bay) bare(ctx context.Context, text, prefix string) (string, error) {
	r, _, err := b.try(ctx, at.Command{Text: text, Prefix: prefix, Bare: true, Timeout: 5 * time.Second})
	if err != nil || len(r.Lines) == 0 {
		return "", err
	}
	line := strings.Trim(strings.TrimSpace(strings.TrimPrefix(r.Lines[0], prefix)), `"`)
	return line[:min(len(line), 60)], nil
}

// identify reads who the modem is and refuses a simulator that is not wanted.
func (b *Bay) identify(ctx context.Context) error {
	var id identity
	var err error
	for _, q := range []struct {
		text, prefix string
		into         *string
	}{{"AT+CGMI", "+CGMI:", &id.manufacturer}, {"AT+CGMM", "+CGMM:", &id.model}, {"AT+CGSN", "+CGSN:", &id.imei}} {
		if *q.into, err = b.bare(ctx, q.text, q.prefix); err != nil {
			return err
		}
	}
	if strings.Contains(strings.ToUpper(id.manufacturer), "SIMULATOR") && !b.cfg.AllowSimulated {
		return fault.Newf(fault.Fatal, "initialise modem "+b.cfg.Place.Name, "the device is a simulator")
	}
	id.imei = digitsOnly.FindString(id.imei)
	b.identity = id
	b.update(func(st *Status) { st.Manufacturer, st.Model, st.IMEI = id.manufacturer, id.model, id.imei })
	return nil
}

// unlock enters the SIM PIN, once: three wrong ones lock the card.
func (b *Bay) unlock(ctx context.Context) error {
	op := "unlock the SIM of modem " + b.cfg.Place.Name
	r, err := b.ask(ctx, at.Command{Text: "AT+CPIN?", Prefix: "+CPIN:", Timeout: 10 * time.Second})
	if refusal := asRefusal(err); refusal != nil {
		return fault.New(fault.Fatal, op, refusal)
	}
	// Wavecom modems answer READY and forget the OK.
	if err != nil && (len(r.Lines) == 0 || !errors.Is(err, at.ErrTimeout)) {
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
		return fault.Newf(fault.Fatal, op, "the card wants %.20q", state)
	case b.cfg.Place.SIMPIN == "":
		return fault.Newf(fault.Fatal, op, "the card wants a PIN and none is configured")
	}
	return b.enterPIN(ctx, op)
}

func (b *Bay) enterPIN(ctx context.Context, op string) error {
	card, err := b.bare(ctx, "AT+CCID", "+CCID:")
	if err != nil {
		return err
	}
	card = "card " + digitsOnly.FindString(card)
	if err := b.refusedBefore(op, card); err != nil {
		return err
	}
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CPINR", Prefix: "+CPINR:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	for _, l := range r.Lines {
		f := at.Fields(l, "+CPINR:")
		if ok && len(f) >= 2 && f[0] == "SIM PIN" && atoi(f[1]) < 2 {
			return fault.Newf(fault.Fatal, op, "only one try is left, which is for an operator")
		}
	}
	pin, err := readSIMPIN(b.cfg.Place.SIMPIN)
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	defer clear(pin)
	// Noted before the modem sees it: an answer that never comes counts as a no.
	b.pinRefused = card
	// Not through ask, which repeats.
	_, err = b.eng.Do(ctx, at.Command{Text: `AT+CPIN="` + string(pin) + `"`, Timeout: 20 * time.Second, Secret: true})
	refusal := asRefusal(err)
	switch {
	case err == nil, errors.Is(err, at.ErrDirty), refusal != nil && judge(refusal) == OnBusy:
		b.pinRefused = "" // taken, or the card never saw it
		return err
	case refusal != nil:
		b.noteRefusal(card)
		return fault.New(fault.Fatal, op, refusal)
	}
	return err
}

// subscriber reads the card's identity. A new card means new references.
func (b *Bay) subscriber(ctx context.Context) error {
	imsi, err := b.bare(ctx, "AT+CIMI", "+CIMI:")
	if err != nil {
		return err
	}
	imsi = digitsOnly.FindString(imsi)
	if imsi != b.reports.card {
		b.reports = reportRing{card: imsi}
	}
	b.identity.imsi = imsi
	masked := ""
	if len(imsi) > 8 {
		masked = imsi[:5] + strings.Repeat("•", len(imsi)-8) + imsi[len(imsi)-3:]
	}
	b.update(func(st *Status) { st.IMSI = masked })
	return nil
}

// messaging sets PDU mode and asks for reports by +CDS where possible.
func (b *Bay) messaging(ctx context.Context) error {
	for _, optional := range []string{"AT+CREG=1", "AT+CSMS=0"} {
		if _, err := b.first(ctx, 5*time.Second, optional); err != nil {
			return err
		}
	}
	if ok, err := b.first(ctx, 2*time.Second, "AT+CMGF=0"); err != nil || !ok {
		return refusedStep(err, b, "PDU mode")
	}
	// Qualcomm parts advertise mode 2 with ds 1 and refuse it.
	ok, err := b.first(ctx, 3*time.Second,
		"AT+CNMI=2,1,0,1,0", "AT+CNMI=1,1,0,1,0", "AT+CNMI=2,1,0,2,0", "AT+CNMI=1,1,0,2,0", "AT+CNMI=2,1,0,0,0")
	if err == nil && !ok {
		b.cfg.Log.Warn("modem gives no indications", "bay", b.cfg.Place.Name)
	}
	if err != nil {
		return err
	}
	if _, err := b.first(ctx, 10*time.Second, "AT+COPS=3,2"); err != nil {
		return err
	}
	r, _, err := b.try(ctx, at.Command{Text: "AT+COPS?", Prefix: "+COPS:", Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	if len(r.Lines) > 0 {
		if f := at.Fields(r.Lines[0], "+COPS:"); len(f) >= 3 {
			b.update(func(st *Status) { st.Operator = f[2][:min(len(f[2]), 20)] })
		}
	}
	return nil
}

// signal reads +CSQ; 99 means unknown, not bad.
func (b *Bay) signal(ctx context.Context) error {
	r, err := b.ask(ctx, at.Command{Text: "AT+CSQ", Prefix: "+CSQ:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	dbm := 0
	if len(r.Lines) > 0 {
		if f := at.Fields(r.Lines[0], "+CSQ:"); len(f) > 0 {
			if n, err := strconv.Atoi(f[0]); err == nil && n >= 0 && n <= 31 {
				dbm = -113 + 2*n
			}
		}
	}
	b.update(func(st *Status) { st.Signal = dbm })
	return nil
}

// registration asks the circuit-switched and, when that says no, the LTE side.
func (b *Bay) registration(ctx context.Context) error {
	for _, q := range []string{"AT+CREG?", "AT+CEREG?"} {
		r, ok, err := b.try(ctx, at.Command{Text: q, Prefix: q[2:len(q)-1] + ":", Accept: regAnswer.MatchString, Timeout: 5 * time.Second})
		if err != nil {
			return err
		}
		if !ok || len(r.Lines) == 0 {
			continue
		}
		b.setStat(atoi(regAnswer.FindStringSubmatch(r.Lines[0])[1]))
		if registered(b.stat) {
			return nil
		}
	}
	return nil
}
