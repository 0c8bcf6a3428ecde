package tokencmd

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/otpvault/enrol"
)

// Host is the command line that the subcommands are part of.
type Host interface {
	// MachineFile reads the machine file.
	MachineFile() (*config.Machine, error)
	// Ask calls a method of the daemon and prints the result.
	Ask(method string, arg any) error
}

// Commands are the subcommands of `custode token`.
type Commands struct {
	Import    importCmd    `cmd:"" help:"Take in a delivery of hardware devices (PSKC or a table)."`
	Assign    assignCmd    `cmd:"" help:"Give a device from the drawer to a person."`
	Activate  activateCmd  `cmd:"" help:"Activate a device by a code that it shows, or two in a row, read from standard input."`
	Resync    resyncCmd    `cmd:"" help:"Align an active device by two codes in a row, read from standard input."`
	Block     blockCmd     `cmd:"" help:"Suspend a device until it is unblocked."`
	Unblock   unblockCmd   `cmd:"" help:"End the blockage of a device, or of a person's SMS codes."`
	Revoke    revokeCmd    `cmd:"" help:"Revoke a device for good."`
	Show      showCmd      `cmd:"" help:"Show a device with its history, or a person's devices."`
	Enrol     enrolCmd     `cmd:"" help:"Give a person a virtual device: a QR code, or an activation code for our app."`
	Emergency emergencyCmd `cmd:"" help:"Emergency codes."`
}

type importCmd struct {
	File     string `arg:"" type:"existingfile" help:"Delivery file; the daemon reads it, and only its user may."`
	Format   string `default:"pskc" enum:"pskc,hex,base32" help:"pskc, or a table whose seeds are hex or base32."`
	KeyFile  string `type:"existingfile" help:"File whose first line is the pre-shared key of a PSKC file (hex)." xor:"open"`
	Password string `name:"password-file" type:"existingfile" help:"File whose first line is the password of a PSKC file." xor:"open"`
	Plain    bool   `help:"Accept a PSKC file whose seeds are in clear." xor:"open"`
	Reason   string `required:"" help:"Which delivery; kept in the devices' history."`
}

// Run asks the daemon to import the file and waits.
func (a *importCmd) Run(c Host) error {
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	in := argument{Actor: admin.Actor(), Reason: a.Reason, Format: a.Format, Plain: a.Plain}
	for _, f := range []struct {
		from string
		to   *string
	}{{a.File, &in.File}, {a.KeyFile, &in.KeyFile}, {a.Password, &in.PasswordFile}} {
		if f.from == "" {
			continue
		}
		if *f.to, err = filepath.Abs(f.from); err != nil {
			return fault.New(fault.Invalid, "import devices", err)
		}
	}
	result, err := admin.Await(machine.AdminSocket, "token/import", "token/job", in)
	if err != nil {
		return err
	}
	fmt.Println(string(result))
	return nil
}

type assignCmd struct {
	Serial   string `arg:""`
	Username string `arg:""`
	Reason   string `default:"delivered" help:"Kept in the device's history."`
}

// Run asks the daemon.
func (a *assignCmd) Run(c Host) error {
	return c.Ask("token/assign", argument{Actor: admin.Actor(), Serial: a.Serial, Username: a.Username, Reason: a.Reason})
}

type activateCmd struct {
	Serial string `arg:""`
}

// Run asks the daemon.
func (a *activateCmd) Run(c Host) error {
	first, second, err := codes(os.Stdin)
	if err != nil {
		return err
	}
	return c.Ask("token/activate", argument{Actor: admin.Actor(), Serial: a.Serial, Code: first, Second: second, Reason: "possession proven"})
}

type resyncCmd struct {
	Serial string `arg:""`
}

// Run asks the daemon.
func (a *resyncCmd) Run(c Host) error {
	first, second, err := codes(os.Stdin)
	if err != nil {
		return err
	}
	return c.Ask("token/resync", argument{Actor: admin.Actor(), Serial: a.Serial, Code: first, Second: second})
}

// codes reads one or two lines.
func codes(r io.Reader) (first, second string, err error) {
	lines := bufio.NewScanner(io.LimitReader(r, 256))
	var got []string
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); text != "" {
			got = append(got, text)
		}
	}
	if lines.Err() != nil || len(got) < 1 || len(got) > 2 {
		return "", "", fault.Newf(fault.Invalid, "read codes", "one or two lines are wanted on standard input")
	}
	return got[0], strings.Join(got[1:], ""), nil
}

type blockCmd struct {
	Serial string `arg:""`
	Reason string `required:"" help:"Why; kept in the device's history."`
}

// Run asks the daemon.
func (a *blockCmd) Run(c Host) error {
	return c.Ask("token/block", argument{Actor: admin.Actor(), Serial: a.Serial, Reason: a.Reason})
}

type unblockCmd struct {
	Serial string `arg:"" optional:"" xor:"which" help:"The device."`
	SMS    string `name:"sms" placeholder:"USERNAME" xor:"which" help:"Instead of a device: whose SMS codes."`
	Reason string `required:"" help:"How the person was identified; kept."`
}

// Run asks the daemon.
func (a *unblockCmd) Run(c Host) error {
	if (a.Serial == "") == (a.SMS == "") {
		return fault.Newf(fault.Invalid, "unblock", "a serial number or --sms is wanted")
	}
	return c.Ask("token/unblock", argument{Actor: admin.Actor(), Serial: a.Serial, Username: a.SMS, Reason: a.Reason})
}

type revokeCmd struct {
	Serial string `arg:""`
	Reason string `required:"" help:"Why; kept in the device's history."`
}

// Run asks the daemon.
func (a *revokeCmd) Run(c Host) error {
	return c.Ask("token/revoke", argument{Actor: admin.Actor(), Serial: a.Serial, Reason: a.Reason})
}

type showCmd struct {
	Serial string `arg:"" optional:"" help:"The device."`
	Of     string `placeholder:"USERNAME" help:"Instead of a device: whose devices."`
}

// Run asks the daemon.
func (a *showCmd) Run(c Host) error {
	if (a.Serial == "") == (a.Of == "") {
		return fault.Newf(fault.Invalid, "show devices", "a serial number or --of is wanted")
	}
	return c.Ask("token/show", argument{Serial: a.Serial, Username: a.Of})
}

type enrolCmd struct {
	Username string `arg:""`
	PNG      string `name:"png" type:"path" placeholder:"FILE" help:"Write the QR code there instead of the terminal; the file must not exist." xor:"how"`
	Code     bool   `help:"An activation code for our app instead of a QR code." xor:"how"`
	Reason   string `default:"enrolled" help:"Kept in the device's history."`
}

// Run asks the daemon; what it prints is shown once.
func (a *enrolCmd) Run(c Host) error {
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	var got enrolled
	in := argument{Actor: admin.Actor(), Username: a.Username, Reason: a.Reason, ByCode: a.Code}
	if err := admin.Call(machine.AdminSocket, "token/enrol", in, &got); err != nil {
		return err
	}
	defer clear(got.URI)
	fmt.Println("serial:", got.Serial)
	switch {
	case a.Code:
		fmt.Println("activation code:", got.Code)
	case a.PNG == "":
		text, err := enrol.Text(got.URI)
		if err != nil {
			return err
		}
		fmt.Print(text)
	default:
		picture, err := enrol.PNG(got.URI)
		if err != nil {
			return err
		}
		defer clear(picture)
		f, err := os.OpenFile(a.PNG, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fault.New(fault.Conflict, "write QR code", err)
		}
		_, err = f.Write(picture)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fault.New(fault.Unavailable, "write QR code", err)
		}
	}
	fmt.Printf("to be activated within %v\n", enrol.Window)
	return nil
}

type emergencyCmd struct {
	Issue  emergencyIssueCmd  `cmd:"" help:"Give a person an emergency code in place of the one before; shown once."`
	Redeem emergencyRedeemCmd `cmd:"" help:"Do what a person asks for with their emergency code, read from standard input."`
}

type emergencyIssueCmd struct {
	Username string `arg:""`
	Reason   string `required:"" help:"How the person was identified; kept."`
}

// Run asks the daemon.
func (a *emergencyIssueCmd) Run(c Host) error {
	return c.Ask("token/emergency/issue", argument{Actor: admin.Actor(), Username: a.Username, Reason: a.Reason})
}

type emergencyRedeemCmd struct {
	Username string `arg:""`
	Action   string `required:"" enum:"suspend,replace,revoke" help:"suspend: the identity. replace: the device, by a new virtual one. revoke: suspend the identity and note that its revocation was asked for."`
	Serial   string `help:"With replace: the device that is replaced."`
}

// Run asks the daemon.
func (a *emergencyRedeemCmd) Run(c Host) error {
	code, more, err := codes(os.Stdin)
	if err != nil || more != "" {
		return fault.Newf(fault.Invalid, "read emergency code", "one line is wanted on standard input")
	}
	return c.Ask("token/emergency/redeem", argument{Actor: admin.Actor(), Username: a.Username, Code: code, Action: a.Action, Serial: a.Serial})
}
