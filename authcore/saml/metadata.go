package saml

import (
	"crypto/x509"
	"errors"
	"maps"
	"slices"

	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

// Endpoint is a published location.
type Endpoint struct {
	Binding          Binding
	Location         string
	ResponseLocation string // single logout only; "" for the same as Location
}

// Organization is md:Organization; the maps go from xml:lang to text and must
// have the same languages, Italian among them.
type Organization struct {
	Name, DisplayName, URL map[string]string
}

// MetadataConfig is what an identity provider publishes besides its entityID
// and its signing certificate.
type MetadataConfig struct {
	SSO          []Endpoint          // HTTP-Redirect and HTTP-POST, at least one of each
	SLO          []Endpoint          // at least one
	Certificates []*x509.Certificate // further signing certificates, for a roll-over
	Organization Organization
	Attributes   []string // SPID attribute names that can be certified
}

// Metadata emits, signs and re-verifies the EntityDescriptor (SPID technical
// rules, metadata of the identity provider). Each call draws a new ID.
// fault.Invalid for a configuration that may not be published. Unlike
// Responses, metadata is not refused for an expired certificate: the federation
// registry checks what is published.
func (i *Issuer) Metadata(c MetadataConfig) ([]byte, error) {
	const op = "build metadata"
	if err := c.check(); err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	metadataID, err := i.identifier()
	if err != nil {
		return nil, err
	}
	doc := xmldoc.Writer{B: make([]byte, 0, 16<<10)}
	doc.Raw(`<md:EntityDescriptor xmlns:md="` + nsMetadata + `"`)
	doc.Attr("ID", metadataID)
	doc.Attr("entityID", i.entityID)
	doc.Raw(`>`)
	var body xmldoc.Writer
	i.descriptor(&body, &c)
	c.Organization.emit(&body)
	body.Raw(`</md:EntityDescriptor>`)
	if doc.Err == nil {
		doc.Err = body.Err
	}
	doc.Sign(i.key, metadataID, false, doc.B, body.B)
	if doc.Err != nil {
		return nil, fault.New(fault.KindOf(doc.Err), op, doc.Err)
	}
	out := append(doc.B, body.B...)
	if err := i.reverifyMetadata(out, metadataID); err != nil {
		return nil, fault.New(fault.Fatal, "re-verify metadata", err)
	}
	return out, nil
}

func (i *Issuer) reverifyMetadata(doc []byte, metadataID string) error {
	root, err := metadataBounds.Parse(doc)
	if err != nil {
		return err
	}
	el, err := xmldoc.VerifyEnveloped(root, 0, []*x509.Certificate{i.cert}, i.cert.NotBefore)
	if err != nil {
		return err
	}
	var d difference
	d.attr(el, "ID", metadataID)
	d.attr(el, "entityID", i.entityID)
	return d.err
}

// check refuses what the technical rules do not let us publish.
func (c *MetadataConfig) check() error {
	var redirect, post bool
	for _, e := range c.SSO {
		redirect = redirect || e.Binding == Redirect
		post = post || e.Binding == Post
		if !WebLocation(e.Location) || e.ResponseLocation != "" || e.Binding == SOAP {
			return errors.New("single sign-on service without location or with a response location or binding of its own")
		}
	}
	if !redirect || !post {
		return errors.New("single sign-on service is required for both bindings")
	}
	if len(c.SLO) == 0 {
		return errors.New("single logout service is required")
	}
	for _, e := range c.SLO {
		if !WebLocation(e.Location) || (e.ResponseLocation != "" && !WebLocation(e.ResponseLocation)) {
			return errors.New("single logout service without location")
		}
	}
	for _, cert := range c.Certificates {
		if _, err := xmldoc.RSAKey(cert); err != nil {
			return err
		}
	}
	o := &c.Organization
	for lang := range o.Name {
		if o.DisplayName[lang] == "" || !WebLocation(o.URL[lang]) {
			return errors.New("organization without display name or URL in a language")
		}
	}
	if o.Name["it"] == "" || len(o.Name) != len(o.DisplayName) || len(o.Name) != len(o.URL) {
		return errors.New("organization is required in Italian, and the same languages throughout")
	}
	return nil
}

// descriptor writes IDPSSODescriptor; its children keep the schema's order.
func (i *Issuer) descriptor(c *xmldoc.Writer, m *MetadataConfig) {
	c.Raw(`<md:IDPSSODescriptor WantAuthnRequestsSigned="true" protocolSupportEnumeration="` + nsProtocol + `">`)
	i.keyDescriptor(c, i.cert)
	for _, cert := range m.Certificates {
		i.keyDescriptor(c, cert)
	}
	for _, e := range m.SLO {
		e.emit(c, "md:SingleLogoutService")
	}
	c.Element("md:NameIDFormat", formatTransient)
	for _, e := range m.SSO {
		e.emit(c, "md:SingleSignOnService")
	}
	// No xsi:type here: the schema does not allow it on saml:Attribute.
	for _, name := range m.Attributes {
		c.Raw(`<saml:Attribute xmlns:saml="` + nsAssertion + `"`)
		c.Attr("Name", name)
		c.Raw(` NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"></saml:Attribute>`)
	}
	c.Raw(`</md:IDPSSODescriptor>`)
}

func (i *Issuer) keyDescriptor(c *xmldoc.Writer, cert *x509.Certificate) {
	c.Raw(`<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="` + xmldoc.NSSignature + `"><ds:X509Data><ds:X509Certificate>`)
	c.Base64(cert.Raw)
	c.Raw(`</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`)
}

func (e Endpoint) emit(c *xmldoc.Writer, name string) {
	uri := map[Binding]string{Redirect: bindingRedirect, Post: bindingPost, SOAP: bindingSOAP}[e.Binding]
	if uri == "" {
		c.Err = errors.New("endpoint without binding")
	}
	c.Raw(`<` + name)
	c.Attr("Binding", uri)
	c.Attr("Location", e.Location)
	if e.ResponseLocation != "" {
		c.Attr("ResponseLocation", e.ResponseLocation)
	}
	c.Raw(`></` + name + `>`)
}

func (o Organization) emit(c *xmldoc.Writer) {
	c.Raw(`<md:Organization>`)
	for _, part := range []struct {
		name  string
		texts map[string]string
	}{{"md:OrganizationName", o.Name}, {"md:OrganizationDisplayName", o.DisplayName}, {"md:OrganizationURL", o.URL}} {
		for _, lang := range slices.Sorted(maps.Keys(part.texts)) {
			c.Raw(`<` + part.name)
			c.Attr("xml:lang", lang)
			c.Raw(`>`)
			c.Text(part.texts[lang])
			c.Raw(`</` + part.name + `>`)
		}
	}
	c.Raw(`</md:Organization>`)
}
