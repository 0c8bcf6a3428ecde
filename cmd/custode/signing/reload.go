package signing

import (
	"context"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"custode/hsm/rollover"
	"custode/internal/config"
	"custode/internal/fault"
)

// KeysOf returns the signing keys that a policy names.
func KeysOf(p *config.Policy) Keys { return Keys{Sign: p.Keys.Sign, Also: p.Keys.AlsoPublished} }

// RulesOf returns how long a policy has signing keys published.
func RulesOf(p *config.Policy) rollover.Rules {
	return rollover.Rules{Before: p.Keys.PublishedBefore, After: p.Keys.PublishedAfter}
}

// ReadKeys reads the policy file at path again. Only the signing keys may differ from
// what runs: all else is taken at a start. fault.Invalid.
func ReadKeys(path string, runs *config.Policy) (Keys, error) {
	fresh, err := config.Load[config.Policy](path)
	if err != nil {
		return Keys{}, err
	}
	was, is := *runs, *fresh
	for _, p := range []*config.Policy{&was, &is} {
		p.Keys.Sign, p.Keys.AlsoPublished = runs.Keys.Sign, nil
	}
	if !reflect.DeepEqual(was, is) {
		return Keys{}, fault.Newf(fault.Invalid, "take the signing keys from "+path,
			"more than keys.sign and keys.also_published differs from what runs: restart the appliance")
	}
	return KeysOf(fresh), nil
}

// OnHangup takes the keys that read returns at each SIGHUP, until ctx ends.
func (d *Desk) OnHangup(ctx context.Context, read func() (Keys, error)) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			keys, err := read()
			if err == nil {
				err = d.Change(ctx, keys, "SIGHUP")
			}
			if err != nil {
				d.cfg.Log.Error("signing keys are as before", "error", err)
			}
		}
	}
}
