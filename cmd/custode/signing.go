package main

import (
	"context"
	"time"

	"custode/authcore/attribute"
	"custode/authcore/saml"
	"custode/cmd/custode/signing"
	"custode/internal/config"
	"custode/internal/journal"
)

// The published locations, below the public URL.
const (
	pathSSORedirect = "/sso/redirect"
	pathSSOPost     = "/sso/post"
	pathSLORedirect = "/slo/redirect"
	pathSLOPost     = "/slo/post"
	pathSLOSOAP     = "/slo/soap"
)

// openSigning takes the signing keys into use; ledger is nil for metadata only.
func (a *appliance) openSigning(ctx context.Context, ledger signing.Ledger) (err error) {
	url, org := a.policy.PublicURL, a.policy.Organization
	italian := func(s string) map[string]string { return map[string]string{"it": s} }
	a.signing, err = signing.Open(ctx, signing.Config{
		Token: a.token, EntityID: a.policy.EntityID, Ledger: ledger, Rules: signing.RulesOf(a.policy), Now: time.Now, Log: a.log,
		Tell: func(ctx context.Context, what, actor, detail string) error {
			return a.registers.Security.Act(ctx, journal.Event{What: what, Actor: actor, Detail: detail})
		},
		Document: saml.MetadataConfig{
			SSO:          []saml.Endpoint{{Binding: saml.Redirect, Location: url + pathSSORedirect}, {Binding: saml.Post, Location: url + pathSSOPost}},
			SLO:          []saml.Endpoint{{Binding: saml.Redirect, Location: url + pathSLORedirect}, {Binding: saml.Post, Location: url + pathSLOPost}, {Binding: saml.SOAP, Location: url + pathSLOSOAP}},
			Organization: saml.Organization{Name: italian(org.Name), DisplayName: italian(org.DisplayName), URL: italian(org.URL)},
			Attributes:   attribute.Names(),
		},
	}, signing.KeysOf(a.policy))
	return err
}

// readSigningKeys is for a change without a restart.
func (a *appliance) readSigningKeys() (signing.Keys, error) {
	return signing.ReadKeys(a.files[1], a.policy)
}

// keysInUse are the policy's keys, with the signing keys of the last reload.
func (a *appliance) keysInUse() config.Keys {
	keys, signs := a.policy.Keys, a.signing.Keys()
	keys.Sign, keys.AlsoPublished = signs.Sign, signs.Also
	return keys
}
