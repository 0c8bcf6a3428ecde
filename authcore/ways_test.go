package authcore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"custode/authcore/register"
	"custode/authcore/saml"
	"custode/internal/fault"
	"custode/internal/id"
)

// things are one subject's devices, with verdicts by rote.
type things struct {
	mu       sync.Mutex
	ways     []Way
	last     Method
	lastKey  string
	open     map[id.ChallengeID]Order
	burned   map[id.ChallengeID]bool
	left     int
	verdicts map[string]Verdict // of codes; else wrong
	fail     error
	asked    int
}

const deviceCode = "87654321"

var (
	token = Way{Method: MethodToken, Key: "t1", Name: "•••4321", Digits: 8}
	pushy = Way{Method: MethodPush, Key: "a1", Name: "•••AB12", Digits: 6}
)

func (d *things) Ways(context.Context, id.Subject) ([]Way, Method, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.ways)
	for i := range out {
		out[i].Last = out[i].Method == d.last && out[i].Key == d.lastKey
	}
	return out, d.last, d.fail
}

func (d *things) Open(_ context.Context, o Order) (id.ChallengeID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.fail != nil {
		return id.ChallengeID{}, d.fail
	}
	c, err := id.ParseChallengeID("c_" + strings.Repeat("0", 30) + string(rune('0'+d.asked/10)) + string(rune('0'+d.asked%10)))
	d.open[c] = o
	return c, err
}

func (d *things) Opened(_ context.Context, c id.ChallengeID) (Way, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.open[c]
	if !ok {
		return Way{}, fault.New(fault.NotFound, "opened", nil)
	}
	w := token
	if o.Method == MethodPush {
		w = pushy
		w.Number = "47"
	}
	return w, nil
}

func (d *things) Verify(_ context.Context, c id.ChallengeID, f id.FlowID, s id.Subject, code string) (Judged, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.open[c]
	switch {
	case d.fail != nil:
		return Judged{}, d.fail
	case !ok || o.Flow != f || o.Subject != s:
		return Judged{}, fault.New(fault.NotFound, "verify", nil)
	case d.burned[c]:
		return Judged{}, fault.New(fault.Conflict, "verify", nil)
	case len(code) < 6:
		return Judged{}, fault.New(fault.Invalid, "verify", nil)
	}
	d.left--
	v := d.verdicts[code]
	d.burned[c] = v == VerdictRight
	return Judged{v, d.left}, nil
}

func (d *things) Remember(_ context.Context, _ id.Subject, m Method, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.lastKey = m, key
	return d.fail
}

// newDeviceBench is a bench whose person has devices, too.
func newDeviceBench(t *testing.T, ways ...Way) (*bench, *things) {
	b := newBench(t)
	d := &things{ways: ways, open: map[id.ChallengeID]Order{}, burned: map[id.ChallengeID]bool{}, left: 3, verdicts: map[string]Verdict{deviceCode: VerdictRight}}
	b.Login.devices = d
	return b, d
}

var (
	byToken = MethodAnswer{Method: MethodToken, Key: "t1"}
	byPush  = MethodAnswer{Method: MethodPush, Key: "a1"}
	device  = CodeAnswer{Code: deviceCode}
)

// TestDeviceLogin: a code of a device reaches level 2; the record and the next choice say so, and no
// message is sent.
func TestDeviceLogin(t *testing.T) {
	b, d := newDeviceBench(t, token, pushy)
	flow := b.started(saml.L2, saml.Minimum)
	v := b.page(flow, StepMethod, NoticeNone, right)
	sms := Way{Method: MethodSMS, Name: "••• ••• 567", Digits: 6}
	if diff := cmp.Diff([]Way{sms, token, pushy}, v.Ways); diff != "" {
		t.Error(diff)
	}
	v = b.page(flow, StepCode, NoticeNone, byToken)
	if v.CanResend || !v.CanChange || v.Way != token || v.Delivery != DeliveryUnknown {
		t.Errorf("%+v", v)
	}
	b.page(flow, StepCode, NoticeNone, ResendAnswer{}) // nothing to send again
	b.page(flow, StepCode, NoticeMalformedCode, CodeAnswer{Code: "12"})
	d.verdicts["11111111"] = VerdictRepeated
	if v = b.page(flow, StepCode, NoticeRepeatedCode, CodeAnswer{Code: "11111111"}); v.AttemptsLeft != 2 {
		t.Errorf("%d attempts left", v.AttemptsLeft)
	}
	if v = b.page(flow, StepConsent, NoticeNone, device); v.Way != token {
		t.Errorf("%+v", v.Way)
	}
	b.response(flow, saml.Success, ConsentAnswer{})
	if k := b.ledger.kept[0]; !slices.Equal(k.Credentials, []string{"password", "otp-token"}) || k.Level != saml.L2 {
		t.Errorf("%v", k.Credentials)
	}
	if d.last != MethodToken || d.lastKey != "t1" || len(b.vault.issued) != 0 {
		t.Errorf("%v %q, %d messages", d.last, d.lastKey, len(b.vault.issued))
	}
	v = b.page(b.started(saml.L2, saml.Minimum), StepMethod, NoticeNone, right)
	if v.Ways[0].Last || !v.Ways[1].Last || v.Ways[2].Last {
		t.Errorf("%+v", v.Ways)
	}
	if text := b.logged.String(); strings.Contains(text, deviceCode) || !strings.Contains(text, "method=otp-token") {
		t.Errorf("log:\n%s", text)
	}
}

// TestPushLogin: the page shows the number; a code can be sent again.
func TestPushLogin(t *testing.T) {
	b, d := newDeviceBench(t, pushy)
	flow := b.started(saml.L2, saml.Minimum)
	v := b.page(flow, StepCode, NoticeCodeSent, right, byPush)
	if !v.CanResend || v.Way.Number != "47" {
		t.Errorf("%+v", v)
	}
	b.page(flow, StepCode, NoticeCodeSent, ResendAnswer{})
	var orders []Order
	for _, o := range d.open {
		orders = append(orders, o)
	}
	if len(orders) != 2 || orders[0].Flow != flow || orders[0].Key != "a1" || orders[0].SPName != "Comune di Prova" || orders[0].SP.String() != "https://sp.example/meta" ||
		orders[0].Until.Sub(start) > 10*time.Minute {
		t.Errorf("%+v", orders)
	}
	b.page(flow, StepConsent, NoticeNone, device)
	b.response(flow, saml.Success, ConsentAnswer{})
	if k := b.ledger.kept[0]; !slices.Equal(k.Credentials, []string{"password", "otp-push"}) {
		t.Errorf("%v", k.Credentials)
	}
}

// TestOtherMethod: the choice can be made again; the first challenge answers nothing then, and
// wrong codes stay counted over all of them.
func TestOtherMethod(t *testing.T) {
	b, _ := newDeviceBench(t, token)
	flow := b.started(saml.L2, saml.Minimum)
	b.page(flow, StepCode, NoticeNone, right, byToken)
	b.page(flow, StepCode, NoticeWrongCode, miss)
	b.page(flow, StepMethod, NoticeNone, OtherAnswer{})
	b.page(flow, StepMethod, NoticeNone, device) // an old page
	v := b.page(flow, StepCode, NoticeCodeSent, sms)
	if v.Way.Method != MethodSMS || !v.CanChange {
		t.Errorf("%+v", v)
	}
	if v = b.page(flow, StepCode, NoticeWrongCode, CodeAnswer{Code: "000000"}); v.AttemptsLeft != 1 {
		t.Errorf("%d attempts left", v.AttemptsLeft)
	}
	b.response(flow, saml.TooManyAttempts, CodeAnswer{Code: "000000"})
}

// TestBlockedDevice: a blocked one is not taken while another is there (and says so); without
// another the login ends with 23, as it does when the last try blocks.
func TestBlockedDevice(t *testing.T) {
	blocked := token
	blocked.Blocked = true
	b, d := newDeviceBench(t, blocked)
	flow := b.started(saml.L2, saml.Minimum)
	b.page(flow, StepMethod, NoticeBlockedMethod, right, byToken)
	b.page(flow, StepConsent, NoticeNone, sms, code)
	b.mario.Phone = id.Phone{}
	b.store.put(b.mario)
	b.response(b.started(saml.L2, saml.Minimum), saml.NotActive, right)
	d.ways = []Way{token}
	flow = b.started(saml.L2, saml.Minimum)
	b.page(flow, StepCode, NoticeNone, right, byToken)
	d.verdicts["22222222"] = VerdictBlocked
	b.response(flow, saml.NotActive, CodeAnswer{Code: "22222222"})
	flow = b.started(saml.L2, saml.Minimum)
	b.page(flow, StepMethod, NoticeNone, right)
	d.fail = fault.New(fault.Denied, "open", nil) // blocked between page and click
	d.ways = nil
	d.fail = nil
	b.response(flow, saml.NoCredentials, byToken)
	var happened []register.Happening
	for _, i := range b.ledger.noted {
		happened = append(happened, i.What)
	}
	if n := strings.Count(strings.Join(strs(happened), " "), "codes-blocked"); n != 3 {
		t.Errorf("%d times in the security log: %v", n, happened)
	}
	// Level 1 needs none of it.
	b.page(b.started(saml.L1, saml.Minimum), StepConsent, NoticeNone, right)
}

func strs(h []register.Happening) []string {
	var out []string
	for _, x := range h {
		out = append(out, string(x))
	}
	return out
}

// TestDeviceTrouble: what fails below is no wrong code and ends no login.
func TestDeviceTrouble(t *testing.T) {
	b, d := newDeviceBench(t, token, pushy)
	flow := b.started(saml.L2, saml.Minimum)
	b.page(flow, StepMethod, NoticeNone, right)
	open := func(cause error, want Notice) {
		t.Helper()
		d.fail = nil
		l := b.Login
		l.devices = failing{d, cause}
		defer func() { l.devices = d }()
		b.page(flow, StepMethod, want, byPush)
	}
	open(fault.New(fault.Exhausted, "x", nil), NoticeTooManyCodes)
	open(fault.New(fault.Busy, "x", nil), NoticeBusy)
	open(fault.New(fault.Denied, "x", nil), NoticeBlockedMethod)
	b.page(flow, StepCode, NoticeNone, byToken)
	b.Login.devices = failing{d, fault.New(fault.Unavailable, "x", nil)}
	if _, err := b.Answer(t.Context(), flow, visitor, device); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	b.Login.devices = failing{d, fault.New(fault.Expired, "x", nil)}
	b.page(flow, StepCode, NoticeExpiredCode, device)
	b.Login.devices = d
	b.page(flow, StepConsent, NoticeNone, device)
	late := b.started(saml.L2, saml.Minimum)
	b.page(late, StepCode, NoticeNone, right, byToken)
	b.Login.devices = failing{d, fault.New(fault.Exhausted, "x", nil)}
	b.response(late, saml.TooManyAttempts, device)
	b.Login.devices = d
	if _, err := b.Answer(t.Context(), b.started(saml.L2, saml.Minimum), visitor, MethodAnswer{Method: 9}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown method: %v", err)
	}
}

// failing opens and verifies nothing.
type failing struct {
	*things
	cause error
}

func (f failing) Open(context.Context, Order) (id.ChallengeID, error) {
	return id.ChallengeID{}, f.cause
}

func (f failing) Verify(context.Context, id.ChallengeID, id.FlowID, id.Subject, string) (Judged, error) {
	return Judged{}, f.cause
}

// TestCodeOfAnotherMethod: a challenge of one method is not answered once another was chosen, also
// when the issue of the second failed.
func TestCodeOfAnotherMethod(t *testing.T) {
	b, d := newDeviceBench(t, token, pushy)
	flow := b.started(saml.L2, saml.Minimum)
	b.page(flow, StepCode, NoticeNone, right, byToken)
	first := b.store.flows[flow].Challenge
	b.page(flow, StepMethod, NoticeNone, OtherAnswer{})
	b.Login.devices = failing{d, fault.New(fault.Busy, "x", nil)}
	b.page(flow, StepMethod, NoticeBusy, byPush)
	b.Login.devices = d
	b.page(flow, StepMethod, NoticeNone, device)
	if f := b.store.flows[flow]; !f.Challenge.IsZero() || d.burned[first] {
		t.Errorf("%+v", f.Challenge)
	}
}
