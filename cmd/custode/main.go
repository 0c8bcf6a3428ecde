// Command custode is the appliance: the authentication node of a SPID identity
// provider. `custode serve` runs it; the other subcommands are the operator's
// tools. This package is wiring only: flags, configuration, open the hardware,
// connect the rooms, run. Rules live in the packages it connects.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"custode/cmd/custode/backup"
	"custode/cmd/custode/ceremonycmd"
	"custode/cmd/custode/certified"
	"custode/cmd/custode/hsmcmd"
	"custode/cmd/custode/tokencmd"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/forget"
	"custode/internal/process"
	"custode/internal/store"
)

// version is set by the linker.
var version = "unknown"

type cli struct {
	Machine string `type:"path" default:"/etc/custode/machine.yaml" help:"File of machine facts."`
	Policy  string `type:"path" default:"/etc/custode/policy.yaml" help:"File of decisions."`

	Serve       serveCmd             `cmd:"" help:"Run the appliance."`
	Migrate     migrateCmd           `cmd:"" help:"Create or update the database schema."`
	CheckConfig checkCmd             `cmd:"" help:"Check both configuration files and exit."`
	Ceremony    ceremonycmd.Commands `cmd:"" help:"Key ceremonies."`
	Identity    identityCmd          `cmd:"" help:"Digital identities (asks the running appliance)."`
	Backup      backup.Command       `cmd:"" help:"Copy the database, also while it is in use."`
	Metadata    metadataCmd          `cmd:"" help:"Metadata of this identity provider."`
	Modem       modemCmd             `cmd:"" help:"Modem bays (asks the running appliance)."`
	Log         certified.Commands   `cmd:"" help:"The certified log."`
	HSM         hsmcmd.Commands      `cmd:"" name:"hsm" help:"The token and its standby (asks the running appliance)."`
	HSMWorker   hsmcmd.Worker        `cmd:"" name:"hsm-worker" help:"Serve a token to the appliance: the process that holds the PIN."`
	Registry    registryCmd          `cmd:"" help:"Replica of the federation registry (asks the running appliance)."`
	Token       tokencmd.Commands    `cmd:"" help:"OATH devices (asks the running appliance)."`
	Version     versionCmd           `cmd:"" help:"Print the version."`

	Conformance conformanceCmd `cmd:"" help:"Audit a running instance against the technical rules."`
}

// MachineFile implements certified.Host.
func (c *cli) MachineFile() (*config.Machine, error) { return config.Load[config.Machine](c.Machine) }

// PolicyFile implements ceremonycmd.Host.
func (c *cli) PolicyFile() (*config.Policy, error) { return config.Load[config.Policy](c.Policy) }

// Offline implements ceremonycmd.Host. Ceremonies open the token themselves, and need nothing that is hidden.
func (c *cli) Offline(use func(db *store.DB) error) error {
	machine, policy, err := c.load()
	if err != nil {
		return err
	}
	lock, err := process.LockState(machine.StateDirectory)
	if err != nil {
		return err
	}
	defer lock.Close()
	db, err := store.Open(context.Background(), store.Config{Path: filepath.Join(machine.StateDirectory, backup.DatabaseFile), Issuer: policy.EntityID, Keyless: true, Alone: true, Log: newLog(os.Stderr, machine.Log)})
	if err != nil {
		return err
	}
	return errors.Join(use(db), db.Close())
}

// WithoutCoreDumps implements ceremonycmd.Host.
func (c *cli) WithoutCoreDumps() error { return forget.NoDumps() }

// Ask implements certified.Host.
func (c *cli) Ask(method string, arg any) error { return c.ask(method, arg) }

// Files implements hsmcmd.Host.
func (c *cli) Files() (*config.Machine, *config.Policy, error) { return c.load() }

// Log implements hsmcmd.Host.
func (c *cli) DaemonLog(m *config.Machine) *slog.Logger { return newLog(os.Stderr, m.Log) }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Println("custode", version)
	return nil
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("custode"), kong.Description("Authentication node of a SPID identity provider."), kong.UsageOnError(), kong.BindTo(&c, (*certified.Host)(nil)), kong.BindTo(&c, (*backup.Host)(nil)), kong.BindTo(&c, (*ceremonycmd.Host)(nil)), kong.BindTo(&c, (*tokencmd.Host)(nil)), kong.BindTo(&c, (*hsmcmd.Host)(nil)))
	if err := k.Run(&c); err != nil {
		fmt.Fprintln(os.Stderr, "custode:", err)
		os.Exit(exitStatus(err))
	}
}

// exitStatus is the one table from kinds to exit statuses (sysexits.h).
func exitStatus(err error) int {
	var own interface{ ExitStatus() int }
	if errors.As(err, &own) {
		return own.ExitStatus()
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return 1
	}
	switch f.Kind {
	case fault.Invalid:
		return 65 // EX_DATAERR
	case fault.NotFound:
		return 67 // EX_NOUSER
	case fault.Unavailable, fault.Busy, fault.Retry, fault.Reopen:
		return 75 // EX_TEMPFAIL
	case fault.Conflict:
		return 73 // EX_CANTCREAT
	case fault.Denied:
		return 77 // EX_NOPERM
	case fault.Fatal:
		return 78 // EX_CONFIG: an operator must act, do not restart at once
	default:
		return 70 // EX_SOFTWARE
	}
}
