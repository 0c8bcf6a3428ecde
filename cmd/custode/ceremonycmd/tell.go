package ceremonycmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"custode/internal/admin"
	"custode/internal/fault"
	"custode/internal/journal"
)

// teller returns what keeps a step in the security log: through the running
// daemon, else in the spool that the next start takes. On a machine without a
// machine file there is neither, and it says so.
func teller(c Host) func(ctx context.Context, what, actor, detail string) error {
	return func(_ context.Context, what, actor, detail string) error {
		machine, err := c.MachineFile()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // one that is there says where the log is
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "custode: NOT IN A SECURITY LOG, there is no machine file: %s: %s\n", what, detail)
			return nil
		}
		e := journal.Event{What: what, Actor: actor, Detail: detail, At: time.Now().UTC()}
		err = admin.Call(machine.AdminSocket, "ceremony/note", Note{Actor: actor, What: what, Detail: detail}, nil)
		if !fault.Is(err, fault.Unavailable) {
			return err
		}
		return journal.Spool(machine.StateDirectory, e)
	}
}

// prefix begins the name of every step of a ceremony in the security log.
const prefix = "ceremony-"

// tell is teller for one step of this operator.
func tell(ctx context.Context, c Host, what, detail string) error {
	return teller(c)(ctx, prefix+what, admin.Actor(), detail)
}

// Note is the argument of ceremony/note: a step of a ceremony for the security log.
type Note struct {
	Actor  string `json:"actor"`
	What   string `json:"what"`
	Detail string `json:"detail"`
}

// Methods are what the administration socket answers to a ceremony.
func Methods(log func() *journal.Security) map[string]admin.Method {
	return map[string]admin.Method{
		"ceremony/note": func(ctx context.Context, arg []byte) (any, error) {
			var in Note
			if err := admin.Decode(arg, &in); err != nil {
				return nil, err
			}
			if in.Actor == "" || !strings.HasPrefix(in.What, prefix) {
				return nil, fault.Newf(fault.Invalid, "read the argument", "nobody says who acts, or it is no step of a ceremony")
			}
			return "ok", log().Act(ctx, journal.Event{What: in.What, Actor: in.Actor, Detail: in.Detail})
		},
	}
}
