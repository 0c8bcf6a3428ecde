package authcore

import (
	"context"
	"maps"
	"slices"
	"time"

	"custode/authcore/saml"
	"custode/internal/fault"
)

// note is what a page tells about the previous answer.
type note struct {
	notice     Notice
	retryAfter time.Duration
	left       int
}

// show builds the page of the flow's step for its subject. Before the password
// who is nobody and nothing of an identity is shown.
func (l *Login) show(ctx context.Context, f Flow, who Identity, n note) Outcome {
	v := View{Flow: f.ID, Step: f.Step, SP: f.Request.SP, SPName: maps.Clone(f.SPName), Level: f.shownLevel(who),
		Deadline: f.Deadline, Notice: n.notice, RetryAfter: n.retryAfter, AttemptsLeft: n.left}
	switch f.Step {
	case StepMethod:
		v.Ways = slices.Clone(who.Ways)
	case StepCode:
		v.Way = l.way(ctx, f, who)
		v.CanResend = f.Method.sent() && f.CodesIssued < l.policy.Codes
		v.CanChange = len(who.Ways) > 1 || f.Challenge.IsZero()
		v.Delivery = l.delivery(ctx, f)
	case StepConsent:
		if f.Performed > saml.L1 {
			v.Way = l.way(ctx, f, who)
		}
		v.Attributes, _ = l.attributes(who, f.Request)
		v.LastLogin, v.Resumed = who.LastLogin, f.Resumed
	}
	return Outcome{View: &v}
}

// delivery is for information only: a code page must come up even when nobody
// can tell how the message fares.
func (l *Login) delivery(ctx context.Context, f Flow) Delivery {
	if f.Challenge.IsZero() || f.Method != MethodSMS {
		return DeliveryUnknown
	}
	d, err := l.deliveries.Delivery(ctx, f.Challenge)
	if err != nil {
		if !fault.Is(err, fault.NotFound) {
			l.log.WarnContext(ctx, "delivery unknown", "flow", f.ID.String(), "challenge", f.Challenge.String(), "error", err)
		}
		return DeliveryUnknown
	}
	return d
}

// shownLevel is the level a page announces: the one performed, else the one that
// will or would be, as far as it is known before the subject is.
func (f Flow) shownLevel(who Identity) saml.Level {
	if f.Performed != 0 {
		return f.Performed
	}
	available := strongest
	if !f.Subject.IsZero() {
		available = who.available()
	}
	level, _ := levelFor(f.Request.Level, f.Request.Comparison, available)
	return min(level, saml.L3)
}

// spName is the service provider's name for a message text: Italian, else
// English, else its entityID.
func (f Flow) spName() string {
	for _, lang := range []string{"it", "en"} {
		if n := f.SPName[lang]; n != "" {
			return n
		}
	}
	return f.Request.SP.String()
}
