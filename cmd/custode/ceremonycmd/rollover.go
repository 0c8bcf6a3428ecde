package ceremonycmd

import (
	"context"
	"encoding/json"
	"fmt"

	"custode/cmd/custode/signing"
	"custode/hsm/order"
	"custode/hsm/rollover"
	"custode/internal/admin"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
)

type rolloverCmd struct {
	Status  rolloverStatusCmd  `cmd:"" help:"Show where each signing key is in its life, and the next step."`
	Approve rolloverApproveCmd `cmd:"" help:"Allow the next step of a key before its time, with a reason."`
	Reload  rolloverReloadCmd  `cmd:"" help:"Have the running appliance take keys.sign and keys.also_published from the policy file."`
}

type rolloverStatusCmd struct {
	Offline bool `help:"Read the database, while no appliance runs."`
}

// Run asks the daemon, or reads the database.
func (r *rolloverStatusCmd) Run(c Host) error {
	if !r.Offline {
		return c.Ask("keys/rollover", signing.Argument{Actor: admin.Actor()})
	}
	rules, err := rulesOf(c)
	if err != nil {
		return err
	}
	return c.Offline(func(db *store.DB) error {
		lines, err := signing.Lines(context.Background(), db, rules)
		if err != nil {
			return err
		}
		return printJSON(lines)
	})
}

type rolloverApproveCmd struct {
	Label   id.KeyLabel `arg:"" help:"The key whose next step is to be allowed now."`
	Force   bool        `required:"" help:"Required: service providers that did not refresh the metadata will refuse logins."`
	Reason  string      `required:"" help:"Why; kept in the database and in the security log."`
	Offline bool        `help:"Write to the database, while no appliance runs."`
	Token   string      `help:"Label of the token, as the order says it."`
	orderFlags
}

// Run notes the approval.
func (r *rolloverApproveCmd) Run(c Host) error {
	arg := signing.Argument{Actor: admin.Actor(), Label: r.Label, Reason: r.Reason}
	if !r.Force {
		return fault.Newf(fault.Invalid, "approve an early step", "say --force")
	}
	ok, err := r.check(c, order.Order{Operation: order.Early, Token: r.Token, Keys: []id.KeyLabel{r.Label}}, 0)
	if err != nil {
		return err
	}
	if err := tell(context.Background(), c, "approve-early-control", ok.said()); err != nil {
		return err
	}
	if !r.Offline {
		return c.Ask("keys/approve", arg)
	}
	rules, err := rulesOf(c)
	if err != nil {
		return err
	}
	return c.Offline(func(db *store.DB) error {
		lines, err := signing.Approve(context.Background(), db, arg, teller(c), rules)
		if err != nil {
			return err
		}
		return printJSON(lines)
	})
}

type rolloverReloadCmd struct{}

// Run asks the daemon.
func (rolloverReloadCmd) Run(c Host) error {
	return c.Ask("keys/reload", signing.Argument{Actor: admin.Actor()})
}

func rulesOf(c Host) (rollover.Rules, error) {
	policy, err := c.PolicyFile()
	if err != nil {
		return rollover.Rules{}, err
	}
	return signing.RulesOf(policy), nil
}

func printJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "print the result", err)
	}
	fmt.Println(string(text))
	return nil
}
