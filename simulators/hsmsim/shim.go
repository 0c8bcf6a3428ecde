package hsmsim

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed shim/shim.c
var shimSource []byte

// Shim is a PKCS #11 module that stands before another one: it forwards all 68
// functions of v2.40 and misbehaves to order. It takes orders over a Unix socket,
// from when it is loaded on, in whichever process that is; so they must be given
// after a token was opened through Module. Each order is in force when its method
// returns.
type Shim struct {
	Module string // absolute; for a module-path
	socket string
	logins string
}

// NewShim makes a shim before module in the directory dir, with gcc (Debian
// package gcc). reserved, unless empty, is what the module is given as pReserved
// in C_Initialize: NSS wants its parameters there. Each shim is a library of its
// own to the loader.
func NewShim(dir, module, reserved string) (*Shim, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Shim{Module: filepath.Join(dir, "shim.so"), socket: filepath.Join(dir, "orders"), logins: filepath.Join(dir, "logins")}
	if len(s.socket) > 107 {
		return nil, fmt.Errorf("hsmsim: %s is too long a path for a Unix socket", s.socket)
	}
	if strings.ContainsAny(module+reserved+s.socket, "\n") || len(reserved) > 2000 {
		return nil, errors.New("hsmsim: a path or a parameter cannot be written into the shim's file")
	}
	conf := "module=" + module + "\nsocket=" + s.socket + "\nlogins=" + s.logins + "\n"
	if reserved != "" {
		conf += "reserved=" + reserved + "\n"
	}
	if err := os.WriteFile(s.Module+".conf", []byte(conf), 0o600); err != nil {
		return nil, err
	}
	source := filepath.Join(dir, "shim.c")
	if err := os.WriteFile(source, shimSource, 0o600); err != nil {
		return nil, err
	}
	out, err := exec.Command("gcc", "-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread",
		"-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-Wno-unused-function", "-o", s.Module, source, "-ldl").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("hsmsim: compile the shim (Debian package gcc): %w: %s", err, out)
	}
	return s, os.Chmod(s.Module, 0o755)
}

// Action is what happens in the module before a call goes on.
type Action int

// The actions.
const (
	Nothing       Action = iota
	CloseSession         // the call's own session is closed underneath it
	CloseSessions        // every session is
	Logout               // the login ends
	Crash                // the process that loaded the shim dies of a segmentation fault
)

// Output is what becomes of the octets a successful call returns.
type Output int

// The outputs. Flip and Zero leave the length, Cut takes one octet away, and
// each of them makes C_FindObjects find nothing.
const (
	Keep Output = iota
	Flip        // one bit in the middle
	Cut
	Zero
)

// Fault is one rule of misbehaviour. Of several that fit a call, the one added
// first and still in force has it.
type Fault struct {
	Call   string // a function such as "C_Sign", or a beginning and "*"
	RV     uint   // CKR code returned without the call being made; 0: the call is made
	Lost   bool   // the call is made, and its answer replaced by RV
	Action Action
	Output Output
	Delay  time.Duration // before anything else, in microseconds' precision
	Hang   bool          // until Clear

	// Filled passes over the calls that only ask how long the answer would be.
	// The usual bindings ask so before each real call.
	Filled bool
	After  int     // that many calls that fit are passed over
	Rate   float64 // of the others, at random by Seed; 0: all
	Seed   uint64
	Count  int // it fires at most so often; 0: until Clear
}

// Add puts faults into force.
func (s *Shim) Add(faults ...Fault) error {
	for _, f := range faults {
		if strings.ContainsAny(f.Call, " \n") || f.Delay < 0 || f.After < 0 || f.Count < 0 || f.Rate < 0 || f.Rate > 1 {
			return fmt.Errorf("hsmsim: %+v is no fault", f)
		}
		flag := map[bool]int{true: 1}
		if _, err := s.order(fmt.Sprintf("rule %s rv=%#x lost=%d after=%d count=%d rate=%g seed=%d delay=%d hang=%d filled=%d act=%d output=%d",
			f.Call, f.RV, flag[f.Lost], f.After, f.Count, f.Rate, f.Seed, f.Delay.Microseconds(), flag[f.Hang], flag[f.Filled], f.Action, f.Output)); err != nil {
			return err
		}
	}
	return nil
}

// Clear ends all faults, and lets the calls that hang go on.
func (s *Shim) Clear() error { _, err := s.order("clear"); return err }

// Hide empties the slot: its sessions are gone, and there is no token in it.
func (s *Shim) Hide() error { _, err := s.order("hide"); return err }

// Show puts the token back.
func (s *Shim) Show() error { _, err := s.order("show"); return err }

// DropSessions closes every session, once no call is in the module.
func (s *Shim) DropSessions() error { _, err := s.order("drop"); return err }

// Logout ends the login, once no call is in the module.
func (s *Shim) Logout() error { _, err := s.order("logout"); return err }

// Limit has C_OpenSession refuse more than n sessions at a time; 0: no limit.
func (s *Shim) Limit(n int) error { _, err := s.order(fmt.Sprintf("limit %d", n)); return err }

// Counts is what a shim has seen.
type Counts struct {
	Calls      map[string]int // by function
	Faults     map[string]int // of these, those a Fault changed
	Sessions   int            // open now
	Peak       int            // open at a time, at most
	PINRefused int            // logins refused for the PIN, by the token or a Fault
	Races      int            // calls that met another call in their own session
	Rude       int            // C_Finalize while another call was inside
	Hanging    int            // calls held by a Fault now
	Inside     int            // calls inside now
	Objects    int            // made by C_CreateObject or C_UnwrapKey in a session that is open, and not destroyed
}

// Counts asks what was seen since the last Reset.
func (s *Shim) Counts() (Counts, error) {
	lines, err := s.order("counts")
	if err != nil {
		return Counts{}, err
	}
	c := Counts{Calls: map[string]int{}, Faults: map[string]int{}}
	named := map[string]*int{
		"sessions": &c.Sessions, "peak": &c.Peak, "pin-refused": &c.PINRefused, "races": &c.Races,
		"rude": &c.Rude, "hanging": &c.Hanging, "inside": &c.Inside, "objects": &c.Objects,
	}
	for _, line := range lines {
		words := strings.Fields(line)
		var n [2]int
		for i, w := range words[1:] {
			if n[i], err = strconv.Atoi(w); err != nil {
				return Counts{}, err
			}
		}
		if p := named[words[0]]; p != nil {
			*p = n[0]
		} else {
			c.Calls[words[0]], c.Faults[words[0]] = n[0], n[1]
		}
	}
	return c, nil
}

// Reset sets Calls, Faults, PINRefused, Races and Rude to zero and Peak to Sessions.
func (s *Shim) Reset() error { _, err := s.order("reset"); return err }

// Login is one C_Login, of any process that loaded the shim.
type Login struct {
	PID int
	RV  uint // CKR code; 0: the PIN was right
}

// Logins returns every C_Login since the shim was made, also those of processes that are gone.
func (s *Shim) Logins() ([]Login, error) {
	text, err := os.ReadFile(s.logins)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Login
	for line := range strings.Lines(string(text)) {
		var l Login
		if _, err := fmt.Sscan(line, &l.PID, &l.RV); err != nil {
			return nil, fmt.Errorf("hsmsim: %s: %w", s.logins, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// order gives one order and returns the lines of the answer before its verdict.
func (s *Shim) order(line string) ([]string, error) {
	conn, err := net.DialTimeout("unix", s.socket, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("hsmsim: the shim is not loaded: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(line + "\n")); err != nil {
		return nil, err
	}
	var lines []string
	in := bufio.NewScanner(conn)
	for in.Scan() {
		lines = append(lines, in.Text())
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(lines) == 0 || lines[len(lines)-1] != "ok" {
		return nil, fmt.Errorf("hsmsim: the shim answers %q to %q", lines, line)
	}
	return lines[:len(lines)-1], nil
}
