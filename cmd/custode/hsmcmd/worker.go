package hsmcmd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/worker"
	"custode/hsm/worker/judge"
	"custode/hsm/worker/socket"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/forget"
	"custode/internal/id"
	"custode/internal/process"
)

// Host is the command line that the subcommands are part of.
type Host interface {
	// Files reads both configuration files.
	Files() (*config.Machine, *config.Policy, error)
	// DaemonLog returns the log of a daemon.
	DaemonLog(*config.Machine) *slog.Logger
	// Ask calls a method of the daemon and prints the result.
	Ask(method string, arg any) error
	// MachineFile reads the machine file.
	MachineFile() (*config.Machine, error)
}

// Worker is `custode hsm-worker`.
type Worker struct {
	Standby   bool   `help:"Serve the standby token of the machine file."`
	Socket    string `type:"path" help:"Listen here; default: worker_socket of the machine file."`
	Inherited bool   `hidden:"" help:"Serve the process that started this one, on file 3."`

	keys map[id.KeyLabel]worker.Use // of tests; nil: by the policy
}

// ended is an error with an exit status of its own.
type ended struct {
	error
	status int
}

// ExitStatus is the process's exit status.
func (e ended) ExitStatus() int { return e.status }

// Unwrap returns the error.
func (e ended) Unwrap() error { return e.error }

// status gives an error the exit status that tells a supervisor what to do.
func status(err error) error {
	switch {
	case err == nil:
		return nil
	case pkcs11.IsPINRefusal(err):
		return ended{err, statusPIN}
	case errors.Is(err, worker.ErrGrown):
		return ended{err, statusGrown}
	case errors.Is(err, worker.ErrHung), fault.Is(err, fault.Exhausted):
		return ended{err, statusHung}
	}
	return err
}

// openLimit is for a module to load and a token to log in.
const openLimit = 50 * time.Second

// Run serves one token until its parent is gone, SIGTERM, or a reason to be replaced.
func (w *Worker) Run(h Host) error {
	if err := forget.Demand(); err != nil { // serve's own worker has the settings from it
		return err
	}
	if err := forget.NoDumps(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if w.Inherited {
		// The parent decides: it may need the token to end well.
		stop()
		signal.Ignore(syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
		ctx = context.Background()
	}
	machine, policy, err := h.Files()
	if err != nil {
		return err
	}
	name := "primary"
	if w.Standby {
		name = "standby"
	}
	log := h.DaemonLog(machine).With("worker", name)
	if err := process.LockMemory(); err != nil {
		log.Warn("memory of the token's worker is not kept out of swap", "error", err)
	}
	token, err := openToken(ctx, &machine.HSM, w.Standby, log)
	if err != nil {
		return status(err)
	}
	err = w.serve(ctx, h, machine, policy, token, log)
	if token.Stuck() { // C_Finalize under a call ends in a crash
		return status(errors.Join(err, worker.ErrHung))
	}
	return status(errors.Join(err, token.Close()))
}

func openToken(ctx context.Context, h *config.HSM, standby bool, log *slog.Logger) (*pkcs11.Token, error) {
	uri, initArgs, tolerate := h.URI, h.InitArgs, h.Tolerate
	if standby {
		uri, initArgs, tolerate = h.Standby.URI, h.Standby.InitArgs, h.Standby.Tolerate
	}
	if uri == "" {
		return nil, fault.Newf(fault.Invalid, "open token", "the machine file names none")
	}
	lacks, err := hsm.ParseLacks(tolerate)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	t, err := pkcs11.Open(ctx, pkcs11.Config{
		URI: uri, InitArgs: initArgs, Tolerate: lacks, Copied: h.Copied, MaxSessions: h.Sessions, Log: log, Now: time.Now, CallLimit: h.CallLimit,
		DecryptSeeds: h.Seeds == "decrypt",
		// Every call has a goroutine of its own here, and a process that hangs is replaced.
		CallersWait: true,
		// Doubled up to 64 times: a token that comes back is noticed within two seconds.
		Backoff: 30 * time.Millisecond, ProbeInterval: time.Second,
	})
	if err != nil {
		return nil, err
	}
	if label := t.Info().Label; hsm.ForRehearsal(label) {
		return nil, errors.Join(fault.Newf(fault.Fatal, "open token", "token %q is for rehearsals of ceremonies: its keys are not for service", label), t.Close())
	}
	return t, nil
}

// serve answers until ctx ends (nil) or the process has to be replaced (why).
func (w *Worker) serve(ctx context.Context, h Host, machine *config.Machine, policy *config.Policy, token *pkcs11.Token, log *slog.Logger) error {
	about, keys := token.Info(), w.keys
	var reread func() (map[id.KeyLabel]worker.Use, error)
	if keys == nil {
		keys = allowed(&policy.Keys)
		reread = func() (map[id.KeyLabel]worker.Use, error) {
			_, policy, err := h.Files()
			if err != nil {
				return nil, err
			}
			return allowed(&policy.Keys), nil
		}
	}
	server := worker.NewServer(worker.ServerConfig{
		Token: token, Keys: keys, Reread: reread, Log: log, MaxUnwraps: machine.HSM.MaxUnwraps, MaxMemory: machine.HSM.MaxMemoryMiB << 20,
		Stuck: token.Stuck, Load: token.Load,
		About: map[string]string{"label": about.Label, "serial": about.Serial, "manufacturer": about.Manufacturer, "model": about.Model, "firmware": about.Firmware},
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return token.Run(ctx) })
	g.Go(func() error { return forget.Run(ctx, forget.Every) })
	hung := make(chan error, 1)
	g.Go(func() error {
		err := server.Watch(ctx)
		if errors.Is(err, worker.ErrHung) {
			hung <- err
		} else if err != nil {
			server.Drain(endLimit)
		}
		return err
	})
	g.Go(func() error {
		if !w.Inherited {
			return w.listen(ctx, server, machine, log)
		}
		conn, err := process.Inherited()
		if err != nil {
			return err
		}
		if err := server.Serve(ctx, conn, socket.Peer{UID: os.Geteuid(), PID: os.Getppid()}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		return errParent
	})
	over := make(chan error, 1)
	go func() { over <- g.Wait() }()
	select {
	case err := <-hung: // whoever waits for the module waits in vain
		return err
	case <-ctx.Done():
	}
	return ending(context.Cause(ctx), over, token.Stuck)
}

var errParent = errors.New("the parent is gone")

// ending waits until the questions in progress are answered, or it is plain that one will not be. A refused
// PIN is told whatever else is wrong: it decides whether another process is started.
func ending(cause error, over <-chan error, stuck func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(endLimit - time.Second) // less than the parent's
	for {
		select {
		case err := <-over:
			if errors.Is(err, errParent) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-tick.C:
			if !stuck() {
				continue
			}
		case <-patience:
		}
		if pkcs11.IsPINRefusal(cause) {
			return cause
		}
		return fault.New(fault.Unavailable, "end the worker", worker.ErrHung)
	}
}

func (w *Worker) listen(ctx context.Context, server *worker.Server, machine *config.Machine, log *slog.Logger) error {
	h := &machine.HSM
	path := w.Socket
	if path == "" {
		path = h.WorkerSocket
		if w.Standby {
			path = h.Standby.WorkerSocket
		}
	}
	if path == "" {
		return fault.Newf(fault.Invalid, "open the worker's socket", "neither --socket nor worker_socket of the machine file names it")
	}
	peer, err := userPeer(h.DaemonUser)
	if err != nil {
		return err
	}
	return socket.Listen(ctx, path, h.DaemonUser != "", func(c net.Conn) {
		if err := server.Serve(ctx, c, peer); err != nil {
			log.Warn("a connection ended", "error", err)
		}
	})
}

// allowed is what each key of the policy may be asked for. The key that signs SAML never signs a
// seal of the certified log, nor the other way round. A key that is only published may sign SAML: the file
// names the next one as the signing key before the daemon takes it into use, or refuses to, and a worker that
// starts meanwhile must not refuse the one in use. Who verifies trusts all that are published anyway.
func allowed(keys *config.Keys) map[id.KeyLabel]worker.Use {
	saml := worker.Signs(judge.Assertion, judge.Response, judge.Logout, judge.Metadata, judge.Query)
	all := map[id.KeyLabel]worker.Use{
		keys.Sign:   saml,
		keys.Seal:   worker.Signs(judge.CMS),
		keys.Pepper: worker.UseMAC,
		keys.Codes:  worker.UseMAC,
		keys.Outbox: worker.UseWrap,
		keys.Log:    worker.UseWrap,
		keys.Seed:   worker.UseSeed,
		keys.Bind:   worker.UseMAC | worker.UseBind,

		keys.Records: worker.UseWrap,
	}
	for use, earlier := range map[worker.Use][]id.KeyLabel{
		worker.UseSeed: keys.EarlierSeed, worker.UseMAC: keys.EarlierPepper, worker.UseWrap: slices.Concat(keys.EarlierLog, keys.EarlierOutbox, keys.EarlierRecords),
		saml: keys.AlsoPublished,
	} {
		for _, label := range earlier {
			all[label] = use
		}
	}
	return all
}
