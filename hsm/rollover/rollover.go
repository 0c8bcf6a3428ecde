// Package rollover is the life of signing keys as service providers see it:
// pre-published, active, retired, destroyed. It decides when the next step may be
// taken and says what to write into policy.yaml for it; it signs nothing and keeps
// nothing.
//
// A service provider that reads metadata once a day or once a month must have the
// new certificate before the first signature under it, and needs the old one while
// messages signed under it may still arrive. So a key waits in the metadata for
// Rules.Before until it may sign, and stays there for Rules.After when it does not
// sign any more. An emergency (the key in use is lost, or known to others) is not
// served by waiting: an operator approves the step with a reason, which is kept.
//
// The Ledger is what was published and used, and since when; cmd/custode keeps it
// in the database. Pure: the clock is a parameter.
package rollover

import (
	"slices"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// State is where a signing key is in its life.
type State string

// The states, in order. A key that left the metadata without having signed is
// Withdrawn and may be published anew.
const (
	PrePublished State = "pre-published"
	Active       State = "active"
	Retired      State = "retired"   // does not sign any more; still in the metadata
	Withdrawn    State = "withdrawn" // not in the metadata any more
	Destroyed    State = "destroyed" // not in the token any more
)

// Key is one line of the ledger. A zero time means "not yet".
type Key struct {
	Label       id.KeyLabel
	Certificate [32]byte  // SHA-256 of the certificate as it is published
	Published   time.Time // since when the metadata has this certificate
	Activated   time.Time // when it began to sign
	Retired     time.Time // when it ceased to sign
	Withdrawn   time.Time // when it left the metadata
	Destroyed   time.Time
	Approval    string // why the next step may be taken early; "" when it may not
}

// State returns the key's state.
func (k Key) State() State {
	switch {
	case !k.Destroyed.IsZero():
		return Destroyed
	case !k.Withdrawn.IsZero():
		return Withdrawn
	case !k.Retired.IsZero():
		return Retired
	case !k.Activated.IsZero():
		return Active
	}
	return PrePublished
}

// Rules are how long a key is in the metadata before it signs and after.
type Rules struct {
	Before, After time.Duration
}

// Wanted is what the configuration asks for. Certificates has the SHA-256 of the
// certificate of each of the keys.
type Wanted struct {
	Sign         id.KeyLabel
	Also         []id.KeyLabel
	Certificates map[id.KeyLabel][32]byte
}

// Change is one step that Apply took, for the security log.
type Change struct {
	Label  id.KeyLabel
	State  State
	Reason string // of an approval that was used; or what happened
}

// Ledger is every signing key there was, in order of publication.
type Ledger []Key

func (l Ledger) find(label id.KeyLabel) *Key {
	if i := slices.IndexFunc(l, func(k Key) bool { return k.Label == label }); i >= 0 {
		return &l[i]
	}
	return nil
}

// Active returns the key that signs, nil for none.
func (l Ledger) Active() *Key {
	if i := slices.IndexFunc(l, func(k Key) bool { return k.State() == Active }); i >= 0 {
		return &l[i]
	}
	return nil
}

// Apply returns the ledger as the configuration w makes it at now, and what
// changed. A step that is too early, and not approved, is fault.Denied with the
// time at which it is due; one that cannot be, fault.Invalid. l is left as it is.
func (l Ledger) Apply(w Wanted, r Rules, now time.Time) (Ledger, []Change, error) {
	out := slices.Clone(l)
	var changes []Change
	note := func(k *Key, reason string) { changes = append(changes, Change{k.Label, k.State(), reason}) }
	first := out.Active() == nil
	for _, label := range append([]id.KeyLabel{w.Sign}, w.Also...) {
		k := out.find(label)
		cert := w.Certificates[label]
		switch {
		case k == nil:
			out = append(out, Key{Label: label, Certificate: cert, Published: now})
			note(&out[len(out)-1], "new in the metadata")
		case k.State() == Destroyed:
			return nil, nil, fault.Newf(fault.Invalid, "use signing key "+label.String(), "it was destroyed")
		case k.State() == Withdrawn:
			*k = Key{Label: label, Certificate: cert, Published: now, Approval: k.Approval}
			note(k, "in the metadata again")
		case k.Certificate != cert:
			k.Certificate = cert
			if k.State() == PrePublished {
				k.Published = now // who refreshed before knows the key under another certificate
			}
			note(k, "its certificate was replaced")
		}
	}
	if err := out.sign(w, r, first, now, note); err != nil {
		return nil, nil, err
	}
	return out, changes, out.withdraw(w, r, now, note)
}

// sign makes w.Sign the active key.
func (l Ledger) sign(w Wanted, r Rules, first bool, now time.Time, note func(*Key, string)) error {
	next, was := l.find(w.Sign), l.Active()
	op := "sign with key " + w.Sign.String()
	// The approval of a retired key is for its leaving.
	approved := next.Approval != "" && next.State() == PrePublished
	switch {
	case next == was:
		return nil
	case first: // nobody can know another key
		next.Activated, next.Retired = now, time.Time{}
		note(next, "the first")
		return nil
	case !approved && next.State() != Retired && now.Before(next.Published.Add(r.Before)):
		return fault.Newf(fault.Denied, op, "it is in the metadata since %s and may sign from %s; `custode ceremony rollover approve` allows it earlier, with a reason",
			stamp(next.Published), stamp(next.Published.Add(r.Before)))
	case !approved && !slices.Contains(w.Also, was.Label):
		return fault.Newf(fault.Denied, op, "keys.also_published must name %s, which signed until now", was.Label)
	}
	was.Retired = now
	note(was, "")
	next.Activated, next.Retired = now, time.Time{}
	note(next, next.Approval)
	was.Approval = ""
	if approved {
		was.Approval = next.Approval // the same emergency lets the old one go
	}
	next.Approval = ""
	return nil
}

// withdraw takes out of the metadata what w does not name.
func (l Ledger) withdraw(w Wanted, r Rules, now time.Time, note func(*Key, string)) error {
	for i := range l {
		k := &l[i]
		if s := k.State(); s == Withdrawn || s == Destroyed || k.Label == w.Sign || slices.Contains(w.Also, k.Label) {
			continue
		}
		if k.State() == Retired && k.Approval == "" && now.Before(k.Retired.Add(r.After)) {
			return fault.Newf(fault.Denied, "take key "+k.Label.String()+" out of the metadata", "it signed until %s: keys.also_published must name it until %s",
				stamp(k.Retired), stamp(k.Retired.Add(r.After)))
		}
		k.Withdrawn = now
		note(k, k.Approval)
		k.Approval = ""
	}
	return nil
}

// Approve lets the key's next step be taken early. fault.NotFound, fault.Conflict.
func (l Ledger) Approve(label id.KeyLabel, reason string) (Ledger, error) {
	op := "approve an early step of key " + label.String()
	out := slices.Clone(l)
	k := out.find(label)
	switch {
	case strings.TrimSpace(reason) == "":
		return nil, fault.Newf(fault.Invalid, op, "no reason is given")
	case k == nil:
		return nil, fault.Newf(fault.NotFound, op, "it was never published; name it in keys.also_published first")
	case k.State() != PrePublished && k.State() != Retired:
		return nil, fault.Newf(fault.Conflict, op, "it is %s", k.State())
	}
	k.Approval = reason
	return out, nil
}

// Destroy notes that the key is not in the token any more. Only a withdrawn key
// may be: fault.Denied.
func (l Ledger) Destroy(label id.KeyLabel, now time.Time) (Ledger, error) {
	out := slices.Clone(l)
	k := out.find(label)
	if k == nil {
		return nil, fault.Newf(fault.NotFound, "destroy signing key "+label.String(), "it was never published")
	}
	if s := k.State(); s == Destroyed {
		return out, nil // an attempt that did not end
	} else if s != Withdrawn {
		return nil, fault.Newf(fault.Denied, "destroy signing key "+label.String(), "it is %s: only a withdrawn key may be destroyed", s)
	}
	k.Destroyed = now
	return out, nil
}

// Step is what an operator is told about one key.
type Step struct {
	Label       id.KeyLabel
	State       State
	Certificate [32]byte
	Since       time.Time // in this state
	Due         time.Time // when Next may be done; zero: at once
	Next        string    // what to do; "" nothing
}

// Steps says of each key where it is and what comes next.
func (l Ledger) Steps(r Rules) []Step {
	var others []string
	for _, k := range l {
		if s := k.State(); s == PrePublished || s == Retired || s == Active {
			others = append(others, k.Label.String())
		}
	}
	rest := func(but id.KeyLabel) string {
		return "[" + strings.Join(slices.DeleteFunc(slices.Clone(others), func(s string) bool { return s == but.String() }), ", ") + "]"
	}
	var out []Step
	active := l.Active()
	for _, k := range l {
		s := Step{Label: k.Label, State: k.State(), Certificate: k.Certificate}
		switch s.State {
		case PrePublished:
			s.Since = k.Published
			if k.Approval == "" {
				s.Due = k.Published.Add(r.Before)
			}
			s.Next = "policy.yaml: keys.sign: " + k.Label.String() + ", keys.also_published: " + rest(k.Label) + "; then `custode ceremony rollover reload`"
		case Active:
			s.Since = k.Activated
			if len(others) == 1 {
				s.Next = "make the next key by a ceremony, and name it in keys.also_published"
			}
		case Retired:
			s.Since = k.Retired
			if k.Approval == "" {
				s.Due = k.Retired.Add(r.After)
			}
			also := slices.DeleteFunc(slices.Clone(others), func(o string) bool { return o == k.Label.String() || active != nil && o == active.Label.String() })
			s.Next = "policy.yaml: keys.also_published: [" + strings.Join(also, ", ") + "]; then `custode ceremony rollover reload`"
		case Withdrawn:
			s.Since = k.Withdrawn
			s.Next = "`custode ceremony destroy " + k.Label.String() + "`"
		case Destroyed:
			s.Since = k.Destroyed
		}
		out = append(out, s)
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
