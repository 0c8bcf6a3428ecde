package spsim

import (
	"crypto"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"

	"github.com/beevik/etree"
)

// buildMetadata writes the signed EntityDescriptor of a public SP
// (SPID technical rules, Avviso 29 v3).
func (sp *SP) buildMetadata() ([]byte, error) {
	id, err := newID(sp.cfg.Rand)
	if err != nil {
		return nil, err
	}
	doc := etree.NewDocument()
	doc.CreateProcInst("xml", `version="1.0" encoding="UTF-8"`)
	root := doc.CreateElement("md:EntityDescriptor")
	for _, a := range [][2]string{
		{"xmlns:md", nsMetadata}, {"xmlns:ds", nsSignature}, {"xmlns:spid", nsSpid},
		{"ID", id}, {"entityID", sp.cfg.EntityID},
	} {
		root.CreateAttr(a[0], a[1])
	}
	sp.describeRole(root)
	org := add(root, "md:Organization")
	add(org, "md:OrganizationName", "xml:lang", "it").SetText(sp.cfg.OrganizationDisplayName)
	add(org, "md:OrganizationDisplayName", "xml:lang", "it").SetText(sp.cfg.OrganizationDisplayName)
	add(org, "md:OrganizationURL", "xml:lang", "it").SetText(sp.cfg.BaseURL)
	contact := add(root, "md:ContactPerson", "contactType", "other")
	ext := add(contact, "md:Extensions")
	add(ext, "spid:IPACode").SetText(ipaCode)
	add(ext, "spid:Public")
	add(contact, "md:Company").SetText(sp.cfg.OrganizationDisplayName)
	add(contact, "md:EmailAddress").SetText("spid@comune.provaalta.example")
	if err := signEnveloped(root, sp.key, sp.cert, crypto.SHA256, 0); err != nil {
		return nil, err
	}
	return doc.WriteToBytes()
}

func (sp *SP) describeRole(root *etree.Element) {
	role := add(root, "md:SPSSODescriptor",
		"protocolSupportEnumeration", nsProtocol,
		"AuthnRequestsSigned", "true", "WantAssertionsSigned", "true")
	data := add(add(add(role, "md:KeyDescriptor", "use", "signing"), "ds:KeyInfo"), "ds:X509Data")
	add(data, "ds:X509Certificate").SetText(base64.StdEncoding.EncodeToString(sp.cert))
	for _, b := range sp.cfg.LogoutBindings {
		add(role, "md:SingleLogoutService", "Binding", logoutBindings[b], "Location", sp.cfg.BaseURL+"/slo/"+b)
	}
	add(role, "md:NameIDFormat").SetText(formatTransient)
	add(role, "md:AssertionConsumerService",
		"Binding", bindingPost, "Location", sp.ACS(0), "index", "0", "isDefault", "true")
	add(role, "md:AssertionConsumerService",
		"Binding", bindingPost, "Location", sp.ACS(1), "index", "1", "isDefault", "false")
	for _, index := range slices.Sorted(maps.Keys(sp.cfg.AttributeSets)) {
		service := add(role, "md:AttributeConsumingService", "index", strconv.Itoa(index))
		add(service, "md:ServiceName", "xml:lang", "it").SetText("Servizi online, insieme " + strconv.Itoa(index))
		for _, name := range sp.cfg.AttributeSets[index] {
			add(service, "md:RequestedAttribute", "Name", name,
				"NameFormat", "urn:oasis:names:tc:SAML:2.0:attrname-format:basic")
		}
	}
}
