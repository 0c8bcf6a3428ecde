package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"custode/cmd/custode/backup"
	"custode/cmd/custode/rotation"
	"custode/internal/fault"
	"custode/internal/forget"
	"custode/internal/process"
	"custode/internal/store"
	"custode/internal/store/otpstore"
)

// database is what opens and migrates the database. The token must be open.
func (a *appliance) database() (store.Config, error) {
	keys, err := rotation.Wrapper(a.token, a.policy.Keys.Records, a.policy.Keys.EarlierRecords)
	if fault.Is(err, fault.NotFound) { // only an operator brings it
		err = fault.New(fault.Fatal, "open the database's key", err)
	}
	return store.Config{Path: filepath.Join(a.machine.StateDirectory, backup.DatabaseFile), Issuer: a.policy.EntityID, Keys: keys, Random: a.token.Random(), Now: time.Now, Alone: true, Log: a.log}, err
}

// openRewrapping opens the key of waiting texts and has what earlier keys wrapped looked after.
func (a *appliance) openRewrapping() (err error) {
	keys := a.policy.Keys
	a.rewrapping.Log = a.log
	if a.outbox, err = rotation.Wrapper(a.token, keys.Outbox, keys.EarlierOutbox); err != nil {
		return err
	}
	if len(keys.EarlierOutbox) > 0 {
		a.rewrapping.Add("outbox", a.db.Texts(), a.outbox, keys.Outbox)
		a.rewrapping.Add("apps", otpstore.New(a.db).AppKeys(), a.outbox, keys.Outbox)
	}
	if len(keys.EarlierRecords) > 0 {
		records, err := rotation.Wrapper(a.token, keys.Records, keys.EarlierRecords)
		if err != nil {
			return err
		}
		a.rewrapping.Add("records", a.db.DataKeys(), records, keys.Records)
	}
	return nil
}

type migrateCmd struct{}

// Run creates or updates the database schema, and hides what an earlier one kept readable.
func (migrateCmd) Run(c *cli) error {
	if err := forget.NoDumps(); err != nil { // an earlier schema is read in clear
		return err
	}
	machine, policy, err := c.load()
	if err != nil {
		return err
	}
	a := &appliance{machine: machine, policy: policy, files: [2]string{c.Machine, c.Policy}, log: newLog(os.Stderr, machine.Log)}
	defer a.close()
	if a.lock, err = process.LockState(machine.StateDirectory); err != nil {
		return err
	}
	if err := a.openToken(context.Background()); err != nil {
		return err
	}
	cfg, err := a.database()
	if err != nil {
		return err
	}
	if err := store.Migrate(context.Background(), cfg); err != nil {
		return err
	}
	fmt.Println("ok:", cfg.Path)
	return nil
}
