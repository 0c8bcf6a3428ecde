package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// The spool is a file in the state directory: what operators did to keys while no
// daemon ran, one Event a line. The next start takes it into the security log. It
// is not encrypted, and holds operators' names but no subject's: who may write there may forge
// or remove lines until then.
const (
	spoolFile = "ceremony-events.jsonl"
	takenFile = "ceremony-events.taken.jsonl"
	maxSpool  = 4 << 20 // octets
)

// Spool adds e to the spool in the folder state, durably.
func Spool(state string, e Event) error {
	path := filepath.Join(state, spoolFile)
	op := "note " + e.What + " in " + path
	line, err := json.Marshal(e)
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	// An operator may be root; the daemon that takes the file is whoever owns the folder.
	err = ownedAs(f, state)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if err := errors.Join(err, f.Sync(), f.Close(), syncFolder(state)); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}

// syncFolder makes a new file's name durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ownedAs(f *os.File, folder string) error {
	var of, is unix.Stat_t
	if err := errors.Join(unix.Stat(folder, &of), unix.Fstat(int(f.Fd()), &is)); err != nil {
		return err
	}
	if of.Uid == is.Uid || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(of.Uid), int(of.Gid))
}

// TakeSpool keeps what is in the spool in the security log and removes it. After
// a crash in between, lines are kept twice rather than lost.
func (j *Journals) TakeSpool(ctx context.Context) error {
	spool, taken := filepath.Join(j.cfg.State, spoolFile), filepath.Join(j.cfg.State, takenFile)
	for range 2 { // what an interrupted start took, then what came since
		if err := j.take(ctx, taken); err != nil {
			return err
		}
		if err := os.Rename(spool, taken); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Unavailable, "take "+spool, err)
		}
	}
	return j.take(ctx, taken)
}

func (j *Journals) take(ctx context.Context, path string) error {
	op := "take " + path + " into the security log"
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxSpool {
		return fault.Newf(fault.Fatal, op, "not a regular file of at most %d octets: %v", maxSpool, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxSpool)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// Half a line of a power cut, or tampering: worth a record, not an outage.
			e = Event{What: "ceremony-unreadable", Detail: short(lines.Text(), maxDetail)}
		}
		if err := j.Security.Act(ctx, e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	if err := os.Remove(path); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}
