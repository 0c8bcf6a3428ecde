// Package hsmcmd is the token in the appliance: `custode hsm-worker`, which alone loads the
// module and holds the PIN; the Client that `custode serve` uses in its place, with the workers
// it runs; what the administration socket answers about tokens, and the subcommands of
// `custode hsm`. Wiring only, like cmd/custode, which imports it.
package hsmcmd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/user"
	"strconv"
	"sync"
	"time"

	"custode/hsm/worker"
	"custode/hsm/worker/socket"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/process"
)

// Config is what Open needs.
type Config struct {
	Machine     *config.Machine
	MachineFile string // given to the workers
	PolicyFile  string
	Stderr      io.Writer // of workers that are run
	Log         *slog.Logger
}

// Open brings up the workers, or reaches those that somebody else runs.
func Open(ctx context.Context, c Config) (*worker.Client, error) {
	h := &c.Machine.HSM
	cfg := worker.Config{Log: c.Log, FailBack: h.FailBack}
	if h.WorkerSocket == "" {
		cfg.Primary = &supervised{cfg: c, env: h.Environment}
		if h.Standby.URI != "" {
			cfg.Standby = &supervised{cfg: c, env: h.Standby.Environment, standby: true}
		}
		return worker.Open(ctx, cfg)
	}
	peer, err := userPeer(h.WorkerUser)
	if err != nil {
		return nil, err
	}
	cfg.Primary = socket.Dialer{Path: h.WorkerSocket, Peer: peer}
	if h.Standby.URI != "" {
		cfg.Standby = socket.Dialer{Path: h.Standby.WorkerSocket, Peer: peer}
	}
	return worker.Open(ctx, cfg)
}

// userPeer is any process of the user called name, of this process's for "".
func userPeer(name string) (socket.Peer, error) {
	if name == "" {
		return socket.Self(), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return socket.Peer{}, fault.New(fault.Fatal, "look up user "+name, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return socket.Peer{}, fault.New(fault.Fatal, "look up user "+name, err)
	}
	return socket.Peer{UID: uid}, nil
}

// Exit statuses of a worker beside those of all commands.
const (
	statusPIN   = 79 // the token refused the PIN: never start it again by itself
	statusHung  = 81 // a call inside the module does not return
	statusGrown = 82 // the module leaked as much as is allowed; nothing is wrong
)

// supervised is the Source of a worker that this process runs.
type supervised struct {
	cfg     Config
	env     map[string]string
	standby bool

	mu    sync.Mutex
	child *process.Child
}

// endLimit is for a worker to end by itself when its connection is gone: it drains and finalises the module.
const endLimit = 5 * time.Second

// Open implements worker.Source.
func (s *supervised) Open(context.Context) (net.Conn, error) {
	args := []string{"--machine", s.cfg.MachineFile, "--policy", s.cfg.PolicyFile, "hsm-worker", "--inherited"}
	if s.standby {
		args = append(args, "--standby")
	}
	var env []string
	for name, value := range s.env {
		env = append(env, name+"="+value)
	}
	child, err := process.Start(process.Config{Args: args, Env: env, Stderr: s.cfg.Stderr})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = child
	return child.Conn, nil
}

// Ended implements worker.Source.
func (s *supervised) Ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return nil
	}
	status, said := s.child.End(endLimit)
	s.child = nil
	const op = "run the worker of the token"
	switch status {
	case 0, statusGrown:
		return nil
	case statusPIN:
		return fault.Newf(fault.Fatal, op, "%w: %s", worker.ErrForGood, said)
	case statusHung:
		return fault.Newf(fault.Unavailable, op, "%w: %s", worker.ErrHung, said)
	case 65, 67, 73, 77, 78, 80: // EX_DATAERR, EX_NOUSER, EX_CANTCREAT, EX_NOPERM, EX_CONFIG; the command line is wrong
		return fault.New(fault.Fatal, op, errors.New(said))
	case 75: // EX_TEMPFAIL
		return fault.New(fault.Unavailable, op, errors.New(said))
	}
	return fault.Newf(fault.Unavailable, op, "%w: status %d: %s", worker.ErrUnclear, status, said)
}
