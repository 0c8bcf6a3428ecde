package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"custode/authcore"
	"custode/authcore/passrule"
	"custode/cmd/custode/backup"
	"custode/cmd/custode/ceremonycmd"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/journal"
	"custode/internal/store"
)

type identityCmd struct {
	Add     identityAddCmd     `cmd:"" help:"Add an identity from a file."`
	Show    identityShowCmd    `cmd:"" help:"Show an identity and its history."`
	Suspend identitySuspendCmd `cmd:"" help:"Suspend an identity."`
	Restore identityRestoreCmd `cmd:"" help:"Restore a suspended identity."`
}

// identityFile is what `identity add` reads, and its wire form.
type identityFile struct {
	Username   string            `yaml:"username" json:"username"`
	Type       string            `yaml:"type" json:"type"`
	Phone      string            `yaml:"phone" json:"phone"`
	Attributes map[string]string `yaml:"attributes" json:"attributes"`
}

// Validate leaves judgement to authcore, in the daemon.
func (f *identityFile) Validate() error { return nil }

// addArgument travels over the administration socket only.
type addArgument struct {
	identityFile
	Password []byte `json:"password"`
	Actor    string `json:"actor"`
}

// nameArgument names an identity and says who acts, and why.
type nameArgument struct {
	Username string `json:"username"`
	Reason   string `json:"reason"`
	Actor    string `json:"actor"`
}

// identityView is what operators see of an identity. It has no password form.
type identityView struct {
	Username   string            `json:"username"`
	SPIDCode   string            `json:"spidCode"`
	Type       string            `json:"type"`
	State      string            `json:"state"`
	Reason     string            `json:"reason,omitempty"`
	Phone      string            `json:"phone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Created    time.Time         `json:"created"`
	LastLogin  *time.Time        `json:"lastLogin,omitempty"`
	History    []historyLine     `json:"history,omitempty"`
}

type historyLine struct {
	At     time.Time `json:"at"`
	What   string    `json:"what"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

type identityAddCmd struct {
	File         string `arg:"" type:"existingfile" help:"YAML: username, phone, attributes."`
	PasswordFile string `required:"" type:"existingfile" help:"File whose first line is the password; only its owner may read it."`
}

// Run asks the daemon to add the identity.
func (a *identityAddCmd) Run(c *cli) error {
	f, err := config.Load[identityFile](a.File)
	if err != nil {
		return err
	}
	password, err := config.ReadSecret(a.PasswordFile)
	if err != nil {
		return err
	}
	defer clear(password)
	return c.ask("identity/add", addArgument{*f, password, admin.Actor()})
}

type identityShowCmd struct {
	Username string `arg:""`
}

// Run asks the daemon for the identity.
func (a *identityShowCmd) Run(c *cli) error {
	return c.ask("identity/show", nameArgument{Username: a.Username})
}

type identitySuspendCmd struct {
	Username string `arg:""`
	Reason   string `required:"" help:"Why; kept in the identity's history."`
}

// Run asks the daemon to suspend the identity.
func (a *identitySuspendCmd) Run(c *cli) error {
	return c.ask("identity/suspend", nameArgument{a.Username, a.Reason, admin.Actor()})
}

type identityRestoreCmd struct {
	Username string `arg:""`
	Reason   string `required:"" help:"Why; kept in the identity's history."`
}

// Run asks the daemon to restore the identity.
func (a *identityRestoreCmd) Run(c *cli) error {
	return c.ask("identity/restore", nameArgument{a.Username, a.Reason, admin.Actor()})
}

// ask calls the daemon and prints the result as indented JSON.
func (c *cli) ask(method string, arg any) error {
	machine, err := config.Load[config.Machine](c.Machine)
	if err != nil {
		return err
	}
	var result json.RawMessage
	if err := admin.Call(machine.AdminSocket, method, arg, &result); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, result, "", "  "); err != nil {
		return fault.New(fault.Internal, "print the answer", err)
	}
	fmt.Println(out.String())
	return nil
}

// methods are what the administration socket answers.
func (a *appliance) methods(random io.Reader) map[string]admin.Method {
	methods := map[string]admin.Method{
		"identity/add":     func(ctx context.Context, arg []byte) (any, error) { return a.addIdentity(ctx, arg, random) },
		"identity/show":    a.showIdentity,
		"identity/suspend": a.changeState(authcore.Identity.Suspend),
		"identity/restore": a.changeState(func(i authcore.Identity, _ string) (authcore.Identity, error) { return i.Restore() }),
		"metadata/show":    func(context.Context, []byte) (any, error) { return a.signing.Metadata(), nil },
	}
	maps.Copy(methods, a.modemMethods(random))
	backup.Methods(methods, a.db.Backup)
	maps.Copy(methods, a.signing.Methods(a.readSigningKeys))
	maps.Copy(methods, a.rewrapping.Methods(a.db, a.keysInUse, a.machine.CertifiedLog.Directory))
	maps.Copy(methods, ceremonycmd.Methods(func() *journal.Security { return a.registers.Security }))
	return methods
}

func (a *appliance) addIdentity(ctx context.Context, arg []byte, random io.Reader) (any, error) {
	var in addArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	defer clear(in.Password)
	if code := in.Attributes["spidCode"]; !strings.HasPrefix(code, a.policy.SPIDPrefix) {
		return nil, fault.Newf(fault.Invalid, "add identity", "spidCode does not begin with the spid_prefix %s of the policy", a.policy.SPIDPrefix)
	}
	now := time.Now()
	i, err := authcore.NewIdentity(authcore.NewIdentityInput{
		Username: in.Username, Type: in.Type, Phone: in.Phone, Attributes: in.Attributes, SPIDCode: in.Attributes["spidCode"], Random: random, Now: now,
	})
	if err != nil {
		return nil, err
	}
	if !i.Phone.IsZero() {
		if err := a.acceptsNumber(i.Phone); err != nil {
			return nil, err // else every code to it would fail, at a login
		}
	}
	password := string(in.Password)
	if err := passrule.CheckPassword(password, i); err != nil {
		return nil, err
	}
	if i.Password, err = a.passwords.Hash(ctx, i.Subject, password); err != nil {
		return nil, err
	}
	if err := a.db.AddIdentity(ctx, i, store.Change{Actor: in.Actor, Reason: "identity add", At: now}); err != nil {
		return nil, err
	}
	return a.identityView(ctx, i)
}

func (a *appliance) showIdentity(ctx context.Context, arg []byte) (any, error) {
	var in nameArgument
	if err := admin.Decode(arg, &in); err != nil {
		return nil, err
	}
	i, err := a.identity(ctx, in.Username)
	if err != nil {
		return nil, err
	}
	return a.identityView(ctx, i)
}

// changeState applies a transition of the identity's state and records it.
func (a *appliance) changeState(transition func(authcore.Identity, string) (authcore.Identity, error)) admin.Method {
	return func(ctx context.Context, arg []byte) (any, error) {
		var in nameArgument
		if err := admin.Decode(arg, &in); err != nil {
			return nil, err
		}
		i, err := a.identity(ctx, in.Username)
		if err != nil {
			return nil, err
		}
		next, err := transition(i, in.Reason)
		if err != nil {
			return nil, err
		}
		if err := a.db.SetIdentityState(ctx, i.Username, i.State, next.State, store.Change{Actor: in.Actor, Reason: in.Reason, At: time.Now()}); err != nil {
			return nil, err
		}
		return a.identityView(ctx, next)
	}
}

func (a *appliance) identity(ctx context.Context, username string) (authcore.Identity, error) {
	u, err := id.ParseUsername(username)
	if err != nil {
		return authcore.Identity{}, err
	}
	return a.db.IdentityByUsername(ctx, u)
}

func (a *appliance) identityView(ctx context.Context, i authcore.Identity) (identityView, error) {
	v := identityView{
		Username: i.Username.String(), SPIDCode: i.SPIDCode.String(), Type: i.Type.String(), State: i.State.String(), Reason: i.Reason,
		Phone: i.Phone.String(), Attributes: i.Attributes, Created: i.Created,
	}
	if !i.LastLogin.IsZero() {
		v.LastLogin = &i.LastLogin
	}
	events, err := a.db.IdentityEvents(ctx, i.Subject)
	if err != nil {
		return identityView{}, err
	}
	for _, e := range events {
		v.History = append(v.History, historyLine{At: e.At, What: eventNames[e.What], Actor: e.Actor, Reason: e.Reason})
	}
	return v, nil
}

// eventNames are the words operators read for the store's events.
var eventNames = map[store.What]string{
	store.IdentityAdded: "added", store.StateChanged: "state changed", store.PasswordChanged: "password changed",
}
