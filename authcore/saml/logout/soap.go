package logout

import (
	"errors"

	"github.com/beevik/etree"

	"custode/authcore/saml/xmldoc"
)

// The envelope of what we send (SOAP 1.1; SAML Bindings 3.2).
const (
	envelopeHead = `<soap:Envelope xmlns:soap="` + nsSOAP + `"><soap:Body>`
	envelopeTail = `</soap:Body></soap:Envelope>`
)

// openEnvelope returns the sole element of the body, made a root of its own: it
// takes along the namespace declarations that were in scope, which changes
// nothing of its exclusive canonical form. There may be no signature elsewhere
// in the envelope and no header that demands to be understood.
func openEnvelope(envelope *etree.Element) (*etree.Element, error) {
	if !xmldoc.Is(envelope, nsSOAP, "Envelope") {
		return nil, errors.New("root is not a SOAP 1.1 envelope")
	}
	for _, header := range xmldoc.ChildrenNamed(envelope, nsSOAP, "Header") {
		for _, block := range header.ChildElements() {
			for _, a := range block.Attr {
				if a.Key == "mustUnderstand" && a.Value != "0" {
					return nil, errors.New("SOAP header that must be understood")
				}
			}
		}
	}
	body, err := xmldoc.SoleChild(envelope, nsSOAP, "Body")
	if err != nil {
		return nil, err
	}
	content := body.ChildElements()
	if len(content) != 1 {
		return nil, errors.New("SOAP body without exactly one message")
	}
	message := content[0]
	if xmldoc.CountSignatures(envelope) != xmldoc.CountSignatures(message) {
		return nil, errors.New("signature outside the message")
	}
	root := message.Copy()
	for _, scope := range []*etree.Element{body, envelope} {
		for _, a := range scope.Attr {
			if (a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns") && !declares(root, a) {
				root.CreateAttr(a.FullKey(), a.Value)
			}
		}
	}
	doc := etree.NewDocument()
	doc.SetRoot(root)
	return root, nil
}

func declares(el *etree.Element, declaration etree.Attr) bool {
	for _, a := range el.Attr {
		if a.Space == declaration.Space && a.Key == declaration.Key {
			return true
		}
	}
	return false
}
