package spsim

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
)

var instantShape = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

var statusMessage = regexp.MustCompile(`^ErrorCode nr(\d\d)$`)

// anomalyStatus is the status pair of each row of the SPID anomaly table that
// may reach an SP (Requester and so on, without the common prefix).
var anomalyStatus = map[int][2]string{
	8:  {"Requester", ""},
	9:  {"VersionMismatch", ""},
	11: {"Requester", ""},
	12: {"Requester", "NoAuthnContext"},
	13: {"Requester", "RequestDenied"},
	14: {"Requester", "RequestUnsupported"},
	15: {"Requester", "NoPassive"},
	16: {"Requester", "RequestUnsupported"},
	17: {"Requester", "RequestUnsupported"},
	18: {"Requester", "RequestUnsupported"},
	19: {"Responder", "AuthnFailed"},
	20: {"Responder", "AuthnFailed"},
	21: {"Responder", "AuthnFailed"},
	22: {"Responder", "AuthnFailed"},
	23: {"Responder", "AuthnFailed"},
	25: {"Responder", "AuthnFailed"},
	30: {"Responder", "AuthnFailed"},
}

type statusOf struct {
	success       bool
	code, subCode string
	message       string
	anomaly       int
}

// decide runs the checks on the verified elements.
func (j *judge) decide() (*Login, error) {
	for _, step := range []func() error{
		j.readStatus, j.checkShape, j.findRequest, j.checkResponse, j.stopAtAnomaly,
		j.checkAssertion, j.checkSubject, j.checkConditions, j.checkAuthn, j.checkAttributes, j.checkNovelty,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	j.login.Request = j.request.request
	j.login.RequestXML = j.request.xml
	j.login.XML = j.raw
	j.login.RelayState = j.relayState
	j.login.SignerSHA256 = fingerprint(j.signer)
	j.login.AssertionSignerSHA256 = fingerprint(j.assSigner)
	return &j.login, nil
}

// readStatus parses Status: on success the top code alone, on an anomaly the
// pair of the table and the message "ErrorCode nrNN".
func (j *judge) readStatus() error {
	top, err := only(j.response, nsProtocol, "Status", "StatusCode")
	if err != nil {
		return refuse("response.status", "%v", err)
	}
	status := top.Parent()
	j.status.code = attrOf(top, "Value")
	subs := top.ChildElements()
	if j.status.code == statusPrefix+"Success" {
		if len(subs) != 0 || len(status.ChildElements()) != 1 {
			return refuse("response.status", "Success with a sub-code or a message")
		}
		j.status.success = true
		return nil
	}
	if len(subs) > 1 || (len(subs) == 1 && !is(subs[0], nsProtocol, "StatusCode")) {
		return refuse("response.status", "more than one second-level status code")
	}
	if len(subs) == 1 {
		j.status.subCode = attrOf(subs[0], "Value")
	}
	message, err := only(status, nsProtocol, "StatusMessage")
	if err != nil {
		return refuse("response.status", "%v", err)
	}
	j.status.message = message.Text()
	m := statusMessage.FindStringSubmatch(j.status.message)
	if m == nil {
		return refuse("response.status", "StatusMessage %q, want ErrorCode nrNN", j.status.message)
	}
	if j.status.anomaly, err = strconv.Atoi(m[1]); err != nil {
		return refuse("response.status", "%v", err)
	}
	return j.checkStatusPair()
}

func (j *judge) checkStatusPair() error {
	want, ok := anomalyStatus[j.status.anomaly]
	if !ok {
		return refuse("response.status", "anomaly %d never reaches an SP", j.status.anomaly)
	}
	pair := [2]string{strings.TrimPrefix(j.status.code, statusPrefix), strings.TrimPrefix(j.status.subCode, statusPrefix)}
	if pair != want {
		return refuse("response.status", "nr%02d with %s/%s, want %s/%s", j.status.anomaly, pair[0], pair[1], want[0], want[1])
	}
	return nil
}

// checkShape wants exactly Issuer, Status and, on success, one Assertion.
func (j *judge) checkShape() error {
	want := []string{"Issuer", "Status"}
	if j.status.success {
		want = append(want, "Assertion")
	}
	if got := tags(j.response); !slices.Equal(got, want) {
		return refuse("response.shape", "Response holds %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	return nil
}

func tags(el *etree.Element) []string {
	var names []string
	for _, c := range el.ChildElements() {
		names = append(names, c.Tag)
	}
	return names
}

// findRequest matches InResponseTo with a request this browser made and that
// was not answered yet.
func (j *judge) findRequest() error {
	id, present := attr(j.response, "InResponseTo")
	if !present {
		if j.status.anomaly == 11 {
			return nil
		}
		return refuse("response.inResponseTo", "missing")
	}
	request, replay := j.sp.requests.take(id, j.browser, j.now)
	if replay {
		return refuse("response.replay", "request %q was answered before", id)
	}
	if request == nil {
		return refuse("response.inResponseTo", "%q is no open request of this browser", id)
	}
	j.request = request
	j.login.InResponseTo = id
	return nil
}

func (j *judge) checkResponse() error {
	id, err := checkEnvelopeAttributes("response", j.response)
	if err != nil {
		return err
	}
	j.login.ResponseID = id
	if j.login.ResponseIssued, err = j.checkIssued("response", j.response); err != nil {
		return err
	}
	if err := j.checkDestination(); err != nil {
		return err
	}
	issuer, err := j.checkIssuer("response.issuer", j.response)
	if err != nil {
		return err
	}
	if f, ok := attr(issuer, "Format"); ok && f != formatEntity {
		return refuse("response.issuerFormat", "%q, want none or entity", f)
	}
	if j.request != nil && j.relayState != j.request.relayState {
		return refuse("relayState", "not what was sent with the request")
	}
	return nil
}

// checkEnvelopeAttributes checks the ID and Version that Response and
// Assertion share.
func checkEnvelopeAttributes(what string, el *etree.Element) (id string, err error) {
	if id = attrOf(el, "ID"); !ncName.MatchString(id) {
		return "", refuse(what+".id", "%q is no NCName", id)
	}
	return id, equal(what+".version", attrOf(el, "Version"), "2.0")
}

func equal(check, got, want string) error {
	if got != want {
		return refuse(check, "%q, want %q", got, want)
	}
	return nil
}

func (j *judge) checkIssuer(check string, el *etree.Element) (*etree.Element, error) {
	issuer, err := only(el, nsAssertion, "Issuer")
	if err != nil {
		return nil, refuse(check, "%v", err)
	}
	return issuer, equal(check, issuer.Text(), j.idp.EntityID)
}

func (j *judge) checkIssued(what string, el *etree.Element) (time.Time, error) {
	check := what + ".issueInstant"
	issued, err := instant(check, attrOf(el, "IssueInstant"))
	if err != nil {
		return time.Time{}, err
	}
	if j.request != nil && issued.Before(j.request.issued.Add(-j.sp.cfg.Skew)) {
		return time.Time{}, refuse(check, "%s is before the request's %s",
			issued.Format(instantLayout), j.request.issued.Format(instantLayout))
	}
	if issued.After(j.now.Add(j.sp.cfg.Skew)) {
		return time.Time{}, refuse(check, "%s is after now, %s",
			issued.Format(instantLayout), j.now.UTC().Format(instantLayout))
	}
	return issued, nil
}

func instant(check, text string) (time.Time, error) {
	if !instantShape.MatchString(text) {
		return time.Time{}, refuse(check, "%q, want UTC with exactly three fractional digits", text)
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, refuse(check, "%v", err)
	}
	return t, nil
}

// checkDestination: the answer goes to the ACS the request chose, an nr16 to
// the default one, whatever the request says.
func (j *judge) checkDestination() error {
	destination := attrOf(j.response, "Destination")
	allowed := []string{j.sp.ACS(0), j.sp.ACS(1)}
	switch {
	case j.status.anomaly == 16:
		allowed = allowed[:1]
	case j.request != nil:
		allowed = []string{j.sp.ACS(j.request.request.ACSIndex)}
	}
	if !slices.Contains(allowed, destination) {
		return refuse("response.destination", "%q, want %s", destination, strings.Join(allowed, " or "))
	}
	if j.endpoint != "" && j.endpoint != destination {
		return refuse("response.destination", "%q, but it arrived at %s", destination, j.endpoint)
	}
	return nil
}

// stopAtAnomaly ends the judgement of a response that has no assertion.
func (j *judge) stopAtAnomaly() error {
	if j.status.success {
		return nil
	}
	return &StatusError{
		Code: j.status.code, SubCode: j.status.subCode,
		Message: j.status.message, Anomaly: j.status.anomaly,
		InResponseTo: j.login.InResponseTo, ResponseID: j.login.ResponseID,
		IssueInstant: j.login.ResponseIssued, RelayState: j.relayState, XML: j.raw,
	}
}
