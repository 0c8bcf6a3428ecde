package saml

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

const (
	formatEntity        = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
	formatTransient     = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	formatUnspecified20 = "urn:oasis:names:tc:SAML:2.0:nameid-format:unspecified" // as the technical rules print it
	formatUnspecified11 = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified" // as SAML Core defines it
	bindingRedirect     = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
	bindingPost         = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
	bindingSOAP         = "urn:oasis:names:tc:SAML:2.0:bindings:SOAP"
)

// arrival is a request whose signature was verified, while the rules are
// applied to it.
type arrival struct {
	verifier *Verifier
	binding  Binding
	raw      []byte
	relay    string
	hasRelay bool
	root     *etree.Element // verified
	sp       *SP
	now      time.Time

	acs     string // chosen ACS when acsErr is nil
	acsErr  error
	request Request // filled in rule by rule
}

// rule is one row of the pipeline after the signature. check fills in its part
// of the request.
type rule struct {
	code  Code
	check func(*arrival) error
}

// rules is the pipeline in the order of the table. The specific checks own
// their attributes; NotConformant covers only what none of them does, or every
// error would collapse into it.
var rules = [...]rule{
	{BadVersion, checkVersion},
	{BadID, checkID},
	{NotConformant, checkConformity},
	{BadAuthnContext, checkContext},
	{BadIssueInstant, checkInstant},
	{BadDestination, checkDestination},
	{Passive, checkPassive},
	{BadACS, checkACS},
	{BadNameIDPolicy, checkNameIDPolicy},
	{BadAttributeService, checkAttributeService},
}

func checkVersion(a *arrival) error {
	if v, _ := xmldoc.Attribute(a.root, "Version"); v != "2.0" {
		return errors.New("version is not 2.0")
	}
	return nil
}

func checkID(a *arrival) error {
	v, _ := xmldoc.Attribute(a.root, "ID")
	if !xmldoc.IsNCName(v) {
		return errors.New("identifier is not an NCName")
	}
	a.request.ID = v
	return nil
}

func checkContext(a *arrival) error {
	level, comparison, err := requestedContext(a.root)
	if err == nil && comparison == Better && level == L3 && !a.verifier.config.LenientBetter {
		err = errors.New("no level is better than 3")
	}
	a.request.Level, a.request.Comparison = level, comparison
	return err
}

// requestedContext reads RequestedAuthnContext: one class reference, a SPID
// level, and a comparison.
func requestedContext(root *etree.Element) (Level, Comparison, error) {
	ctx, err := xmldoc.SoleChild(root, nsProtocol, "RequestedAuthnContext")
	if err != nil {
		return 0, 0, err
	}
	children := ctx.ChildElements()
	if len(children) != 1 || !xmldoc.Is(children[0], nsAssertion, "AuthnContextClassRef") {
		return 0, 0, errors.New("not exactly one AuthnContextClassRef")
	}
	if err := plainContent(ctx, "Comparison"); err != nil {
		return 0, 0, err
	}
	text, err := xmldoc.TextOf(children[0])
	if err != nil {
		return 0, 0, err
	}
	var level Level
	switch xmldoc.Trim(text) {
	case L1.URI():
		level = L1
	case L2.URI():
		level = L2
	case L3.URI():
		level = L3
	default:
		return 0, 0, errors.New("authentication context is not a SPID level")
	}
	comparison := Exact
	if v, ok := xmldoc.Attribute(ctx, "Comparison"); ok {
		if comparison, ok = comparisons[v]; !ok {
			return 0, 0, errors.New("unknown comparison")
		}
	}
	return level, comparison, nil
}

var comparisons = map[string]Comparison{"exact": Exact, "minimum": Minimum, "better": Better, "maximum": Maximum}

// issued returns IssueInstant if it is coherent with the time of arrival.
func (a *arrival) issued() (time.Time, error) {
	v, _ := xmldoc.Attribute(a.root, "IssueInstant")
	t, err := ParseInstant(v)
	if err != nil {
		return time.Time{}, err
	}
	c := &a.verifier.config
	if t.After(a.now.Add(c.FutureSkew)) {
		return time.Time{}, fmt.Errorf("issued %v in the future", t.Sub(a.now))
	}
	if t.Before(a.now.Add(-c.PastSkew)) {
		return time.Time{}, fmt.Errorf("issued %v ago", a.now.Sub(t))
	}
	return t, nil
}

// checkInstant also refuses a request whose own Conditions are over: answering
// it would come too late for the SP. NotBefore is ignored.
func checkInstant(a *arrival) error {
	t, err := a.issued()
	if err != nil {
		return err
	}
	a.request.IssueInstant = t
	for _, c := range xmldoc.ChildrenNamed(a.root, nsAssertion, "Conditions") {
		if v, ok := xmldoc.Attribute(c, "NotOnOrAfter"); ok {
			if end, err := ParseInstant(v); err != nil || !a.now.Before(end) {
				return errors.New("conditions of the request are over")
			}
		}
	}
	return nil
}

// checkDestination accepts the entityID besides the SSO locations (SPID Avviso 11).
func checkDestination(a *arrival) error {
	v, _ := xmldoc.Attribute(a.root, "Destination")
	for _, d := range a.verifier.destinations {
		if v == d {
			return nil
		}
	}
	return errors.New("destination is not this identity provider")
}

func checkPassive(a *arrival) error {
	v, ok := xmldoc.Attribute(a.root, "IsPassive")
	if !ok {
		return nil
	}
	// A malformed value was refused as not conformant.
	if passive, err := xmldoc.ParseBoolean(v); err != nil || passive {
		return errors.New("passive authentication requested")
	}
	return nil
}

func checkACS(a *arrival) error {
	a.request.ACS = a.acs
	return a.acsErr
}

// chooseACS resolves where the Response goes, by index or by location and
// binding, always to an endpoint of the SP's metadata.
func chooseACS(root *etree.Element, sp *SP) (string, error) {
	index, hasIndex := xmldoc.Attribute(root, "AssertionConsumerServiceIndex")
	location, hasLocation := xmldoc.Attribute(root, "AssertionConsumerServiceURL")
	binding, hasBinding := xmldoc.Attribute(root, "ProtocolBinding")
	switch {
	case hasIndex && (hasLocation || hasBinding):
		return "", errors.New("ACS given by index and otherwise")
	case hasIndex:
		n, err := parseIndex(index)
		if err != nil {
			return "", err
		}
		for _, acs := range sp.ACS {
			if acs.Index == n {
				return acs.Location, nil
			}
		}
		return "", fmt.Errorf("ACS index %d is not in the metadata", n)
	case !hasLocation || !hasBinding:
		return "", errors.New("ACS not given")
	case binding != bindingPost:
		return "", errors.New("ACS binding is not HTTP-POST")
	}
	for _, acs := range sp.ACS {
		if acs.Location == location {
			return acs.Location, nil
		}
	}
	return "", errors.New("ACS location is not in the metadata")
}

// defaultACS returns the default endpoint, else the one of lowest index, else "".
func defaultACS(sp *SP) string {
	for _, acs := range sp.ACS {
		if acs.Default {
			return acs.Location
		}
	}
	if len(sp.ACS) > 0 {
		return sp.ACS[0].Location
	}
	return ""
}

// parseIndex reads an xs:unsignedShort in plain decimal.
func parseIndex(s string) (uint16, error) {
	n, err := strconv.ParseUint(xmldoc.Trim(s), 10, 16)
	if err != nil {
		return 0, errors.New("malformed index")
	}
	return uint16(n), nil
}

// checkNameIDPolicy ignores AllowCreate, whatever its value (SPID Avviso 5).
func checkNameIDPolicy(a *arrival) error {
	policy, err := xmldoc.SoleChild(a.root, nsProtocol, "NameIDPolicy")
	if err != nil {
		return err
	}
	if format, _ := xmldoc.Attribute(policy, "Format"); format != formatTransient {
		return errors.New("NameIDPolicy format is not transient")
	}
	return nil
}

// checkAttributeService: without an index no attributes are asserted.
func checkAttributeService(a *arrival) error {
	v, ok := xmldoc.Attribute(a.root, "AttributeConsumingServiceIndex")
	if !ok {
		return nil
	}
	n, err := parseIndex(v)
	if err != nil {
		return err
	}
	for _, s := range a.sp.Services {
		if s.Index == n {
			a.request.HasAttributes, a.request.Attributes = true, slices.Clone(s.Attributes)
			return nil
		}
	}
	return fmt.Errorf("attribute service %d is not in the metadata", n)
}
