package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"custode/authcore/registry"
	"custode/authcore/saml"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
)

const (
	// copyFile is the name in the state directory of the last good copy of the aggregate.
	copyFile = "registry.copy"
)

// replica is where service providers are looked up: registry.Federation or
// registry.Registry.
type replica interface {
	saml.SPs
	Run(ctx context.Context) error
	Usable() error
}

// watched is what operators ask of a replica.
type watched interface {
	Status() registry.Status
	Refresh(registry.Accept) (int, error)
	Show(ctx context.Context, entityID string) (*registry.Details, error)
}

// openRegistry loads the replica of the federation registry.
func (a *appliance) openRegistry(ctx context.Context, random io.Reader) error {
	pinned, err := config.Certificates(a.machine.RegistryCertificates)
	if err != nil {
		return err
	}
	if a.machine.Registry.Aggregate != "" {
		return a.openFederation(ctx, pinned, random)
	}
	if len(pinned) == 0 {
		a.log.Warn("registry: every file signs for itself; whoever writes to the directory is trusted", "directory", a.machine.RegistryDirectory)
	}
	sps, report, err := registry.Load(a.machine.RegistryDirectory, registry.Options{
		Pinned: pinned, MaxShrinkPercent: a.policy.Registry.MaxShrinkPercent, Log: a.log, Now: time.Now})
	if err != nil {
		return err
	}
	sps.Tell(report)
	a.sps, a.watched = sps, sps
	return nil
}

func (a *appliance) openFederation(ctx context.Context, pinned []*x509.Certificate, random io.Reader) error {
	m, p := &a.machine.Registry, &a.policy.Registry
	var source registry.Source = registry.File{AggregatePath: m.Aggregate, ListingPath: m.Listing}
	if m.Remote() {
		remote, err := registry.NewHTTP(registry.HTTPConfig{AggregateURL: m.Aggregate, PageSize: m.PageSize, ListingURL: m.Listing, Now: time.Now})
		if err != nil {
			return err
		}
		source = remote
	}
	f, err := registry.NewFederation(registry.FederationConfig{
		Source: source, CopyPath: filepath.Join(a.machine.StateDirectory, copyFile), Pinned: pinned, Random: random, Now: time.Now, Log: a.log,
		Rules: registry.Rules{Interval: p.Interval, Timeout: p.Timeout, MaxOctets: int64(m.MaxMiB) << 20, MaxShrinkPercent: p.MaxShrinkPercent,
			MaxAge: p.MaxAge, StopAge: p.StopAge},
	})
	if err != nil {
		return err
	}
	if err := f.Open(ctx); err != nil {
		return err
	}
	a.sps, a.watched = f, f
	return nil
}

// gated answers anomaly 2 while the replica cannot say who is a service
// provider; "unknown" (anomaly 10) would be wrong.
type gated struct {
	*saml.Verifier
	usable func() error
}

// Redirect asks the replica before the verifier.
func (g gated) Redirect(rawQuery []byte, now time.Time) (saml.VerifiedRequest, error) {
	if err := g.usable(); err != nil {
		return saml.VerifiedRequest{}, &saml.Refusal{Code: saml.SystemUnavailable, Err: err}
	}
	return g.Verifier.Redirect(rawQuery, now)
}

// Post asks the replica before the verifier.
func (g gated) Post(samlRequest, relayState []byte, hasRelayState bool, now time.Time) (saml.VerifiedRequest, error) {
	if err := g.usable(); err != nil {
		return saml.VerifiedRequest{}, &saml.Refusal{Code: saml.SystemUnavailable, Err: err}
	}
	return g.Verifier.Post(samlRequest, relayState, hasRelayState, now)
}

type registryCmd struct {
	Status  registryStatusCmd  `cmd:"" help:"Show source, age, counts and what was left out."`
	Refresh registryRefreshCmd `cmd:"" help:"Refresh now and wait for the end."`
	Show    registryShowCmd    `cmd:"" help:"Show one service provider."`
}

type registryStatusCmd struct{}

// Run asks the daemon for the state of its replica.
func (registryStatusCmd) Run(c *cli) error { return c.ask("registry/status", nil) }

type registryShowCmd struct {
	EntityID string `arg:"" name:"entityid"`
}

// showArgument names a service provider.
type showArgument struct {
	EntityID string `json:"entityID"`
}

// Run asks the daemon for the service provider.
func (a *registryShowCmd) Run(c *cli) error { return c.ask("registry/show", showArgument{a.EntityID}) }

type registryRefreshCmd struct {
	AcceptShrink   bool `help:"Let this refresh lose more service providers than the rule allows."`
	AcceptRollback bool `help:"Let this refresh take an aggregate that is older than the one in use."`
}

// refreshStarted is the daemon's answer: the number of the attempt to come.
type refreshStarted struct {
	Attempt int `json:"attempt"`
}

// Run asks the daemon to refresh, waits, and prints the state.
func (a *registryRefreshCmd) Run(c *cli) error {
	machine, err := config.Load[config.Machine](c.Machine)
	if err != nil {
		return err
	}
	var started refreshStarted
	if err := admin.Call(machine.AdminSocket, "registry/refresh", refreshArgument{registry.Accept{Shrink: a.AcceptShrink, Rollback: a.AcceptRollback}, admin.Actor()}, &started); err != nil {
		return err
	}
	for {
		var st registry.Status
		if err := admin.Call(machine.AdminSocket, "registry/status", nil, &st); err != nil {
			return err
		}
		if !st.Refreshing && st.Attempts >= started.Attempt {
			st.BrokenList = nil // registry status has them
			out, err := json.MarshalIndent(st, "", "  ")
			if err != nil {
				return fault.New(fault.Internal, "print the answer", err)
			}
			fmt.Println(string(out))
			if st.LastError != "" {
				return fault.Newf(fault.Conflict, "refresh registry", "%s", st.LastError)
			}
			return nil
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// refreshArgument says who asks.
type refreshArgument struct {
	registry.Accept
	Actor string `json:"actor"`
}

// registryMethods are what the administration socket answers about the registry.
func (a *appliance) registryMethods(methods map[string]admin.Method) map[string]admin.Method {
	methods["registry/status"] = func(context.Context, []byte) (any, error) { return a.watched.Status(), nil }
	methods["registry/show"] = func(ctx context.Context, arg []byte) (any, error) {
		var in showArgument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		return a.watched.Show(ctx, in.EntityID)
	}
	methods["registry/refresh"] = func(_ context.Context, arg []byte) (any, error) {
		var in refreshArgument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		a.log.Info("registry: an operator asks for a refresh", "accept shrink", in.Shrink, "accept rollback", in.Rollback)
		attempt, err := a.watched.Refresh(in.Accept)
		return refreshStarted{attempt}, err
	}
	return methods
}
