package pkcs11

import (
	"context"
	"errors"
	"strings"
	"time"

	p11 "github.com/miekg/pkcs11"

	"custode/hsm/pkcs11/direct"
	"custode/hsm/pkcs11/rv"
	"custode/internal/fault"
	"custode/internal/id"
)

// repairLevel is how strong a repair is asked for. Each includes the next when it
// does not help.
type repairLevel int

const (
	levelProbe   repairLevel = iota // harmless questions; stronger only when they fail
	levelSession                    // a session or a handle died: is the login alive?
	levelDevice                     // an error of the device: does a canary live?
	levelLogin                      // new login, new handles
	levelRestart                    // C_Finalize, C_Initialize, login
)

// trouble is why a repair is asked for.
type trouble struct {
	level  repairLevel
	cause  error
	canary func(g *generation, s p11.SessionHandle) error
}

// repair is one repair in progress. alive is valid once done is closed.
type repair struct {
	since time.Time
	done  chan struct{}
	alive bool // the generation was found sound and is still in force
}

// mend has g repaired, or joins the repair in progress, and waits for its end
// or ctx's. It does nothing when g is over already: of many callers that met the
// same death only one restarts the module. A nil g asks for a re-opening. It
// reports whether g proved sound.
func (t *Token) mend(ctx context.Context, g *generation, tr trouble) bool {
	t.mu.Lock()
	if t.closed || t.dead != nil || t.gen != g {
		t.mu.Unlock()
		return false
	}
	r := t.repair
	if r == nil {
		r = &repair{since: t.cfg.Now(), done: make(chan struct{})}
		t.repair = r
		go func() {
			alive := g != nil && t.sound(g, tr)
			if !alive {
				t.renew(g, tr)
			}
			t.mu.Lock()
			r.alive = alive
			t.repair = nil
			t.mu.Unlock()
			close(r.done)
		}()
	}
	t.mu.Unlock()
	select {
	case <-r.done:
		return r.alive
	case <-ctx.Done():
		return false
	}
}

// sound reports whether g survived the trouble: the anchor is logged in, the
// token answers, and the canary lives. Its idle sessions are closed then, for
// they shared the trouble.
func (t *Token) sound(g *generation, tr trouble) bool {
	if tr.level >= levelLogin {
		return false
	}
	if tr.level == levelSession && !rv.Session(tr.cause) {
		return false // a handle died: only a new login finds it again
	}
	if !t.loggedIn(g.anchor) {
		return false
	}
	info, err := t.mod.GetTokenInfo(g.slot)
	trim(&info)
	if err != nil || info.SerialNumber != t.serial {
		return false
	}
	if tr.level == levelProbe {
		return true
	}
	t.cfg.Log.Warn("token session lost", "token", t.loc.Name(), "cause", tr.cause)
	t.mu.Lock()
	idle := g.idle
	g.idle = nil
	t.mu.Unlock()
	for _, s := range idle {
		t.closeSession(s) // unusable or not: it is not used again
	}
	if tr.level == levelDevice && tr.canary != nil {
		s, err := t.mod.OpenSession(g.slot, p11.CKF_SERIAL_SESSION)
		if err != nil {
			// No session to spare is a living token's answer.
			return rv.Is(err, p11.CKR_SESSION_COUNT)
		}
		err = tr.canary(g, s)
		t.closeSession(s) // never pooled
		return err == nil
	}
	return true
}

func (t *Token) loggedIn(s p11.SessionHandle) bool {
	info, err := t.mod.GetSessionInfo(s)
	return err == nil && (info.State == p11.CKS_RO_USER_FUNCTIONS || info.State == p11.CKS_RW_USER_FUNCTIONS)
}

// renew replaces g by a new generation: by a new login when that may do, else
// by a restart of the module.
func (t *Token) renew(g *generation, tr trouble) {
	t.cfg.Log.Warn("token login lost", "token", t.loc.Name(), "cause", tr.cause)
	if g != nil && !t.retire(g) {
		t.fail(fault.Newf(fault.Fatal, "re-open token "+t.loc.Name(),
			"a call inside the module has not returned for %v: the process must be restarted", t.cfg.CallLimit))
		return
	}
	if g != nil && tr.level != levelDevice && tr.level != levelRestart {
		fresh, _, err := t.login()
		if err == nil && len(fresh.lost) == 0 {
			t.succeed(fresh)
			return
		}
		if isPINRefusal(err) {
			t.fail(err)
			return
		}
		// A key not found after a fresh login is worth one restart.
		t.cfg.Log.Warn("token login did not help, restarting the module", "token", t.loc.Name(), "cause", err)
	}
	if err := t.mod.Finalize(); err != nil && !rv.Is(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		t.fail(inCall("C_Finalize", err))
		return
	}
	t.mu.Lock()
	t.unclosed = nil // C_Finalize closed them
	t.mu.Unlock()
	if err := t.initialize(); err != nil {
		t.fail(inCall("C_Initialize", err))
		return
	}
	fresh, _, err := t.login()
	if err != nil {
		t.fail(err)
		return
	}
	t.succeed(fresh)
}

func (t *Token) succeed(g *generation) {
	t.mu.Lock()
	t.gen, t.down, t.failures = g, nil, 0
	lost := len(g.lost)
	t.mu.Unlock()
	t.cfg.Log.Info("token opened again", "token", t.loc.Name(), "keys lost", lost)
}

// fail notes why there is no generation. After a PIN refusal, or a call that
// hangs, there is no further try.
func (t *Token) fail(err error) {
	op := "re-open token " + t.loc.Name()
	t.mu.Lock()
	defer t.mu.Unlock()
	if isPINRefusal(err) || len(t.hung) > 0 {
		t.dead = fault.New(fault.Fatal, op, err)
		t.cfg.Log.Error("token is lost until the process is restarted", "token", t.loc.Name(), "cause", err)
		return
	}
	wait := t.cfg.Backoff << min(t.failures, 6)
	t.failures++
	t.down, t.retryAt = outward(op, err), t.cfg.Now().Add(wait)
	t.cfg.Log.Error("token cannot be opened", "token", t.loc.Name(), "cause", err, "again in", wait)
}

// errPIN marks a refusal of the PIN, or a refusal to risk it.
var errPIN = errors.New("the user PIN")

func isPINRefusal(err error) bool { return errors.Is(err, errPIN) }

// IsPINRefusal reports whether err says that the token refused the PIN, may have, or would lock at
// the next refusal. Whoever starts processes must not start another one: it would try again.
func IsPINRefusal(err error) bool { return isPINRefusal(err) }

// login finds the token and makes a generation of it: the anchor logged in, the
// known keys found and examined. The module is initialised and no session of
// ours is open. It never tries a PIN twice.
func (t *Token) login() (*generation, p11.TokenInfo, error) {
	slot, info, err := t.find()
	if err != nil {
		return nil, info, err
	}
	if err := fitForLogin(info); err != nil {
		return nil, info, err
	}
	if t.unclear && info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		return nil, info, fault.Newf(fault.Fatal, "log in to token "+t.loc.Name(),
			"%w was answered with an error last time, and the token has counted a wrong one since: it is not tried again", errPIN)
	}
	anchor, err := t.mod.OpenSession(slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, info, inCall("C_OpenSession", err)
	}
	g := &generation{
		slot: slot, anchor: anchor, busy: map[*lease]struct{}{}, drained: make(chan struct{}),
		handles: map[id.KeyLabel]p11.ObjectHandle{}, lost: map[id.KeyLabel]error{},
	}
	if err = t.enterPIN(anchor); err == nil {
		err = t.recognise(g)
	}
	if err != nil {
		t.closeSession(anchor)
		return nil, info, err
	}
	return g, info, nil
}

// find selects the one token of the URI and, once opened, insists on the same
// serial number.
func (t *Token) find() (uint, p11.TokenInfo, error) {
	op := "find token " + t.loc.Name()
	slots, err := t.mod.GetSlotList(true)
	if err != nil {
		return 0, p11.TokenInfo{}, inCall("C_GetSlotList", err)
	}
	var slot uint
	var found p11.TokenInfo
	var namesake string // serial of a token that has the label and another serial
	matches := 0
	for _, s := range slots {
		info, err := t.mod.GetTokenInfo(s)
		if err != nil {
			continue // one broken slot must not hide the others
		}
		trim(&info)
		if (t.loc.Label == "" || info.Label == t.loc.Label) && (t.loc.Serial == "" || info.SerialNumber == t.loc.Serial) {
			slot, found, matches = s, info, matches+1
		} else if t.loc.Label != "" && info.Label == t.loc.Label {
			namesake = info.SerialNumber
		}
	}
	t.mu.Lock()
	serial := t.serial
	t.mu.Unlock()
	switch {
	case matches == 0 && namesake != "":
		return 0, found, fault.Newf(fault.Fatal, op, "the token of that name has serial %q, not %q: re-initialised or replaced", namesake, t.loc.Serial)
	case matches == 0:
		return 0, found, fault.Newf(fault.Unavailable, op, "no slot holds it")
	case matches > 1:
		return 0, found, fault.Newf(fault.Fatal, op, "%d tokens match: give the serial number", matches)
	case serial != "" && found.SerialNumber != serial:
		return 0, found, fault.Newf(fault.Fatal, op, "it came back with serial %q, opened was serial %q: re-initialised or replaced", found.SerialNumber, serial)
	}
	return slot, found, nil
}

// trim removes the padding of PKCS #11 strings; tpm2-pkcs11 pads with NULs.
func trim(info *p11.TokenInfo) {
	for _, s := range []*string{&info.Label, &info.SerialNumber, &info.Model, &info.ManufacturerID} {
		*s = strings.Trim(*s, " \x00")
	}
}

// fitForLogin refuses to spend a PIN attempt where it cannot succeed, or where
// a failure would lock the token.
func fitForLogin(info p11.TokenInfo) error {
	op := "log in to token " + info.Label
	switch {
	case info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 || info.Flags&p11.CKF_USER_PIN_INITIALIZED == 0:
		return fault.Newf(fault.Fatal, op, "it is not initialised, or has no user PIN")
	case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return fault.Newf(fault.Fatal, op, "%w is locked", errPIN)
	case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return fault.Newf(fault.Fatal, op, "%w has one try left, which is not ours to spend", errPIN)
	}
	return nil
}

func (t *Token) enterPIN(anchor p11.SessionHandle) error {
	op := "log in to token " + t.loc.Name()
	pin, err := t.loc.ReadPIN()
	if err != nil {
		return err
	}
	err = t.direct.Login(anchor, pin)
	clear(pin)
	switch {
	case err == nil:
		t.unclear = false
		return nil
	case rv.Kind(err) == fault.Fatal:
		return fault.Newf(fault.Fatal, op, "%w was refused, and is not tried again: %w", errPIN, err)
	case !rv.BeforePIN(err):
		return fault.Newf(fault.Fatal, op, "%w was answered in a way that may mean a refusal, and is not tried again: %w", errPIN, err)
	}
	t.unclear = true
	// CKR_USER_ALREADY_LOGGED_IN included: somebody else's login in this
	// process would also be somebody else's logout.
	return inCall("C_Login", err)
}

// initialize is C_Initialize with Config.InitArgs. The binding's option takes C
// memory, which a module may keep looking at: it is given once and never freed.
func (t *Token) initialize() error {
	if t.cfg.InitArgs == "" {
		return t.mod.Initialize()
	}
	if t.reserved == nil {
		t.reserved = direct.CString(t.cfg.InitArgs)
	}
	return t.mod.Initialize(p11.InitializeWithReserved(t.reserved))
}
