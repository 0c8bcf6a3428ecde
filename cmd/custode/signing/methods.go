package signing

import (
	"context"
	"encoding/hex"
	"time"

	"custode/hsm/rollover"
	"custode/internal/admin"
	"custode/internal/fault"
	"custode/internal/id"
)

// Argument is the argument of the methods about signing keys; each uses what it needs.
type Argument struct {
	Actor  string      `json:"actor"`
	Label  id.KeyLabel `json:"label,omitzero"`
	Reason string      `json:"reason,omitempty"`
}

// Line is what operators see of a signing key.
type Line struct {
	Label       id.KeyLabel    `json:"label"`
	State       rollover.State `json:"state"`
	Since       time.Time      `json:"since"`
	Certificate string         `json:"certificateSHA256"`
	Due         *time.Time     `json:"nextNotBefore,omitempty"`
	Next        string         `json:"next,omitempty"`
}

// Methods are what the administration socket answers about signing keys. reload
// reads the policy file again.
func (d *Desk) Methods(reload func() (Keys, error)) map[string]admin.Method {
	return map[string]admin.Method{
		"keys/rollover": func(ctx context.Context, _ []byte) (any, error) { return Lines(ctx, d.cfg.Ledger, d.cfg.Rules) },
		"keys/approve": func(ctx context.Context, arg []byte) (any, error) {
			in, err := argument(arg)
			if err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			return Approve(ctx, d.cfg.Ledger, in, d.cfg.Tell, d.cfg.Rules)
		},
		"keys/destroyed": func(ctx context.Context, arg []byte) (any, error) {
			in, err := argument(arg)
			if err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			return Destroyed(ctx, d.cfg.Ledger, in, d.cfg.Tell, d.cfg.Now())
		},
		"keys/reload": func(ctx context.Context, arg []byte) (any, error) {
			in, err := argument(arg)
			if err != nil {
				return nil, err
			}
			keys, err := reload()
			if err != nil {
				return nil, err
			}
			if err := d.Change(ctx, keys, in.Actor); err != nil {
				return nil, err
			}
			return Lines(ctx, d.cfg.Ledger, d.cfg.Rules)
		},
	}
}

func argument(arg []byte) (Argument, error) {
	var in Argument
	if err := admin.Decode(arg, &in); err != nil {
		return in, err
	}
	if in.Actor == "" {
		return in, fault.Newf(fault.Invalid, "read the argument", "nobody says who acts")
	}
	return in, nil
}

// Lines renders the ledger for operators.
func Lines(ctx context.Context, ledger Ledger, r rollover.Rules) ([]Line, error) {
	l, err := ledger.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	out := []Line{}
	for _, s := range l.Steps(r) {
		line := Line{Label: s.Label, State: s.State, Since: s.Since.UTC(), Certificate: hex.EncodeToString(s.Certificate[:]), Next: s.Next}
		if !s.Due.IsZero() {
			due := s.Due.UTC()
			line.Due = &due
		}
		out = append(out, line)
	}
	return out, nil
}

// Approve notes that the key's next step may be early, and why.
func Approve(ctx context.Context, ledger Ledger, in Argument, tell func(ctx context.Context, what, actor, detail string) error, r rollover.Rules) ([]Line, error) {
	l, err := ledger.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	if l, err = l.Approve(in.Label, in.Reason); err != nil {
		return nil, err
	}
	if err := tell(ctx, "ceremony-approve-early", in.Actor, in.Label.String()+": "+in.Reason); err != nil {
		return nil, err
	}
	if err := ledger.SaveSigningKeys(ctx, l); err != nil {
		return nil, err
	}
	return Lines(ctx, ledger, r)
}

// Destroyed notes that a withdrawn key is about to leave the token. A key that the
// ledger does not know may always.
func Destroyed(ctx context.Context, ledger Ledger, in Argument, tell func(ctx context.Context, what, actor, detail string) error, now time.Time) (any, error) {
	l, err := ledger.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	l, err = l.Destroy(in.Label, now)
	if fault.Is(err, fault.NotFound) {
		return "not a signing key that was published", nil
	}
	if err != nil {
		return nil, err
	}
	if err := tell(ctx, "ceremony-destroy-signing", in.Actor, in.Label.String()+": "+in.Reason); err != nil {
		return nil, err
	}
	return "ok", ledger.SaveSigningKeys(ctx, l)
}
