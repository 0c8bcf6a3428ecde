package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"custode/simulators/appsim"
)

// appCmd is the simulated authenticator app. Secrets come on standard input, not
// as arguments, as in an app they come by the camera.
type appCmd struct {
	State string `type:"path" default:"app.json" help:"File of the app's state. It is a simulator: the secrets in it are in clear."`

	Scan    appScanCmd    `cmd:"" help:"Take the account from an otpauth URI on standard input."`
	Code    appCodeCmd    `cmd:"" help:"Show a code."`
	Key     appKeyCmd     `cmd:"" help:"Show the app's public key, base64, for an encrypted delivery."`
	Receive appReceiveCmd `cmd:"" help:"Take the account from a delivery: activation code and parcel (base64) as two lines on standard input."`
	Enrol   appEnrolCmd   `cmd:"" help:"Activate the app at an identity provider: activation code on standard input."`
	Push    appPushCmd    `cmd:"" help:"Open a pushed message, base64 on standard input."`
}

type (
	appScanCmd    struct{}
	appCodeCmd    struct{}
	appKeyCmd     struct{}
	appReceiveCmd struct {
		Serial string `required:"" help:"Serial number of the device."`
	}
	appEnrolCmd struct {
		Base   string `arg:"" help:"Address of the identity provider, https://host[:port]."`
		Serial string `arg:"" help:"Serial number that came with the activation code."`
	}
	appPushCmd struct{}
)

// use reads the state, lets do work with it and writes it back.
func (a *appCmd) use(do func(app *appsim.App) error) error {
	var app appsim.App
	b, err := os.ReadFile(a.State)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &app); err != nil {
			return fmt.Errorf("read %s: not the state of an app", a.State)
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := do(&app); err != nil {
		return err
	}
	if b, err = json.MarshalIndent(app, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(a.State, b, 0o600)
}

// input reads n lines of standard input.
func input(n int) ([]string, error) {
	b, err := io.ReadAll(io.LimitReader(os.Stdin, 64<<10))
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(b))
	if len(lines) != n {
		return nil, fmt.Errorf("%d words on standard input, want %d", len(lines), n)
	}
	return lines, nil
}

// Run takes an account.
func (appScanCmd) Run(c *cli) error {
	in, err := input(1)
	if err != nil {
		return err
	}
	return c.App.use(func(app *appsim.App) error { return app.Scan(in[0]) })
}

// Run shows a code.
func (appCodeCmd) Run(c *cli) error {
	return c.App.use(func(app *appsim.App) error {
		code, err := app.Code(time.Now())
		if err == nil {
			fmt.Println(code)
		}
		return err
	})
}

// Run shows the key.
func (appKeyCmd) Run(c *cli) error {
	return c.App.use(func(app *appsim.App) error {
		key, err := app.PublicKey()
		if err == nil {
			fmt.Println(base64.StdEncoding.EncodeToString(key))
		}
		return err
	})
}

// Run takes a delivery.
func (r appReceiveCmd) Run(c *cli) error {
	in, err := input(2)
	if err != nil {
		return err
	}
	parcel, err := base64.StdEncoding.DecodeString(in[1])
	if err != nil {
		return errors.New("the parcel is not base64")
	}
	return c.App.use(func(app *appsim.App) error { return app.Receive(parcel, r.Serial, in[0]) })
}

// Run activates the app.
func (r appEnrolCmd) Run(c *cli) error {
	in, err := input(1)
	if err != nil {
		return err
	}
	return c.App.use(func(app *appsim.App) error {
		ctx := context.Background()
		if err := app.Activate(ctx, r.Base, r.Serial, in[0]); err != nil {
			return err
		}
		code, err := app.Code(time.Now())
		if err != nil {
			return err
		}
		emergency, err := app.Confirm(ctx, r.Base, code)
		if emergency != "" {
			fmt.Println("emergency code:", emergency)
		}
		return err
	})
}

// Run shows a push.
func (appPushCmd) Run(c *cli) error {
	in, err := input(1)
	if err != nil {
		return err
	}
	message, err := base64.StdEncoding.DecodeString(in[0])
	if err != nil {
		return errors.New("the message is not base64")
	}
	return c.App.use(func(app *appsim.App) error {
		p, err := app.Open(message, time.Now())
		if err == nil {
			fmt.Printf("%s asks for level 2. Does the page show %s? Then the code is %s\n", p.SPName, p.Number, p.Code)
		}
		return err
	})
}
