package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"custode/hsm/rollover"
	"custode/internal/id"
)

// TestSigningKeys: what is saved comes back, in order, and a second saving changes
// lines without losing any.
func TestSigningKeys(t *testing.T) {
	db := mustOpen(t, migrated(t))
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	key := func(label string, after time.Duration) rollover.Key {
		l, err := id.ParseKeyLabel(label)
		if err != nil {
			t.Fatal(err)
		}
		return rollover.Key{Label: l, Certificate: [32]byte{1, 31: 2}, Published: at.Add(after)}
	}
	ledger := rollover.Ledger{key("sign/2", 0), key("sign/1", time.Hour)}
	ledger[0].Activated, ledger[0].Approval = at.Add(time.Minute), "lost"
	same := func(want rollover.Ledger) {
		t.Helper()
		got, err := db.SigningKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b id.KeyLabel) bool { return a == b }), cmpopts.EquateApproxTime(0)); d != "" {
			t.Error(d)
		}
	}
	if err := db.SaveSigningKeys(t.Context(), ledger); err != nil {
		t.Fatal(err)
	}
	same(ledger)
	changed := ledger[1]
	changed.Withdrawn, changed.Certificate = at.Add(2*time.Hour), [32]byte{9}
	if err := db.SaveSigningKeys(t.Context(), rollover.Ledger{changed}); err != nil {
		t.Fatal(err)
	}
	same(rollover.Ledger{ledger[0], changed})
}
