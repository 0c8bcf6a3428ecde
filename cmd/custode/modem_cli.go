package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/modem"
)

type modemCmd struct {
	List   modemListCmd   `cmd:"" help:"Show every bay."`
	Show   modemShowCmd   `cmd:"" help:"Show all about one bay."`
	Top    modemTopCmd    `cmd:"" help:"Watch the bays; q or Ctrl-C ends it."`
	Test   modemTestCmd   `cmd:"" help:"Send a test message through one bay and wait for its end."`
	Drain  modemDrainCmd  `cmd:"" help:"Give a bay no further messages."`
	Enable modemEnableCmd `cmd:"" help:"Give a drained bay messages again."`
	Power  modemPowerCmd  `cmd:"" help:"Switch a bay's power."`
	USSD   modemUSSDCmd   `cmd:"" name:"ussd" help:"Ask the network through a bay, for the credit of a card, say."`
	Send   modemSendCmd   `cmd:"" help:"Send one text, read from a file, to numbers."`
	Log    modemLogCmd    `cmd:"" help:"Show what became of messages."`
	Inbox  modemInboxCmd  `cmd:"" help:"Show what came in."`
	OptOut modemOptOutCmd `cmd:"" name:"optout" help:"Note that a number wants no bulk messages."`
}

// call asks the daemon and decodes its answer.
func (c *cli) call(method string, arg, out any) error {
	machine, err := config.Load[config.Machine](c.Machine)
	if err != nil {
		return err
	}
	return admin.Call(machine.AdminSocket, method, arg, out)
}

type modemListCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints a table of the bays, and the alarms.
func (m modemListCmd) Run(c *cli) error {
	if m.JSON {
		return c.ask("watch/modems", nil)
	}
	var o modem.Overview
	if err := c.call("watch/modems", nil, &o); err != nil {
		return err
	}
	bayTable(os.Stdout, o)
	for _, a := range o.Alarms {
		fmt.Printf("ALARM %s %s: %s, since %s\n", a.Name, a.Bay, printable(a.Detail, 60), a.Since.Local().Format(time.DateTime))
	}
	return nil
}

// bayTable prints a line a bay.
func bayTable(w io.Writer, o modem.Overview) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BAY\tSTATE\tBREAKER\tNETWORK\tDBM\tSENT\tREFUSED\tDOUBT\tHANDOFF p50/p95\tSUBMIT p50/p95\tTOKENS\tDAY\tMONTH\tLAST ERROR")
	for _, b := range o.Bays {
		state := string(b.State)
		if b.Drained {
			state += "+drained"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, state, b.Breaker, dash(b.Operator), b.Signal, b.Sent, b.Refused,
			b.Doubtful, spans(b.HandoffSpan.P50, b.HandoffSpan.P95), spans(b.Submit.P50, b.Submit.P95), left(b.Tokens >= 0, int(b.Tokens)),
			left(b.DayLeft >= 0, b.DayLeft), left(b.MonthLeft >= 0, b.MonthLeft), printable(b.LastError, 60))
	}
	t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s, 20)
}

func left(limited bool, n int) string {
	if !limited {
		return "-"
	}
	return fmt.Sprint(n)
}

func spans(a, b time.Duration) string { return short(a) + "/" + short(b) }

func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// printable keeps a device's words from driving the terminal, and short.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

type modemShowCmd struct {
	Bay string `arg:"" help:"Name of the bay."`
}

// Run prints one bay as JSON.
func (m modemShowCmd) Run(c *cli) error {
	var o modem.Overview
	if err := c.call("watch/modems", nil, &o); err != nil {
		return err
	}
	for _, b := range o.Bays {
		if b.Name == m.Bay {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			return e.Encode(b)
		}
	}
	return fault.Newf(fault.NotFound, "show bay "+m.Bay, "no bay has that name")
}

type modemDrainCmd struct {
	Bay string `arg:"" help:"Name of the bay."`
}

// Run drains a bay.
func (m modemDrainCmd) Run(c *cli) error {
	return c.call("modem/drain", bayArgument{Bay: m.Bay, Actor: actor()}, nil)
}

type modemEnableCmd struct {
	Bay string `arg:"" help:"Name of the bay."`
}

// Run enables a bay.
func (m modemEnableCmd) Run(c *cli) error {
	return c.call("modem/enable", bayArgument{Bay: m.Bay, Actor: actor()}, nil)
}

type modemPowerCmd struct {
	Bay  string `arg:"" help:"Name of the bay."`
	What string `arg:"" enum:"on,off,cycle" help:"on, off or cycle."`
}

// Run switches the power of a bay.
func (m modemPowerCmd) Run(c *cli) error {
	return c.call("modem/power", bayArgument{Bay: m.Bay, What: m.What, Actor: actor()}, nil)
}

type modemUSSDCmd struct {
	Bay  string `arg:"" help:"Name of the bay."`
	Code string `arg:"" help:"Such as *123#."`
}

// Run prints the network's answer.
func (m modemUSSDCmd) Run(c *cli) error {
	var answer string
	if err := c.call("modem/ussd", bayArgument{Bay: m.Bay, What: m.Code, Actor: actor()}, &answer); err != nil {
		return err
	}
	fmt.Println(printable(answer, 500))
	return nil
}

type modemTestCmd struct {
	Bay    string `arg:"" help:"Name of the bay."`
	Number string `arg:"" help:"Telephone number, +39..."`
}

// Run queues the test and tells its steps until its end.
func (m modemTestCmd) Run(c *cli) error {
	var q sent
	if err := c.call("modem/test", testArgument{Bay: m.Bay, Number: m.Number, Actor: actor()}, &q); err != nil {
		return err
	}
	op := "test bay " + m.Bay
	if len(q.Messages) != 1 {
		return fault.Newf(fault.Internal, op, "the daemon queued %d messages", len(q.Messages))
	}
	told := 0
	for limit := time.Now().Add(150 * time.Second); time.Now().Before(limit); time.Sleep(500 * time.Millisecond) {
		var steps []logEntry
		if err := c.call("watch/message", logArgument{Message: q.Messages[0]}, &steps); err != nil {
			return err
		}
		for ; told < len(steps); told++ {
			s := steps[told]
			fmt.Printf("%s %s %s %s\n", s.At.Local().Format(time.TimeOnly), s.State, spans(s.Handoff, s.Submit), printable(s.Detail, 80))
			switch s.State {
			case "sent", "delivered":
				return nil
			case "failed", "expired", "cancelled", "maybe-sent":
				return fault.Newf(fault.Unavailable, op, "the message is %s", s.State)
			}
		}
	}
	return fault.Newf(fault.Unavailable, op, "no end within 150 s")
}

type modemSendCmd struct {
	Numbers []string      `arg:"" help:"Telephone numbers, +39..."`
	Class   string        `enum:"alert,bulk" default:"bulk" help:"alert or bulk."`
	Text    string        `name:"text-file" required:"" type:"existingfile" help:"File that holds the text."`
	Life    time.Duration `default:"1h" help:"How long it is of use."`
}

// Run queues the messages.
func (m modemSendCmd) Run(c *cli) error {
	f, err := os.Open(m.Text)
	if err != nil {
		return fault.New(fault.Invalid, "send messages", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return fault.New(fault.Invalid, "send messages", err)
	}
	defer clear(text)
	var q sent
	if err := c.call("modem/send", sendArgument{Numbers: m.Numbers, Class: m.Class, Text: []byte(strings.TrimRight(string(text), "\r\n")), Life: m.Life, Actor: actor()}, &q); err != nil {
		return err
	}
	for _, k := range q.Messages {
		fmt.Println(k)
	}
	return nil
}

type modemLogCmd struct {
	Since   time.Duration `default:"24h" help:"How far back."`
	Message string        `help:"One message only."`
	Numbers bool          `help:"Show whole numbers."`
	JSON    bool          `name:"json" help:"Print a JSON value a line, with whole numbers."`
}

// Run prints the audit trail.
func (m modemLogCmd) Run(c *cli) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer t.Flush()
	if !m.JSON {
		fmt.Fprintln(t, "TIME\tMESSAGE\tTO\tCLASS\tSTATE\tBAY\tCARD\tHANDOFF\tSUBMIT\tDETAIL")
	}
	for after := int64(0); ; {
		var page []logEntry
		if err := c.call("modem/log", logArgument{Since: m.Since, Message: m.Message, After: after}, &page); err != nil {
			return err
		}
		for _, e := range page {
			if m.JSON {
				if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
					return fault.New(fault.Unavailable, "print the log", err)
				}
				continue
			}
			to := e.To
			if !m.Numbers {
				to = masked(to)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.At.Local().Format(time.DateTime), e.Message, to, e.Class, e.State, dash(e.Bay),
				dash(masked(e.Card)), short(e.Handoff), short(e.Submit), printable(e.Detail, 80))
		}
		if len(page) < logPage || m.Message != "" {
			return nil
		}
		after = page[len(page)-1].Number
	}
}

// masked keeps the beginning and the end of a number.
func masked(s string) string {
	if len(s) < 9 {
		return s
	}
	return s[:5] + strings.Repeat("·", len(s)-8) + s[len(s)-3:]
}

type modemInboxCmd struct {
	Since time.Duration `default:"168h" help:"How far back."`
}

// Run prints what came in.
func (m modemInboxCmd) Run(c *cli) error {
	var list []modem.Received
	if err := c.call("modem/inbox", logArgument{Since: m.Since}, &list); err != nil {
		return err
	}
	for _, r := range list {
		fmt.Printf("%s %s from %s: %s\n", r.At.Local().Format(time.DateTime), r.Bay, printable(r.From, 30), printable(r.Text, 500))
	}
	return nil
}

type modemOptOutCmd struct {
	Number string `arg:"" help:"Telephone number, +39..."`
	Undo   bool   `help:"It wants them again."`
}

// Run notes an opt-out.
func (m modemOptOutCmd) Run(c *cli) error {
	return c.call("modem/optout", optOutArgument{Number: m.Number, Undo: m.Undo, Actor: actor()}, nil)
}
