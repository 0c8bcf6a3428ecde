// Package backup is `custode backup`: a consistent copy of the database while it is in use. The copy holds the
// same boxes and the same wrapped data keys as the original (internal/store/hide), so that it is of no
// use without the token; the certified log is copied by `custode log export` and by its witnesses, keys by the
// token's own means. Only cmd/custode imports it.
package backup

import (
	"context"
	"fmt"
	"path/filepath"

	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/store"
)

// DatabaseFile is the database's name in the state directory.
const DatabaseFile = "custode.db"

// Host is what the command needs of the program.
type Host interface {
	MachineFile() (*config.Machine, error)
}

// Command is the command line.
type Command struct {
	File string `arg:"" type:"path" help:"New file for the copy, in a folder that the appliance may write to."`
}

type argument struct {
	Actor string `json:"actor"`
	File  string `json:"file"`
}

const (
	start = "backup/start"
	state = "backup/job"
)

// Run asks the daemon for the copy, and makes it itself when there is none.
func (b *Command) Run(h Host) error {
	machine, err := h.MachineFile()
	if err != nil {
		return err
	}
	_, err = admin.Await(machine.AdminSocket, start, state, argument{admin.Actor(), b.File})
	if fault.Is(err, fault.Unavailable) { // nobody answers; if it was the disk, it says so again
		err = store.Backup(context.Background(), filepath.Join(machine.StateDirectory, DatabaseFile), b.File)
	}
	if err != nil {
		return err
	}
	fmt.Println("ok:", b.File)
	return nil
}

// Methods adds what the administration socket answers. A copy may take longer than a call.
func Methods(methods map[string]admin.Method, copyTo func(ctx context.Context, path string) error) {
	var jobs admin.Jobs
	methods[state] = jobs.State
	methods[start] = func(ctx context.Context, arg []byte) (any, error) {
		var in argument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		if !filepath.IsAbs(in.File) {
			return nil, fault.Newf(fault.Invalid, "back up the database", "the file's path is not absolute")
		}
		return jobs.Start(ctx, func(ctx context.Context) (any, error) { return nil, copyTo(ctx, in.File) })
	}
}
