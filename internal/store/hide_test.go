package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/modem"
	"custode/otpvault"
	"custode/otpvault/device"
)

// onDisk returns the octets of every file whose name begins with path.
func onDisk(t *testing.T, path string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	var all []byte
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// marked is one of each thing with personal data in it; found lists what must not be readable.
var marked = []string{"Zenobia", "quirinale9", "LABX0000077777", "+393479988776", "3479988776", "il-motivo-privato", "operatrice-maria", "STOP-per-favore",
	"+393405554443", "RelayPrivato", "InitPrivato", "CertificatoPrivato"}

func old(t *testing.T) (path string, subject id.Subject) {
	t.Helper()
	path = migrated(t)
	back(t, path, "009_hidden.sql")
	who := storetest.NewIdentity(t, 1, time.Now())
	s := who.Subject.String()
	for _, statement := range []string{
		`INSERT INTO identity (subject, username, spid_code, state, reason, phone, attributes, password, created, last_login, identity_type)
			VALUES ('` + s + `', 'quirinale9', 'LABX0000077777', 2, 'il-motivo-privato', '+393479988776', '{"name":"Zenobia"}', 'x', 1, 2, 1)`,
		`INSERT INTO identity_event VALUES ('` + s + `', 1, 1, 0, 1, 'operatrice-maria', 'il-motivo-privato', 5)`,
		`INSERT INTO answer VALUES ('https://sp', '_r', 1, 'f', 'LABX0000077777', 1, '_resp', 1, 'https://idp', '_a', '_n', 1, 'RelayPrivato', '<x>Zenobia</x>')`,
		`INSERT INTO tally VALUES (x'` + strings.Repeat("5a", 32) + `', 4, 77)`,
		`INSERT INTO outbox (id, recipient, wrapped, class, state, created, expires, attempts, recovered, bay, detail, changed)
			VALUES ('m_0123456789abcdef0123456789abcdef', '+393479988776', x'01', 1, 0, 1, 9000000000000000000, 0, 0, '', '', 1)`,
		`INSERT INTO outbox_event (message, recipient, class, state, bay, card, detail, parts, handoff, submit, at)
			VALUES ('m_0123456789abcdef0123456789abcdef', '+393479988776', 1, 1, 'b', 'c', '', 1, 0, 0, 5)`,
		`INSERT INTO incoming VALUES ('mark', '+393479988776', 'STOP-per-favore', 'b', 'c', 5)`,
		`INSERT INTO opt_out VALUES ('+393405554443', 5)`,
		`INSERT INTO flow VALUES ('f', 1, 1, 1, zeroblob(32), 'https://sp', '_q', '{}')`,
		`INSERT INTO flow_request VALUES ('f', 'RelayPrivato', 'CertificatoPrivato')`,
		`INSERT INTO logout VALUES ('l', 1, 's', zeroblob(32), 1, 'InitPrivato')`,
		// What was deleted is in free pages.
		`INSERT INTO incoming VALUES ('gone', 'x', '` + strings.Repeat("Zenobia", 3000) + `', 'b', 'c', 5)`,
		`DELETE FROM incoming WHERE mark = 'gone'`,
	} {
		execRaw(t, path, statement)
	}
	data := onDisk(t, path)
	for _, word := range marked {
		if !bytes.Contains(data, []byte(word)) {
			t.Fatalf("%s is not in the file to begin with: the test shows nothing", word)
		}
	}
	return path, who.Subject
}

func hidden(t *testing.T, path string) {
	t.Helper()
	data := onDisk(t, path)
	for _, word := range marked {
		if n := bytes.Count(data, []byte(word)); n != 0 {
			t.Errorf("%s is readable %d times", word, n)
		}
	}
}

// TestHideOld: what an earlier schema kept readable is hidden by migrating, is the same when
// read, and leaves no trace.
func TestHideOld(t *testing.T) {
	path, subject := old(t)
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	hidden(t, path)
	readOld(t, path, subject)
	hidden(t, path)
	if err := migrate(t, path); err != nil {
		t.Errorf("again: %v", err)
	}
	readOld(t, path, subject)
}

func readOld(t *testing.T, path string, subject id.Subject) {
	t.Helper()
	db := mustOpen(t, path)
	defer db.Close()
	user, err := id.ParseUsername("quirinale9")
	if err != nil {
		t.Fatal(err)
	}
	who, err := db.IdentityByUsername(t.Context(), user)
	if err != nil || who.Subject != subject || who.Username != user || who.SPIDCode.String() != "LABX0000077777" || who.Phone.String() != "+393479988776" ||
		who.Attributes["name"] != "Zenobia" || who.Reason != "il-motivo-privato" || who.State != authcore.Suspended || who.Password != "x" {
		t.Errorf("%+v, %v", who, err)
	}
	events, err := db.IdentityEvents(t.Context(), subject)
	if err != nil || len(events) != 1 || events[0].Actor != "operatrice-maria" || events[0].Reason != "il-motivo-privato" {
		t.Errorf("%+v, %v", events, err)
	}
	if tally, err := db.Tally(t.Context(), [32]byte(bytes.Repeat([]byte{0x5a}, 32))); err != nil || tally.Failures != 4 {
		t.Errorf("%+v, %v", tally, err)
	}
	queued, err := db.Queued(t.Context(), 5)
	if err != nil || len(queued) != 1 || queued[0].To.String() != "+393479988776" {
		t.Errorf("%+v, %v", queued, err)
	}
	for number, want := range map[string]int{"+393479988776": 1, "+393479988777": 0} {
		if n, err := db.Accepted(t.Context(), number, false, time.Time{}); err != nil || n != want {
			t.Errorf("%s: %d, %v", number, n, err)
		}
	}
	trail, err := db.Trail(t.Context(), time.Time{}, 0, 5)
	if err != nil || len(trail) != 1 || trail[0].Recipient.String() != "+393479988776" {
		t.Errorf("%+v, %v", trail, err)
	}
	in, err := db.Incoming(t.Context(), time.Time{}, 5)
	if err != nil || len(in) != 1 || in[0].From != "+393479988776" || in[0].Text != "STOP-per-favore" {
		t.Errorf("%+v, %v", in, err)
	}
	phone, err := id.ParsePhone("+393405554443")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := db.OptedOut(t.Context(), phone); err != nil || !out {
		t.Errorf("opted out: %v, %v", out, err)
	}
}

// TestHideDeviceReasons: what operators wrote about devices before schema 15 is hidden by migrating, and what they
// write now is hidden at once; a migration that was interrupted goes on.
func TestHideDeviceReasons(t *testing.T) {
	path := migrated(t)
	serial := parsed(t, id.ParseSerial, "FT-1")
	change := device.Change{Actor: "operatrice-maria", Reason: "il-motivo-privato", At: time.Now()}
	d := storetest.NewDevice(t, 1, change.At)
	d.Serial = serial
	add := func() {
		t.Helper()
		db := mustOpen(t, path)
		defer db.Close()
		if err := otpstore.New(db).AddDevices(t.Context(), []device.Device{d}, change); err != nil {
			t.Fatal(err)
		}
	}
	read := func() {
		t.Helper()
		hidden(t, path)
		db := mustOpen(t, path)
		defer db.Close()
		events, err := otpstore.New(db).DeviceHistory(t.Context(), serial)
		if err != nil || len(events) == 0 || events[0].Actor != change.Actor || events[0].Reason != change.Reason {
			t.Errorf("%+v, %v", events, err)
		}
	}
	add()
	read()
	back(t, path, "015_device_reasons.sql")
	execRaw(t, path, "UPDATE otp_device_event SET actor = 'operatrice-maria', reason = 'il-motivo-privato'")
	execRaw(t, path, `INSERT INTO otp_device_event SELECT 'FT-1', value, 1, 2, '', 'operatrice-maria', '', 5 FROM (WITH RECURSIVE n(value) AS (SELECT 2 UNION ALL SELECT value + 1 FROM n WHERE value < 1203) SELECT value FROM n)`)
	if !bytes.Contains(onDisk(t, path), []byte("il-motivo-privato")) {
		t.Fatal("nothing to hide: the test shows nothing")
	}
	wantKind(t, "with another key", store.Migrate(t.Context(), store.Config{Path: path, Keys: storetest.Keys("other")}), fault.Fatal)
	openFails(t, "not hidden yet", path, fault.Fatal)
	for range 2 {
		if err := migrate(t, path); err != nil {
			t.Fatal(err)
		}
		read()
	}
	// From before there was a data key.
	path = migrated(t)
	add()
	execRaw(t, path, "UPDATE otp_device_event SET actor = 'operatrice-maria', reason = 'il-motivo-privato'")
	back(t, path, "009_hidden.sql")
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	read()
}

// broken is a Wrapper that cannot wrap.
type broken struct{ storetest.Keys }

func (broken) Wrap(context.Context, []byte, []byte) ([]byte, error) {
	return nil, fault.Newf(fault.Unavailable, "wrap", "no token")
}

// TestHideInterrupted: a migration that failed has hidden nothing or everything, and goes on.
func TestHideInterrupted(t *testing.T) {
	path, subject := old(t)
	wantKind(t, "without a token", store.Migrate(t.Context(), store.Config{Path: path, Keys: broken{}}), fault.Unavailable)
	wantKind(t, "without a key", store.Migrate(t.Context(), store.Config{Path: path}), fault.Fatal)
	openFails(t, "nothing hidden", path, fault.Fatal)
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	// As if it had died between hiding and writing the file anew.
	execRaw(t, path, "UPDATE data_key SET clean = 0")
	openFails(t, "not written anew", path, fault.Fatal)
	if err := migrate(t, path); err != nil {
		t.Fatal(err)
	}
	hidden(t, path)
	readOld(t, path, subject)

	// A row that is not of the old schema stops it: nothing is hidden twice.
	path, _ = old(t)
	execRaw(t, path, "UPDATE identity SET username = x'00ff'")
	wantKind(t, "a foreign row", migrate(t, path), fault.Fatal)
	if rows := scalar(t, path, "SELECT COUNT(*) FROM data_key"); rows != "0" {
		t.Errorf("%s data keys", rows)
	}
}

// TestWrongKey: refused by name, and the file stays as it was.
func TestWrongKey(t *testing.T) {
	path := migrated(t)
	before := onDisk(t, path)
	for name, keys := range map[string]storetest.Keys{"another key": "other"} {
		_, err := store.Open(t.Context(), store.Config{Path: path, Keys: keys})
		wantKind(t, name, err, fault.Fatal)
		if err == nil || !strings.Contains(err.Error(), "data key 1 is not of this records key") {
			t.Errorf("%s: %v", name, err)
		}
		wantKind(t, name+", migrate", store.Migrate(t.Context(), store.Config{Path: path, Keys: keys}), fault.Fatal)
	}
	_, err := store.Open(t.Context(), store.Config{Path: path})
	wantKind(t, "no key", err, fault.Fatal)
	if after := onDisk(t, path); !bytes.Equal(before, after[:min(len(before), len(after))]) {
		t.Error("the file was written to")
	}
	execRaw(t, path, "DELETE FROM data_key")
	openFails(t, "the data key is gone", path, fault.Fatal)
}

// TestDataKeyUnderAnotherKey: the data key comes under another records key without a change
// of what it hides; who lost the race changes nothing.
func TestDataKeyUnderAnotherKey(t *testing.T) {
	path, ctx := migrated(t), t.Context()
	db, err := open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	who := storetest.NewIdentity(t, 1, time.Now())
	if err := db.AddIdentity(ctx, who, store.Change{Actor: "test", Reason: "test", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	table := db.DataKeys()
	rows, err := table.Rows(ctx, "", 64)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if more, err := table.Rows(ctx, rows[0].Key, 64); err != nil || len(more) != 0 {
		t.Fatal(more, err)
	}
	key, err := storetest.Keys("records").Unwrap(ctx, rows[0].Blob, rows[0].AAD)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := storetest.Keys("records 2").Wrap(ctx, key, rows[0].AAD)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		was  []byte
		done bool
	}{{fresh, false}, {rows[0].Blob, true}, {rows[0].Blob, false}} {
		if done, err := table.Replace(ctx, rows[0].Key, c.was, fresh); err != nil || done != c.done {
			t.Errorf("replaced %v %v, want %v", done, err, c.done)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openFails(t, "the earlier key", path, fault.Fatal)
	db, err = store.Open(ctx, store.Config{Path: path, Keys: storetest.Keys("records 2")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got, err := db.IdentityByUsername(ctx, who.Username); err != nil || got.Subject != who.Subject || got.Attributes["fiscalNumber"] != who.Attributes["fiscalNumber"] {
		t.Errorf("what was hidden before: %v %v", got.Subject, err)
	}
}

func scalar(t *testing.T, path, query string) (s string) {
	t.Helper()
	if err := raw(t, path).QueryRow(query).Scan(&s); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return s
}

// TestNothingReadable uses every method that takes personal data and searches the files.
func TestNothingReadable(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	now := time.Now()
	change := store.Change{Actor: "operatrice-maria", Reason: "il-motivo-privato", At: now}
	who := storetest.NewIdentity(t, 1, now)
	who.Username, who.SPIDCode, who.Phone = parsed(t, id.ParseUsername, "quirinale9"), parsed(t, id.ParseSPIDCode, "LABX0000077777"), parsed(t, id.ParsePhone, "+393479988776")
	who.Attributes, who.Reason, who.State = map[string]string{"name": "Zenobia"}, "il-motivo-privato", authcore.Active
	f := storetest.NewFlow(t, now)
	f.Subject, f.Request.Raw, f.Request.RelayState = who.Subject, []byte("<q>CertificatoPrivato</q>"), "RelayPrivato"
	a := storetest.NewAnswered(f, who.SPIDCode, now)
	a.Response.XML = []byte("<r>Zenobia</r>")
	c, m, err := freshIssue()
	if err != nil {
		t.Fatal(err)
	}
	m.To = who.Phone
	for _, err := range []error{
		db.AddIdentity(t.Context(), who, change),
		db.SetIdentityState(t.Context(), who.Username, authcore.Active, authcore.Suspended, change),
		db.SetIdentityState(t.Context(), who.Username, authcore.Suspended, authcore.Active, change),
		db.SetPassword(t.Context(), who.Username, "y", change),
		db.CreateFlow(t.Context(), f), db.FinishFlow(t.Context(), f, a),
		db.IssueChallenge(t.Context(), c, m, otpvault.Limit{Messages: 5, Window: time.Minute}),
		db.Record(t.Context(), modem.Event{ID: m.ID, State: modem.Sending, Bay: "b", At: now}),
		db.OptOut(t.Context(), "+393405554443", true, now),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Receive(t.Context(), modem.Received{Mark: "x", From: who.Phone.String(), Text: "STOP-per-favore", At: now}); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(path), "backup.db")
	if err := db.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	hidden(t, path)
	restored := mustOpen(t, copied)
	if got, err := restored.IdentityByUsername(t.Context(), who.Username); err != nil || got.Attributes["name"] != "Zenobia" {
		t.Errorf("from the copy: %+v, %v", got, err)
	}
	if got, err := db.Flow(t.Context(), f.ID); err != nil || got.Request.RelayState != "RelayPrivato" || got.Outcome != saml.Code(f.Outcome) {
		t.Errorf("%+v, %v", got, err)
	}
	// A box of one row is not another's.
	other := storetest.NewFlow(t, now)
	if err := db.CreateFlow(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	execRaw(t, path, fmt.Sprintf("UPDATE flow_request SET raw = (SELECT r.raw FROM flow_request r WHERE r.flow_id = '%s') WHERE flow_id = '%s'", f.ID, other.ID))
	_, err = db.Flow(t.Context(), other.ID)
	wantKind(t, "a box moved", err, fault.Internal)
}

func parsed[T any](t *testing.T, parse func(string) (T, error), text string) T {
	t.Helper()
	v, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
