package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

type benchCmd struct {
	Suite string `default:"all" enum:"all,login,modem,registry,certlog,hsm,otp" help:"Which suite: all, login, modem, registry, certlog, hsm or otp."`
	Quick bool   `help:"Shorter runs: each suite within 50 s."`
	Out   string `type:"path" default:"bench/latest.txt" help:"File that gets all result lines of the run."`
}

// figures collects the result lines of a run.
type figures struct{ out io.Writer }

// print writes one figure in the one form that all suites use: the measure, our
// value with its unit, the reference in the same unit, and ours over it.
func (f figures) print(measure string, ours float64, unit string, ref float64) {
	fmt.Fprintf(f.out, "bench: %s %.3f %s ref %.3f ratio %.3f\n", measure, ours, unit, ref, ours/ref)
}

// Run runs the suites and keeps their lines in the file.
func (b *benchCmd) Run(c *cli) error {
	if err := os.MkdirAll(filepath.Dir(b.Out), 0o755); err != nil {
		return err
	}
	file, err := os.Create(b.Out)
	if err != nil {
		return err
	}
	f := figures{io.MultiWriter(os.Stdout, file)}
	for _, suite := range []struct {
		name string
		run  func(context.Context, string, bool, figures) error
	}{{"login", benchLogin}, {"modem", benchModem}, {"registry", benchRegistry}, {"certlog", benchCertlog}, {"hsm", benchHSM}, {"otp", benchOTP}} {
		if b.Suite != "all" && b.Suite != suite.name {
			continue
		}
		if err := suite.run(context.Background(), c.Custode, b.Quick, f); err != nil {
			file.Close()
			return err
		}
	}
	return file.Close()
}

var benchLine = regexp.MustCompile(`^Benchmark\S+\s+\d+\s+([0-9.]+) ns/op`)

// primitive runs one parallel Go benchmark of a package on one core and on all
// and returns the seconds per operation.
func primitive(ctx context.Context, pkg, name, benchtime string) (one, all float64, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", benchtime,
		"-cpu", fmt.Sprintf("1,%d", runtime.NumCPU()), pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("benchmark %s of %s: %w\n%s", name, pkg, err, out)
	}
	var got []float64
	for line := range strings.Lines(string(out)) {
		if m := benchLine.FindStringSubmatch(line); m != nil {
			ns, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return 0, 0, err
			}
			got = append(got, ns/1e9)
		}
	}
	if len(got) != 2 {
		return 0, 0, fmt.Errorf("benchmark %s of %s printed %d figures, want 2:\n%s", name, pkg, len(got), out)
	}
	return got[0], got[1], nil
}
