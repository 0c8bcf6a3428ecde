package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"custode/simulators/modemsim"
	"custode/simulators/modemsim/dialect"
)

type modemsCmd struct {
	Count   int           `default:"4" help:"How many modems, 1 to 64."`
	Profile []string      `default:"generic" help:"Makes, given to the modems in turn; 'list' shows them."`
	Dir     string        `type:"path" help:"Folder for the links to the ports; default: a temporary one."`
	Seed    uint64        `default:"1" help:"Seed of everything random."`
	Latency time.Duration `default:"1500ms" help:"Median time from Ctrl-Z to the receipt; 0 for none."`
	Radio   bool          `help:"Latency as the makes' radio has it (2G or LTE) instead of --latency."`
	Pace    float64       `default:"1" help:"Factor on the makes' own times, such as the boot."`
	SIMPIN  string        `name:"sim-pin" help:"PIN of the simulated cards."`
	Soak    bool          `help:"Random hangs, slow messages, storms and unplugging."`
	Phones  string        `default:"localhost:8090" help:"Loopback address of the page with the telephones; empty for none."`
}

// Run keeps a bank until Ctrl-C and tells what goes over its radio.
func (m *modemsCmd) Run() (err error) {
	if len(m.Profile) == 1 && m.Profile[0] == "list" {
		fmt.Println(strings.Join(dialect.Names(), "\n"))
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if m.Dir == "" {
		if m.Dir, err = os.MkdirTemp("", "modems-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(m.Dir)) }()
	}
	cfg := modemsim.Config{
		Dir: m.Dir, Modems: m.Count, Profiles: m.Profile, Seed: m.Seed, Pace: m.Pace, ByBearer: m.Radio, SIMPIN: m.SIMPIN,
		Latency: modemsim.Delay{Median: m.Latency, Spread: 0.4}, Transit: modemsim.Delay{Median: 700 * time.Millisecond, Spread: 0.5},
	}
	if m.Soak {
		cfg.Plan = modemsim.Soak()
	}
	bank, err := modemsim.NewBank(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bank.Close()) }()
	for i := range bank.Modems() {
		target, err := os.Readlink(bank.Device(i))
		if err != nil {
			return err
		}
		fmt.Printf("%s\t%s\t%s\tIMEI %s\tIMSI %s\n", bank.Device(i), target, bank.Profile(i).Name, bank.IMEI(i), bank.IMSI(i))
	}
	if m.Phones != "" {
		page := &http.Server{Addr: m.Phones, Handler: bank.Handler(), ReadHeaderTimeout: 5 * time.Second}
		go func() {
			if e := page.ListenAndServe(); !errors.Is(e, http.ErrServerClosed) {
				fmt.Fprintln(os.Stderr, "simlab: telephones:", e)
			}
		}()
		defer page.Close()
		fmt.Println("Telephones: http://" + m.Phones)
	}
	follow(ctx, bank)
	return nil
}

// follow prints what the network takes and what the plan does, until ctx ends.
func follow(ctx context.Context, bank *modemsim.Bank) {
	sent, faults := 0, 0
	for ctx.Err() == nil {
		for _, f := range bank.Faults()[faults:] {
			faults++
			fmt.Println(f)
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		ledger, _ := bank.WaitLedger(wait, sent+1) // a time-out means nothing new
		cancel()
		for _, s := range ledger[sent:] {
			sent++
			fmt.Printf("%s modem %d, reference %d, to %s\n", s.At.UTC().Format("15:04:05.000"), s.Modem, s.Ref, s.To)
		}
	}
}
