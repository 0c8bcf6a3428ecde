package saml

import (
	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
)

// ParseAggregatedSP reads the EntityDescriptor of one service provider out of an
// aggregate whose signature the caller has verified, from the octets that the
// signature covers, at most MaxSPMetadata. context are the namespace
// declarations that the entity inherits there, each with its leading blank; "" for none. A signature of
// the entity's own is not looked at: the aggregate's stands above it. Errors are
// fault.Invalid.
func ParseAggregatedSP(context string, entity []byte) (*SP, error) {
	const op = "parse aggregated SP metadata"
	if len(entity) > MaxSPMetadata {
		return nil, fault.Newf(fault.Invalid, op, "longer than %d octets", MaxSPMetadata)
	}
	framed := make([]byte, 0, len(context)+len(entity)+16)
	framed = append(append(append(framed, "<frame"...), context...), '>')
	framed = append(append(framed, entity...), "</frame>"...)
	bounds := metadataBounds
	bounds.Bytes, bounds.Depth, bounds.Elements = len(framed), bounds.Depth+1, bounds.Elements+1
	frame, err := bounds.Parse(framed)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	children := frame.ChildElements()
	if len(children) != 1 || !xmldoc.Is(children[0], nsMetadata, "EntityDescriptor") {
		return nil, fault.Newf(fault.Invalid, op, "not one EntityDescriptor")
	}
	sp, err := readSP(children[0])
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	return sp, nil
}
