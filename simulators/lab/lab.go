// Package lab brings up a whole appliance on simulated hardware: a throw-away
// SoftHSM token with keys made by the product's own ceremony, a bank of
// simulated modems and phones, a demo service provider, configuration files, and
// the custode binary as a separate process that can be stopped, killed and
// started again. The demo, the end-to-end tests and the load driver use it.
//
// It drives the product from outside only: the binary's command line, its
// configuration files, HTTP, the PKCS#11 module, the ptys. Nothing outside a
// development machine may use it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"custode/simulators/hsmsim"
	"custode/simulators/modemsim"
	"custode/simulators/registrysim"
	"custode/simulators/spsim"
	"custode/simulators/spsim/site"
	"custode/simulators/tsasim"
)

// Config says what to bring up. Custode is required.
type Config struct {
	Custode  string            // path of the custode binary
	Dir      string            // work folder; "": a temporary one, removed by Close
	Modems   int               // 0: 4
	SIMPIN   string            // what the appliance is told of the cards' PIN; "": nothing
	Network  modemsim.Config   // radio behaviour; Dir and Modems are set by the lab
	Policy   map[string]string // "section.key" -> YAML value, over the lab's policy file
	LogLevel string            // of the daemon; "": info
	Log      io.Writer         // the daemon's standard error; nil: discarded
	Addr     Addresses         // zero: free ports

	Federation *Federation // nil: a directory with the demo service provider

	Shim    bool              // the token is reached through a hsmsim.Shim, Lab.Shim
	Standby bool              // there is a second token with the same keys, behind a Shim of its own
	HSM     map[string]string // key -> YAML value, more of the machine file's section hsm

	Prepare func(*Lab) error // runs when the keys are made, before anything else uses the token; nil: nothing
}

// Addresses are host:port; "" takes a free port on localhost.
type Addresses struct{ IdP, SP, Phones string }

// Lab is a running laboratory.
type Lab struct {
	Dir       string
	IdP       string // base URL of the appliance
	SP        *spsim.SP
	SPURL     string
	PhonesURL string
	Metrics   string // base URL of the appliance's metrics
	HSM       *hsmsim.Sim
	Shim      *hsmsim.Shim // nil without Config.Shim
	Standby   *hsmsim.Sim  // nil without Config.Standby; a copy, made after the ceremony
	Second    *hsmsim.Shim // before Standby
	Bank      *modemsim.Bank
	Registry  *registrysim.Sim // nil without Config.Federation
	Pushes    *Pushes          // where codes for apps arrive
	TSA       []*tsasim.TSA    // two time-stamping authorities

	cfg    Config
	ownDir bool

	registryURL string
	machine     string
	policy      string
	mu          sync.Mutex
	daemon      *exec.Cmd
	exited      chan error
	servers     []*http.Server
}

// Start brings everything up and returns when the appliance answers.
func Start(ctx context.Context, cfg Config) (l *Lab, err error) {
	l = &Lab{cfg: cfg, Dir: cfg.Dir}
	if l.cfg.Log == nil {
		l.cfg.Log = io.Discard
	}
	if l.Dir == "" {
		if l.Dir, err = os.MkdirTemp("", "custode-lab-"); err != nil {
			return nil, err
		}
		l.ownDir = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	steps := []func(context.Context) error{l.startPhones, l.startPushes, l.startToken, l.startSP, l.startRegistry, l.startTSA, l.configure, l.StartDaemon, l.awaitRegistry}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *Lab) startPhones(context.Context) error {
	n := l.cfg.Network
	n.Dir = filepath.Join(l.Dir, "modems")
	if n.Modems = l.cfg.Modems; n.Modems == 0 {
		n.Modems = 4
	}
	bank, err := modemsim.NewBank(n)
	if err != nil {
		return err
	}
	l.Bank = bank
	l.PhonesURL, err = l.serve(l.cfg.Addr.Phones, bank.Handler())
	return err
}

func (l *Lab) startToken(ctx context.Context) error {
	sim, err := hsmsim.New(filepath.Join(l.Dir, "token"))
	if err != nil {
		return err
	}
	l.HSM = sim
	return l.startShims()
}

func (l *Lab) startSP(context.Context) error {
	ln, base, err := listen(l.cfg.Addr.SP)
	if err != nil {
		return err
	}
	idp, err := l.idpURL()
	if err != nil {
		return err
	}
	l.IdP = idp
	l.SP, err = spsim.New(spsim.Config{BaseURL: base, IdPMetadataURL: idp + "/metadata"})
	if err != nil {
		ln.Close()
		return err
	}
	l.SPURL = base
	l.serveOn(ln, site.New(l.SP))
	return os.MkdirAll(filepath.Join(l.Dir, "registry"), 0o700)
}

// idpURL fixes the appliance's address before it exists.
func (l *Lab) idpURL() (string, error) {
	if l.cfg.Addr.IdP == "" {
		ln, base, err := listen("")
		if err != nil {
			return "", err
		}
		ln.Close()
		l.cfg.Addr.IdP = strings.TrimPrefix(base, "http://")
	}
	ln, base, err := listen("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	ln.Close()
	l.Metrics = base
	return "http://" + l.cfg.Addr.IdP, nil
}

// RegisterSP adds or replaces an SP's metadata file in the registry folder. The
// appliance reads it when it starts.
func (l *Lab) RegisterSP(name string, metadata []byte) error {
	return os.WriteFile(filepath.Join(l.Dir, "registry", name+".xml"), metadata, 0o600)
}

// Run runs a custode subcommand with the lab's configuration and returns its
// standard output.
func (l *Lab) Run(ctx context.Context, args ...string) (string, error) {
	return l.Feed(ctx, "", args...)
}

// Feed is Run with text on the subcommand's standard input.
func (l *Lab) Feed(ctx context.Context, text string, args ...string) (string, error) {
	cmd := l.command(ctx, args...)
	cmd.Stdin = strings.NewReader(text)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("custode %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (l *Lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.cfg.Custode, append([]string{"--machine", l.machine, "--policy", l.policy}, args...)...)
	cmd.Env = append(os.Environ(), l.HSM.Env()...)
	return cmd
}

// StartDaemon starts `custode serve` and waits until it is healthy.
func (l *Lab) StartDaemon(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.daemon != nil {
		return errors.New("the daemon runs already")
	}
	cmd := l.command(context.WithoutCancel(ctx), "serve")
	cmd.Stderr = l.cfg.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	l.daemon, l.exited = cmd, exited
	deadline := time.After(60 * time.Second)
	for {
		select {
		case err := <-exited:
			l.daemon = nil
			return fmt.Errorf("custode serve ended at start: %w", err)
		case <-deadline:
			return errors.New("custode serve is not healthy after 60 s")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
			if l.healthy(ctx) {
				return nil
			}
		}
	}
}

func (l *Lab) healthy(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.IdP+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// PID returns the daemon's process number, 0 when it does not run.
func (l *Lab) PID() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.daemon == nil {
		return 0
	}
	return l.daemon.Process.Pid
}

// StopDaemon ends the daemon with SIGTERM and returns its exit error.
func (l *Lab) StopDaemon() error { return l.end(syscall.SIGTERM) }

// KillDaemon ends the daemon with SIGKILL, as a power cut would.
func (l *Lab) KillDaemon() { _ = l.end(syscall.SIGKILL) }

func (l *Lab) end(sig syscall.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.daemon == nil {
		return nil
	}
	if err := l.daemon.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	defer func() { l.daemon = nil }()
	select {
	case err := <-l.exited:
		return err
	case <-time.After(30 * time.Second):
		_ = l.daemon.Process.Kill()
		<-l.exited
		return errors.New("the daemon did not end within 30 s of " + sig.String())
	}
}

// Close ends everything and removes the work folder if the lab made it.
func (l *Lab) Close() error {
	err := l.StopDaemon()
	for _, s := range l.servers {
		err = errors.Join(err, s.Close())
	}
	if l.Bank != nil {
		err = errors.Join(err, l.Bank.Close())
	}
	for _, t := range l.TSA {
		err = errors.Join(err, t.Close())
	}
	if l.ownDir {
		err = errors.Join(err, os.RemoveAll(l.Dir))
	}
	return err
}

// Serve serves h on addr ("": a free port on localhost) until Close and
// returns its base URL.
func (l *Lab) serve(addr string, h http.Handler) (string, error) {
	ln, base, err := listen(addr)
	if err != nil {
		return "", err
	}
	l.serveOn(ln, h)
	return base, nil
}

func (l *Lab) serveOn(ln net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	l.servers = append(l.servers, s)
	go func() { _ = s.Serve(ln) }()
}

// listen opens addr and names it "localhost", which browsers treat as secure.
func listen(addr string) (net.Listener, string, error) {
	if addr == "" {
		addr = "localhost:0"
	}
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return ln, "http://localhost:" + port, err
}
