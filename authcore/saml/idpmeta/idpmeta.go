// Package idpmeta audits the metadata of an identity provider against the SPID
// technical rules (chapter "metadata of the identity provider") the way the
// federation and service providers read it: signature first, then one predicate a
// rule over the signed element, each named so that a report can be compared with the
// rules line by line. Bytes and values only: no network, no clock, no files.
//
// It makes no metadata (authcore/saml does) and reads none of service providers.
// Imported by cmd/custode.
package idpmeta

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsMetadata  = "urn:oasis:names:tc:SAML:2.0:metadata"
	transient   = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	bindings    = "urn:oasis:names:tc:SAML:2.0:bindings:"
	nsXSI       = "http://www.w3.org/2001/XMLSchema-instance"
	// nsXSITypo stands in the sample of the technical rules, a hyphen short.
	nsXSITypo = "http://www.w3.org/2001/XMLSchemainstance"
)

// soon is how long before the end of a certificate it is time for a roll-over.
const soon = 60 * 24 * time.Hour

// bounds are generous: metadata of others may be audited too.
var bounds = xmldoc.Bounds{Bytes: 1 << 20, Depth: 24, Attrs: 64, Elements: 32 << 10, Declarations: 4 << 10, Comments: true}

// Expected is what the document must say. Zero fields are not compared.
type Expected struct {
	EntityID   string
	PublicURL  string            // of which every location must be
	Signer     *x509.Certificate // that must have signed; nil: one of those published
	Published  []*x509.Certificate
	Count      int      // of published certificates, when Published is empty
	KnownNames []string // of attributes
}

// Result is the outcome of one rule.
type Result struct {
	Rule string // stable, for example "signature"
	What string // the rule in words
	Err  error  // nil: kept
	Note string // what an operator should know though the rule is kept; or ""
}

// Kept reports whether no rule is broken.
func Kept(all []Result) bool {
	return !slices.ContainsFunc(all, func(r Result) bool { return r.Err != nil })
}

// audit is a document while the rules are applied.
type audit struct {
	want  Expected
	now   time.Time
	came  *etree.Element
	root  *etree.Element // as it came, then as it was verified
	role  *etree.Element // IDPSSODescriptor
	certs []*x509.Certificate
	note  string
}

// rules in the order of the document. A rule may rely on those before it only for
// what they leave in the audit.
var rules = [...]struct {
	name, what string
	check      func(*audit) error
}{
	{"role", "exactly one IDPSSODescriptor", (*audit).checkRole},
	{"keys", "one or more signing certificates, RSA of 2048 bits or more", (*audit).checkKeys},
	{"signature", "enveloped, first child, RSA with SHA-256 or stronger, exclusive C14N", (*audit).checkSignature},
	{"entityID", "the identity provider's URI", (*audit).checkEntityID},
	{"id", "an ID, which the signature refers to", (*audit).checkID},
	{"validity", "validUntil, if there is one, lies ahead", (*audit).checkValidity},
	{"expiry", "every published certificate is valid now", (*audit).checkExpiry},
	{"published", "the certificates published are those configured", (*audit).checkPublished},
	{"protocol", "protocolSupportEnumeration is SAML 2.0, WantAuthnRequestsSigned is true", (*audit).checkProtocol},
	{"sso", "SingleSignOnService for HTTP-Redirect and HTTP-POST", (*audit).checkSSO},
	{"slo", "one or more SingleLogoutService, bindings HTTP-POST, HTTP-Redirect or SOAP", (*audit).checkSLO},
	{"nameID", "NameIDFormat transient", (*audit).checkNameID},
	{"attributes", "attributes by their SPID names, each once, without xsi:type", (*audit).checkAttributes},
	{"organization", "OrganizationName, DisplayName and URL in Italian, the same languages throughout", (*audit).checkOrganization},
	{"order", "children in the order of the schema", (*audit).checkOrder},
	{"namespaces", "no misspelt XML Schema instance namespace", (*audit).checkNamespaces},
}

// Check audits a document. The error is of a document that is not XML metadata at
// all; else there is one Result for each rule. Everything but the signature rule
// judges the signed element only, once there is one.
func Check(doc []byte, want Expected, now time.Time) ([]Result, error) {
	root, err := bounds.Parse(doc)
	if err != nil {
		return nil, err
	}
	if !xmldoc.Is(root, nsMetadata, "EntityDescriptor") {
		return nil, errors.New("root is not an EntityDescriptor")
	}
	a := audit{want: want, now: now, came: root, root: root}
	all := make([]Result, 0, len(rules))
	for _, r := range rules {
		a.note = ""
		err := r.check(&a)
		all = append(all, Result{r.name, r.what, err, a.note})
	}
	return all, nil
}

func (a *audit) checkRole() (err error) {
	a.role, err = xmldoc.SoleChild(a.root, nsMetadata, "IDPSSODescriptor")
	if err != nil {
		a.role = etree.NewElement("none")
	}
	return err
}

func (a *audit) checkKeys() error {
	certs, err := published(a.role)
	a.certs = certs
	return err
}

func published(role *etree.Element) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, key := range xmldoc.ChildrenNamed(role, nsMetadata, "KeyDescriptor") {
		if use, ok := xmldoc.Attribute(key, "use"); ok && use != "signing" {
			continue
		}
		info, err := xmldoc.SoleChild(key, xmldoc.NSSignature, "KeyInfo")
		if err != nil {
			return certs, err
		}
		data, err := xmldoc.SoleChild(info, xmldoc.NSSignature, "X509Data")
		if err != nil {
			return certs, err
		}
		el, err := xmldoc.SoleChild(data, xmldoc.NSSignature, "X509Certificate")
		if err != nil {
			return certs, err
		}
		cert, err := certificate(el)
		if err != nil {
			return certs, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no signing certificate")
	}
	return certs, nil
}

func certificate(el *etree.Element) (*x509.Certificate, error) {
	text, err := xmldoc.TextOf(el)
	if err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(xmldoc.Strip(text))
	if err != nil {
		return nil, fmt.Errorf("decode certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	_, err = xmldoc.RSAKey(cert)
	return cert, err
}

// checkSignature puts the signed element in the place of the one that came. A
// certificate is tried at a moment of its own validity: expiry has its own rule.
func (a *audit) checkSignature() error {
	signers := a.certs
	if a.want.Signer != nil {
		signers = []*x509.Certificate{a.want.Signer}
	}
	last := errors.New("no certificate to verify with")
	for _, cert := range signers {
		el, err := xmldoc.VerifyEnveloped(a.root, 0, []*x509.Certificate{cert}, cert.NotBefore)
		if err != nil {
			last = err
			continue
		}
		a.root, a.note = el, "signed by "+describe(cert)
		if err := a.checkRole(); err != nil {
			return err
		}
		a.certs, err = published(a.role)
		return err
	}
	return last
}

func describe(cert *x509.Certificate) string {
	return fmt.Sprintf("%s (serial %s, to %s)", cert.Subject, cert.SerialNumber, cert.NotAfter.UTC().Format(time.DateOnly))
}

func (a *audit) checkEntityID() error {
	v, _ := xmldoc.Attribute(a.root, "entityID")
	if u, err := url.Parse(v); err != nil || !u.IsAbs() || xmldoc.Trim(v) != v {
		return fmt.Errorf("%q is no URI", v)
	}
	if a.want.EntityID != "" && v != a.want.EntityID {
		return fmt.Errorf("it is %q, not %q", v, a.want.EntityID)
	}
	return nil
}

func (a *audit) checkID() error {
	if v, _ := xmldoc.Attribute(a.root, "ID"); !xmldoc.IsNCName(v) {
		return fmt.Errorf("%q is no NCName", v)
	}
	return nil
}

func (a *audit) checkValidity() error {
	v, ok := xmldoc.Attribute(a.root, "validUntil")
	if !ok {
		return nil
	}
	end, err := time.Parse(time.RFC3339Nano, v)
	if err != nil || !a.now.Before(end) {
		return fmt.Errorf("validUntil %q", v)
	}
	return nil
}

func (a *audit) checkExpiry() error {
	var bad []error
	for _, cert := range a.certs {
		if err := xmldoc.Usable(cert, a.now); err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", describe(cert), err))
		} else if cert.NotAfter.Before(a.now.Add(soon)) {
			a.note = describe(cert) + " ends soon"
		}
	}
	return errors.Join(bad...)
}

func (a *audit) checkPublished() error {
	if len(a.want.Published) == 0 {
		if n := len(a.certs); a.want.Count != 0 && n != a.want.Count {
			return fmt.Errorf("%d are published, %d configured", n, a.want.Count)
		}
		a.note = "counted only"
		return nil
	}
	has := func(list []*x509.Certificate, cert *x509.Certificate) bool {
		return slices.ContainsFunc(list, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, cert.Raw) })
	}
	for _, cert := range a.want.Published {
		if !has(a.certs, cert) {
			return fmt.Errorf("missing: %s", describe(cert))
		}
	}
	for _, cert := range a.certs {
		if !has(a.want.Published, cert) {
			return fmt.Errorf("not configured: %s", describe(cert))
		}
	}
	return nil
}

func (a *audit) checkProtocol() error {
	if v, _ := xmldoc.Attribute(a.role, "protocolSupportEnumeration"); v != nsProtocol {
		return fmt.Errorf("protocolSupportEnumeration %q", v)
	}
	v, _ := xmldoc.Attribute(a.role, "WantAuthnRequestsSigned")
	if signed, err := xmldoc.ParseBoolean(v); err != nil || !signed {
		return fmt.Errorf("WantAuthnRequestsSigned %q", v)
	}
	return nil
}

// endpoints returns the bindings of the role's endpoints of that name.
func (a *audit) endpoints(name string, allowed ...string) ([]string, error) {
	var have []string
	for _, el := range xmldoc.ChildrenNamed(a.role, nsMetadata, name) {
		binding, _ := xmldoc.Attribute(el, "Binding")
		short, ok := strings.CutPrefix(binding, bindings)
		if !ok || !slices.Contains(allowed, short) {
			return nil, fmt.Errorf("binding %q", binding)
		}
		have = append(have, short)
		for _, key := range []string{"Location", "ResponseLocation"} {
			v, given := xmldoc.Attribute(el, key)
			if !given && key == "ResponseLocation" {
				continue
			}
			if err := a.location(v); err != nil {
				return nil, err
			}
		}
	}
	return have, nil
}

func (a *audit) location(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || xmldoc.Trim(v) != v {
		return fmt.Errorf("location %q is no web address", v)
	}
	if a.want.PublicURL != "" && !strings.HasPrefix(v, a.want.PublicURL+"/") {
		return fmt.Errorf("location %q is not below %s", v, a.want.PublicURL)
	}
	if u.Scheme == "http" {
		a.note = "in clear: " + v
	}
	return nil
}

func (a *audit) checkSSO() error {
	have, err := a.endpoints("SingleSignOnService", "HTTP-Redirect", "HTTP-POST")
	if err != nil {
		return err
	}
	for _, b := range []string{"HTTP-Redirect", "HTTP-POST"} {
		if !slices.Contains(have, b) {
			return fmt.Errorf("none for %s", b)
		}
	}
	return nil
}

func (a *audit) checkSLO() error {
	have, err := a.endpoints("SingleLogoutService", "HTTP-Redirect", "HTTP-POST", "SOAP")
	if err == nil && len(have) == 0 {
		return errors.New("none")
	}
	return err
}

func (a *audit) checkNameID() error {
	el, err := xmldoc.SoleChild(a.role, nsMetadata, "NameIDFormat")
	if err != nil {
		return err
	}
	if text, err := xmldoc.TextOf(el); err != nil || xmldoc.Trim(text) != transient {
		return fmt.Errorf("it is %q", text)
	}
	return nil
}

func (a *audit) checkAttributes() error {
	seen := map[string]bool{}
	for _, el := range xmldoc.ChildrenNamed(a.role, nsAssertion, "Attribute") {
		name, _ := xmldoc.Attribute(el, "Name")
		if name == "" || seen[name] {
			return fmt.Errorf("%q nameless or twice", name)
		}
		seen[name] = true
		if len(a.want.KnownNames) > 0 && !slices.Contains(a.want.KnownNames, name) {
			return fmt.Errorf("%q is no SPID attribute", name)
		}
		for _, at := range el.Attr {
			if at.Space != "" && at.Key == "type" && at.NamespaceURI() == nsXSI {
				return fmt.Errorf("%q with an xsi:type, which the schema forbids here", name)
			}
		}
	}
	a.note = fmt.Sprintf("%d attributes", len(seen))
	return nil
}

func (a *audit) checkOrganization() error {
	org, err := xmldoc.SoleChild(a.root, nsMetadata, "Organization")
	if err != nil {
		return err
	}
	var first []string
	for i, name := range []string{"OrganizationName", "OrganizationDisplayName", "OrganizationURL"} {
		var langs []string
		for _, el := range xmldoc.ChildrenNamed(org, nsMetadata, name) {
			if text, err := xmldoc.TextOf(el); err != nil || xmldoc.Trim(text) == "" {
				return fmt.Errorf("empty %s", name)
			}
			langs = append(langs, el.SelectAttrValue("xml:lang", ""))
		}
		slices.Sort(langs)
		if i == 0 {
			first = langs
		}
		if !slices.Contains(langs, "it") || !slices.Equal(langs, first) {
			return fmt.Errorf("%s in %q", name, langs)
		}
	}
	return nil
}

// The children of the two elements in the order of the metadata schema.
var (
	rootOrder = []string{"Extensions", "IDPSSODescriptor", "Organization", "ContactPerson", "AdditionalMetadataLocation"}
	roleOrder = []string{"Signature", "Extensions", "KeyDescriptor", "Organization", "ContactPerson", "ArtifactResolutionService", "SingleLogoutService",
		"ManageNameIDService", "NameIDFormat", "SingleSignOnService", "NameIDMappingService", "AssertionIDRequestService", "AttributeProfile", "Attribute"}
)

// checkOrder judges the signed element, in which the signature is no more.
func (a *audit) checkOrder() error {
	if err := ordered(a.root, append([]string{"Signature"}, rootOrder...)); err != nil {
		return err
	}
	return ordered(a.role, roleOrder)
}

func ordered(el *etree.Element, order []string) error {
	last := 0
	for _, child := range el.ChildElements() {
		at := slices.Index(order, child.Tag)
		if at < last {
			return fmt.Errorf("%s in %s is unknown or out of order", child.Tag, el.Tag)
		}
		last = at
	}
	return nil
}

// checkNamespaces looks at the document as it came: canonical form drops what is
// declared in vain.
func (a *audit) checkNamespaces() error {
	var walk func(el *etree.Element) error
	walk = func(el *etree.Element) error {
		for _, at := range el.Attr {
			if at.Value == nsXSITypo {
				return fmt.Errorf("%s declares %q", el.Tag, at.Value)
			}
		}
		for _, c := range el.ChildElements() {
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(a.came)
}
