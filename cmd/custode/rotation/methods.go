package rotation

import (
	"context"
	"strconv"

	"custode/authcore/passhash"
	"custode/hsm/rewrap"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/id"
	"custode/internal/store"
)

// Argument names a key. MAC says that it is one.
type Argument struct {
	Label id.KeyLabel `json:"label"`
	MAC   bool        `json:"mac,omitempty"`
}

// Status is what operators see of a rotation in progress.
type Status struct {
	Rewrapping map[string]rewrap.Progress `json:"rewrapping,omitempty"`
	// Passwords by the pepper they are hashed under; "" for those that name none.
	Passwords map[string]int `json:"passwords"`
	// Devices by the seed key that wraps their secret.
	Devices map[string]int `json:"devices"`
}

func count(n int) string { return strconv.Itoa(n) }

// Methods are what the administration socket answers about rotations. keys are those
// that the daemon runs with, signing keys of a reload included.
func (r *Rewrapping) Methods(db *store.DB, keys func() config.Keys, logs string) map[string]admin.Method {
	return map[string]admin.Method{
		"keys/rotation": func(ctx context.Context, _ []byte) (any, error) {
			s, err := StatusOf(ctx, db, keys())
			s.Rewrapping = r.Progress()
			return s, err
		},
		"keys/needed": func(ctx context.Context, arg []byte) (any, error) {
			var in Argument
			if err := admin.Decode(arg, &in); err != nil {
				return nil, err
			}
			// What the daemon runs with, not what the file says by now.
			return Needed(ctx, in, keys(), logs, db)
		},
	}
}

// StatusOf counts what is under which of the configured keys.
func StatusOf(ctx context.Context, db *store.DB, keys config.Keys) (Status, error) {
	s := Status{Passwords: map[string]int{}, Devices: map[string]int{}}
	for _, label := range append([]id.KeyLabel{keys.Pepper}, keys.EarlierPepper...) {
		m, err := db.Mentions(ctx, label, passhash.PepperPrefix(label))
		if err != nil {
			return s, err
		}
		s.Passwords[label.String()], s.Passwords[""] = m.Passwords, m.Unnamed
	}
	for _, label := range append([]id.KeyLabel{keys.Seed}, keys.EarlierSeed...) {
		m, err := db.Mentions(ctx, label, passhash.PepperPrefix(label))
		if err != nil {
			return s, err
		}
		s.Devices[label.String()] = m.Devices
	}
	return s, nil
}
