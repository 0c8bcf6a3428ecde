// Package rotation is the change of the appliance's mac and wrap keys while it
// runs: earlier keys stay readable, what they wrapped comes under today's in the
// background, passwords are hashed again under today's pepper at their next use, and
// it can say what a key is still needed for. Wiring, like cmd/custode, which imports it.
package rotation

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"custode/authcore/passhash"
	"custode/hsm"
	"custode/hsm/rewrap"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

// Wrapper opens today's wrap key and the earlier ones, which only unwrap.
func Wrapper(t hsm.Token, today id.KeyLabel, earlier []id.KeyLabel) (hsm.Wrapper, error) {
	w, err := t.Wrapper(today)
	if err != nil || len(earlier) == 0 {
		return w, err
	}
	all := hsm.Rotated{Today: w, ByLabel: map[id.KeyLabel]hsm.Wrapper{today: w}}
	for _, label := range earlier {
		if all.ByLabel[label], err = t.Wrapper(label); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Peppers opens today's pepper and the earlier ones.
func Peppers(t hsm.Token, keys config.Keys) (passhash.Config, error) {
	pepper, err := t.MAC(keys.Pepper)
	if err != nil {
		return passhash.Config{}, err
	}
	c := passhash.Config{Pepper: pepper, Label: keys.Pepper}
	for _, label := range keys.EarlierPepper {
		m, err := t.MAC(label)
		if err != nil {
			return c, err
		}
		c.Earlier = append(c.Earlier, passhash.Named{Label: label, Pepper: m})
	}
	return c, nil
}

// Passwords checks passwords and, when one is right that was hashed under an
// earlier pepper, hashes it again under today's.
type Passwords struct {
	*passhash.Hasher
	DB  *store.DB
	Log *slog.Logger
}

// Check implements authcore.Passwords.
func (p Passwords) Check(ctx context.Context, subject id.Subject, stored, password string) error {
	if err := p.Hasher.Check(ctx, subject, stored, password); err != nil || !p.Stale(stored) {
		return err
	}
	// The login is right whatever becomes of this: the earlier pepper is still there.
	fresh, err := p.Hash(ctx, subject, password)
	if err == nil {
		_, err = p.DB.ReplacePassword(ctx, subject, stored, fresh)
	}
	if err != nil {
		p.Log.Warn("password stays under an earlier pepper until the next login", "subject", subject.String(), "error", err)
	}
	return nil
}

// Rewrapping brings what earlier keys wrapped under today's.
type Rewrapping struct {
	Log   *slog.Logger
	works map[string]*rewrap.Work
}

// Add has a table of wrapped blobs looked after.
func (r *Rewrapping) Add(name string, table rewrap.Table, keys hsm.Wrapper, today id.KeyLabel) {
	if r.works == nil {
		r.works = map[string]*rewrap.Work{}
	}
	r.works[name] = &rewrap.Work{Table: table, Keys: keys, Today: today}
}

// The pause after a pass that found nothing to do, and after another.
const (
	restful = time.Hour
	busy    = 10 * time.Second
)

// Run works until ctx ends. It does nothing without a table.
func (r *Rewrapping) Run(ctx context.Context) error {
	for len(r.works) > 0 {
		pause := restful
		for name, w := range r.works {
			was := w.Progress().Done
			if err := w.Pass(ctx); err != nil && ctx.Err() == nil {
				r.Log.Error("rewrapping goes on later", "table", name, "error", err)
			}
			p := w.Progress()
			if p.Done && !was {
				r.Log.Info("everything is under today's key; earlier keys may be destroyed", "table", name, "key", w.Today.String())
			}
			if p.Rewrapped > 0 || p.Unread > 0 {
				r.Log.Info("rewrapped", "table", name, "key", w.Today.String(), "rewrapped", p.Rewrapped, "unread", p.Unread)
			}
			if !p.Done {
				pause = busy
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
	return nil
}

// Progress of every table.
func (r *Rewrapping) Progress() map[string]rewrap.Progress {
	out := map[string]rewrap.Progress{}
	for name, w := range r.works {
		out[name] = w.Progress()
	}
	return out
}

// Needed says why a key must not be destroyed; empty when nothing needs it.
func Needed(ctx context.Context, in Argument, keys config.Keys, logs string, db *store.DB) ([]string, error) {
	var why []string
	label := in.Label
	for name, labels := range named(keys) {
		if slices.Contains(labels, label) {
			why = append(why, "policy.yaml names it: keys."+name)
		}
	}
	m, err := db.Mentions(ctx, label, passhash.PepperPrefix(label))
	if err != nil {
		return nil, err
	}
	if !in.MAC {
		m.Unnamed = 0
	}
	segments, err := segmentsOf(logs, label)
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		n    int
		what string
	}{{m.Texts, "texts of waiting messages are wrapped by it"}, {m.Apps, "keys of apps are wrapped by it"}, {m.Devices, "secrets of OATH devices are wrapped by it"}, {m.DataKeys, "data keys of the database are wrapped by it"},
		{m.Passwords, "passwords are hashed under it"},
		{m.Unnamed, "passwords name no pepper, and may be hashed under it"}, {segments, "segments of the certified log are wrapped by it"}} {
		if c.n > 0 {
			why = append(why, count(c.n)+" "+c.what)
		}
	}
	return why, nil
}

// named returns every label of the policy by the name of its setting: a setting
// that is added later is not forgotten here.
func named(keys config.Keys) map[string][]id.KeyLabel {
	out := map[string][]id.KeyLabel{}
	v := reflect.ValueOf(keys)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		switch l := v.Field(i).Interface().(type) {
		case id.KeyLabel:
			out[name] = []id.KeyLabel{l}
		case []id.KeyLabel:
			out[name] = l
		}
	}
	return out
}

// segmentsOf counts the key files below the folder of the certified logs that name
// the label.
func segmentsOf(logs string, label id.KeyLabel) (n int, err error) {
	failed := func(err error) (int, error) {
		return 0, fault.New(fault.Unavailable, "count segments under key "+label.String(), err)
	}
	// WalkDir follows no link, and what is behind one counts too.
	if logs, err = filepath.EvalSymlinks(logs); err != nil {
		return failed(err)
	}
	err = filepath.WalkDir(logs, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			return fault.Newf(fault.Fatal, "read "+path, "what is behind a symbolic link is not counted")
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".key") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var f struct {
			Operational []byte `json:"operational"`
		}
		if err := json.Unmarshal(text, &f); err != nil {
			return fault.New(fault.Fatal, "read "+path, err)
		}
		b, err := hsm.DecodeBlob(f.Operational)
		if err != nil {
			return fault.New(fault.Fatal, "read "+path, err) // it may be of this key
		}
		if b.Key == label {
			n++
		}
		return nil
	})
	if err != nil {
		return failed(err)
	}
	return n, nil
}
