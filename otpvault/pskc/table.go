package pskc

import (
	"bytes"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/oath"
)

// Encoding is how a table writes seeds. It is never guessed: many texts are both.
type Encoding uint8

// The encodings.
const (
	Hex    Encoding = iota + 1
	Base32          // RFC 4648, with or without padding, any letter case
)

// Problem is a line that was refused. Its error holds nothing of the line's
// seed.
type Problem struct {
	Line int // from 1
	Err  error
}

// maxProblems bounds the list: a wrong separator spoils every line.
const maxProblems = 100

// columns are the fields of a table without a heading, in their order.
var columns = [...]string{"serial", "seed", "type", "start", "digits", "hash"}

// headings maps what vendors write to our columns.
var headings = map[string]string{
	"serial": "serial", "serialnumber": "serial", "serialno": "serial", "sn": "serial", "token": "serial",
	"seed": "seed", "secret": "seed", "key": "seed", "secretkey": "seed",
	"type": "type", "kind": "type", "mode": "type",
	"start": "start", "counter": "start", "interval": "start", "period": "start", "timestep": "start",
	"counter/interval": "start", "digits": "digits", "length": "digits", "otplength": "digits",
	"hash": "hash", "algorithm": "hash", "alg": "hash",
}

// ReadTable reads lines of serial number, seed, type (hotp or totp), counter or
// interval in seconds, digits, and possibly hash (SHA-1 when missing), separated by comma,
// semicolon or tab; a first line of headings may give another order. Empty lines and lines that begin
// with # are passed over. It clears doc in any case. When a line is refused the
// batch is empty and the error is fault.Invalid; problems then lists the lines, 100 at most.
func ReadTable(doc []byte, enc Encoding) (batch Batch, problems []Problem, err error) {
	const op = "read table of devices"
	defer clear(doc)
	if len(doc) > MaxBytes {
		return Batch{}, nil, fault.Newf(fault.Invalid, op, "%d octets exceed %d", len(doc), MaxBytes)
	}
	if enc != Hex && enc != Base32 {
		return Batch{}, nil, fault.Newf(fault.Invalid, op, "the encoding of seeds was not said")
	}
	t := table{batch: &batch, enc: enc, order: columns[:], seen: map[id.Serial]bool{}}
	rest := bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	for number := 1; len(rest) > 0 && len(problems) < maxProblems; number++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := t.line(line); err != nil {
			problems = append(problems, Problem{number, err})
		}
	}
	if len(problems) == 0 && len(batch.Keys) > 0 {
		return batch, nil, nil
	}
	batch.Wipe()
	if len(problems) == 0 {
		return Batch{}, nil, fault.Newf(fault.Invalid, op, "no device in it")
	}
	return Batch{}, problems, fault.Newf(fault.Invalid, op, "line %d: %w", problems[0].Line, problems[0].Err)
}

type table struct {
	batch     *Batch
	enc       Encoding
	separator byte
	order     []string
	begun     bool
	seen      map[id.Serial]bool
}

// line reads one line. The first one decides about separator and order.
func (t *table) line(line []byte) error {
	first := !t.begun
	if first {
		t.begun, t.separator = true, ','
		for _, c := range []byte("\t;,") {
			if bytes.IndexByte(line, c) >= 0 {
				t.separator = c
				break
			}
		}
	}
	fields := bytes.Split(line, []byte{t.separator})
	for i, f := range fields {
		f = bytes.TrimSpace(f)
		if len(f) >= 2 && f[0] == '"' && f[len(f)-1] == '"' {
			f = f[1 : len(f)-1]
		}
		fields[i] = f
	}
	if first {
		order, heading, err := readHeading(fields)
		if err != nil {
			return err
		}
		if heading {
			t.order = order
			return nil
		}
	}
	if len(fields) > len(t.order) || len(fields) < 5 {
		return fmt.Errorf("%d fields, want 5 to %d", len(fields), max(5, len(t.order)))
	}
	k, err := t.key(fields)
	if err != nil {
		clear(k.Seed)
		return err
	}
	return t.batch.add(k, t.seen)
}

// readHeading recognises a line of headings by its first word. An unknown
// heading in it is refused, and not repeated: it could be a line of data.
func readHeading(fields [][]byte) (order []string, heading bool, err error) {
	seen := map[string]bool{}
	unknown := 0
	for _, f := range fields {
		word := strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(string(f)))
		name, ok := headings[word]
		if !ok {
			unknown++
		}
		if ok && seen[name] {
			return nil, false, fmt.Errorf("two columns for %s", name)
		}
		seen[name] = true
		order = append(order, name)
	}
	switch {
	case unknown == len(fields):
		return nil, false, nil
	case unknown > 0:
		return nil, false, errors.New("a heading is not known: want serial, seed, type, counter or interval, digits, hash")
	case len(order) < 5:
		return nil, false, errors.New("a column is missing: want serial, seed, type, counter or interval, digits")
	}
	return order, true, nil
}

func (t *table) key(fields [][]byte) (k Key, err error) {
	field := map[string][]byte{}
	for i, f := range fields {
		field[t.order[i]] = f
	}
	if k.Serial, err = id.ParseSerial(string(field["serial"])); err != nil {
		return k, errors.New("the serial number is malformed")
	}
	if k.Parameters.Digits, err = strconv.Atoi(string(field["digits"])); err != nil {
		return k, errors.New("digits is not a number")
	}
	start, err := strconv.ParseUint(string(field["start"]), 10, 62)
	if err != nil {
		return k, errors.New("counter or interval is not a number")
	}
	switch strings.ToLower(string(field["type"])) {
	case "hotp", "event":
		k.Parameters.Kind, k.Counter = oath.Event, start
	case "totp", "time":
		if start > 3600 {
			return k, errors.New("the interval is longer than an hour")
		}
		k.Parameters.Kind, k.Parameters.Period = oath.Time, time.Duration(start)*time.Second
	default:
		return k, errors.New("the type is neither hotp nor totp")
	}
	switch strings.ReplaceAll(strings.ToUpper(string(field["hash"])), "-", "") {
	case "SHA1", "":
		k.Parameters.Hash = oath.SHA1
	case "SHA256":
		k.Parameters.Hash = oath.SHA256
	case "SHA512":
		k.Parameters.Hash = oath.SHA512
	default:
		return k, errors.New("the hash is not SHA1, SHA256 or SHA512")
	}
	k.Seed, err = t.seed(field["seed"])
	return k, err
}

// seed decodes into fresh memory. The decoders' errors say which character was
// wrong, so they are not passed on.
func (t *table) seed(f []byte) ([]byte, error) {
	if len(f) > 2*maxSeed {
		return nil, errors.New("the seed is too long")
	}
	if t.enc == Hex {
		out := make([]byte, hex.DecodedLen(len(f)))
		if _, err := hex.Decode(out, f); err != nil {
			clear(out)
			return nil, errors.New("the seed is not hexadecimal")
		}
		return out, nil
	}
	upper := bytes.TrimRight(bytes.ToUpper(f), "=")
	defer clear(upper)
	dec := base32.StdEncoding.WithPadding(base32.NoPadding)
	out := make([]byte, dec.DecodedLen(len(upper)))
	n, err := dec.Decode(out, upper)
	if err != nil {
		clear(out)
		return nil, errors.New("the seed is not base32")
	}
	return out[:n], nil
}
