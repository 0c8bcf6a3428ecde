// Package tokencmd are the operators' commands about OATH devices: the subcommands of `custode
// token`, and the methods by which the running daemon answers them on the
// administration socket. Wiring only, like cmd/custode, which imports it. Every act
// is in the security log before it takes effect; no code, seed or password is.
package tokencmd

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"custode/authcore"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/otpvault/device"
	"custode/otpvault/issuing"
	"custode/otpvault/pskc"
)

// Security keeps administrative acts (journal.Security).
type Security interface {
	Act(ctx context.Context, e journal.Event) error
}

// Codes forgets wrong SMS codes (authcore.Login).
type Codes interface {
	ForgiveCodes(ctx context.Context, s id.Subject) error
}

// Config is what the methods need.
type Config struct {
	Office   *issuing.Office
	DB       *store.DB
	Devices  *otpstore.DB
	Security Security
	Codes    Codes
	Now      func() time.Time
	Log      *slog.Logger
}

type methods struct {
	Config
	jobs admin.Jobs
}

// argument is the argument of every method; each uses what it needs. It travels over the
// administration socket only.
type argument struct {
	Actor        string `json:"actor,omitempty"`
	Reason       string `json:"reason,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Username     string `json:"username,omitempty"`
	Code         string `json:"code,omitempty"`
	Second       string `json:"second,omitempty"`
	Action       string `json:"action,omitempty"`
	ByCode       bool   `json:"byCode,omitempty"`
	File         string `json:"file,omitempty"`
	Format       string `json:"format,omitempty"`
	KeyFile      string `json:"keyFile,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"`
	Plain        bool   `json:"plain,omitempty"`
}

// enrolled is what is shown once of a new virtual device.
type enrolled struct {
	Serial string `json:"serial"`
	URI    []byte `json:"uri,omitempty"`
	Code   string `json:"code,omitempty"`
}

// call is an argument read and its names resolved.
type call struct {
	argument
	serial id.Serial         // zero when none was given
	who    authcore.Identity // zero when none was given
	change device.Change
}

// Methods adds what the administration socket answers about devices.
func Methods(c Config, into map[string]admin.Method) map[string]admin.Method {
	m := &methods{Config: c}
	for name, work := range map[string]func(context.Context, call) (any, error){
		"token/import": m.importFile, "token/assign": m.assign, "token/activate": m.activate, "token/resync": m.resync,
		"token/block": m.block, "token/unblock": m.unblock, "token/revoke": m.revoke, "token/enrol": m.enrol,
		"token/emergency/issue": m.issueEmergency, "token/emergency/redeem": m.redeemEmergency,
	} {
		into[name] = m.acted(name, work)
	}
	into["token/show"] = func(ctx context.Context, arg []byte) (any, error) {
		in, err := m.read(ctx, arg)
		if err != nil {
			return nil, err
		}
		return m.show(ctx, in)
	}
	into["token/job"] = m.jobs.State
	return into
}

// mostWords bounds who acts and why, in octets: more would be cut in the security log, and makes a device's history too
// long to be shown.
const mostWords = 200

func (m *methods) read(ctx context.Context, arg []byte) (in call, err error) {
	if err := admin.Decode(arg, &in.argument); err != nil {
		return in, err
	}
	for _, said := range []string{in.Actor, in.Reason} {
		if len(said) > mostWords || strings.ContainsFunc(said, unicode.IsControl) {
			return in, fault.Newf(fault.Invalid, "read the argument", "who acts and why are at most %d printable octets each", mostWords)
		}
	}
	if in.argument.Serial != "" {
		if in.serial, err = id.ParseSerial(in.argument.Serial); err != nil {
			return in, err
		}
	}
	if in.Username != "" {
		u, err := id.ParseUsername(in.Username)
		if err != nil {
			return in, err
		}
		if in.who, err = m.DB.IdentityByUsername(ctx, u); err != nil {
			return in, err
		}
	}
	in.change = device.Change{Actor: in.Actor, Reason: in.Reason, At: m.Now().UTC()}
	return in, nil
}

// acted has the call kept, without codes, before it takes effect, and its failure after.
func (m *methods) acted(name string, work func(context.Context, call) (any, error)) admin.Method {
	return func(ctx context.Context, arg []byte) (any, error) {
		in, err := m.read(ctx, arg)
		if err != nil {
			return nil, err
		}
		if in.Actor == "" {
			return nil, fault.Newf(fault.Invalid, "read the argument", "nobody says who acts")
		}
		e := journal.Event{What: name, Actor: in.Actor, Subject: m.subject(ctx, in).String(),
			Detail: fmt.Sprintf("serial %q, username %q, file %q, action %q, reason %q", in.serial.String(), in.Username, in.File, in.Action, in.Reason)}
		if err := m.Security.Act(ctx, e); err != nil {
			return nil, err
		}
		result, err := work(ctx, in)
		if err != nil {
			m.failed(ctx, e, err)
		}
		return result, err
	}
}

// subject is whom a call is about, as far as it is known.
func (m *methods) subject(ctx context.Context, in call) id.Subject {
	if in.serial.IsZero() || !in.who.Subject.IsZero() {
		return in.who.Subject
	}
	d, err := m.Devices.Device(ctx, in.serial)
	if err != nil { // the method itself will say so
		return id.Subject{}
	}
	return d.Subject
}

func (m *methods) failed(ctx context.Context, e journal.Event, err error) {
	e.What, e.Detail = e.What+"-failed", e.Detail+": "+fault.KindOf(err).String()
	if err := m.Security.Act(ctx, e); err != nil {
		m.Log.Error("not kept in the security log", "error", err)
	}
}

// importFile starts a job: a large delivery takes minutes.
func (m *methods) importFile(ctx context.Context, in call) (any, error) {
	batch, problems, err := readDelivery(in.argument)
	if len(problems) > 0 {
		return nil, fault.Newf(fault.Invalid, "import "+in.File, "%d lines are refused; line %d: %w", len(problems), problems[0].Line, problems[0].Err)
	}
	if err != nil {
		return nil, err
	}
	started, err := m.jobs.Start(ctx, func(ctx context.Context) (any, error) {
		serials, err := m.Office.Import(ctx, batch, in.change)
		if err != nil {
			m.Log.Error("delivery not imported", "file", in.File, "error", err)
			m.failed(ctx, journal.Event{What: "token/import", Actor: in.Actor, Detail: fmt.Sprintf("file %q", in.File)}, err)
			return nil, err
		}
		m.Log.Info("devices imported", "file", in.File, "devices", len(serials))
		return map[string]any{"devices": len(serials), "first": serials[0].String(), "last": serials[len(serials)-1].String(), "signed": batch.Signed}, nil
	})
	if err != nil {
		batch.Wipe()
	}
	return started, err
}

func readDelivery(in argument) (batch pskc.Batch, problems []pskc.Problem, err error) {
	doc, err := readPrivate(in.File)
	if err != nil {
		return batch, nil, err
	}
	switch in.Format {
	case "hex":
		return pskc.ReadTable(doc, pskc.Hex)
	case "base32":
		return pskc.ReadTable(doc, pskc.Base32)
	}
	o := pskc.Options{AllowPlain: in.Plain}
	if in.PasswordFile != "" {
		if o.Password, err = config.ReadSecret(in.PasswordFile); err != nil {
			return batch, nil, err
		}
		defer clear(o.Password)
	}
	if in.KeyFile != "" {
		line, err := config.ReadSecret(in.KeyFile)
		if err != nil {
			return batch, nil, err
		}
		defer clear(line)
		o.Key = make([]byte, hex.DecodedLen(len(line)))
		defer clear(o.Key)
		if _, err := hex.Decode(o.Key, line); err != nil {
			return batch, nil, fault.Newf(fault.Invalid, "read key file", "it is not hex")
		}
	}
	batch, err = pskc.Read(doc, o)
	return batch, nil, err
}

// readPrivate reads a file that nobody but its owner can.
func readPrivate(path string) ([]byte, error) {
	op := "read delivery " + path
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || st.Size() > pskc.MaxBytes {
		return nil, fault.Newf(fault.Invalid, op, "a regular file of at most %d octets that only its owner may read is wanted", pskc.MaxBytes)
	}
	doc := make([]byte, st.Size())
	if _, err := io.ReadFull(f, doc); err != nil {
		clear(doc)
		return nil, fault.New(fault.Unavailable, op, err)
	}
	return doc, nil
}

func (m *methods) assign(ctx context.Context, in call) (any, error) {
	if in.who.State != authcore.Active {
		return nil, fault.Newf(fault.Conflict, "assign device", "no identity is named, or it is not active")
	}
	return m.then(ctx, in, m.Office.Assign(ctx, in.serial, in.who.Subject, in.change))
}

// then shows the device that a method has changed.
func (m *methods) then(ctx context.Context, in call, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return m.show(ctx, in)
}

func (m *methods) activate(ctx context.Context, in call) (any, error) {
	d, err := m.Office.Activate(ctx, in.serial, in.Code, in.Second, in.change)
	if err != nil {
		return nil, err
	}
	v, err := m.view(ctx, in.serial)
	if err != nil {
		return nil, err
	}
	code, err := m.Office.IssueEmergency(ctx, d.Subject, true)
	if err != nil && !fault.Is(err, fault.Conflict) {
		m.Log.Error("no emergency code was made", "serial", in.serial.String(), "error", err)
	}
	return activated{v, code}, nil
}

// activated is a device that was activated, and the subject's emergency code if it is their
// first: it is shown this once.
type activated struct {
	view
	Emergency string `json:"emergencyCode,omitempty"`
}

func (m *methods) resync(ctx context.Context, in call) (any, error) {
	if in.Second == "" {
		return nil, fault.Newf(fault.Invalid, "resynchronise device", "two codes are wanted")
	}
	return m.then(ctx, in, m.Office.Resync(ctx, in.serial, in.Code, in.Second))
}

func (m *methods) block(ctx context.Context, in call) (any, error) {
	return m.then(ctx, in, m.Office.Move(ctx, in.serial, func(d device.Device) (device.Move, error) { return d.Suspend(in.change) }))
}

func (m *methods) unblock(ctx context.Context, in call) (any, error) {
	if in.Reason == "" {
		return nil, fault.Newf(fault.Invalid, "unblock", "no reason is given")
	}
	if in.serial.IsZero() {
		if in.who.Subject.IsZero() {
			return nil, fault.Newf(fault.Invalid, "unblock", "neither a device nor a person is named")
		}
		return map[string]string{"username": in.Username, "sms": "unblocked"}, m.Codes.ForgiveCodes(ctx, in.who.Subject)
	}
	return m.then(ctx, in, m.Office.Unblock(ctx, in.serial, in.change))
}

func (m *methods) revoke(ctx context.Context, in call) (any, error) {
	return m.then(ctx, in, m.Office.Move(ctx, in.serial, func(d device.Device) (device.Move, error) { return d.Revoke(in.change) }))
}

func (m *methods) enrol(ctx context.Context, in call) (any, error) {
	if in.who.State != authcore.Active {
		return nil, fault.Newf(fault.Conflict, "enrol an app", "no identity is named, or it is not active")
	}
	if in.ByCode {
		serial, code, err := m.Office.EnrolCode(ctx, in.who.Subject)
		if err != nil {
			return nil, err
		}
		return enrolled{Serial: serial.String(), Code: code}, nil
	}
	serial, uri, err := m.Office.EnrolURI(ctx, in.who.Subject, in.change)
	if err != nil {
		return nil, err
	}
	return enrolled{Serial: serial.String(), URI: uri}, nil
}
