package forget

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	switch os.Getenv("CUSTODE_FORGET_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "closed":
		if err := NoDumps(); err != nil {
			panic(err)
		}
		fallthrough
	case "open":
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
			panic(err)
		}
		fmt.Println(limit.Cur, limit.Max)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	if os.Getenv("CUSTODE_FORGET_TEST_CHILD") != "without" {
		if err := Demand(); err != nil {
			panic(err)
		}
	}
	if len(os.Args) != 3 || os.Args[2] != "b c" {
		panic("other arguments")
	}
	if left := remains(); left != "" {
		os.Stdout.WriteString("remains " + left)
	}
	os.Stdout.WriteString(os.Getenv(variable))
}

// remains frees small and large objects and reports which of them can still be read.
func remains() (left string) {
	const word = "Quarantottini"
	var pool sync.Pool
	where := map[string]uintptr{}
	func() {
		small, large, pooled := []byte(strings.Repeat(word, 1)), []byte(strings.Repeat(word, 10000)), []byte(strings.Repeat(word, 3))
		pool.Put(&pooled)
		for name, b := range map[string][]byte{"small": small, "large": large, "pooled": pooled} {
			where[name] = uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		}
		runtime.KeepAlive(&small)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	turns := 0
	if err := Run(ctx, time.Millisecond, func() {
		if turns++; turns == 3 {
			cancel()
		}
	}); err != nil {
		panic(err)
	}
	mem, err := os.Open("/proc/self/mem") // reading freed memory by a pointer is what the race detector is there for
	if err != nil {
		panic(err)
	}
	defer mem.Close()
	for name, at := range where {
		var b [len(word)]byte
		if _, err := mem.ReadAt(b[:], int64(at)); err == nil && string(b[:]) == word {
			left += name + " "
		}
	}
	runtime.KeepAlive(&pool)
	return left
}

// TestDemand: the program starts anew with the settings, the rest of the environment and its arguments, once; and then
// what was freed cannot be read. Without them it can: else the test shows nothing.
func TestDemand(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for have, want := range map[string]string{"": "clobberfree=1,asyncpreemptoff=1", "madvdontneed=1,clobberfree=0": "madvdontneed=1,clobberfree=1,asyncpreemptoff=1"} {
		cmd := exec.CommandContext(t.Context(), exe, "a", "b c")
		cmd.Env = append(os.Environ(), "CUSTODE_FORGET_TEST_CHILD=1", variable+"="+have)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%q: %q, %v; want %q", have, out, err, want)
		}
	}
	cmd := exec.CommandContext(t.Context(), exe, "a", "b c")
	cmd.Env = append(os.Environ(), "CUSTODE_FORGET_TEST_CHILD=without", variable+"=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "remains") {
		t.Errorf("without the settings: %q, %v", out, err)
	}
}

func TestSettings(t *testing.T) {
	for have, missing := range map[string]bool{"": true, "clobberfree=1": true, "clobberfree=1,asyncpreemptoff=1": false, "x=2,clobberfree=1,asyncpreemptoff=1": false,
		"clobberfree=1,asyncpreemptoff=0": true, "asyncpreemptoff=1,clobberfree=1,clobberfree=0": true} {
		want, got := settings(have)
		if again, more := settings(want); got != missing || more || again != want {
			t.Errorf("%q: %q, %v; again %q, %v", have, want, got, again, more)
		}
	}
}

// TestNoDumps: no core, and no reading by the same user; without NoDumps that user reads.
func TestNoDumps(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "child")
	if err := os.Chmod(filepath.Dir(filepath.Dir(exe)), 0o755); err != nil { // nobody must reach it, too
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for how, readable := range map[string]bool{"open": true, "closed": false} {
		cmd := asNobody(exec.CommandContext(t.Context(), exe))
		cmd.Env = append(os.Environ(), "CUSTODE_FORGET_TEST_CHILD="+how)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !readable && line != "0 0\n" {
			t.Errorf("%s: core limits %q, %v", how, line, err)
		}
		reader := asNobody(exec.CommandContext(t.Context(), "cat", fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid)))
		if text, err := reader.CombinedOutput(); (err == nil) != readable {
			t.Errorf("%s: read by the same user: %v, %d octets", how, err, len(text))
		}
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// asNobody has the command run without the rights of root, which may read everything.
func asNobody(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
	}
	return cmd
}
