package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"custode/authcore"
	"custode/authcore/passhash"
	"custode/authcore/saml"
	"custode/authcore/saml/logout"
	"custode/authcore/session"
	"custode/authcore/web"
	"custode/cmd/custode/certified"
	"custode/cmd/custode/factor"
	"custode/cmd/custode/hsmcmd"
	"custode/cmd/custode/rotation"
	"custode/cmd/custode/signing"
	"custode/cmd/custode/tokencmd"
	"custode/cmd/custode/webhook"
	"custode/hsm/worker"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/forget"
	"custode/internal/id"
	"custode/internal/metrics"
	"custode/internal/process"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/modem"
	"custode/otpvault"
)

type serveCmd struct{}

// Run runs the appliance until SIGINT or SIGTERM.
func (serveCmd) Run(c *cli) error {
	if err := forget.Demand(); err != nil {
		return err
	}
	machine, policy, err := c.load()
	if err != nil {
		return err
	}
	if err := forget.NoDumps(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &appliance{machine: machine, policy: policy, files: [2]string{c.Machine, c.Policy}, log: newLog(os.Stderr, machine.Log)}
	a.log.Info("custode starts", "version", version, "entity", policy.EntityID.String())
	defer a.close()
	if err := a.open(ctx); err != nil {
		return err
	}
	if err := a.wire(ctx); err != nil {
		if fault.Is(err, fault.NotFound) { // a key or certificate: only an operator brings it
			return fault.New(fault.Fatal, "wire the appliance", err)
		}
		return err
	}
	err = a.run(ctx)
	a.log.Info("custode stops", "error", err)
	return err
}

// appliance holds what `custode serve` opened and built.
type appliance struct {
	machine *config.Machine
	policy  *config.Policy
	files   [2]string // where machine and policy were read
	log     *slog.Logger

	lock  *os.File
	token *worker.Client
	db    *store.DB

	signing     *signing.Desk
	rewrapping  rotation.Rewrapping
	passwords   *passhash.Hasher
	pool        *modem.Pool
	forward     *webhook.Forwarder
	outbox      sealer // wraps message texts
	sps         replica
	watched     watched
	sessions    *session.Sessions
	logouts     *logout.Reader
	web         *web.Server
	admin       *admin.Server
	registers   *certified.Registers
	apps        factor.Apps
	forgetLogin func()
}

// open acquires the state directory, the token and the database. What can be
// refused without touching the token is refused first.
func (a *appliance) open(ctx context.Context) (err error) {
	if err := checkTLSKey(a.machine.TLS.KeyFile); err != nil {
		return err
	}
	if a.lock, err = process.LockState(a.machine.StateDirectory); err != nil {
		return err
	}
	if err := a.openToken(ctx); err != nil {
		return err
	}
	cfg, err := a.database()
	if err != nil {
		return err
	}
	a.db, err = store.Open(ctx, cfg)
	return err
}

func (a *appliance) openToken(ctx context.Context) (err error) {
	a.token, err = hsmcmd.Open(ctx, hsmcmd.Config{Machine: a.machine, MachineFile: a.files[0], PolicyFile: a.files[1], Stderr: os.Stderr, Log: a.log})
	return err
}

func (a *appliance) close() {
	if f, ok := a.sps.(io.Closer); ok {
		if err := f.Close(); err != nil {
			a.log.Error("registry copy not closed", "error", err)
		}
	}
	if a.registers != nil {
		a.registers.Close()
	}
	if a.db != nil {
		if err := a.db.Close(); err != nil {
			a.log.Error("database not closed", "error", err)
		}
	}
	if a.token != nil {
		if err := a.token.Close(); err != nil {
			a.log.Error("token not closed", "error", err)
		}
	}
	if a.lock != nil {
		_ = a.lock.Close()
	}
}

// wire builds every room from what open acquired.
func (a *appliance) wire(ctx context.Context) error {
	keys := a.policy.Keys
	var err error
	a.registers, err = certified.Open(ctx, certified.Config{Machine: a.machine, Policy: a.policy, Token: a.token, Floors: a.db, Build: version, Log: a.log,
		Phone: a.db.Phone, Queue: a.queue})
	if err != nil {
		return err
	}
	if err := a.openSigning(ctx, a.db); err != nil {
		return err
	}
	codeKey, err := a.token.MAC(keys.Codes)
	if err != nil {
		return err
	}
	if err := a.openRewrapping(); err != nil {
		return err
	}
	random := a.token.Random()
	hashing, err := rotation.Peppers(a.token, keys)
	if err != nil {
		return err
	}
	hashing.Cost = passhash.Cost{Memory: a.policy.Passwords.MemoryKiB, Time: a.policy.Passwords.Iterations, Threads: 1}
	hashing.Random, hashing.Queue = random, a.policy.Passwords.Queue
	if a.passwords, err = passhash.New(hashing); err != nil {
		return err
	}
	a.forward = webhook.New(a.machine.ForwardReceived, a.log)
	if a.pool, err = a.newPool(a.outbox); err != nil {
		return err
	}
	codes, err := otpvault.New(otpvault.Config{
		MAC: codeKey, Wrapper: a.outbox, Random: random, Store: a.db, Now: time.Now, Log: a.log,
		Lifetime: a.policy.Codes.Lifetime, Attempts: a.policy.Flow.WrongCodes, Template: a.policy.Codes.Text,
		Limit: otpvault.Limit{Messages: a.policy.Codes.PerSubject, Window: a.policy.Codes.PerSubjectWindow}, Accepted: a.pool.Wake,
		Admit: func(ctx context.Context, to id.Phone, life time.Duration) error {
			_, err := a.pool.Admit(ctx, to, life)
			return err
		},
	})
	if err != nil {
		return err
	}
	if err := a.openRegistry(ctx, random); err != nil {
		return err
	}
	if err := a.openSessions(random); err != nil {
		return err
	}
	devices, office, err := factor.Open(factor.Config{Machine: a.machine, Policy: a.policy, Token: a.token, Codes: codeKey, Wrapper: a.outbox, DB: a.db, Random: random, Log: a.log})
	if err != nil {
		return err
	}
	login, err := authcore.New(authcore.Config{
		Flows: a.db, Identities: a.db, Tallies: a.db, Deliveries: a.db, Codes: codes, Devices: devices, Responses: a.signing,
		Passwords: rotation.Passwords{Hasher: a.passwords, DB: a.db, Log: a.log},
		Sessions:  a.loginSessions(), Register: a.registers.Transactions, Watch: a.registers.Security,
		Random: random, Now: time.Now, Log: a.log,
		Policy: authcore.Policy{FlowLife: a.policy.Flow.Lifetime, WrongPasswords: a.policy.Flow.WrongPasswords, WrongCodes: a.policy.Flow.WrongCodes,
			ReplayPage: a.policy.Request.ReplayPage, OmitEmpty: a.policy.Attributes.OmitEmpty},
	})
	if err != nil {
		return err
	}
	a.apps = factor.Apps{Office: office, Security: a.registers.Security, Watch: a.registers.Security, Log: a.log}
	methods := a.registers.Methods(hsmcmd.Methods(a.token, a.registryMethods(a.methods(random))))
	methods = tokencmd.Methods(tokencmd.Config{Office: office, DB: a.db, Devices: otpstore.New(a.db), Security: a.registers.Security, Codes: login, Now: time.Now, Log: a.log}, methods) // after: it keeps its acts itself
	a.admin = admin.NewServer(a.machine.AdminSocket, methods, a.log)
	a.forgetLogin = login.Forget
	return a.newWeb(login, random)
}

func (a *appliance) newWeb(login *authcore.Login, random io.Reader) error {
	verifier, err := saml.NewVerifier(saml.VerifierConfig{
		EntityID: a.policy.EntityID, RedirectLocation: a.policy.PublicURL + pathSSORedirect, PostLocation: a.policy.PublicURL + pathSSOPost,
		FutureSkew: a.policy.Request.FutureSkew, PastSkew: a.policy.Request.PastSkew,
		StrictForceAuthn: !a.policy.Request.LenientForceAuthn, StrictScoping: a.policy.Request.StrictScoping, LenientSubject: a.policy.Request.LenientSubject,
		LenientPurpose: a.policy.Request.LenientPurpose, LenientBetter: a.policy.Request.LenientBetter, SPs: a.sps,
	})
	if err != nil {
		return err
	}
	a.web, err = web.New(web.Config{
		PublicURL: a.policy.PublicURL, EntityID: a.policy.EntityID, Listen: a.machine.Listen,
		CertFile: a.machine.TLS.CertificateFile, KeyFile: a.machine.TLS.KeyFile, DevelopmentHTTP: a.machine.InsecureHTTPForDevelopment,
		Watch: a.registers.Security, Logins: login, Requests: gated{verifier, a.sps.Usable}, Metadata: a.signing.Metadata, Health: a.health(),
		Random: random, Now: time.Now, Log: a.log, FlowLife: a.policy.Flow.Lifetime,
		Sessions: a.sessions, LogoutMessages: a.logouts, Apps: a.apps, SessionLife: a.policy.Session.Absolute,
		Name: a.policy.Organization.DisplayName, Links: web.Links(a.policy.Pages),
	})
	return err
}

// health returns the check that is nil when logins can be served: the token answers and the database
// takes reads. Modems are not part of it: level 1 needs none.
func (a *appliance) health() func() error {
	database := lately(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return a.db.Ping(ctx)
	}, time.Second)
	return func() error { return errors.Join(a.token.Health(), database(), a.registers.Health()) }
}

// lately remembers the result of check for that long: anybody may ask, and
// asking takes the database's write lock.
func lately(check func() error, life time.Duration) func() error {
	var mu sync.Mutex
	var at time.Time
	var last error
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); at.IsZero() || now.Sub(at) >= life {
			last, at = check(), time.Now()
		}
		return last
	}
}

// run serves until ctx is cancelled or a part fails for good.
func (a *appliance) run(ctx context.Context) error {
	if err := a.registers.Start(ctx); err != nil {
		return err
	}
	if err := a.registers.TakeSpool(ctx); err != nil {
		return err
	}
	if err := a.signing.Begin(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.token.Run(ctx) })
	g.Go(func() error { return a.pool.Run(ctx) })
	g.Go(func() error { return a.forward.Run(ctx) })
	g.Go(func() error { return a.web.Run(ctx) })
	g.Go(func() error { return a.admin.Run(ctx) })
	if addr := a.machine.MetricsListen; addr != "" {
		g.Go(func() error { return metrics.NewServer(addr, a.metricsPage, a.log).Run(ctx) })
	}
	g.Go(func() error { return a.sweep(ctx) })
	g.Go(func() error { return forget.Run(ctx, forget.Every, a.forgetLogin) })
	g.Go(func() error { return a.signing.OnHangup(ctx, a.readSigningKeys) })
	g.Go(func() error { return a.rewrapping.Run(ctx) })
	g.Go(func() error { return a.sps.Run(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// sweep deletes what is over, every minute.
func (a *appliance) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := a.sessions.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("ends of sessions not swept; next try in a minute", "error", err)
			}
			if _, err := a.db.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
				a.log.Error("sweep failed; next try in a minute", "error", err)
			}
		}
	}
}

// checkTLSKey refuses a key that any user of the machine may read. A group may:
// Debian keeps such keys readable by ssl-cert.
func checkTLSKey(path string) error {
	if path == "" {
		return nil // development
	}
	op := "check TLS key " + path
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fault.New(fault.Fatal, op, err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o007 != 0:
		return fault.Newf(fault.Fatal, op, "must be a regular file that others may not read (mode is %v)", info.Mode())
	}
	return nil
}
