// Command custode-verify checks, away from the appliance and without any key of
// it, what Custode's certified log proves: an attestation (a ZIP file) that a
// subject was given, or a copy of a log's folder.
//
//	custode-verify --seal seal.pem --tsa tsa-root.pem attestation.zip
//	custode-verify --seal seal.pem --tsa tsa-root.pem [--witness FOLDER] [--mail PATH] /copy/of/the/log
//
// Exit status: 0 everything verifies, 1 something diverges (the first divergence
// is named), 2 it could not be read or the command line is wrong.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/certlog/notary"
	"custode/internal/certlog/witness/mail"
)

type arguments struct {
	Seal     []string      `required:"" type:"existingfile" help:"certificate whose seals are trusted (PEM); may be given again" placeholder:"FILE"`
	TSA      []string      `required:"" type:"existingfile" help:"root certificate of a time-stamping authority (PEM); may be given again" placeholder:"FILE"`
	Witness  []string      `type:"existingdir" help:"folder of checkpoints kept elsewhere (log folder only)" placeholder:"FOLDER"`
	Mail     []string      `type:"path" help:"letters kept elsewhere: a folder, an mbox or one letter (log folder only)" placeholder:"PATH"`
	Patience time.Duration `default:"26h" help:"how long a segment may wait for seal and time-stamp (log folder only)"`
	What     string        `arg:"" type:"path" help:"attestation, or folder of a log"`
}

func main() {
	var a arguments
	kong.Parse(&a, kong.Name("custode-verify"), kong.Description("Verify an attestation or a copy of Custode's certified log, off-line."), kong.Exit(func(code int) {
		if code != 0 {
			code = 2
		}
		os.Exit(code)
	}))
	os.Exit(run(a, os.Stdout, os.Stderr))
}

func run(a arguments, out, errs io.Writer) int {
	fail := func(err error) int {
		fmt.Fprintln(errs, "custode-verify:", err)
		return 2
	}
	judge := &notary.Notary{Roots: x509.NewCertPool()}
	for _, name := range a.Seal {
		certs, err := readCertificates(name)
		if err != nil {
			return fail(err)
		}
		judge.Pinned = append(judge.Pinned, certs...)
	}
	for _, name := range a.TSA {
		certs, err := readCertificates(name)
		if err != nil {
			return fail(err)
		}
		for _, c := range certs {
			judge.Roots.AddCert(c)
		}
	}
	info, err := os.Stat(a.What)
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		return verifyLog(a, judge, out, fail)
	}
	return verifyAttestation(a.What, info.Size(), judge, out, fail)
}

func verifyLog(a arguments, judge certlog.Judge, out io.Writer, fail func(error) int) int {
	cfg := certlog.VerifyConfig{FS: certlog.Dir(a.What), Judge: judge, Now: time.Now(), Patience: a.Patience}
	for _, dir := range a.Witness {
		if err := cfg.AddWitness(dir, certlog.Dir(dir)); err != nil {
			return fail(err)
		}
	}
	for _, path := range a.Mail {
		seals, err := mail.Read(path)
		if err != nil {
			return fail(err)
		}
		fmt.Fprintf(out, "%s: %d seals, %d of them not good and ignored\n", path, len(seals), cfg.AddLetters(path, seals))
	}
	r, err := certlog.Verify(cfg)
	if err != nil {
		return fail(err)
	}
	fmt.Fprintf(out, "log %s (%s): %d segments sealed, %d time-stamped, %d not sealed yet; %d records, %d of them destroyed\nroot %x\n",
		r.Name, r.Log, r.Segments, r.Stamped, r.Unsealed, r.Records, r.Destroyed, r.Root)
	if r.Problem != nil {
		fmt.Fprintln(out, "DIVERGES:", r.Problem)
		return 1
	}
	fmt.Fprintln(out, "VERIFIED")
	return 0
}

func verifyAttestation(name string, size int64, judge certlog.Judge, out io.Writer, fail func(error) int) int {
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	v, err := attest.Verify(f, size, judge)
	if err != nil {
		fmt.Fprintln(out, "NOT VERIFIED:", err)
		return 1
	}
	s := v.Statement
	fmt.Fprintf(out, "provider %s states about %s, from %s to %s:\n", s.Provider, s.SPIDCode, s.From.Format(time.RFC3339), s.To.Format(time.RFC3339))
	fmt.Fprintf(out, "%d accesses, none left out; sealed, and time-stamped %s\n", len(v.Accesses), when(v.Sealed))
	if len(s.Destroyed) > 0 {
		fmt.Fprintf(out, "%d segments of the interval were destroyed: nothing is said of them\n", len(s.Destroyed))
	}
	for _, p := range v.Accesses {
		fmt.Fprintf(out, "record %d: %s, %s, code %d, logged before %s\n", p.Seq, p.Access.At.Format(time.RFC3339), p.Access.Request.Issuer, p.Access.Code, when(p.Stamped))
	}
	fmt.Fprintln(out, "VERIFIED")
	return 0
}

func when(t time.Time) string {
	if t.IsZero() {
		return "(no time-stamp)"
	}
	return t.Format(time.RFC3339)
}

// readCertificates reads a PEM file of certificates and nothing else.
func readCertificates(name string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: it holds a %s", name, b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no certificate", name)
	}
	return out, nil
}
