// Package hsmsim makes throw-away PKCS #11 tokens for tests and for the
// laboratory, with SoftHSM (Debian package softhsm2). It speaks to the product
// only through the PKCS #11 module: what it gives is a URI, a PIN file and one
// environment variable. It imports no product package, and no daemon imports it.
//
// SoftHSM finds its tokens through the file named by SOFTHSM2_CONF, which it
// reads in C_Initialize. So the process that loads the module must have Env in
// its environment before that call:
//
//	a child process    cmd.Env = append(os.Environ(), sim.Env()...)
//	a test             t.Setenv("SOFTHSM2_CONF", sim.Conf) before the token is opened
//
// One process can follow one SOFTHSM2_CONF at a time; after C_Finalize the next
// C_Initialize reads it again.
//
// The PINs are random. softhsm2-util takes a PIN from its arguments, where every
// user of the machine can read it, or from a terminal: it gets a
// pseudo-terminal here.
//
// A token can be taken away and brought back (Remove, Restore), or wiped so that
// another one comes back under its name (Wipe).
package hsmsim

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/creack/pty"
)

// Label is the label of a token of this package, unless NewLabelled gave it
// another: it announces itself.
const Label = "simulator"

// Sim is one throw-away token. The paths are absolute.
type Sim struct {
	Dir     string // everything below belongs to the simulator
	Module  string // the PKCS #11 module
	Conf    string // value for SOFTHSM2_CONF
	PINFile string // user PIN, mode 0400
	SOFile  string // security officer's PIN, mode 0400
	Serial  string // of the token as it is now
	Name    string // the token's label
}

// New makes dir, if need be, and an initialised token without keys in it. An
// error names the Debian package when SoftHSM is missing.
func New(dir string) (*Sim, error) { return NewLabelled(dir, Label) }

// NewLabelled is New for a token with a label of letters, digits and hyphens.
func NewLabelled(dir, label string) (*Sim, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Sim{
		Dir: dir, Name: label, Conf: filepath.Join(dir, "softhsm2.conf"),
		PINFile: filepath.Join(dir, "pin"), SOFile: filepath.Join(dir, "so-pin"),
	}
	if s.Module, err = findModule(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.tokens(), 0o700); err != nil {
		return nil, err
	}
	conf := "directories.tokendir = " + s.tokens() + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := os.WriteFile(s.Conf, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	for _, file := range []string{s.PINFile, s.SOFile} {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
		if err != nil {
			return nil, fmt.Errorf("hsmsim: %s holds a simulator already: %w", dir, err)
		}
		_, err = f.WriteString(rand.Text()[:16] + "\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return s, s.initialise()
}

func findModule() (string, error) {
	found, err := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	if err != nil {
		return "", err
	}
	for _, m := range append([]string{"/usr/lib/softhsm/libsofthsm2.so"}, found...) {
		if info, err := os.Stat(m); err == nil && info.Mode().IsRegular() {
			return m, nil
		}
	}
	return "", errors.New("hsmsim: libsofthsm2.so is not installed (Debian package softhsm2)")
}

func (s *Sim) tokens() string { return filepath.Join(s.Dir, "tokens") }
func (s *Sim) away() string   { return filepath.Join(s.Dir, "away") }

// Env is what the process that loads the module needs in its environment.
func (s *Sim) Env() []string { return []string{"SOFTHSM2_CONF=" + s.Conf} }

// URI is the RFC 7512 URI of the token: label, serial, module and PIN file.
func (s *Sim) URI() string { return s.URIThrough(s.Module) }

// URIThrough is URI with another module in the way, such as a Shim's.
func (s *Sim) URIThrough(module string) string {
	return "pkcs11:token=" + s.Name + ";serial=" + s.Serial +
		"?module-path=" + url.PathEscape(module) + "&pin-source=" + url.PathEscape("file:"+s.PINFile)
}

// Remove takes the token away, as if its cable were pulled. Keys survive.
func (s *Sim) Remove() error {
	if err := os.Rename(s.tokens(), s.away()); err != nil {
		return err
	}
	return os.Mkdir(s.tokens(), 0o700)
}

// Restore undoes Remove.
func (s *Sim) Restore() error {
	if err := os.RemoveAll(s.tokens()); err != nil {
		return err
	}
	return os.Rename(s.away(), s.tokens())
}

// Wipe destroys the token with its keys and makes another with the same label
// and PIN. Serial, and so URI, change.
func (s *Sim) Wipe() error {
	// At one stroke: a process that uses the token still writes files there.
	gone := s.tokens() + ".wiped"
	if err := errors.Join(os.Rename(s.tokens(), gone), os.RemoveAll(gone)); err != nil {
		return err
	}
	if err := os.Mkdir(s.tokens(), 0o700); err != nil {
		return err
	}
	return s.initialise()
}

// Copy makes a second token in dir with the same keys, label, serial number and PIN, as a device's own
// cloning would.
func (s *Sim) Copy(dir string) (*Sim, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := *s
	c.Dir, c.Conf, c.PINFile, c.SOFile = dir, filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin"), filepath.Join(dir, "so-pin")
	if err := os.CopyFS(dir, os.DirFS(s.Dir)); err != nil {
		return nil, err
	}
	conf, err := os.ReadFile(s.Conf)
	if err != nil {
		return nil, err
	}
	// The copy was made by the umask.
	return &c, errors.Join(os.WriteFile(c.Conf, bytes.ReplaceAll(conf, []byte(s.Dir), []byte(dir)), 0o600),
		os.Chmod(c.PINFile, 0o400), os.Chmod(c.SOFile, 0o400))
}

func (s *Sim) initialise() error {
	so, err := os.ReadFile(s.SOFile)
	if err != nil {
		return err
	}
	user, err := os.ReadFile(s.PINFile)
	if err != nil {
		return err
	}
	// Each PIN is asked for twice.
	if err := s.dialogue([][]byte{so, so, user, user}, "--init-token", "--free", "--label", s.Name); err != nil {
		return err
	}
	cmd := exec.Command("softhsm2-util", "--show-slots")
	cmd.Env = append(os.Environ(), s.Env()...)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("hsmsim: list slots: %w", err)
	}
	if s.Serial = serialOf(string(out), s.Name); s.Serial == "" {
		return errors.New("hsmsim: the new token is not listed")
	}
	return nil
}

var serialLine = regexp.MustCompile(`(?m)^\s*Serial number:\s*(\S+)\s*$`)

func serialOf(slots, label string) string {
	labelLine := regexp.MustCompile(`(?m)^\s*Label:\s*` + label + `\s*$`)
	for _, slot := range strings.Split(slots, "\nSlot ") {
		if m := serialLine.FindStringSubmatch(slot); m != nil && labelLine.MatchString(slot) {
			return m[1]
		}
	}
	return ""
}

// dialogue runs softhsm2-util on a pseudo-terminal and answers its prompts.
func (s *Sim) dialogue(answers [][]byte, args ...string) error {
	cmd := exec.Command("softhsm2-util", args...)
	cmd.Env = append(os.Environ(), s.Env()...)
	tty, err := pty.Start(cmd)
	if err != nil {
		return fmt.Errorf("hsmsim: start softhsm2-util (Debian package softhsm2): %w", err)
	}
	defer tty.Close()
	watchdog := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	var said bytes.Buffer
	buf := make([]byte, 512)
	for {
		n, err := tty.Read(buf)
		said.Write(buf[:n])
		// Only after the prompt: what is typed before it is flushed away.
		if len(answers) > 0 && bytes.HasSuffix(said.Bytes(), []byte("PIN: ")) {
			if _, err := tty.Write(answers[0]); err != nil {
				return err
			}
			answers = answers[1:]
			said.WriteByte('\n')
		}
		if err != nil { // EIO when the other side has ended
			break
		}
		if said.Len() > 64<<10 {
			return errors.Join(io.ErrShortBuffer, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("hsmsim: softhsm2-util %s: %w: %s", args[0], err, said.String())
	}
	if len(answers) > 0 {
		return fmt.Errorf("hsmsim: softhsm2-util %s did not ask for %d PINs: %s", args[0], len(answers), said.String())
	}
	return nil
}
