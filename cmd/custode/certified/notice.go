package certified

import (
	"context"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/modem"
)

// notice is what the subject of an attestation is told: nothing that is about them.
const notice = "SPID: e' stata prodotta un'attestazione dei tuoi accessi. Se non l'hai chiesta tu, avvisa subito il gestore della tua identita'."

// noticeLife is how long the message may wait for a modem.
const noticeLife = 24 * time.Hour

// notify tells the subject that an attestation was made, and the security log
// what came of it. The attestation is made whether or not it can be told.
func (r *Registers) notify(ctx context.Context, in registerArgument) string {
	message, err := r.send(ctx, in.Subject)
	e := journal.Event{What: "attestation-notified", Actor: in.Actor, Detail: message}
	said := message
	if err != nil {
		e.What, e.Detail = "attestation-not-notified", err.Error()
		said = "none: " + err.Error()
		r.Log.Warn("the subject of an attestation was not told", "error", err)
	}
	e.Subject = in.Subject
	if err := r.Security.Act(ctx, e); err != nil {
		r.Log.Error("not kept in the security log", "what", e.What, "error", err)
	}
	return said
}

func (r *Registers) send(ctx context.Context, spidCode string) (string, error) {
	const op = "tell the subject of an attestation"
	if r.Policy.CertifiedLog.SilentAttestation {
		return "", fault.Newf(fault.Denied, op, "turned off by certified_log.silent_attestation")
	}
	code, err := id.ParseSPIDCode(spidCode)
	if err != nil {
		return "", err
	}
	to, err := r.Phone(ctx, code)
	if err != nil {
		return "", err
	}
	if to.IsZero() {
		return "", fault.Newf(fault.NotFound, op, "no telephone is known")
	}
	k, err := id.NewMessageID(r.Token.Random())
	if err != nil {
		return "", err
	}
	now := time.Now()
	if err := r.Queue(ctx, modem.Message{ID: k, To: to, Class: modem.Alert, Created: now, Expires: now.Add(noticeLife)}, []byte(notice)); err != nil {
		return "", err
	}
	return k.String(), nil
}
