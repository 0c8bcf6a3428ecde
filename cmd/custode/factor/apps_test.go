package factor

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"custode/authcore/register"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/otpvault/issuing"
	"custode/otpvault/otptest"
	"custode/otpvault/seed"
)

// bookFake is the security log in memory.
type bookFake struct {
	acts  []journal.Event
	notes []register.Incident
	err   error
}

func (b *bookFake) Act(_ context.Context, e journal.Event) error {
	b.acts = append(b.acts, e)
	return b.err
}

func (b *bookFake) Note(_ context.Context, i register.Incident) { b.notes = append(b.notes, i) }

type nameFake struct{}

func (nameFake) Account(context.Context, id.Subject) (string, error) { return "ada", nil }

// TestActivationIsKept: the security log is searched by subject, and so an activation is kept under its subject.
// What cannot be kept is not told.
func TestActivationIsKept(t *testing.T) {
	subject, err := id.NewSubject(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := id.ParseKeyLabel("custode/seed/1")
	if err != nil {
		t.Fatal(err)
	}
	db, token := otpstore.New(storetest.Open(t)), &otptest.Token{}
	office, err := issuing.New(issuing.Config{Devices: db, Activations: db, Emergencies: db, Accounts: nameFake{}, Wrapper: token, Binder: token, Matcher: token,
		MAC: token, Keys: token, Recipe: seed.Recipe{KEK: kek, Mechanism: seed.MechanismAESKeyWrap, KeyType: seed.KeyTypeGenericSecret},
		Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	serial, code, err := office.EnrolCode(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	book := &bookFake{}
	apps := Apps{Office: office, Security: book, Watch: book, Log: slog.New(slog.DiscardHandler)}
	if _, err := apps.Redeem(t.Context(), serial.String(), "AAAA-AAAA-AAAA-AAAA", key.PublicKey().Bytes()); !fault.Is(err, fault.Denied) || len(book.acts) != 0 || len(book.notes) != 1 {
		t.Errorf("wrong code: %v, %+v", err, book)
	}
	book.err = fault.Newf(fault.Unavailable, "keep", "the log stands")
	parcel, err := apps.Redeem(t.Context(), serial.String(), code, key.PublicKey().Bytes())
	if !fault.Is(err, fault.Unavailable) || parcel != nil {
		t.Errorf("told what is not kept: %v", err)
	}
	if len(book.acts) != 1 || book.acts[0].Subject != subject.String() || book.acts[0].Detail != "serial "+serial.String() {
		t.Errorf("%+v", book.acts)
	}
}
