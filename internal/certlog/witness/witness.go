// Package witness copies each checkpoint of a certified log to places outside
// the machine's reach: folders (other disks, other hosts' shares) and HTTP
// endpoints. Who holds a checkpoint can show that a log was shortened, put back
// or rewritten after it, whoever holds the keys: certlog.Verify compares.
//
// A folder gets <folder>/<log>/N.bes when a segment is sealed and N.p7m when it is
// time-stamped; what a witness holds is never replaced by something else. An
// endpoint gets the same octets by POST, application/pkcs7-mime, named in
// Content-Disposition; any 2xx answer says that it keeps them. Which ones it
// took is remembered in a file, whose loss means that all are sent again.
//
// It can only add: it never reads its folders to change the log. internal/certlog
// does not know it; cmd makes a Pusher for each log.
package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"custode/internal/certlog"
	"custode/internal/fault"
)

// Config is what New needs.
type Config struct {
	Name     string         // of the log
	FS       certlog.Folder // the log's folder
	Folders  []string
	URLs     []string
	HTTP     *http.Client  // with a time limit
	State    string        // path of the file that remembers what the URLs took
	Pause    time.Duration // between two attempts
	Patience time.Duration // after which a checkpoint that a place lacks is an alarm
	Now      func() time.Time
	Log      *slog.Logger
}

// Place is how one witness stands, for operators.
type Place struct {
	To      string    `json:"to"`
	Holds   uint64    `json:"holds"`            // segments, from the first, whose time-stamped checkpoint it has
	Failing time.Time `json:"failing,omitzero"` // since when
	Error   string    `json:"error,omitempty"`
}

// Pusher keeps witnesses up to date.
type Pusher struct {
	cfg    Config
	kick   chan struct{}
	places []*place
	mu     sync.Mutex // guards the Place of each place
}

type place struct {
	Place
	early map[uint64]bool // segments whose N.bes it has
	put   func(ctx context.Context, name string, octets []byte) error
	after func(*place) error // remembers Holds
}

// maxCheckpoint bounds what is read, in octets.
const maxCheckpoint = 128 << 10

// New makes a Pusher; nothing is opened.
func New(cfg Config) *Pusher {
	p := &Pusher{cfg: cfg, kick: make(chan struct{}, 1)}
	for _, folder := range cfg.Folders {
		dir := filepath.Join(folder, cfg.Name)
		p.places = append(p.places, &place{Place: Place{To: folder}, early: map[uint64]bool{},
			put: func(_ context.Context, name string, octets []byte) error { return putFile(folder, dir, name, octets) }})
	}
	for _, url := range cfg.URLs {
		p.places = append(p.places, &place{Place: Place{To: url}, early: map[uint64]bool{}, after: p.remember,
			put: func(ctx context.Context, name string, octets []byte) error { return p.post(ctx, url, name, octets) }})
	}
	return p
}

// Kick makes Run look at once: a segment was sealed.
func (p *Pusher) Kick() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Status is a snapshot.
func (p *Pusher) Status() []Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Place
	for _, x := range p.places {
		out = append(out, x.Place)
	}
	return out
}

// Run pushes until ctx ends. Places do not wait for one another.
func (p *Pusher) Run(ctx context.Context) error {
	took, err := p.recall()
	if err != nil {
		p.cfg.Log.Warn("witness: what was sent is not known; all is sent again", "file", p.cfg.State, "error", err)
	}
	for _, x := range p.places {
		x.Holds = took[x.To]
	}
	tick := time.NewTicker(p.cfg.Pause)
	defer tick.Stop()
	for {
		p.Round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
		case <-tick.C:
		}
	}
}

// Round pushes once, to every place, what it lacks.
func (p *Pusher) Round(ctx context.Context) {
	var wg sync.WaitGroup
	for _, x := range p.places {
		wg.Go(func() {
			err := p.serve(ctx, x)
			if ctx.Err() == nil {
				p.note(x, err)
			}
		})
	}
	wg.Wait()
}

func (p *Pusher) note(x *place, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		x.Failing, x.Error = time.Time{}, ""
		return
	}
	now := p.cfg.Now()
	if x.Failing.IsZero() {
		x.Failing = now
	}
	x.Error = err.Error()
	level := slog.LevelWarn
	if now.Sub(x.Failing) >= p.cfg.Patience {
		level = slog.LevelError
	}
	p.cfg.Log.Log(context.Background(), level, "witness does not take checkpoints", "log", p.cfg.Name, "witness", x.To, "since", x.Failing, "error", err)
}

// serve gives the place every checkpoint in order, from the first it lacks.
func (p *Pusher) serve(ctx context.Context, x *place) error {
	gap := false
	for n := x.Holds + 1; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("%012d.p7m", n)
		octets, err := p.read(name)
		if err == nil {
			if err := x.put(ctx, name, octets); err != nil {
				return err
			}
			delete(x.early, n)
			if !gap {
				p.mu.Lock()
				x.Holds = n
				p.mu.Unlock()
			}
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		name = fmt.Sprintf("%012d.bes", n)
		if octets, err = p.read(name); errors.Is(err, fs.ErrNotExist) {
			break // not sealed yet
		}
		if err == nil && !x.early[n] {
			err = x.put(ctx, name, octets)
		}
		if err != nil {
			return err
		}
		x.early[n], gap = true, true
	}
	if x.after != nil {
		return x.after(x)
	}
	return ctx.Err()
}

func (p *Pusher) read(name string) ([]byte, error) {
	f, err := p.cfg.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	octets, err := io.ReadAll(io.NewSectionReader(f, 0, maxCheckpoint+1))
	if err == nil && len(octets) > maxCheckpoint {
		err = fault.Newf(fault.Invalid, "read "+name, "longer than %d octets", maxCheckpoint)
	}
	return octets, err
}

// putFile makes a durable file that was not there. The witness's folder itself
// must exist: a share that is not mounted is no place.
func putFile(folder, dir, name string, octets []byte) error {
	op := "write " + filepath.Join(dir, name)
	if _, err := os.Stat(folder); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); err == nil {
		return nil // whatever it is, it is the witness's: verify compares
	}
	if err := writeFile(path+".new", octets, 0o640); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	if err := syncFolder(dir); err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	return nil
}

func writeFile(path string, octets []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(octets)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (p *Pusher) post(ctx context.Context, url, name string, octets []byte) error {
	op := "post " + name + " to " + url
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(octets))
	if err != nil {
		return fault.New(fault.Invalid, op, err)
	}
	req.Header.Set("Content-Type", "application/pkcs7-mime")
	req.Header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s"`, p.cfg.Name, name))
	res, err := p.cfg.HTTP.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, op, err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fault.Newf(fault.Unavailable, op, "HTTP %d", res.StatusCode)
	}
	return nil
}

// remember writes what each URL took.
func (p *Pusher) remember(*place) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := map[string]uint64{}
	for _, x := range p.places {
		if x.after != nil {
			took[x.To] = x.Holds
		}
	}
	text, err := json.Marshal(took)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(p.cfg.State); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := writeFile(p.cfg.State+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(p.cfg.State+".new", p.cfg.State)
}

func (p *Pusher) recall() (map[string]uint64, error) {
	if len(p.cfg.URLs) == 0 {
		return nil, nil
	}
	text, err := os.ReadFile(p.cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	took := map[string]uint64{}
	return took, json.Unmarshal(text, &took)
}
