package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

type benchCmd struct {
	Suite string `default:"all" enum:"all,login" help:"Which suite: all or login."`
	Quick bool   `help:"Shorter runs: each suite within 50 s."`
	Out   string `type:"path" default:"bench/latest.txt" help:"File that gets all result lines of the run."`
}

// figures collects the result lines of a run.
type figures struct{ out io.Writer }

// print writes one figure in the one form that all suites use. better says in
// words which direction is good and what the reference is.
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
	if err := benchLogin(context.Background(), c.Custode, b.Quick, f); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

var benchLine = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op`)

// primitive runs Go benchmarks of a package and returns seconds per operation
// by name.
func primitive(ctx context.Context, pkg, pattern, benchtime string) (map[string]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime, pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w\n%s", pkg, err, out)
	}
	got := map[string]float64{}
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		if m := benchLine.FindStringSubmatch(s.Text()); m != nil {
			ns, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return nil, err
			}
			got[m[1]] = ns / 1e9
		}
	}
	return got, nil
}
