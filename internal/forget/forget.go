// Package forget takes what the process has used out of its memory, so that a dump of an idle process tells nothing
// about who logged in.
//
// Go wipes no memory that it frees: a name stays where it was until something else is written there. [Demand]
// starts the program anew with two settings of Go's runtime that nothing but the environment can set:
// clobberfree overwrites what the collector frees; asyncpreemptoff keeps the
// registers of an interrupted copy from being saved where nothing clears them. [Run] collects every so often, even when nothing asks
// for memory: three times, since what lies in a pool (sync.Pool) outlives two collections, and then gives
// free pages, old stacks among them, back to the kernel.
//
// What is still referred to stays: a login in progress, an idle connection's buffers, a message until its
// report came. docs/design/internal-forget.md says how long each is kept.
//
// It knows nothing of what it forgets. Only cmd may import it.
package forget

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"custode/internal/fault"
)

// demanded are the settings; see the package comment.
var demanded = []string{"clobberfree=1", "asyncpreemptoff=1"}

const variable = "GODEBUG"

// Demand returns nil when the runtime has the settings. Otherwise it does not return: this process runs the
// same program with the same arguments from its start, with them. fault.Fatal when it cannot.
func Demand() error {
	const op = "start with a memory that is wiped"
	value, missing := settings(os.Getenv(variable))
	if !missing {
		return nil
	}
	if err := os.Setenv(variable, value); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	return fault.New(fault.Fatal, op, unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// settings adds what is demanded to a value of GODEBUG, and reports whether anything was missing.
func settings(have string) (want string, missing bool) {
	var kept []string
	for s := range strings.SplitSeq(have, ",") {
		name, _, _ := strings.Cut(s, "=")
		if s != "" && !slices.ContainsFunc(demanded, func(d string) bool { return strings.HasPrefix(d, name+"=") }) {
			kept = append(kept, s)
		}
	}
	want = strings.Join(append(kept, demanded...), ",")
	return want, want != have
}

// NoDumps keeps passwords, PINs, codes and names in memory out of files and
// of other processes' reach (no ptrace by the same user). A crash in the HSM's
// C library would dump core whatever Go does.
func NoDumps() error {
	const op = "forbid core dumps"
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fault.New(fault.Fatal, op, err)
	}
	return nil
}

// Every is how often the daemon calls Run's work.
const Every = 20 * time.Second

// Run calls each of drop and collects, every so often, until ctx is cancelled.
func Run(ctx context.Context, every time.Duration, drop ...func()) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, f := range drop {
				f()
			}
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory() // collects too
		}
	}
}
