package forget

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func TestMain(m *testing.M) {
	if os.Getenv("CUSTODE_FORGET_TEST_CHILD") == "" {
		os.Exit(m.Run())
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
