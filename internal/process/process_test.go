package process

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// The child of these tests is this test binary, told by a variable what to be.
const roleEnv = "CUSTODE_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	c, err := Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	switch role {
	case "echo": // until the parent closes
		_, _ = io.Copy(c, c)
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprint(os.Stderr, "last "+strings.Repeat("x", 2000))
		os.Exit(7)
	case "deaf":
		_, _ = c.Write([]byte{1})
		select {}
	}
}

func TestChild(t *testing.T) {
	var said strings.Builder
	c, err := Start(Config{Env: []string{roleEnv + "=echo"}, Stderr: &said})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.Conn, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if c.PID() == os.Getpid() || c.PID() <= 0 {
		t.Errorf("process %d", c.PID())
	}
	c.Conn.Close()
	status, last := c.End(20 * time.Second)
	if status != 7 || !strings.HasPrefix(last, "last xxx") || len(last) != maxTail || !strings.HasPrefix(said.String(), "first line\nlast ") {
		t.Errorf("status %d, last line of %d octets, %.30q", status, len(last), said.String())
	}
}

func TestDeafChildIsKilled(t *testing.T) {
	c, err := Start(Config{Env: []string{roleEnv + "=deaf"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c.Conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Conn.Close()
	if status, _ := c.End(10 * time.Millisecond); status != -1 {
		t.Errorf("status %d", status)
	}
}
