package worker

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"
)

// Report is what a worker says of itself.
type Report struct {
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Token     map[string]string `json:"token"`
	Sessions  int               `json:"sessions"` // operations in the module now
	Limit     int               `json:"limit"`    // and at most
	Calls     uint64            `json:"calls"`
	Denied    uint64            `json:"denied"`
	Unwraps   uint64            `json:"unwraps"`
	Resident  uint64            `json:"resident"` // octets
	Goroutine int               `json:"goroutines"`
}

func (s *Server) report() Report {
	r := Report{PID: os.Getpid(), Started: s.started, Token: s.cfg.About, Calls: s.calls.Load(), Denied: s.denied.Load(), Unwraps: s.unwraps.Load(),
		Resident: resident(), Goroutine: runtime.NumGoroutine()}
	if s.cfg.Load != nil {
		r.Sessions, r.Limit = s.cfg.Load()
	}
	return r
}

// resident is the process's resident memory in octets, 0 when the kernel does not say.
func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	words := bytes.Fields(text)
	if len(words) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(words[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
