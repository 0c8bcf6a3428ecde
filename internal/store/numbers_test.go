package store_test

import (
	"testing"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/session"
	"custode/internal/store"
	"custode/modem"
)

// TestStoredNumbers pins the constants of other packages that are stored as
// numbers: whoever renumbers them changes the meaning of existing rows.
func TestStoredNumbers(t *testing.T) {
	for _, c := range []struct {
		what string
		got  []int
		from int
	}{
		{"authcore.Step", []int{int(authcore.StepCredentials), int(authcore.StepMethod), int(authcore.StepCode), int(authcore.StepConsent), int(authcore.StepDone)}, 1},
		{"authcore.Method", []int{int(authcore.MethodNone), int(authcore.MethodSMS), int(authcore.MethodToken), int(authcore.MethodApp), int(authcore.MethodPush)}, 0},
		{"authcore.State", []int{int(authcore.Active), int(authcore.Suspended), int(authcore.Revoked)}, 1},
		{"saml.Level", []int{int(saml.L1), int(saml.L2), int(saml.L3)}, 1},
		{"saml.Binding", []int{int(saml.Redirect), int(saml.Post), int(saml.SOAP)}, 1},
		{"session.State", []int{int(session.Waiting), int(session.Sent), int(session.Done), int(session.Failed)}, 1},
		{"saml.Comparison", []int{int(saml.Exact), int(saml.Minimum), int(saml.Better), int(saml.Maximum)}, 0},
		{"modem.Class", []int{int(modem.OneTime), int(modem.Alert), int(modem.Bulk)}, 0},
		{"modem.State", []int{int(modem.Queued), int(modem.Sending), int(modem.Sent), int(modem.Delivered), int(modem.Failed), int(modem.Expired), int(modem.MaybeSent), int(modem.Cancelled)}, 0},
		{"store.What", []int{int(store.IdentityAdded), int(store.StateChanged), int(store.PasswordChanged)}, 1},
	} {
		for i, n := range c.got {
			if n != c.from+i {
				t.Errorf("%s: constant number %d is %d, was %d", c.what, i+1, n, c.from+i)
			}
		}
	}
}
