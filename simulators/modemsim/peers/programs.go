package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"custode/simulators/modemsim"
)

// group puts a child at the head of a process group: smsd forks one process a
// modem.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// end asks the child's group to stop, and insists after three seconds.
func end(cmd *exec.Cmd, done <-chan struct{}) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(3 * time.Second):
	}
	// Whoever of the group is left; the leader's number cannot have been given to
	// a stranger while a member lives, and an empty group is an error we ignore.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// output sends what a child says to a file beside its configuration.
func output(cmd *exec.Cmd, dir string) error {
	f, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = f, f
	return nil
}

// put lets a file appear complete in a spool.
func put(spool, name, text string) error {
	tmp := filepath.Join(filepath.Dir(spool), "tmp-"+name)
	if err := os.WriteFile(tmp, []byte(text), 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(spool, name))
}

func folders(dir string, names ...string) error {
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(dir, n), 0o777); err != nil {
			return err
		}
	}
	return nil
}

// gammuSMSD is gammu-smsd with its file backend, one process per modem.
type gammuSMSD struct{}

func (gammuSMSD) installed() error { return missing("gammu-smsd", "gammu-smsd") }

func (gammuSMSD) configure(dir string, bank *modemsim.Bank, tuned bool) (cmds []*exec.Cmd, err error) {
	for i := range bank.Modems() {
		home := filepath.Join(dir, fmt.Sprint("gammu", i))
		if err := folders(home, "in", "out", "sent", "error"); err != nil {
			return nil, err
		}
		var conf strings.Builder
		fmt.Fprintf(&conf, "[gammu]\ndevice = %s\nconnection = at115200\nsynchronizetime = no\n", bank.Device(i))
		fmt.Fprintf(&conf, "[smsd]\nservice = files\nlogfile = %s/log\ndebuglevel = 0\n", home)
		fmt.Fprintf(&conf, "inboxpath = %[1]s/in/\noutboxpath = %[1]s/out/\nsentsmspath = %[1]s/sent/\nerrorsmspath = %[1]s/error/\n", home)
		if tuned {
			conf.WriteString("commtimeout = 1\nloopsleep = 1\nchecksecurity = 0\nchecksignal = 0\ncheckbattery = 0\nchecknetwork = 0\nstatusfrequency = 0\nresetfrequency = 0\nreceivefrequency = 60\n")
		}
		rc := filepath.Join(home, "rc")
		if err := os.WriteFile(rc, []byte(conf.String()), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.Command("gammu-smsd", "-c", rc, "-p", filepath.Join(home, "pid"))
		if err := output(cmd, home); err != nil {
			return nil, err
		}
		cmds = append(cmds, cmd)
	}
	return cmds, nil
}

func (gammuSMSD) drop(dir string, k, modem int, to, text string) error {
	home := filepath.Join(dir, fmt.Sprint("gammu", modem))
	name := fmt.Sprintf("OUTC20260101_000000_%05d_%s_sms0.txt", k, to)
	return put(filepath.Join(home, "out"), name, text)
}

// smstools is smsd of smstools3: one daemon for all modems.
type smstools struct{}

func (smstools) installed() error {
	if _, err := os.Stat(smsdPath); err != nil {
		return fmt.Errorf("peers: %s is missing: install the Debian package smstools (make deps)", smsdPath)
	}
	return nil
}

const smsdPath = "/usr/sbin/smsd"

func (smstools) configure(dir string, bank *modemsim.Bank, tuned bool) ([]*exec.Cmd, error) {
	home := filepath.Join(dir, "smstools")
	if err := folders(home, "outgoing", "checked", "failed", "incoming", "sent"); err != nil {
		return nil, err
	}
	var names []string
	for i := range bank.Modems() {
		names = append(names, fmt.Sprint("M", i))
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "devices = %s\nlogfile = %s/log\nloglevel = 4\n", strings.Join(names, ","), home)
	for _, d := range []string{"outgoing", "checked", "failed", "incoming", "sent"} {
		fmt.Fprintf(&conf, "%[1]s = %[2]s/%[1]s\n", d, home)
	}
	fmt.Fprintf(&conf, "infofile = %[1]s/running\npidfile = %[1]s/pid\n", home)
	if tuned {
		conf.WriteString("delaytime = 1\ndelaytime_mainprocess = 1\ntrust_outgoing = yes\n")
	}
	for i, n := range names {
		fmt.Fprintf(&conf, "[%s]\ndevice = %s\nincoming = no\npin = ignore\nbaudrate = 115200\nrtscts = no\n", n, bank.Device(i))
	}
	rc := filepath.Join(home, "rc")
	if err := os.WriteFile(rc, []byte(conf.String()), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(smsdPath, "-t", "-c", rc)
	return []*exec.Cmd{cmd}, output(cmd, home)
}

func (smstools) drop(dir string, k, _ int, to, text string) error {
	return put(filepath.Join(dir, "smstools", "outgoing"), fmt.Sprintf("m%05d", k), fmt.Sprintf("To: %s\n\n%s", strings.TrimPrefix(to, "+"), text))
}
