package bay

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/modem/at"
	"custode/modem/profile"
	"custode/modem/report"
	"custode/modem/verdict"
)

// identity is what a modem and its card said of themselves.
type identity struct{ manufacturer, model, revision, imei, imsi, iccid string }

var digitsOnly = regexp.MustCompile(`[0-9]{10,22}`)

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// ask runs an initialisation command. A busy SIM or modem is asked again for a
// while; an engine out of step is resynchronised once.
func (b *Bay) ask(ctx context.Context, c at.Command) (at.Reply, error) {
	until := time.Now().Add(b.busyWait())
	resynced := false
	for {
		r, err := b.eng.Do(ctx, c)
		refusal := verdict.AsRefusal(err)
		switch {
		case verdict.IsBusy(refusal) && time.Now().Before(until):
			if !sleep(ctx, time.Second) {
				return r, err
			}
		case (errors.Is(err, at.ErrDirty) || errors.Is(err, at.ErrTimeout)) && !resynced && !c.Secret:
			if errors.Is(err, at.ErrTimeout) && len(r.Lines) > 0 {
				return r, b.resync(ctx) // Wavecom, A2D: the answer came, its OK did not
			}
			resynced = true
			if err := b.resync(ctx); err != nil {
				return r, err
			}
		default:
			return r, err
		}
	}
}

// busyWait is how long a card may be busy. 313 "SIM failure" passes for the first
// minute after a start, too, but only here: ask does not see it as busy.
func (b *Bay) busyWait() time.Duration {
	if b.cfg.Timing.Busy > 0 {
		return b.cfg.Timing.Busy
	}
	return b.profile.BusyWait
}

// try runs a command that a modem may refuse; only line trouble is an error.
func (b *Bay) try(ctx context.Context, c at.Command) (at.Reply, bool, error) {
	r, err := b.ask(ctx, c)
	if verdict.AsRefusal(err) != nil {
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

// each runs commands whose refusals do not matter.
func (b *Bay) each(ctx context.Context, timeout time.Duration, commands ...string) error {
	for _, text := range commands {
		if _, err := b.first(ctx, timeout, text); err != nil {
			return err
		}
	}
	return nil
}

// start initialises the modem after opening its port or after it restarted. The
// numbers are the rows of the design note.
func (b *Bay) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		b.resync,       // 0, 1
		b.manners,      // 2 to 4
		b.identify,     // 5
		b.radioOn,      // 6
		b.unlock,       // 7, 8
		b.subscriber,   // 9
		b.networkNews,  // 10
		b.operator,     // 12, 13
		b.messageMode,  // 14, 15
		b.centre,       // 16
		b.storage,      // 17
		b.indications,  // 19, 20
		b.extras,       // 21
		b.signal,       // 22
		b.registration, // 11
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.inbox.look = true // 18, when nothing is to be sent
	b.cfg.Log.Info("modem ready", "bay", b.cfg.Place.Name, "profile", b.profile.Name, "manufacturer", b.identity.manufacturer,
		"model", b.identity.model, "registration", b.stat)
	return nil
}

// manners: factory settings, no echo, verbose finals, numeric errors.
func (b *Bay) manners(ctx context.Context) error {
	if d := b.profile.Defaults; d != "" {
		if err := b.each(ctx, b.profile.DefaultsTimeout, d); err != nil { // ERROR while the SIM is locked
			return err
		}
	}
	ok, err := b.first(ctx, 2*time.Second, "ATE0V1Q0")
	if err == nil && !ok {
		if ok, err = b.first(ctx, 2*time.Second, "ATE0"); err == nil {
			err = b.each(ctx, 2*time.Second, "ATV1", "ATQ0")
		}
	}
	if err != nil || !ok {
		return b.refusedStep(err, "turn echo off")
	}
	_, err = b.first(ctx, 2*time.Second, "AT+CMEE=1", "AT+CMEE=2")
	return err
}

// refusedStep builds the error of a step that must not be refused.
func (b *Bay) refusedStep(err error, what string) error {
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

// identify reads who the modem is, refuses a simulator that is not wanted and a
// modem that is not the one of this place, and takes its profile.
func (b *Bay) identify(ctx context.Context) error {
	op := "initialise modem " + b.cfg.Place.Name
	var id identity
	var err error
	for _, q := range []struct {
		text, prefix string
		into         *string
	}{{"AT+CGMI", "+CGMI:", &id.manufacturer}, {"AT+CGMM", "+CGMM:", &id.model}, {"AT+CGMR", "+CGMR:", &id.revision}, {"AT+CGSN", "+CGSN:", &id.imei}} {
		if *q.into, err = b.bare(ctx, q.text, q.prefix); err != nil {
			return err
		}
	}
	if strings.Contains(strings.ToUpper(id.manufacturer+id.revision), "SIMULATOR") && !b.cfg.AllowSimulated {
		return fault.Newf(fault.Fatal, op, "the device is a simulator")
	}
	id.imei = digitsOnly.FindString(id.imei)
	want := b.cfg.Place.IMEI
	switch {
	case want != "" && id.imei != "" && id.imei[:min(14, len(id.imei))] != want[:min(14, len(want))]:
		b.alarm(Impostor, "the modem is not the one this place is configured for")
		return fault.Newf(fault.Fatal, op, "IMEI %s is configured, %s answers", want, id.imei)
	case want == "" && b.identity.imei != "" && id.imei != "" && b.identity.imei != id.imei:
		b.alarm(Impostor, "another modem than before answers")
	}
	b.identity = id
	b.take(b.cfg.Profiles.Match(id.manufacturer, id.model))
	b.update(func(st *Status) {
		st.Manufacturer, st.Model, st.IMEI, st.Profile = id.manufacturer, id.model, id.imei, b.profile.Name
	})
	return nil
}

// take makes p the profile of what is plugged in.
func (b *Bay) take(p profile.Profile) {
	b.profile = p
	b.eng.Adapt(at.Dialect{CommandGap: p.CommandGap, CtrlZGap: p.CtrlZGap, Boot: p.Boot, Ready: p.Ready, Ignore: p.Ignore})
}

// radioOn leaves flight mode. Some modems say 515 for a while after it.
func (b *Bay) radioOn(ctx context.Context) error {
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CFUN?", Prefix: "+CFUN:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	if ok && len(r.Lines) > 0 && strings.TrimSpace(strings.TrimPrefix(r.Lines[0], "+CFUN:")) != "1" {
		err = b.each(ctx, 15*time.Second, "AT+CFUN=1", "AT+CMEE=1") // which forgets CMEE in some
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
	if strings.HasPrefix(imsi, "00101") && !b.cfg.AllowSimulated {
		return fault.Newf(fault.Fatal, "initialise modem "+b.cfg.Place.Name, "the card is of the test network 001 01")
	}
	if imsi != b.reports.Card {
		b.reports = report.Ring{Card: imsi}
		b.lastRef = -1
	}
	b.identity.imsi = imsi
	if b.identity.iccid == "" {
		if b.identity.iccid, err = b.cardNumber(ctx); err != nil {
			return err
		}
	}
	masked := ""
	if len(imsi) > 8 {
		masked = imsi[:5] + strings.Repeat("•", len(imsi)-8) + imsi[len(imsi)-3:]
	}
	b.update(func(st *Status) { st.IMSI, b.card = masked, imsi })
	return nil
}

// cardNumber reads the ICCID, "" when the modem does not tell.
func (b *Bay) cardNumber(ctx context.Context) (string, error) {
	for _, q := range b.profile.ICCID {
		prefix := strings.TrimSuffix(strings.TrimPrefix(q, "AT"), "?") + ":"
		line, err := b.bare(ctx, q, prefix)
		if err != nil {
			return "", err
		}
		if n := digitsOnly.FindString(line); n != "" {
			return n, nil
		}
	}
	return "", nil
}

// networkNews asks to be told of registration changes.
func (b *Bay) networkNews(ctx context.Context) error {
	if _, err := b.first(ctx, 2*time.Second, "AT+CREG=1", "AT+CREG=2"); err != nil {
		return err
	}
	return b.each(ctx, 2*time.Second, "AT+CGREG=1", "AT+CEREG=1")
}

// operator asks once in which network we are: some firmware answers COPS slowly.
func (b *Bay) operator(ctx context.Context) error {
	if err := b.each(ctx, 10*time.Second, "AT+COPS=3,2"); err != nil {
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
	// Only USSD needs it; programs before us may have left HEX.
	_, err = b.first(ctx, 2*time.Second, `AT+CSCS="GSM"`, `AT+CSCS="IRA"`)
	return err
}

// messageMode selects the message service and PDU mode.
func (b *Bay) messageMode(ctx context.Context) error {
	b.csms = 0
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CSMS=" + strconv.Itoa(b.profile.CSMS), Prefix: "+CSMS:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	if ok {
		b.csms = b.profile.CSMS
	}
	if ok && len(r.Lines) > 0 {
		if f := at.Fields(r.Lines[0], "+CSMS:"); len(f) == 3 && f[1] == "0" {
			return fault.Newf(fault.Fatal, "initialise modem "+b.cfg.Place.Name, "it cannot send messages (CSMS mo=0)")
		}
	}
	if ok, err := b.first(ctx, 2*time.Second, "AT+CMGF=0"); err != nil || !ok {
		return b.refusedStep(err, "PDU mode")
	}
	return nil
}

// centre sees to a service centre address: PDUs leave it to the modem.
func (b *Bay) centre(ctx context.Context) error {
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CSCA?", Prefix: "+CSCA:", Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	have := ""
	if ok && len(r.Lines) > 0 {
		if f := at.Fields(r.Lines[0], "+CSCA:"); len(f) > 0 {
			have = strings.TrimPrefix(f[0], "+")
		}
	}
	want := b.cfg.Place.Centre
	switch {
	case !want.IsZero() && have != want.String()[1:]:
		return b.setCentre(ctx)
	case have == "" && ok:
		b.alarm(OurMistake, "the card has no service centre address and none is configured")
	}
	return nil
}

func (b *Bay) setCentre(ctx context.Context) error {
	return b.each(ctx, 10*time.Second, `AT+CSCA="`+b.cfg.Place.Centre.String()+`",145`)
}

// storage selects where messages are kept: the first of the profile that the modem
// offers. Its list has many shapes (an extra bracket, missing ones, empty ones).
func (b *Bay) storage(ctx context.Context) error {
	b.inbox.store, b.inbox.home = "", ""
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CPMS=?", Prefix: "+CPMS:", Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	var offered []string
	if ok && len(r.Lines) > 0 {
		offered = at.Storages(r.Lines[0])
	}
	for _, s := range b.profile.Storages {
		if len(offered) > 0 && !slices.Contains(offered, s) {
			continue
		}
		q := `"` + s + `"`
		three, two := "AT+CPMS="+q+","+q+","+q, "AT+CPMS="+q+","+q
		if b.profile.StorageShape == 2 {
			three = two
		}
		for _, text := range []string{three, two} {
			_, ok, err := b.try(ctx, at.Command{Text: text, Prefix: "+CPMS:", Timeout: 10 * time.Second})
			if err != nil {
				return err
			}
			if ok {
				b.inbox.store, b.inbox.home = s, s
				return nil
			}
		}
	}
	b.cfg.Log.Warn("modem lets no storage be chosen", "bay", b.cfg.Place.Name)
	return nil
}

// indications asks for reports by +CDS where possible and reads back what it got:
// Qualcomm parts advertise mode 2 with ds 1 and refuse it.
func (b *Bay) indications(ctx context.Context) error {
	var tries []string
	for _, c := range b.profile.CNMI {
		tries = append(tries, "AT+CNMI="+c)
	}
	ok, err := b.first(ctx, 3*time.Second, tries...)
	if err != nil {
		return err
	}
	r, _, err := b.try(ctx, at.Command{Text: "AT+CNMI?", Prefix: "+CNMI:", Timeout: 3 * time.Second})
	if err != nil {
		return err
	}
	mt := ""
	if len(r.Lines) > 0 {
		if f := at.Fields(r.Lines[0], "+CNMI:"); len(f) >= 4 {
			mt = f[1]
			b.update(func(st *Status) { st.Reporting = f[3] })
		}
	}
	if !ok || mt == "0" {
		b.cfg.Log.Warn("modem gives no indications, it is asked instead", "bay", b.cfg.Place.Name)
	}
	return b.each(ctx, 2*time.Second, "AT+CMMS=0")
}

func (b *Bay) extras(ctx context.Context) error {
	return b.each(ctx, 5*time.Second, b.profile.Extras...)
}

// signal reads +CSQ and, where that is unknown (99: unknown, not bad), +CESQ.
func (b *Bay) signal(ctx context.Context) error {
	r, err := b.ask(ctx, at.Command{Text: "AT+CSQ", Prefix: "+CSQ:", Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	dbm := 0
	if n, ok := r.Number("+CSQ:", 0); ok && n <= 31 {
		dbm = -113 + 2*n
	} else {
		r, _, err := b.try(ctx, at.Command{Text: "AT+CESQ", Prefix: "+CESQ:", Timeout: 5 * time.Second})
		if err != nil {
			return err
		}
		if n, ok := r.Number("+CESQ:", 5); ok && n <= 97 {
			dbm = -141 + n
		}
	}
	b.update(func(st *Status) { st.Signal = dbm })
	return nil
}

// registration asks the circuit-switched and, when that says no, the LTE side.
func (b *Bay) registration(ctx context.Context) error {
	stat := 0
	for _, q := range []string{"AT+CREG?", "AT+CEREG?"} {
		r, ok, err := b.try(ctx, at.Command{Text: q, Prefix: q[2:len(q)-1] + ":", Accept: at.IsRegistration, Timeout: 5 * time.Second})
		if err != nil {
			return err
		}
		if !ok || len(r.Lines) == 0 {
			continue
		}
		if s := at.Registration(r.Lines[0]); stat == 0 || at.Registered(s) {
			stat = s
		}
		if at.Registered(stat) {
			break
		}
	}
	b.setStat(stat)
	return nil
}
