package catalogue

import (
	"strconv"
	"strings"

	"custode/internal/conformance/request"
)

// Rule is one line of the catalogue.
type Rule struct {
	ID       string
	Source   string // where the rule comes from
	Title    string
	Bindings []request.Binding

	Change func(*request.Message) // makes the request out of a valid one; nil changes nothing
	Want   Expect
	Needs  Need
	Walk   []Step // what the subject does after the request
	Login  Login  // what a success must assert
}

// Expect is what has to be seen. The zero value is a login that begins.
type Expect struct {
	Code   int  // row of the table, 0 for a login that begins, or one of the codes below
	ACS    int  // of the auditor's two, where a Response goes
	NoID   bool // the request has no identifier that InResponseTo could name
	Status int  // HTTP status, with Refused; 0: any of 4xx
	Level  int  // shown when the login begins; 0: 2
}

// Codes of expectations that are no row of the table.
const (
	// Refused is any refusal that neither goes on with a login nor answers the SP.
	Refused = -1
	// LoggedOut and PartialLogout are LogoutResponses to the auditor's single
	// logout location: Success, or Requester with the sub-status PartialLogout.
	LoggedOut     = -3
	PartialLogout = -4
	// badSignature stands for row 5 by HTTP-Redirect and row 7 by HTTP-POST.
	badSignature = -2
)

// On resolves what depends on the binding.
func (e Expect) On(by request.Binding) Expect {
	if e.Code == badSignature {
		e.Code = 7
		if by == request.Redirect {
			e.Code = 5
		}
	}
	return e
}

// String tells the expectation in words.
func (e Expect) String() string {
	switch row := Table[e.Code]; {
	case e.Code == 0:
		return "the login begins"
	case e.Code == LoggedOut:
		return "LogoutResponse Success"
	case e.Code == PartialLogout:
		return "LogoutResponse Requester/PartialLogout"
	case e.Code == Refused && e.Status == 0:
		return "a refusal (HTTP 4xx)"
	case e.Code == Refused:
		return "HTTP " + strconv.Itoa(e.Status)
	case row.Response:
		s := "HTTP " + strconv.Itoa(row.HTTP) + ", Response " + row.Status
		if row.Sub != "" {
			s += "/" + row.Sub
		}
		return s + " " + row.Message() + " to ACS " + strconv.Itoa(e.ACS)
	default:
		return "HTTP " + strconv.Itoa(row.HTTP) + ", «" + row.PageIT + "»"
	}
}

// Login is what a success has to assert.
type Login struct {
	Level   int
	Service int // index of the attribute set; -1: none was asked for
}

// Need says what a rule cannot do without.
type Need uint8

// The needs; they are combined by "or".
const (
	NeedSubject   Need = 1 << iota // somebody's login
	NeedSuspended                  // the login of somebody who is suspended
	NeedCode                       // the one-time code sent to the subject
	NeedExpired                    // a registered key whose certificate is over
	NeedOther                      // the entityID of another registered SP
	NeedTime                       // the life of a login, to be waited for
	NeedLogout                     // single logout locations for both bindings
)

// Step is one thing the subject does on the page reached.
type Step uint8

// The steps.
const (
	AsSubject   Step = iota // logs in with username and password
	AsSuspended             // the same, as the suspended subject
	AsNobody                // types wrong passwords for a username nobody has, until something happens
	ByCode                  // asks for a code by SMS
	TypeCode                // types the code
	WrongCodes              // types wrong codes until something happens
	Consent                 // gives consent
	Refuse                  // refuses it
	Cancel                  // cancels
	Overtime                // waits until the login's life is over and loads the page
	Answered                // nothing: the Response has to be a success here
	Resend                  // sends the last request again, from another browser
	LogOut                  // the SP sends a LogoutRequest about the Response's session
	NextLevel1              // the SP sends another request, at level 1, from the same browser
	NextForced              // the same with ForceAuthn
	NextLevel2              // the same at level 2
)

var both = []request.Binding{request.Redirect, request.Post}

// All returns all rules, in the order in which they are best run. The slice is
// the caller's.
func All() []Rule {
	var all []Rule
	for _, part := range []func() []Rule{
		transportRules, issuerRules, signatureRules, formRules, contextRules, consumerRules, orderRules,
		mutationRules, attackRules, wrappingRules, subjectRules, logoutRules,
	} {
		all = append(all, part()...)
	}
	for i := range all {
		if all[i].Bindings == nil {
			all[i].Bindings = both
		}
		if strings.HasPrefix(all[i].ID, "logout-") {
			all[i].Needs |= NeedLogout
		}
	}
	return all
}

// edit is one replacement in the request's text; old has to be there once.
type edit struct{ old, new string }

func edits(list ...edit) func(*request.Message) {
	return func(m *request.Message) {
		for _, e := range list {
			m.Replace(e.old, e.new)
		}
	}
}

// swap is edits with one edit.
func swap(old, new string) func(*request.Message) { return edits(edit{old, new}) }

// variant is one of several rules of the same source.
type variant struct {
	name, title string
	change      func(*request.Message)
	code        int
}

func variants(prefix, source string, list ...variant) []Rule {
	out := make([]Rule, len(list))
	for i, v := range list {
		out[i] = Rule{ID: prefix + "-" + v.name, Source: source, Title: v.title, Change: v.change, Want: Expect{Code: v.code}}
	}
	return out
}

func only(by request.Binding, rules []Rule) []Rule {
	for i := range rules {
		rules[i].Bindings = []request.Binding{by}
	}
	return rules
}
