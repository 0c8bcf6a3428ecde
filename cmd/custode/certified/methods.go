package certified

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"custode/internal/admin"
	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/certlog/export"
	"custode/internal/certlog/keep"
	"custode/internal/certlog/witness"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
)

// registerArgument is the argument of every method about the logs; each uses what it needs.
type registerArgument struct {
	Actor   string    `json:"actor"`
	Log     string    `json:"log,omitempty"`
	Subject string    `json:"subject,omitempty"` // spidCode
	Name    string    `json:"name,omitempty"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
	Before  time.Time `json:"before,omitzero"`
	Case    string    `json:"case,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Number  int       `json:"number,omitempty"`
	Out     string    `json:"out,omitempty"`
}

// logView is what operators see of a log.
type logView struct {
	certlog.Status
	Folder    string          `json:"folder"`
	Witnesses []witness.Place `json:"witnesses,omitempty"`
	Night     keep.Night      `json:"night"`
	Holds     []keep.Hold     `json:"holds,omitempty"`
}

// looks are the methods that change nothing. Every other one, also one that is
// added later and not named anywhere here, is kept in the security log first.
var looks = map[string]bool{
	"identity/show": true, "metadata/show": true, "backup/job": true, "modem/log": true, "modem/inbox": true, "watch/modems": true, "watch/message": true,
	"registry/status": true, "registry/show": true, "hsm/status": true, "hsm/keys": true,
	"keys/rollover": true, "keys/rotation": true, "keys/needed": true,
	"ceremony/note": true, // it is a record itself
}

// Methods adds what the administration socket answers about the logs, and has
// every other change kept in the security log first.
func (r *Registers) Methods(methods map[string]admin.Method) map[string]admin.Method {
	for name, method := range methods {
		if !looks[name] {
			methods[name] = r.acted(name, method)
		}
	}
	methods["log/status"] = r.status
	methods["log/job"] = r.jobs.State
	for name, work := range map[string]func(context.Context, *journal.Kept, registerArgument) (any, error){
		"log/seal": logSeal, "log/destroy": logDestroy, "log/verify": logVerify, "log/attest": r.logAttest, "log/export": r.logExport,
	} {
		methods[name] = func(ctx context.Context, arg []byte) (any, error) {
			k, in, err := r.logActed(ctx, name, arg)
			if err != nil {
				return nil, err
			}
			return r.jobs.Start(ctx, func(ctx context.Context) (any, error) {
				result, err := work(ctx, k, in)
				if err != nil {
					r.Log.Error("work on the certified log failed", "work", name, "error", err)
				}
				return result, err
			})
		}
	}
	for name, work := range map[string]func(*journal.Kept, registerArgument) (any, error){"log/hold": logHold, "log/release": logRelease} {
		methods[name] = func(ctx context.Context, arg []byte) (any, error) {
			k, in, err := r.logActed(ctx, name, arg)
			if err != nil {
				return nil, err
			}
			return work(k, in)
		}
	}
	return methods
}

// acted has the call kept, without its secrets, before it takes effect.
func (r *Registers) acted(name string, method admin.Method) admin.Method {
	return func(ctx context.Context, arg []byte) (any, error) {
		var in struct { // what may be kept of any argument
			Username, Actor, Reason, Bay, What, Class, Label, Serial, File string
			Shrink, Rollback                                               bool
		}
		if err := json.Unmarshal(arg, &in); len(arg) > 0 && err != nil {
			return nil, fault.Newf(fault.Invalid, "read the argument", "%w", err)
		}
		detail := fmt.Sprintf("username %q, reason %q", in.Username, in.Reason)
		if in.Label+in.Serial != "" {
			detail += fmt.Sprintf(", label %q, serial %q", in.Label, in.Serial)
		}
		switch name {
		case "hsm/failover":
			detail = fmt.Sprintf("to the token %q", in.What)
		case "modem/power":
			detail = fmt.Sprintf("bay %q, %q", in.Bay, in.What)
		case "modem/drain", "modem/enable", "modem/ussd", "modem/send", "modem/test", "modem/optout":
			detail = fmt.Sprintf("bay %q, class %q", in.Bay, in.Class)
		case "backup/start":
			detail = fmt.Sprintf("file %q", in.File)
		case "registry/refresh":
			detail = fmt.Sprintf("accept shrink %t, accept rollback %t", in.Shrink, in.Rollback)
		}
		if err := r.act(ctx, name, in.Actor, detail); err != nil {
			return nil, err
		}
		result, err := method(ctx, arg)
		if err != nil {
			if e := r.act(ctx, name+"-failed", in.Actor, detail+": "+fault.KindOf(err).String()); e != nil {
				r.Log.Error("not kept in the security log", "error", e)
			}
		}
		return result, err
	}
}

// logActed reads the argument, finds the log and has the act kept.
func (r *Registers) logActed(ctx context.Context, name string, arg []byte) (*journal.Kept, registerArgument, error) {
	var in registerArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, in, err
	}
	if in.Actor == "" {
		return nil, in, fault.Newf(fault.Invalid, "read the argument", "nobody says who acts")
	}
	if in.Log == "" {
		in.Log = journal.TransactionLog
	}
	k, err := r.Kept(in.Log)
	if err != nil {
		return nil, in, err
	}
	said := in
	said.Actor, said.Name = "", "" // Actor has a place of its own
	detail, err := json.Marshal(said)
	if err != nil {
		return nil, in, fault.New(fault.Internal, "keep "+name, err)
	}
	return k, in, r.act(ctx, name, in.Actor, string(detail))
}

// act keeps an administrative act before it takes effect.
func (r *Registers) act(ctx context.Context, what, actor, detail string) error {
	return r.Security.Act(ctx, journal.Event{What: what, Actor: actor, Detail: detail})
}

func (r *Registers) status(context.Context, []byte) (any, error) {
	var out []logView
	for _, name := range []string{journal.TransactionLog, journal.SecurityLog} {
		k, err := r.Kept(name)
		if err != nil {
			return nil, err
		}
		holds, err := k.Keeper.Holds.List()
		if err != nil {
			return nil, err
		}
		out = append(out, logView{Status: k.Log.Status(), Folder: k.Dir, Witnesses: k.Pusher.Status(), Night: k.Keeper.Last(), Holds: holds})
	}
	return out, nil
}

func logSeal(ctx context.Context, k *journal.Kept, _ registerArgument) (any, error) {
	if err := k.Log.Seal(ctx); err != nil {
		return nil, err
	}
	k.Pusher.Round(ctx)
	return k.Log.Status(), nil
}

func logVerify(ctx context.Context, k *journal.Kept, in registerArgument) (any, error) {
	n := k.Keeper.Night(ctx)
	if n.Problem != "" {
		return nil, fault.Newf(fault.Invalid, "verify "+in.Log, "%s", n.Problem)
	}
	return n, nil
}

func logDestroy(ctx context.Context, k *journal.Kept, in registerArgument) (any, error) {
	d, err := k.Keeper.Destroy(ctx, in.Reason, in.Before)
	if err != nil || d != nil {
		return d, err
	}
	return "nothing to destroy", nil
}

func logHold(k *journal.Kept, in registerArgument) (any, error) {
	return k.Keeper.Holds.Add(keep.Hold{From: in.From, To: in.To, Case: in.Case, Reason: in.Reason, By: in.Actor, At: time.Now().UTC().Truncate(time.Second)})
}

func logRelease(k *journal.Kept, in registerArgument) (any, error) {
	return k.Keeper.Holds.Release(in.Number, in.Actor, time.Now().UTC().Truncate(time.Second))
}

// newFile makes a file that only the daemon's user and root can read.
func newFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.New(fault.Conflict, "make "+path, err)
	}
	return f, nil
}

// written closes the file, or removes it when the work failed.
func written(f *os.File, err error) error {
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fault.New(fault.Unavailable, "write "+f.Name(), err)
		}
	}
	if e := f.Close(); err == nil && e != nil {
		err = fault.New(fault.Unavailable, "write "+f.Name(), e)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// attested is the result of an attestation for the operator.
type attested struct {
	File     string   `json:"file"`
	SPIDCode string   `json:"spidCode"`
	Records  []uint64 `json:"records"`
	Note     string   `json:"note,omitempty"`
	Notice   string   `json:"notice"` // to the subject: message identifier, or why there is none
}

// reader reads what is sealed. A folder that shows less than this process sealed
// must not be taken for all there is.
func (r *Registers) reader(k *journal.Kept) (*certlog.Reader, error) {
	sealed := k.Log.Status().Sealed
	reader, err := certlog.NewReader(certlog.Dir(k.Dir), r.notary)
	if err != nil {
		return nil, err
	}
	if points := reader.Checkpoints(); reader.Log() != k.Log.ID() || sealed > 0 && (len(points) == 0 || points[len(points)-1].Size < sealed) {
		return nil, fault.Newf(fault.Fatal, "read certified log", "%s does not show all %d records that were sealed: its end was removed, or another folder was put in its place", k.Dir, sealed)
	}
	return reader, nil
}

// logAttest closes and seals what is open, so that the last access is in it too.
func (r *Registers) logAttest(ctx context.Context, k *journal.Kept, in registerArgument) (any, error) {
	if _, err := id.ParseSPIDCode(in.Subject); err != nil {
		return nil, err
	}
	if !in.To.After(in.From) {
		return nil, fault.Newf(fault.Invalid, "make an attestation", "the interval is empty")
	}
	if err := k.Log.Seal(ctx); err != nil {
		return nil, err
	}
	reader, err := r.reader(k)
	if err != nil {
		return nil, err
	}
	f, err := newFile(in.Out)
	if err != nil {
		return nil, err
	}
	maker := attest.Maker{Reader: reader, Keys: r.keys, Sealer: r.notary, Seals: r.seals, TSA: r.roots,
		Provider: r.Policy.EntityID.String(), Now: time.Now, Sealed: reader.Sealed, Beside: r.notary.SealDetached}
	s, err := maker.Make(ctx, f, attest.Question{SPIDCode: in.Subject, From: in.From, To: in.To, Name: in.Name})
	if err := written(f, err); err != nil {
		return nil, err
	}
	out := attested{File: in.Out, SPIDCode: s.SPIDCode, Records: s.Records, Notice: r.notify(ctx, in)}
	if len(s.Destroyed) > 0 {
		out.Note = fmt.Sprintf("%d segments of the interval are destroyed", len(s.Destroyed))
	}
	return out, nil
}

// logExport writes the records of sealed segments in clear, JSON lines.
func (r *Registers) logExport(ctx context.Context, k *journal.Kept, in registerArgument) (any, error) {
	reader, err := r.reader(k)
	if err != nil {
		return nil, err
	}
	f, err := newFile(in.Out)
	if err != nil {
		return nil, err
	}
	n, err := export.Plain(ctx, f, reader, r.keys, export.Selection{From: in.From, To: in.To})
	return map[string]any{"file": in.Out, "records": n}, written(f, err)
}
