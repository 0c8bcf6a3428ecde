package main

import (
	"io"
	"time"

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/authcore/session"
	"custode/authcore/session/backchannel"
)

// openSessions builds browser sessions and single logout. The registry and the
// issuer are open.
func (a *appliance) openSessions(random io.Reader) error {
	label, url := a.policy.Keys.Sign, a.policy.PublicURL
	signer, err := a.token.Signer(label)
	if err != nil {
		return err
	}
	certificate, err := a.token.Certificate(label)
	if err != nil {
		return err
	}
	messages, err := logout.NewIssuer(saml.IssuerConfig{EntityID: a.policy.EntityID, Signer: signer, Certificate: certificate, Random: random})
	if err != nil {
		return err
	}
	a.logouts, err = logout.NewReader(logout.ReaderConfig{
		EntityID: a.policy.EntityID, Locations: []string{url + pathSLORedirect, url + pathSLOPost, url + pathSLOSOAP},
		FutureSkew: a.policy.Request.FutureSkew, PastSkew: a.policy.Request.PastSkew, SPs: a.sps,
	})
	if err != nil {
		return err
	}
	p := a.policy.Session
	a.sessions, err = session.New(session.Config{
		Records: a.db, Logouts: a.db, Ends: a.db, Watch: a.registers.Security, Identities: a.db, SPs: a.sps, Messages: messages, Answers: a.logouts,
		Channel: backchannel.New(backchannel.Config{Private: p.PrivateAddresses, Plain: a.machine.InsecureHTTPForDevelopment}),
		Random:  random, Now: time.Now, Log: a.log,
		Policy: session.Policy{Idle: p.Idle, Absolute: p.Absolute, PerSP: p.LogoutPerSP, Total: p.LogoutTotal},
	})
	return err
}

// loginSessions is what logins may use: nothing when sessions are turned off.
func (a *appliance) loginSessions() authcore.Sessions {
	if a.policy.Session.Disabled {
		return nil
	}
	return a.sessions
}
