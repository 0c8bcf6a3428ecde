package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

func change(b *Bench) store.Change {
	return store.Change{Actor: "operator anna", Reason: "prova", At: b.Now}
}

func testIdentities(t *testing.T, b *Bench) {
	var all []authcore.Identity
	for n := range 5 {
		i := NewIdentity(t, n, b.Now)
		if n == 4 {
			i.Phone, i.LastLogin, i.Attributes, i.Reason = id.Phone{}, time.Time{}, nil, ""
		}
		must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
		all = append(all, i)
	}
	for _, i := range all {
		if diff := cmp.Diff(i, get(b.DB.IdentityByUsername(b.ctx, i.Username))(t), identifiers); diff != "" {
			t.Errorf("by username:\n%s", diff)
		}
		if diff := cmp.Diff(i, get(b.DB.Identity(b.ctx, i.Subject))(t), identifiers); diff != "" {
			t.Errorf("by subject:\n%s", diff)
		}
	}
	wantKind(t, "unknown username", discard(b.DB.IdentityByUsername(b.ctx, parse(t, id.ParseUsername, "nobody"))), fault.NotFound)
	wantKind(t, "zero username", discard(b.DB.IdentityByUsername(b.ctx, id.Username{})), fault.NotFound)
	wantKind(t, "unknown subject", discard(b.DB.Identity(b.ctx, newID(t, id.NewSubject))), fault.NotFound)
}

func testIdentityConflicts(t *testing.T, b *Bench) {
	i := NewIdentity(t, 1, b.Now)
	must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
	for name, spoil := range map[string]func(*authcore.Identity){
		"subject":   func(j *authcore.Identity) { j.Subject = i.Subject },
		"username":  func(j *authcore.Identity) { j.Username = i.Username },
		"SPID code": func(j *authcore.Identity) { j.SPIDCode = i.SPIDCode },
	} {
		j := NewIdentity(t, 2, b.Now)
		spoil(&j)
		wantKind(t, "taken "+name, b.DB.AddIdentity(b.ctx, j, change(b)), fault.Conflict)
	}
	for name, spoil := range map[string]func(*authcore.Identity){
		"subject": func(j *authcore.Identity) { j.Subject = id.Subject{} }, "username": func(j *authcore.Identity) { j.Username = id.Username{} },
		"SPID code": func(j *authcore.Identity) { j.SPIDCode = id.SPIDCode{} }, "state": func(j *authcore.Identity) { j.State = 0 },
		"password": func(j *authcore.Identity) { j.Password = "" },
		"UTF-8":    func(j *authcore.Identity) { j.Attributes = map[string]string{"name": "Mar\xedo"} },
	} {
		j := NewIdentity(t, 2, b.Now)
		spoil(&j)
		wantKind(t, "without "+name, b.DB.AddIdentity(b.ctx, j, change(b)), fault.Invalid)
	}
	wantKind(t, "nobody did it", b.DB.AddIdentity(b.ctx, NewIdentity(t, 2, b.Now), store.Change{Reason: "x", At: b.Now}), fault.Invalid)
	must(t, b.DB.AddIdentity(b.ctx, NewIdentity(t, 2, b.Now), change(b)))
}

func testIdentityStates(t *testing.T, b *Bench) {
	i := NewIdentity(t, 1, b.Now)
	must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
	at := func(n int, reason string) store.Change {
		return store.Change{Actor: "subject", Reason: reason, At: b.Now.Add(time.Duration(n) * time.Second)}
	}
	set := func(from, to authcore.State, c store.Change) error {
		return b.DB.SetIdentityState(b.ctx, i.Username, from, to, c)
	}
	must(t, set(authcore.Active, authcore.Suspended, at(1, "telefono rubato")))
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); got.State != authcore.Suspended || got.Reason != "telefono rubato" {
		t.Errorf("suspended: state %d, reason %q", got.State, got.Reason)
	}
	wantKind(t, "from a state it is not in", set(authcore.Active, authcore.Revoked, at(2, "x")), fault.Conflict)
	must(t, set(authcore.Suspended, authcore.Active, at(3, "ritrovato")))
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); got.State != authcore.Active || got.Reason != "" {
		t.Errorf("active again: state %d, reason %q", got.State, got.Reason)
	}
	must(t, b.DB.SetPassword(b.ctx, i.Username, "$argon2id$new", at(4, "scaduta")))
	if got := get(b.DB.Identity(b.ctx, i.Subject))(t); got.Password != "$argon2id$new" {
		t.Errorf("password %q", got.Password)
	}
	must(t, set(authcore.Active, authcore.Revoked, at(5, "richiesta")))
	wantKind(t, "out of revoked", set(authcore.Revoked, authcore.Active, at(6, "x")), fault.Denied)
	wantKind(t, "no change", set(authcore.Active, authcore.Active, at(6, "x")), fault.Invalid)
	wantKind(t, "no such state", set(authcore.Active, 4, at(6, "x")), fault.Invalid)
	wantKind(t, "no reason", set(authcore.Active, authcore.Suspended, at(6, "")), fault.Invalid)
	nobody := parse(t, id.ParseUsername, "nobody")
	wantKind(t, "unknown", b.DB.SetIdentityState(b.ctx, nobody, authcore.Active, authcore.Suspended, at(6, "x")), fault.NotFound)
	wantKind(t, "unknown", b.DB.SetPassword(b.ctx, nobody, "x", at(6, "x")), fault.NotFound)
	wantKind(t, "empty password", b.DB.SetPassword(b.ctx, i.Username, "", at(6, "x")), fault.Invalid)

	want := []store.IdentityEvent{
		{What: store.IdentityAdded, To: authcore.Active, Change: change(b)},
		{What: store.StateChanged, From: authcore.Active, To: authcore.Suspended, Change: at(1, "telefono rubato")},
		{What: store.StateChanged, From: authcore.Suspended, To: authcore.Active, Change: at(3, "ritrovato")},
		{What: store.PasswordChanged, Change: at(4, "scaduta")},
		{What: store.StateChanged, From: authcore.Active, To: authcore.Revoked, Change: at(5, "richiesta")},
	}
	if diff := cmp.Diff(want, get(b.DB.IdentityEvents(b.ctx, i.Subject))(t)); diff != "" {
		t.Errorf("history:\n%s", diff)
	}
}

func testTallies(t *testing.T, b *Bench) {
	key, other := [32]byte{1}, [32]byte{2}
	if got := get(b.DB.Tally(b.ctx, key))(t); got != (authcore.Tally{}) {
		t.Errorf("unknown key: %+v", got)
	}
	for n := 1; n <= 3; n++ {
		at := b.Now.Add(time.Duration(n) * time.Second)
		got := get(b.DB.CountFailure(b.ctx, key, at))(t)
		if got.Failures != n || !got.Last.Equal(at) {
			t.Errorf("failure %d: %+v", n, got)
		}
		if again := get(b.DB.Tally(b.ctx, key))(t); again != got {
			t.Errorf("read %+v, want %+v", again, got)
		}
	}
	if got := get(b.DB.CountFailure(b.ctx, other, b.Now))(t); got.Failures != 1 {
		t.Errorf("other key: %+v", got)
	}
	must(t, b.DB.ClearTally(b.ctx, key))
	must(t, b.DB.ClearTally(b.ctx, key))
	if got := get(b.DB.Tally(b.ctx, key))(t); got != (authcore.Tally{}) {
		t.Errorf("cleared key: %+v", got)
	}
	if got := get(b.DB.Tally(b.ctx, other))(t); got.Failures != 1 {
		t.Errorf("clearing one key changed another: %+v", got)
	}
}

func testTallyRace(t *testing.T, b *Bench) {
	for _, err := range race(50, func(int) error { return discard(b.DB.CountFailure(b.ctx, [32]byte{1}, b.Now)) }) {
		must(t, err)
	}
	if got := get(b.DB.Tally(b.ctx, [32]byte{1}))(t); got.Failures != 50 {
		t.Errorf("%d failures counted, want 50", got.Failures)
	}
}

// testHostileText stores text that would be code in a careless query.
func testHostileText(t *testing.T, b *Bench) {
	i := NewIdentity(t, 1, b.Now)
	i.Reason, i.Password = `'; DROP TABLE identity; --`, "%_\\\"'\x00'"
	must(t, b.DB.AddIdentity(b.ctx, i, change(b)))
	if diff := cmp.Diff(i, get(b.DB.Identity(b.ctx, i.Subject))(t), identifiers); diff != "" {
		t.Error(diff)
	}
	wantKind(t, "not there", discard(b.DB.Answer(b.ctx, parse(t, id.ParseEntityID, "https://x/'or'1'='1'--"), "' or '1'='1")), fault.NotFound)
}
