package main

import (
	"context"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"custode/authcore/attribute"
	"custode/authcore/saml"
	"custode/cmd/custode/signing"
	"custode/hsm/rollover"
	"custode/internal/config"
	"custode/internal/fault"
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
		Token: a.token, EntityID: a.policy.EntityID, Ledger: ledger, Rules: rolloverRules(a.policy), Now: time.Now, Log: a.log,
		Tell: func(ctx context.Context, what, actor, detail string) error {
			return a.registers.Security.Act(ctx, journal.Event{What: what, Actor: actor, Detail: detail})
		},
		Document: saml.MetadataConfig{
			SSO:          []saml.Endpoint{{Binding: saml.Redirect, Location: url + pathSSORedirect}, {Binding: saml.Post, Location: url + pathSSOPost}},
			SLO:          []saml.Endpoint{{Binding: saml.Redirect, Location: url + pathSLORedirect}, {Binding: saml.Post, Location: url + pathSLOPost}, {Binding: saml.SOAP, Location: url + pathSLOSOAP}},
			Organization: saml.Organization{Name: italian(org.Name), DisplayName: italian(org.DisplayName), URL: italian(org.URL)},
			Attributes:   attribute.Names(),
		},
	}, signingKeys(a.policy))
	return err
}

func signingKeys(p *config.Policy) signing.Keys {
	return signing.Keys{Sign: p.Keys.Sign, Also: p.Keys.AlsoPublished}
}

func rolloverRules(p *config.Policy) rollover.Rules {
	return rollover.Rules{Before: p.Keys.PublishedBefore, After: p.Keys.PublishedAfter}
}

// readSigningKeys reads the policy file again. Only the signing keys may differ
// from what runs: all else is taken at a start.
func (a *appliance) readSigningKeys() (signing.Keys, error) {
	fresh, err := config.Load[config.Policy](a.policyFile)
	if err != nil {
		return signing.Keys{}, err
	}
	was, is := *a.policy, *fresh
	for _, p := range []*config.Policy{&was, &is} {
		p.Keys.Sign, p.Keys.AlsoPublished = was.Keys.Sign, nil
	}
	if !reflect.DeepEqual(was, is) {
		return signing.Keys{}, fault.Newf(fault.Invalid, "take the signing keys from "+a.policyFile,
			"more than keys.sign and keys.also_published differs from what runs: restart the appliance")
	}
	return signingKeys(fresh), nil
}

// reloadOnHangup takes changed signing keys at each SIGHUP.
func (a *appliance) reloadOnHangup(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			keys, err := a.readSigningKeys()
			if err == nil {
				err = a.signing.Change(ctx, keys, "SIGHUP")
			}
			if err != nil {
				a.log.Error("signing keys are as before", "error", err)
			}
		}
	}
}
