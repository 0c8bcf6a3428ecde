// Command simlab is for development only: it brings up the appliance on
// simulated hardware (SoftHSM, modems on ptys, a demo service provider), as a
// demonstration or under load. It imports simulators only; the product runs
// as a process of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"custode/simulators/lab"
	"custode/simulators/modemsim"
)

type cli struct {
	Custode string `type:"path" default:"bin/custode" help:"The custode binary."`

	Demo  demoCmd  `cmd:"" help:"Run the appliance with simulated hardware until Ctrl-C."`
	Bench benchCmd `cmd:"" help:"Run benchmark suites."`
	Soak  soakCmd  `cmd:"" help:"Drive the appliance for long while its modems misbehave, and write a report."`

	App    appCmd    `cmd:"" help:"A simulated authenticator app."`
	Modems modemsCmd `cmd:"" help:"Run a bank of simulated modems until Ctrl-C and print their ports."`
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("simlab"), kong.Description("Custode on simulated hardware. Development only."), kong.UsageOnError())
	if err := k.Run(&c); err != nil {
		fmt.Fprintln(os.Stderr, "simlab:", err)
		os.Exit(1)
	}
}

type demoCmd struct {
	IdP    string `name:"idp" default:"localhost:8088" help:"Address of the appliance."`
	SP     string `default:"localhost:8089" help:"Address of the demo service provider."`
	Phones string `default:"localhost:8090" help:"Address of the simulated phones."`
	Dir    string `type:"path" help:"New folder for the state, kept at the end to be looked at; default: a temporary one."`
}

// Run brings the demo up and keeps it until Ctrl-C.
func (d *demoCmd) Run(c *cli) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	custode, err := filepath.Abs(c.Custode)
	if err != nil {
		return err
	}
	radio := modemsim.Config{
		Latency: modemsim.Delay{Median: 1500 * time.Millisecond, Spread: 0.4},
		Transit: modemsim.Delay{Median: 700 * time.Millisecond, Spread: 0.5},
		Seed:    uint64(time.Now().UnixNano()),
	}
	fmt.Println("Starting: SoftHSM token, key ceremony, four simulated modems, service provider, appliance ...")
	l, err := lab.Start(ctx, lab.Config{
		Custode: custode, Dir: d.Dir, Log: os.Stderr, LogLevel: "error", Network: radio,
		Addr: lab.Addresses{IdP: d.IdP, SP: d.SP, Phones: d.Phones},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ada := lab.Demo()
	if err := l.Enrol(ctx, ada); err != nil {
		return err
	}
	fmt.Printf(`
  Custode is running on simulated hardware.

    Open          %s
    and log in as %s
    password      %s
    The phone     %s

  The phone's page shows the code that the SMS brings. Ctrl-C ends everything.

`, l.SPURL, ada.Username, ada.Password, l.PhonesURL)
	<-ctx.Done()
	fmt.Println("Ending ...")
	return nil
}
