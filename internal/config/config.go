// Package config loads the two configuration files of the appliance strictly.
//
// Machine facts (addresses, paths, devices: file "machine") and decisions
// (identity, key labels, lifetimes, limits: file "policy") are different files,
// so that what was reviewed is what runs on every machine. Both are YAML;
// an unknown key, a duplicate key or a contradiction is an error that names the
// line or the key. Secrets are never in these files: they name files that hold
// them. Every key is documented in docs/examples/, which the tests load.
//
// Libraries never see these structs: cmd/custode hands each its narrow Config.
package config

import (
	"bytes"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"

	"custode/internal/fault"
)

// maxFile bounds a configuration file, in octets.
const maxFile = 256 << 10

// Load reads the YAML file at path into a new T, strictly, and validates it.
// It returns fault.Invalid for what the file says, fault.Fatal when it cannot be
// opened and fault.Unavailable when reading it fails.
func Load[T any, P interface {
	*T
	Validate() error
}](path string) (*T, error) {
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, err
	}
	v := new(T)
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict(), yaml.DisallowUnknownField())
	if err := dec.Decode(v); err != nil && err != io.EOF {
		return nil, fault.Newf(fault.Invalid, "read configuration "+path, "%w", err)
	}
	if err := dec.Decode(new(T)); err != io.EOF {
		return nil, fault.Newf(fault.Invalid, "read configuration "+path, "more than one YAML document")
	}
	if err := P(v).Validate(); err != nil {
		return nil, fault.Newf(fault.Invalid, "read configuration "+path, "%w", err)
	}
	return v, nil
}

// ReadSecret returns the first line of the file at path, without its line end.
// The file must be regular, at most 4096 octets and not readable by group or
// others; else fault.Fatal. The caller wipes the octets after use.
func ReadSecret(path string) ([]byte, error) {
	data, err := ReadPrivate(path, 4096)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fault.Newf(fault.Fatal, "read secret file "+path, "the file is empty")
	}
	return line, nil
}

// ReadPrivate returns the whole of a secret file of at most limit octets, under
// ReadSecret's rules.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	op := "read secret file " + path
	st, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return nil, fault.Newf(fault.Fatal, op, "must be a regular file that only its owner may read (mode is %v)", st.Mode())
	}
	data, err := readBounded(path, limit)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	return data, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	op := "read " + path
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err) // starting again does not bring it
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if int64(len(data)) > limit {
		return nil, fault.Newf(fault.Invalid, op, "larger than %d octets", limit)
	}
	return data, nil
}

// problems collects what is wrong with a file, in the file's own key names.
type problems []string

func (p *problems) check(ok bool, what string) {
	if !ok {
		*p = append(*p, what)
	}
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return fault.Newf(fault.Invalid, "validate", "%s", strings.Join(p, "; "))
}
