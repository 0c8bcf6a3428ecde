package saml

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
	"custode/internal/id"
)

// Limits of SP metadata beyond its size. Real SPs have one to three keys.
const (
	maxSPCertificates = 16
	maxCertificate    = 16 << 10 // DER octets
)

// ParseSPMetadata reads the signed EntityDescriptor of one service provider, at
// most MaxSPMetadata octets. With pinned certificates the signature must be by one of those;
// without, by one of the SP's own signing keys, which proves only that the file
// is whole and that its author holds the key: who may put files there decides
// what to trust. Periods of validity are not judged here (there is no clock);
// the Verifier does, at each request. Errors are fault.Invalid.
func ParseSPMetadata(data []byte, pinned ...*x509.Certificate) (*SP, error) {
	sp, err := parseSPMetadata(data, pinned)
	if err != nil {
		return nil, fault.New(fault.Invalid, "parse SP metadata", err)
	}
	return sp, nil
}

func parseSPMetadata(data []byte, pinned []*x509.Certificate) (*SP, error) {
	root, err := metadataBounds.Parse(data)
	if err != nil {
		return nil, err
	}
	if !xmldoc.Is(root, nsMetadata, "EntityDescriptor") {
		return nil, errors.New("root is not an EntityDescriptor")
	}
	trusted := pinned
	if len(trusted) == 0 {
		role, err := serviceProviderRole(root)
		if err != nil {
			return nil, err
		}
		if trusted, err = signingCertificates(role); err != nil {
			return nil, err
		}
	}
	verified, err := verifyMetadata(root, trusted)
	if err != nil {
		return nil, err
	}
	return readSP(verified)
}

// verifyMetadata tries each certificate at a moment of its own validity: the
// question is whose key signed, not when.
func verifyMetadata(root *etree.Element, trusted []*x509.Certificate) (*etree.Element, error) {
	last := errors.New("no certificate to verify with")
	for _, cert := range trusted {
		el, err := xmldoc.VerifyEnveloped(root, 0, []*x509.Certificate{cert}, cert.NotBefore)
		if err == nil {
			return el, nil
		}
		last = err
	}
	return nil, last
}

// readSP reads the values from the verified element.
func readSP(root *etree.Element) (*SP, error) {
	if !xmldoc.Is(root, nsMetadata, "EntityDescriptor") {
		return nil, errors.New("signed element is not the EntityDescriptor")
	}
	v, _ := xmldoc.Attribute(root, "entityID")
	entityID, err := id.ParseEntityID(v)
	if err != nil {
		return nil, err
	}
	sp := &SP{EntityID: entityID}
	if v, ok := xmldoc.Attribute(root, "validUntil"); ok {
		if sp.ValidUntil, err = ParseInstant(v); err != nil {
			return nil, fmt.Errorf("validUntil: %w", err)
		}
	}
	role, err := serviceProviderRole(root)
	if err != nil {
		return nil, err
	}
	if sp.Certificates, err = signingCertificates(role); err != nil {
		return nil, err
	}
	if sp.ACS, err = assertionConsumers(role); err != nil {
		return nil, err
	}
	if sp.Services, err = attributeServices(role); err != nil {
		return nil, err
	}
	sp.SLO = logoutEndpoints(role)
	for _, org := range xmldoc.ChildrenNamed(root, nsMetadata, "Organization") {
		sp.DisplayName = localized(xmldoc.ChildrenNamed(org, nsMetadata, "OrganizationDisplayName"))
	}
	return sp, nil
}

func serviceProviderRole(root *etree.Element) (*etree.Element, error) {
	role, err := xmldoc.SoleChild(root, nsMetadata, "SPSSODescriptor")
	if err != nil {
		return nil, err
	}
	protocols, _ := xmldoc.Attribute(role, "protocolSupportEnumeration")
	if !slices.Contains(strings.Fields(protocols), nsProtocol) {
		return nil, errors.New("service provider does not speak SAML 2.0")
	}
	return role, nil
}

// signingCertificates returns the certificates that may verify requests: of
// KeyDescriptor use="signing" or without use, RSA of sufficient size. One that
// does not parse is passed over, so that a broken spare does not take the SP
// out of service; there must be one left.
func signingCertificates(role *etree.Element) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	last := errors.New("no signing certificate")
	for _, key := range xmldoc.ChildrenNamed(role, nsMetadata, "KeyDescriptor") {
		if use, ok := xmldoc.Attribute(key, "use"); ok && use != "signing" {
			continue
		}
		for _, info := range xmldoc.ChildrenNamed(key, xmldoc.NSSignature, "KeyInfo") {
			for _, data := range xmldoc.ChildrenNamed(info, xmldoc.NSSignature, "X509Data") {
				for _, el := range xmldoc.ChildrenNamed(data, xmldoc.NSSignature, "X509Certificate") {
					cert, err := parseCertificate(el)
					if err != nil {
						last = err
						continue
					}
					if len(certs) == maxSPCertificates {
						return nil, fmt.Errorf("more than %d certificates", maxSPCertificates)
					}
					certs = append(certs, cert)
				}
			}
		}
	}
	if len(certs) == 0 {
		return nil, last
	}
	return certs, nil
}

func parseCertificate(el *etree.Element) (*x509.Certificate, error) {
	text, err := xmldoc.TextOf(el)
	if err != nil {
		return nil, err
	}
	if len(text) > 2*maxCertificate {
		return nil, errors.New("certificate is too long")
	}
	der, err := base64.StdEncoding.DecodeString(xmldoc.Strip(text))
	if err != nil {
		return nil, fmt.Errorf("decode certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	if _, err := xmldoc.RSAKey(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// assertionConsumers returns the HTTP-POST endpoints by index; at least one.
func assertionConsumers(role *etree.Element) ([]ACS, error) {
	var all []ACS
	for _, el := range xmldoc.ChildrenNamed(role, nsMetadata, "AssertionConsumerService") {
		if binding, _ := xmldoc.Attribute(el, "Binding"); binding != bindingPost {
			continue
		}
		index, _ := xmldoc.Attribute(el, "index")
		n, err := parseIndex(index)
		if err != nil {
			return nil, fmt.Errorf("AssertionConsumerService: %w", err)
		}
		acs := ACS{Index: n}
		if acs.Location, _ = xmldoc.Attribute(el, "Location"); !WebLocation(acs.Location) {
			return nil, errors.New("AssertionConsumerService without a web location")
		}
		if v, ok := xmldoc.Attribute(el, "isDefault"); ok {
			if acs.Default, err = xmldoc.ParseBoolean(v); err != nil {
				return nil, fmt.Errorf("AssertionConsumerService: %w", err)
			}
		}
		all = append(all, acs)
	}
	if len(all) == 0 {
		return nil, errors.New("no HTTP-POST AssertionConsumerService")
	}
	slices.SortStableFunc(all, func(a, b ACS) int { return int(a.Index) - int(b.Index) })
	for i := range all[1:] {
		if all[i].Index == all[i+1].Index {
			return nil, fmt.Errorf("AssertionConsumerService index %d given twice", all[i].Index)
		}
	}
	return all, nil
}

// maxLogoutEndpoints bounds what is kept of one SP; three bindings exist.
const maxLogoutEndpoints = 8

// logoutEndpoints returns the SingleLogoutServices that can be used. A broken
// one is passed over: whoever cannot be told of a logout can still log people in.
func logoutEndpoints(role *etree.Element) []Endpoint {
	var all []Endpoint
	for _, el := range xmldoc.ChildrenNamed(role, nsMetadata, "SingleLogoutService") {
		binding, _ := xmldoc.Attribute(el, "Binding")
		e := Endpoint{Binding: map[string]Binding{bindingRedirect: Redirect, bindingPost: Post, bindingSOAP: SOAP}[binding]}
		e.Location, _ = xmldoc.Attribute(el, "Location")
		e.ResponseLocation, _ = xmldoc.Attribute(el, "ResponseLocation")
		if e.Binding == 0 || !WebLocation(e.Location) || e.ResponseLocation != "" && !WebLocation(e.ResponseLocation) || len(all) == maxLogoutEndpoints {
			continue
		}
		all = append(all, e)
	}
	return all
}

// LogoutEndpoint returns the SP's SingleLogoutService of that binding.
func (sp *SP) LogoutEndpoint(b Binding) (Endpoint, bool) {
	for _, e := range sp.SLO {
		if e.Binding == b {
			return e, true
		}
	}
	return Endpoint{}, false
}

// attributeServices returns the AttributeConsumingServices by index; there may
// be none.
func attributeServices(role *etree.Element) ([]AttributeService, error) {
	var all []AttributeService
	for _, el := range xmldoc.ChildrenNamed(role, nsMetadata, "AttributeConsumingService") {
		index, _ := xmldoc.Attribute(el, "index")
		n, err := parseIndex(index)
		if err != nil {
			return nil, fmt.Errorf("AttributeConsumingService: %w", err)
		}
		s := AttributeService{Index: n, Name: localized(xmldoc.ChildrenNamed(el, nsMetadata, "ServiceName"))}
		for _, requested := range xmldoc.ChildrenNamed(el, nsMetadata, "RequestedAttribute") {
			name, _ := xmldoc.Attribute(requested, "Name")
			if name == "" || len(name) > 256 {
				return nil, errors.New("RequestedAttribute without a usable name")
			}
			if !slices.Contains(s.Attributes, name) {
				s.Attributes = append(s.Attributes, name)
			}
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b AttributeService) int { return int(a.Index) - int(b.Index) })
	for i := 1; i < len(all); i++ {
		if all[i-1].Index == all[i].Index {
			return nil, fmt.Errorf("AttributeConsumingService index %d given twice", all[i].Index)
		}
	}
	return all, nil
}

// localized maps xml:lang, in lower case, to the trimmed text; the first of a
// language counts.
func localized(els []*etree.Element) map[string]string {
	texts := make(map[string]string, len(els))
	for _, el := range els {
		lang := ""
		for _, a := range el.Attr {
			if a.Space == "xml" && a.Key == "lang" {
				lang = strings.ToLower(a.Value)
			}
		}
		if text, err := xmldoc.TextOf(el); err == nil && texts[lang] == "" && xmldoc.Trim(text) != "" {
			texts[lang] = xmldoc.Trim(text)
		}
	}
	return texts
}

// Live reports whether the metadata may still be used at now.
func (sp *SP) Live(now time.Time) bool { return sp.ValidUntil.IsZero() || !now.After(sp.ValidUntil) }
