// Package storetest is the conformance suite of internal/store: what every
// engine must do, told once. An engine's test makes an empty, migrated database
// and hands [Run] a function that opens it; nothing else differs. Imported by
// tests only.
package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/otpvault"
)

// Opener opens the same database every time it is called. The suite closes what
// it opened. The database was opened with the issuer [Issuer].
type Opener func() (*store.DB, error)

// Issuer is the entityID to open the database with.
const Issuer = "https://idp.example.it"

// Run runs the suite. place makes an empty migrated database for one test.
func Run(t *testing.T, place func(t *testing.T) Opener) {
	for name, test := range map[string]func(*testing.T, *Bench){
		"FlowRoundTrip":         testFlowRoundTrip,
		"FlowConflict":          testFlowConflict,
		"FlowsPerRequest":       testFlowsPerRequest,
		"FlowRace":              testFlowRace,
		"FinishFlow":            testFinishFlow,
		"FinishFlowRace":        testFinishFlowRace,
		"FinishInactive":        testFinishInactive,
		"Identities":            testIdentities,
		"IdentityConflicts":     testIdentityConflicts,
		"IdentityStates":        testIdentityStates,
		"Tallies":               testTallies,
		"TallyRace":             testTallyRace,
		"ChallengeLife":         testChallengeLife,
		"ChallengeLimit":        testChallengeLimit,
		"ChallengeRace":         testChallengeRace,
		"IssueRace":             testIssueRace,
		"IssueIsOneThing":       testIssueIsOneThing,
		"OutboxLife":            testOutboxLife,
		"OutboxStates":          testOutboxStates,
		"OutboxRace":            testOutboxRace,
		"OutboxOrder":           testOutboxOrder,
		"Recover":               testRecover,
		"Lease":                 testLease,
		"LeaseRace":             testLeaseRace,
		"ForeignSteps":          testForeignSteps,
		"Accounts":              testAccounts,
		"Incoming":              testIncoming,
		"Trail":                 testTrail,
		"Delivery":              testDelivery,
		"ReplacedIsCancelled":   testReplacedIsCancelled,
		"ReplacedOnTheAir":      testReplacedOnTheAir,
		"UsedIsCancelled":       testUsedIsCancelled,
		"Sweep":                 testSweep,
		"Reopen":                testReopen,
		"CancelledContext":      testCancelledContext,
		"TwoOpenDatabases":      testTwoOpenDatabases,
		"HostileTextIsOnlyText": testHostileText,
		"VaultRace":             testVaultRace,
		"VaultLife":             testVaultLife,
		"CancelledMidway":       testCancelledMidway,
		"SessionLife":           testSessionLife,
		"SessionRefusals":       testSessionRefusals,
		"SessionReplaced":       testSessionReplaced,
		"SessionEndRace":        testSessionEndRace,
		"JoinEndRace":           testJoinEndRace,
		"LogoutRoundTrip":       testLogoutRoundTrip,
		"SessionSweep":          testSessionSweep,
		"RegisterFloor":         testRegisterFloor,
	} {
		t.Run(name, func(t *testing.T) { test(t, newBench(t, place(t))) })
	}
	for name, test := range deviceTests {
		t.Run(name, func(t *testing.T) { test(t, newBench(t, place(t))) })
	}
}

// Bench is an open database and a moment.
type Bench struct {
	DB   *store.DB
	Now  time.Time
	ctx  context.Context
	open Opener
}

func newBench(t *testing.T, open Opener) *Bench {
	t.Helper()
	b := &Bench{Now: time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC), ctx: t.Context(), open: open}
	b.DB = b.another(t)
	return b
}

// another opens the database once more.
func (b *Bench) another(t *testing.T) *store.DB {
	t.Helper()
	db, err := b.open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// reopen closes the database and opens it again.
func (b *Bench) reopen(t *testing.T) {
	t.Helper()
	if err := b.DB.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	b.DB = b.another(t)
}

// must fails the test on err.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns v or fails the test.
func get[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want kind %v", what, err, kind)
	}
}

func discard[T any](_ T, err error) error { return err }

// race calls f n times at once and returns the errors.
func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWinner checks that exactly one call succeeded and the others failed with
// one of the kinds.
func oneWinner(t *testing.T, errs []error, kinds ...fault.Kind) {
	t.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		known := false
		for _, k := range kinds {
			known = known || fault.Is(err, k)
		}
		if !known {
			t.Errorf("a loser got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d winners among %d, want 1", won, len(errs))
	}
}

// NewFlow returns a flow in which no field has its zero value, except Version,
// which is 1 as CreateFlow stores it.
func NewFlow(t testing.TB, now time.Time) authcore.Flow {
	t.Helper()
	f := authcore.Flow{
		ID: newID(t, id.NewFlowID), Browser: [32]byte{1, 2, 3, 31: 9}, SPName: map[string]string{"it": "Comune di Forlì", "de": "Gemeinde"},
		Step: authcore.StepCode, Started: now, Deadline: now.Add(9 * time.Minute), WrongPassword: 1, WrongCode: 2,
		Subject: newID(t, id.NewSubject), Method: authcore.MethodSMS, Challenge: newID(t, id.NewChallengeID), CodesIssued: 3,
		Performed: saml.L2, Authenticated: now.Add(time.Minute), Outcome: saml.Cancelled, Version: 1,
		Session: "_s1", Resumed: true,
		Request: saml.Request{
			SP: parse(t, id.ParseEntityID, "https://sp.example.it/metadata"), IssueInstant: now.Add(-time.Second),
			Binding: saml.Post, Level: saml.L2, Comparison: saml.Minimum, ForceAuthn: true, ACS: "https://sp.example.it/acs",
			HasAttributes: true, Attributes: []string{"spidCode", "name"}, RelayState: "stato \xff\x00\u20ac", HasRelayState: true, Purpose: "PX",
			Raw: []byte("<samlp:AuthnRequest\x00\xff/>"),
		},
	}
	f.Request.ID = "_" + f.ID.String()
	if zero := zeroFields(reflect.ValueOf(f), "Flow"); len(zero) != 0 {
		t.Fatalf("the test's flow does not cover %v", zero)
	}
	return f
}

// zeroFields names the exported fields of v that have their zero value.
func zeroFields(v reflect.Value, name string) []string {
	if v.IsZero() {
		return []string{name}
	}
	var zero []string
	if v.Kind() == reflect.Struct && v.Type().PkgPath() != "time" {
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				zero = append(zero, zeroFields(v.Field(i), name+"."+f.Name)...)
			}
		}
	}
	return zero
}

// NewIdentity returns an active identity with all fields set; n tells identities
// apart.
func NewIdentity(t testing.TB, n int, now time.Time) authcore.Identity {
	t.Helper()
	return authcore.Identity{
		Subject: newID(t, id.NewSubject), Username: parse(t, id.ParseUsername, fmt.Sprintf("mario.rossi%d@example.it", n)),
		SPIDCode: parse(t, id.ParseSPIDCode, fmt.Sprintf("CSTD%010d", n)), Type: authcore.IdentityType(1 + n%4), State: authcore.Active, Reason: "nessuno",
		Phone: parse(t, id.ParsePhone, "+393401234567"), Attributes: map[string]string{"name": "Mario", "familyName": "D'Àvila\x00"},
		Password: "$argon2id$x", Created: now, LastLogin: now.Add(-time.Hour),
	}
}

// NewChallenge returns a challenge with three attempts and its message.
func NewChallenge(t testing.TB, flow id.FlowID, subject id.Subject, now time.Time) (otpvault.Challenge, otpvault.Message) {
	t.Helper()
	m := otpvault.Message{
		ID: newID(t, id.NewMessageID), To: parse(t, id.ParsePhone, "+393401234567"), Wrapped: []byte{0, 1, 2, 0xff},
		Created: now, Expires: now.Add(5 * time.Minute),
	}
	return otpvault.Challenge{
		ID: newID(t, id.NewChallengeID), Flow: flow, Subject: subject, Message: m.ID, MAC: []byte("0123456789abcdef0123456789abcde\x00"),
		Left: 3, Created: now, Expires: m.Expires,
	}, m
}

// Limit is wide enough for most tests.
func Limit() otpvault.Limit { return otpvault.Limit{Messages: 5, Window: 10 * time.Minute} }

// NewAnswered returns a success Response for the identity.
func NewAnswered(f authcore.Flow, code id.SPIDCode, now time.Time) authcore.Answered {
	return authcore.Answered{SPIDCode: code, At: now, Response: saml.Signed{
		XML: []byte("<samlp:Response\x00/>"), Code: saml.Success, ID: "_r" + f.ID.String(), AssertionID: "_a" + f.ID.String(), NameID: "_n",
		IssueInstant: now.Add(-time.Millisecond), ACS: f.Request.ACS, RelayState: f.Request.RelayState, HasRelayState: true,
	}}
}

func parse[T any](t testing.TB, f func(string) (T, error), s string) T {
	t.Helper()
	v, err := f(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newID[T any](t testing.TB, f func(r io.Reader) (T, error)) T {
	t.Helper()
	v, err := f(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
