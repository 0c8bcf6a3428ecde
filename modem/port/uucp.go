package port

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// lockDir is where programs older than flock look (FHS 3.0 section 5.9): smstools,
// gnokii, minicom, pppd.
const lockDir = "/var/lock"

// uucpLock makes "LCK..ttyUSB2" in dir, holding our process number in ten columns,
// and returns its path. The lock of a process that is gone is removed. A folder that
// we may not write to, or that is not there, is no obstacle: flock is what counts
// among programs of this century. So is a pseudo-terminal, which has no such name.
func uucpLock(dir, device string) (string, error) {
	real, err := filepath.EvalSymlinks(device)
	if err != nil || filepath.Dir(real) != "/dev" {
		return "", nil
	}
	path := filepath.Join(dir, "LCK.."+filepath.Base(real))
	for range 2 {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		switch {
		case err == nil:
			_, err := fmt.Fprintf(f, "%10d\n", os.Getpid())
			if err = errors.Join(err, f.Close()); err != nil {
				_ = os.Remove(path)
				return "", nil
			}
			return path, nil
		case !errors.Is(err, os.ErrExist):
			return "", nil
		}
		if holder := uucpHolder(path); holder != "" {
			return "", fault.Newf(fault.Unavailable, "open modem port "+device, "held by %s (%s)", holder, path)
		}
		if os.Remove(path) != nil {
			return "", nil
		}
	}
	return "", nil
}

// uucpHolder names the living process that a lock file speaks of, "" when it is gone
// or the file is not of that form.
func uucpHolder(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return "" // ours: flock has told that no other port of this process has it
	}
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		return ""
	}
	return processName(strconv.Itoa(pid))
}

// processName is "process 812 (gammu-smsd)".
func processName(pid string) string {
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "process " + pid
	}
	return "process " + pid + " (" + strings.TrimSpace(string(name)) + ")"
}
