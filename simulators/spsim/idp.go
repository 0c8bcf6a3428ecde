package spsim

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/beevik/etree"
)

// IdP is what verified identity provider metadata says.
type IdP struct {
	EntityID string
	// SSOPost and SSORedirect are the SingleSignOnService locations by binding.
	SSOPost, SSORedirect string
	// SLO is the SingleLogoutService locations by binding URI.
	SLO map[string]string
	// Signers are the certificates of KeyDescriptors for signing.
	Signers []*x509.Certificate
}

// ParseIdPMetadata judges raw by the SPID rules for IdP metadata (technical
// rules, "metadata identity provider") and returns what it says. The signature
// must be by a signing certificate listed inside or by one of also.
func ParseIdPMetadata(raw []byte, now time.Time, also ...*x509.Certificate) (*IdP, error) {
	if len(raw) > maxIdPMetadata {
		return nil, errors.New("too large")
	}
	root, err := parseDocument(raw)
	if err != nil {
		return nil, err
	}
	if !is(root, nsMetadata, "EntityDescriptor") {
		return nil, fmt.Errorf("root element is %s", root.FullTag())
	}
	children := root.ChildElements()
	if len(children) == 0 || !is(children[0], nsSignature, "Signature") {
		return nil, errors.New("the first child of EntityDescriptor is not its signature")
	}
	// The certificates are read before they are trusted, only to verify that
	// the document is signed by the key it announces; every value that is used
	// afterwards comes from the verified copy.
	claimed, err := signersOf(root)
	if err != nil {
		return nil, err
	}
	verified, _, err := verifyElement(root, append(claimed, also...), now)
	if err != nil {
		return nil, fmt.Errorf("metadata signature: %w", err)
	}
	return readIdP(verified)
}

func signersOf(root *etree.Element) ([]*x509.Certificate, error) {
	role, err := only(root, nsMetadata, "IDPSSODescriptor")
	if err != nil {
		return nil, err
	}
	var signers []*x509.Certificate
	for _, kd := range childrenNamed(role, nsMetadata, "KeyDescriptor") {
		if use, ok := attr(kd, "use"); ok && use != "signing" {
			continue
		}
		cert, err := only(kd, nsSignature, "KeyInfo", "X509Data", "X509Certificate")
		if err != nil {
			return nil, err
		}
		signer, err := parseSigner(cert.Text())
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	if len(signers) == 0 {
		return nil, errors.New("no KeyDescriptor for signing")
	}
	return signers, nil
}

func readIdP(root *etree.Element) (*IdP, error) {
	idp := &IdP{EntityID: attrOf(root, "entityID")}
	if u, err := url.Parse(idp.EntityID); err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("entityID %q is not an absolute URI", idp.EntityID)
	}
	role, err := only(root, nsMetadata, "IDPSSODescriptor")
	if err != nil {
		return nil, err
	}
	for name, want := range map[string]string{"protocolSupportEnumeration": nsProtocol, "WantAuthnRequestsSigned": "true"} {
		if v := attrOf(role, name); v != want {
			return nil, fmt.Errorf("%s %q, want %s", name, v, want)
		}
	}
	if idp.Signers, err = signersOf(root); err != nil {
		return nil, err
	}
	formats := childrenNamed(role, nsMetadata, "NameIDFormat")
	if !slices.ContainsFunc(formats, func(f *etree.Element) bool { return f.Text() == formatTransient }) {
		return nil, errors.New("the transient NameIDFormat is not listed")
	}
	sso, err := locations(role, "SingleSignOnService")
	if err != nil {
		return nil, err
	}
	idp.SSOPost, idp.SSORedirect = sso[bindingPost], sso[bindingRedirect]
	if idp.SSOPost == "" || idp.SSORedirect == "" {
		return nil, errors.New("SingleSignOnService: want both HTTP-POST and HTTP-Redirect")
	}
	if idp.SLO, err = locations(role, "SingleLogoutService"); err != nil || len(idp.SLO) == 0 {
		return nil, cmp.Or(err, errors.New("no SingleLogoutService"))
	}
	return idp, checkOffered(role)
}

// locations maps the bindings of a kind of endpoint to its locations.
func locations(role *etree.Element, tag string) (map[string]string, error) {
	found := map[string]string{}
	for _, el := range childrenNamed(role, nsMetadata, tag) {
		location := attrOf(el, "Location")
		u, err := url.Parse(location)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return nil, fmt.Errorf("%s location %q is not an http(s) URL", tag, location)
		}
		found[attrOf(el, "Binding")] = location
	}
	return found, nil
}

// checkOffered checks the attributes the IdP says it can certify.
func checkOffered(role *etree.Element) error {
	for _, el := range childrenNamed(role, nsAssertion, "Attribute") {
		name := attrOf(el, "Name")
		if name == "" {
			return errors.New("attribute without a Name")
		}
		for _, a := range el.Attr {
			// xsi:type on saml:Attribute is invalid by the schema, although the
			// sample of the technical rules shows it.
			if a.Space != "" && a.Key == "type" {
				return fmt.Errorf("attribute %s has an xsi:type", name)
			}
		}
	}
	return nil
}
