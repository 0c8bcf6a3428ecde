package lab

import (
	"fmt"
	"path/filepath"
	"strings"

	"custode/simulators/hsmsim"
)

func (l *Lab) startShims() (err error) {
	if l.cfg.Shim {
		if l.Shim, err = hsmsim.NewShim(filepath.Join(l.Dir, "shim"), l.HSM.Module, ""); err != nil {
			return err
		}
	}
	if l.cfg.Standby {
		l.Second, err = hsmsim.NewShim(filepath.Join(l.Dir, "shim-2"), l.HSM.Module, "")
	}
	return err
}

// copyToken makes the standby: keys of a ceremony cannot be made twice.
func (l *Lab) copyToken() (err error) {
	if l.cfg.Standby {
		l.Standby, err = l.HSM.Copy(l.standbyDir())
	}
	return err
}

func (l *Lab) standbyDir() string { return filepath.Join(l.Dir, "token-2") }

// hsmLines is the machine file's section hsm, without its first line.
func (l *Lab) hsmLines() string {
	uri := l.HSM.URI()
	if l.Shim != nil {
		uri = l.HSM.URIThrough(l.Shim.Module)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  uri: %q\n", uri)
	for _, k := range sorted(l.cfg.HSM) {
		fmt.Fprintf(&b, "  %s: %s\n", k, l.cfg.HSM[k])
	}
	if l.cfg.Standby {
		second := *l.HSM // where the copy will be
		second.PINFile = filepath.Join(l.standbyDir(), "pin")
		fmt.Fprintf(&b, "  standby:\n    uri: %q\n    environment: {SOFTHSM2_CONF: %q}\n", second.URIThrough(l.Second.Module), filepath.Join(l.standbyDir(), "softhsm2.conf"))
	}
	return b.String()
}
