package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"custode/internal/config"
	"custode/internal/conformance"
	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
	"custode/internal/fault"
)

type conformanceCmd struct {
	Run        conformanceRunCmd      `cmd:"" default:"withargs" help:"Run the catalogue of rules against an instance (what happens without a subcommand)."`
	SPMetadata conformanceMetadataCmd `cmd:"" name:"sp-metadata" help:"Print the metadata of the auditor's service provider, to be registered with the instance."`
	List       conformanceListCmd     `cmd:"" help:"Print the catalogue."`
}

// auditorFlags name the auditor's service provider.
type auditorFlags struct {
	SPEntity    string `name:"sp-entity" required:"" help:"entityID of the auditor's service provider."`
	SPKey       string `name:"sp-key" required:"" type:"existingfile" help:"PEM file of its RSA key; only its owner may read it."`
	SPCert      string `name:"sp-cert" required:"" type:"existingfile" help:"PEM file of its certificate."`
	ExpiredKey  string `type:"existingfile" help:"PEM file of a second RSA key, for the rules about expired certificates."`
	ExpiredCert string `type:"existingfile" help:"PEM file of its certificate, whose time is over."`
}

func (f *auditorFlags) sp() (request.SP, error) {
	sp := request.SP{EntityID: f.SPEntity}
	var err error
	if sp.Main, err = readPair(f.SPKey, f.SPCert); err != nil {
		return sp, err
	}
	if f.ExpiredKey == "" && f.ExpiredCert == "" {
		return sp, nil
	}
	expired, err := readPair(f.ExpiredKey, f.ExpiredCert)
	sp.Expired = &expired
	return sp, err
}

type conformanceMetadataCmd struct{ auditorFlags }

// Run prints the metadata.
func (a *conformanceMetadataCmd) Run() error {
	sp, err := a.sp()
	if err != nil {
		return err
	}
	doc, err := sp.Metadata(rand.Reader)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(doc)
	return err
}

type conformanceListCmd struct{}

// Run prints identifier, bindings, source and title of each rule.
func (conformanceListCmd) Run() error {
	for _, r := range catalogue.All() {
		by := make([]string, len(r.Bindings))
		for i, b := range r.Bindings {
			by[i] = string(b)
		}
		if _, err := fmt.Printf("%s\t%s\t%s\t%s\n", r.ID, strings.Join(by, ","), r.Source, r.Title); err != nil {
			return err
		}
	}
	return nil
}

type conformanceRunCmd struct {
	auditorFlags
	URL           string        `required:"" help:"The instance: https://host[:port]."`
	SubjectFile   string        `type:"existingfile" help:"File whose first line is a username, a blank and the password of a subject for the audit; only its owner may read it."`
	SuspendedFile string        `type:"existingfile" help:"The same of an identity that is suspended."`
	AskCode       bool          `help:"Ask on the terminal for the codes sent to the subject."`
	OtherEntity   string        `help:"entityID of another service provider in the instance's registry."`
	FlowLife      time.Duration `help:"The instance's flow.lifetime: waits as long to see anomaly 21."`
	Pace          time.Duration `default:"20ms" help:"Least time between two requests."`
	Bound         time.Duration `default:"3s" help:"Longest time an answer may take."`
	Only          []string      `help:"Run only these rules; a trailing * stands for any ending."`
	JSON          string        `name:"json" type:"path" help:"Write the report as JSON to this file too."`
}

// Run audits the instance. The error is about the audit (exit status 1) when a
// rule failed.
func (a *conformanceRunCmd) Run() error {
	cfg := conformance.Config{URL: a.URL, OtherEntity: a.OtherEntity, FlowLife: a.FlowLife, Pace: a.Pace, Bound: a.Bound, Now: time.Now}
	var err error
	if cfg.SP, err = a.sp(); err != nil {
		return err
	}
	if cfg.Subject, err = readSubject(a.SubjectFile); err != nil {
		return err
	}
	if cfg.Suspended, err = readSubject(a.SuspendedFile); err != nil {
		return err
	}
	if a.AskCode {
		cfg.Code = askCode(bufio.NewReader(io.LimitReader(os.Stdin, 4096)))
	}
	auditor, err := conformance.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := auditor.Open(ctx); err != nil {
		return err
	}
	return a.audit(ctx, auditor)
}

func (a *conformanceRunCmd) audit(ctx context.Context, auditor *conformance.Auditor) error {
	report := auditor.Report()
	tell := func(r conformance.Result) error {
		report.Add(r)
		_, err := fmt.Println(r.Line())
		return err
	}
	for _, rule := range catalogue.All() {
		if !a.wants(rule.ID) {
			continue
		}
		for _, by := range rule.Bindings {
			if ctx.Err() != nil {
				return fault.New(fault.Unavailable, "audit", ctx.Err())
			}
			if err := tell(auditor.Run(ctx, rule, by)); err != nil {
				return err
			}
		}
	}
	if len(report.Results) == 0 {
		return fault.Newf(fault.Invalid, "audit", "no rule is called %s", strings.Join(a.Only, ", "))
	}
	if err := tell(auditor.Reserved()); err != nil {
		return err
	}
	fmt.Println(report.Summary())
	if a.JSON != "" {
		if err := writeReport(a.JSON, report); err != nil {
			return err
		}
	}
	if report.Failed > 0 {
		return fmt.Errorf("audit of %s: %d of %d rules failed", a.URL, report.Failed, len(report.Results))
	}
	return nil
}

func (a *conformanceRunCmd) wants(rule string) bool {
	return len(a.Only) == 0 || slices.ContainsFunc(a.Only, func(o string) bool {
		prefix, open := strings.CutSuffix(o, "*")
		return rule == o || open && strings.HasPrefix(rule, prefix)
	})
}

func writeReport(path string, report *conformance.Report) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fault.New(fault.Unavailable, "write the report "+path, err)
	}
	if err := report.JSON(f); err != nil {
		f.Close() //nolint:errcheck // the first failure counts
		return err
	}
	if err := f.Close(); err != nil {
		return fault.New(fault.Unavailable, "write the report "+path, err)
	}
	return nil
}

// askCode asks the operator, who holds the subject's telephone.
func askCode(in *bufio.Reader) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		fmt.Fprint(os.Stderr, "code sent to the subject: ")
		line, err := in.ReadString('\n')
		code := strings.TrimSpace(line)
		if code == "" {
			return "", fault.New(fault.Invalid, "read the code", err)
		}
		return code, nil
	}
}

// readSubject returns nil without a file.
func readSubject(path string) (*conformance.Subject, error) {
	if path == "" {
		return nil, nil
	}
	line, err := config.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	username, password, ok := strings.Cut(string(line), " ")
	if !ok || username == "" || password == "" {
		return nil, fault.Newf(fault.Invalid, "read subject file "+path, "the first line is not: username, a blank, password")
	}
	return &conformance.Subject{Username: username, Password: password}, nil
}

// readPair reads an RSA key, which only its owner may read, and its certificate.
func readPair(keyFile, certFile string) (request.KeyPair, error) {
	op := "read key file " + keyFile
	if keyFile == "" || certFile == "" {
		return request.KeyPair{}, fault.Newf(fault.Invalid, "read key and certificate", "a key needs its certificate and the reverse")
	}
	st, err := os.Stat(keyFile)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Fatal, op, err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || st.Size() > 64<<10 {
		return request.KeyPair{}, fault.Newf(fault.Fatal, op, "must be a regular small file that only its owner may read (mode is %v)", st.Mode())
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Fatal, op, err)
	}
	key, err := parseKey(data)
	if err != nil {
		return request.KeyPair{}, fault.New(fault.Invalid, op, err)
	}
	certs, err := config.Certificates(certFile)
	if err != nil {
		return request.KeyPair{}, err
	}
	return request.KeyPair{Key: key, Certificate: certs[0]}, nil
}

func parseKey(data []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("no PEM in it")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("neither PKCS #1 nor PKCS #8")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("not an RSA key")
	}
	return key, nil
}
