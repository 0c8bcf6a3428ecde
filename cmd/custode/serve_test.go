package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestHealthIsCheap: a flood of /health must not be a flood of write locks.
func TestHealthIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, ill := 0, errors.New("ill")
		health := lately(func() error { asked++; return ill }, time.Second)
		for range 1000 {
			if err := health(); err != ill {
				t.Fatal(err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times within a second", asked)
		}
		ill = nil
		time.Sleep(time.Second)
		if err := health(); err != nil || asked != 2 {
			t.Errorf("%v after %d", err, asked)
		}
	})
}

func TestWithoutCoreDumps(t *testing.T) {
	if err := withoutCoreDumps(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("%+v, %v", limit, err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable %d, %v", dumpable, err)
	}
}
