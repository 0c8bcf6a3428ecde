package config

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Worker sets the process that holds the token's module and PIN.
type Worker struct {
	WorkerSocket string `yaml:"worker_socket"` // absolute; where a worker listens that somebody else runs; empty: serve runs it
	WorkerUser   string `yaml:"worker_user"`   // user that such a worker runs as; empty: the daemon's
	DaemonUser   string `yaml:"daemon_user"`   // user that such a worker answers; empty: its own
	// Environment is added to a worker's that serve runs: where vendors' modules look for their files. Never a secret.
	Environment  map[string]string `yaml:"environment"`
	CallLimit    time.Duration     `yaml:"call_limit"`     // for one call inside the module, 1s to 60s; 0: 5s
	MaxUnwraps   uint64            `yaml:"max_unwraps"`    // in the life of a worker; 0: 1 000 000
	MaxMemoryMiB uint64            `yaml:"max_memory_mib"` // resident, of a worker, 64 or more; 0: 512
	FailBack     time.Duration     `yaml:"fail_back"`      // the primary is used again when it was well for so long, 1s to 1h; 0: 30s
}

// Standby is a second token that holds the same keys.
type Standby struct {
	URI          string            `yaml:"uri"`
	InitArgs     string            `yaml:"init_args"`
	Tolerate     []string          `yaml:"tolerate"`
	WorkerSocket string            `yaml:"worker_socket"`
	Environment  map[string]string `yaml:"environment"`
}

var environmentName = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

func (h *HSM) validateWorkers(p *problems) {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&h.CallLimit, 5*time.Second)
	def(&h.FailBack, 30*time.Second)
	if h.MaxUnwraps == 0 {
		h.MaxUnwraps = 1_000_000
	}
	if h.MaxMemoryMiB == 0 {
		h.MaxMemoryMiB = 512
	}
	p.check(h.CallLimit >= time.Second && h.CallLimit <= time.Minute, "hsm.call_limit: 1s to 60s")
	p.check(h.FailBack >= time.Second && h.FailBack <= time.Hour, "hsm.fail_back: 1s to 1h")
	p.check(h.MaxMemoryMiB >= 64, "hsm.max_memory_mib: 64 or more")
	p.check(h.WorkerSocket != "" || h.WorkerUser == "" && h.DaemonUser == "", "hsm.worker_user and daemon_user: only with worker_socket")
	for key, path := range map[string]string{"hsm.worker_socket": h.WorkerSocket, "hsm.standby.worker_socket": h.Standby.WorkerSocket} {
		p.check(path == "" || filepath.IsAbs(path) && len(path) < 108, key+": must be an absolute path of up to 107 octets")
	}
	for key, env := range map[string]map[string]string{"hsm.environment": h.Environment, "hsm.standby.environment": h.Standby.Environment} {
		p.check(len(env) <= 32, key+": at most 32")
		for name, value := range env {
			// The loader's variables would let another library into the process that knows the PIN.
			p.check(environmentName.MatchString(name) && !strings.HasPrefix(name, "LD_"), key+": a name is refused")
			p.check(len(value) <= 1024 && !strings.ContainsAny(value, "\x00\n"), key+": a value is refused")
		}
	}
	s := &h.Standby
	if s.URI == "" {
		p.check(s.InitArgs == "" && len(s.Tolerate) == 0 && s.WorkerSocket == "" && len(s.Environment) == 0, "hsm.standby.uri: required with the others")
		return
	}
	p.check(strings.HasPrefix(s.URI, "pkcs11:") && !strings.Contains(s.URI, "pin-value"), "hsm.standby.uri: must be a PKCS#11 URI without pin-value")
	p.check(len(s.InitArgs) <= 2000 && !strings.Contains(s.InitArgs, "\x00"), "hsm.standby.init_args: up to 2000 octets, without NUL")
	p.check((h.WorkerSocket == "") == (s.WorkerSocket == ""), "hsm.standby.worker_socket: both workers are run by the same")
	p.check(h.WorkerSocket == "" || h.WorkerSocket != s.WorkerSocket, "hsm.standby.worker_socket: one socket for each")
}
