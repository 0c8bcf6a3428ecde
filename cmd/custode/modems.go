package main

import (
	"time"

	"custode/modem"
)

type modemCmd struct {
	List modemListCmd `cmd:"" help:"Show every bay."`
}

type modemListCmd struct{}

// Run asks the daemon for its bays.
func (modemListCmd) Run(c *cli) error { return c.ask("modem/list", nil) }

// newPool builds the modem pool over the outbox in the database. opener unwraps
// message texts just before they are sent.
func (a *appliance) newPool(opener modem.Opener) (*modem.Pool, error) {
	bays := make([]modem.BayConfig, len(a.machine.Modems))
	for i, m := range a.machine.Modems {
		bays[i] = modem.BayConfig{Name: m.Name, Device: m.Device, Baud: m.Baud, SIMPIN: m.SIMPINFile}
	}
	return modem.New(modem.Config{Bays: bays, Journal: a.db, Opener: opener, Now: time.Now, Log: a.log, AllowSimulated: a.machine.AllowSimulatedModems,
		PINNotes: a.machine.StateDirectory})
}
