// Package witness copies each checkpoint of a certified log, and each statement
// of destruction, to places outside the machine's reach: folders (other disks,
// other hosts' shares), HTTP endpoints and mailboxes. Who holds a checkpoint can show that a log was shortened, put back
// or rewritten after it, whoever holds the keys: certlog.Verify compares.
//
// A folder gets <folder>/<log>/N.bes when a segment is sealed, N.p7m when it is
// time-stamped, and destroyed-N.p7m; what a witness holds is never replaced by
// something else. An endpoint gets the same octets by POST,
// application/pkcs7-mime, named in Content-Disposition; any 2xx answer says that
// it keeps them. A mailbox gets a letter for each (see mail), N.bes only when the
// time-stamp is late. What endpoints and mailboxes took is remembered in a file,
// whose loss means that all is sent again.
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
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/folder"
	"custode/internal/fault"
)

// Config is what New needs.
type Config struct {
	Name     string         // of the log
	FS       certlog.Folder // the log's folder
	Folders  []string
	URLs     []string
	Mails    []Mail
	HTTP     *http.Client  // with a time limit
	State    folder.FS     // folder of the file that remembers what URLs and mailboxes took
	Pause    time.Duration // between two attempts
	Patience time.Duration // after which a checkpoint that a place lacks is an alarm
	Now      func() time.Time
	Log      *slog.Logger
}

// Mail is a mailbox; Send is a mail.Sender's.
type Mail struct {
	To   string // for operators; names it in the state
	Send func(ctx context.Context, log, name string, octets []byte) error
}

// Place is how one witness stands, for operators.
type Place struct {
	To      string    `json:"to"`
	Holds   uint64    `json:"holds"`            // segments, from the first, whose time-stamped checkpoint it has
	Failing time.Time `json:"failing,omitzero"` // since when
	Error   string    `json:"error,omitempty"`
	Told    int       `json:"told"` // statements of destruction it has
}

// Pusher keeps witnesses up to date.
type Pusher struct {
	cfg    Config
	kick   chan struct{}
	places []*place
	rounds sync.Mutex // one round at a time; guards early and seen of each place
	mu     sync.Mutex // guards the Place and told of each place, list and statements

	list       bool     // the folder is to be looked at for statements
	statements []string // names, as far as known
}

type place struct {
	Place
	told     map[string]bool      // statements it has
	early    map[uint64]bool      // segments whose N.bes it has
	patience time.Duration        // before it gets an N.bes
	seen     map[uint64]time.Time // when an N.bes was first seen
	put      func(ctx context.Context, name string, octets []byte) error
	after    func() error // remembers Holds and told
}

// mailPatience is how long a mailbox waits for a segment's time-stamp before it
// gets the seal without: two letters for each segment would hide the one that matters.
const mailPatience = 10 * time.Minute

// maxCheckpoint bounds what is read, in octets.
const maxCheckpoint = 128 << 10

// New makes a Pusher; nothing is opened.
func New(cfg Config) *Pusher {
	p := &Pusher{cfg: cfg, kick: make(chan struct{}, 1), list: true}
	add := func(to string, x place) {
		x.To, x.early, x.seen, x.told = to, map[uint64]bool{}, map[uint64]time.Time{}, map[string]bool{}
		p.places = append(p.places, &x)
	}
	for _, folder := range cfg.Folders {
		dir := filepath.Join(folder, cfg.Name)
		add(folder, place{put: func(_ context.Context, name string, octets []byte) error { return putFile(folder, dir, name, octets) }})
	}
	for _, url := range cfg.URLs {
		add(url, place{after: p.remember, put: func(ctx context.Context, name string, octets []byte) error { return p.post(ctx, url, name, octets) }})
	}
	for _, m := range cfg.Mails {
		add(m.To, place{after: p.remember, patience: mailPatience,
			put: func(ctx context.Context, name string, octets []byte) error {
				return m.Send(ctx, cfg.Name, name, octets)
			}})
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

// Destroyed makes Run look at once for a statement of destruction.
func (p *Pusher) Destroyed() {
	p.mu.Lock()
	p.list = true
	p.mu.Unlock()
	p.Kick()
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
	p.begin()
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

// begin takes up what earlier processes sent.
func (p *Pusher) begin() {
	took, err := p.recall()
	if err != nil {
		p.cfg.Log.Warn("witness: what was sent is not known; all is sent again", "log", p.cfg.Name, "file", p.stateName(), "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.places {
		if x.after == nil {
			continue
		}
		x.Holds = took[x.To].Holds
		for _, name := range took[x.To].Statements {
			x.told[name] = true
		}
		x.Told = len(x.told)
	}
}

// Round pushes once, to every place, what it lacks.
func (p *Pusher) Round(ctx context.Context) {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	p.lookForStatements()
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

// lookForStatements lists the folder, which may be long, only when there may be a new one.
func (p *Pusher) lookForStatements() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.list {
		return
	}
	files, err := p.cfg.FS.List()
	if err != nil {
		p.cfg.Log.Warn("witness: statements of destruction not looked for; tried again", "log", p.cfg.Name, "error", err)
		return
	}
	p.list, p.statements = false, nil
	for name := range files {
		if strings.HasPrefix(name, "destroyed-") && strings.HasSuffix(name, ".p7m") {
			p.statements = append(p.statements, name)
		}
	}
	slices.Sort(p.statements)
}

// tell gives the place the statements it lacks.
func (p *Pusher) tell(ctx context.Context, x *place) error {
	p.mu.Lock()
	var lacks []string
	for _, name := range p.statements {
		if !x.told[name] {
			lacks = append(lacks, name)
		}
	}
	p.mu.Unlock()
	for _, name := range lacks {
		octets, err := p.read(name)
		if err == nil {
			err = x.put(ctx, name, octets)
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		x.told[name] = true
		x.Told = len(x.told)
		p.mu.Unlock()
	}
	return nil
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
			delete(x.seen, n)
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
		gap = true
		if err == nil && !x.early[n] && p.late(x, n) {
			if err = x.put(ctx, name, octets); err == nil {
				x.early[n] = true
			}
		}
		if err != nil {
			return err
		}
	}
	err := p.tell(ctx, x)
	if x.after != nil {
		err = errors.Join(err, x.after())
	}
	return err
}

// late reports whether the place is to get the seal without its time-stamp.
func (p *Pusher) late(x *place, n uint64) bool {
	now := p.cfg.Now()
	if x.seen[n].IsZero() {
		x.seen[n] = now
	}
	return now.Sub(x.seen[n]) >= x.patience
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

// taken is what a place took, as remembered.
type taken struct {
	Holds      uint64   `json:"holds"`
	Statements []string `json:"statements,omitempty"`
}

func (p *Pusher) stateName() string { return "witness-" + p.cfg.Name + ".json" }

// maxState bounds the file, in octets.
const maxState = 4 << 20

// remember writes what each URL and mailbox took.
func (p *Pusher) remember() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := map[string]taken{}
	for _, x := range p.places {
		if x.after != nil {
			took[x.To] = taken{x.Holds, slices.Sorted(maps.Keys(x.told))}
		}
	}
	text, err := json.Marshal(took)
	if err != nil {
		return err
	}
	if old, err := folder.ReadAll(p.cfg.State, p.stateName(), maxState); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return folder.Publish(p.cfg.State, p.stateName(), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

func (p *Pusher) recall() (map[string]taken, error) {
	if len(p.cfg.URLs)+len(p.cfg.Mails) == 0 {
		return nil, nil
	}
	text, err := folder.ReadAll(p.cfg.State, p.stateName(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	took := map[string]taken{}
	if err := json.Unmarshal(text, &took); err != nil {
		return nil, err
	}
	return took, nil
}
