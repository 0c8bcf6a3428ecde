package saml_test

import (
	"custode/authcore"
	"custode/authcore/saml"
)

var _ authcore.Responses = (*saml.Issuer)(nil)
