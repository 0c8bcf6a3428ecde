package hsmcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	p11 "github.com/miekg/pkcs11"

	"custode/hsm"
	"custode/hsm/pkcs11"
	"custode/hsm/pkcs11/ceremony"
	"custode/hsm/worker"
	"custode/hsm/worker/judge"
	"custode/internal/config"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/simulators/hsmsim"
)

// This test binary is three programs: the tests; the ceremony, when ceremonyEnv is set (crypto11 and the
// pool cannot share a process); and the worker under test, the real one, when its arguments say so.
const ceremonyEnv = "CUSTODE_TEST_CEREMONY"

const plan = `
ceremony: test-keys
token:
  label: simulator
keys:
  - label: test/sign
    role: sign
    bits: 2048
    certificate: {validity-days: 365, subject: {common-name: Custode prova, organization: Esempio, organization-identifier: VATIT-12345678903, uri: "https://idp.example.it", country: IT, locality: Roma}}
  - {label: test/mac, role: mac, bits: 256}
  - {label: test/wrap, role: wrap, bits: 256}
  - {label: test/seed, role: seed, bits: 256}
`

func label(s string) id.KeyLabel {
	l, err := id.ParseKeyLabel(s)
	if err != nil {
		panic(err)
	}
	return l
}

var (
	signLabel, macLabel, wrapLabel, seedLabel = label("test/sign"), label("test/mac"), label("test/wrap"), label("test/seed")
	badLabel, noLabel                         = label("bad/extractable"), label("no/such/key")
)

// testKeys lets every key be asked for everything, so that it is the token that refuses.
var testKeys = map[id.KeyLabel]worker.Use{}

func init() {
	all := worker.Signs(judge.CMS) | worker.UseMAC | worker.UseWrap | worker.UseSeed | worker.UseBind
	for _, l := range []id.KeyLabel{signLabel, macLabel, wrapLabel, seedLabel, badLabel, noLabel} {
		testKeys[l] = all
	}
}

// host gives the worker a machine file as text in its environment.
type host struct{}

const machineEnv = "CUSTODE_TEST_HSM"

func (host) Files() (*config.Machine, *config.Policy, error) {
	m := &config.Machine{}
	words := strings.Split(os.Getenv(machineEnv), "|")
	m.HSM.URI, m.HSM.Standby.URI = words[0], words[1]
	m.HSM.Sessions, m.HSM.CallLimit, m.HSM.MaxMemoryMiB = 8, time.Second, 1<<20
	if len(words) > 2 {
		m.HSM.MaxUnwraps = 20
	}
	return m, &config.Policy{}, nil
}

func (host) DaemonLog(*config.Machine) *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}
func (host) Ask(string, any) error                 { return nil }
func (host) MachineFile() (*config.Machine, error) { return nil, nil }

func TestMain(m *testing.M) {
	if uri := os.Getenv(ceremonyEnv); uri != "" {
		_, err := ceremony.Run(context.Background(), []byte(plan), uri, os.Getenv(ceremonyEnv+"_DIR"), time.Now)
		if err == nil {
			err = makeBadKey(uri)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if slices.Contains(os.Args, "hsm-worker") {
		var cli struct {
			Machine   string
			Policy    string
			HSMWorker Worker `cmd:"" name:"hsm-worker"`
		}
		k := kong.Parse(&cli, kong.BindTo(host{}, (*Host)(nil)))
		cli.HSMWorker.keys = testKeys
		if err := k.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "custode:", err)
			var own ended
			if errors.As(err, &own) {
				os.Exit(own.status)
			}
			if fault.Is(err, fault.Fatal) { // as cmd/custode's table has it
				os.Exit(78)
			}
			os.Exit(75)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "hsmcmd")
	if err != nil {
		panic(err)
	}
	master.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// makeBadKey makes a mac key that could be extracted.
func makeBadKey(uri string) error {
	loc, err := pkcs11.ParseLocation(uri)
	if err != nil {
		return err
	}
	pin, err := loc.ReadPIN()
	if err != nil {
		return err
	}
	mod := p11.New(loc.Module)
	if err := mod.Initialize(); err != nil {
		return err
	}
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return err
	}
	s, err := mod.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := mod.Login(s, p11.CKU_USER, string(pin)); err != nil {
		return err
	}
	attrs := []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, badLabel.String()), p11.NewAttribute(p11.CKA_ID, make([]byte, hsm.KeyIDLen)),
		p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, pkcs11.AllowedMechanisms(hsm.RoleMAC)), p11.NewAttribute(p11.CKA_VALUE_LEN, 32)}
	for _, r := range hsm.Rules(hsm.RoleMAC) {
		if r.Set {
			attrs = append(attrs, p11.NewAttribute(pkcs11.AttributeType(r.Attribute), r.Want || r.Attribute == hsm.AttrExtractable))
		}
	}
	_, err = mod.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_GENERIC_SECRET_KEY_GEN, nil)}, attrs)
	return err
}

// master is a token with keys, made once and copied for each test.
var master struct {
	dir  string
	once sync.Once
	sim  *hsmsim.Sim
	err  error
}

// newSim returns a copy of the token with the plan's keys; all copies are the same token.
func newSim(t testing.TB) *hsmsim.Sim {
	t.Helper()
	master.once.Do(func() {
		if master.sim, master.err = hsmsim.New(filepath.Join(master.dir, "sim")); master.err != nil {
			return
		}
		exe, err := os.Executable()
		if err != nil {
			master.err = err
			return
		}
		cmd := exec.Command(exe)
		cmd.Env = append(append(os.Environ(), master.sim.Env()...), ceremonyEnv+"="+master.sim.URI(), ceremonyEnv+"_DIR="+master.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			master.err = fmt.Errorf("ceremony: %w: %s", err, out)
		}
	})
	if master.err != nil {
		t.Fatal(master.err)
	}
	s, err := master.sim.Copy(filepath.Join(t.TempDir(), "sim"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bench is a token behind a shim.
type bench struct {
	*hsmsim.Sim
	*hsmsim.Shim
}

func newBench(t testing.TB) bench {
	t.Helper()
	sim := newSim(t)
	shim, err := hsmsim.NewShim(filepath.Join(t.TempDir(), "shim"), sim.Module, "")
	if err != nil {
		t.Fatal(err)
	}
	return bench{sim, shim}
}

// source is the real Source, with these tests' worker.
func source(primary, standby bench, second bool) worker.Source {
	env := map[string]string{machineEnv: primary.URIThrough(primary.Shim.Module) + "|" + standby.uri()}
	b := primary
	if second {
		b = standby
	}
	for _, e := range b.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return &supervised{env: env, standby: second, cfg: Config{MachineFile: "m", PolicyFile: "p", Stderr: testLog}}
}

func (b bench) uri() string {
	if b.Sim == nil {
		return ""
	}
	return b.URIThrough(b.Shim.Module)
}

// testLog keeps what the workers say, for failures and for the search for PINs.
var testLog = &journal{}

type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// open opens a Client on the token and, unless nil, its standby.
func open(t testing.TB, primary bench, standby *bench) *worker.Client {
	t.Helper()
	var none bench
	cfg := worker.Config{FailBack: time.Second, Log: slog.New(slog.NewTextHandler(testLog, nil))}
	if standby != nil {
		none = *standby
		cfg.Standby = source(primary, none, true)
	}
	cfg.Primary = source(primary, none, false)
	return openConfig(t, cfg)
}

func openSource(t testing.TB, s worker.Source) *worker.Client {
	t.Helper()
	return openConfig(t, worker.Config{Primary: s})
}

func openConfig(t testing.TB, cfg worker.Config) *worker.Client {
	t.Helper()
	c, err := worker.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s", err, testLog)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Logf("the workers' log:\n%s", testLog)
		}
	})
	return c
}
