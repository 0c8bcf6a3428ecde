package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"custode/authcore/attribute"
	"custode/authcore/saml/idpmeta"
	"custode/internal/admin"
	"custode/internal/config"
	"custode/internal/fault"
)

type metadataCmd struct {
	Show   metadataShowCmd   `cmd:"" help:"Print the signed metadata."`
	Verify metadataVerifyCmd `cmd:"" help:"Check signed metadata against the technical rules and the configuration."`
}

type metadataShowCmd struct {
	Sign bool `help:"Sign metadata from the configuration files with the token, instead of asking the running appliance for what it publishes."`
}

// Run prints the document.
func (m *metadataShowCmd) Run(c *cli) error {
	var doc []byte
	var err error
	if m.Sign {
		doc, err = c.signedMetadata()
	} else {
		doc, err = c.publishedMetadata()
	}
	if err != nil {
		return err
	}
	fmt.Println(string(doc))
	return nil
}

// publishedMetadata asks the running appliance.
func (c *cli) publishedMetadata() (doc []byte, err error) {
	machine, err := config.Load[config.Machine](c.Machine)
	if err != nil {
		return nil, err
	}
	return doc, admin.Call(machine.AdminSocket, "metadata/show", nil, &doc)
}

// signedMetadata runs a worker for one signature.
func (c *cli) signedMetadata() ([]byte, error) {
	machine, policy, err := c.load()
	if err != nil {
		return nil, err
	}
	a := &appliance{machine: machine, policy: policy, files: [2]string{c.Machine, c.Policy}, log: newLog(os.Stderr, machine.Log)}
	defer a.close()
	if err := a.openToken(context.Background()); err != nil {
		return nil, err
	}
	if err := a.openSigning(context.Background(), nil); err != nil {
		return nil, err
	}
	return a.signing.Metadata(), nil
}

type metadataVerifyCmd struct {
	Source       string `arg:"" optional:"" help:"File, https address or - for standard input; default: what the running appliance publishes."`
	Certificates string `type:"existingfile" help:"PEM file: the certificates that must be published, the signing one first. Default: as many as the policy names, whichever they are."`
}

// Run checks the document and prints one line a rule.
func (m *metadataVerifyCmd) Run(c *cli) error {
	policy, err := config.Load[config.Policy](c.Policy)
	if err != nil {
		return err
	}
	doc, err := m.read(c)
	if err != nil {
		return err
	}
	want := idpmeta.Expected{EntityID: policy.EntityID.String(), PublicURL: policy.PublicURL, Count: 1 + len(policy.Keys.AlsoPublished), KnownNames: attribute.Names()}
	if m.Certificates != "" {
		if want.Published, err = config.Certificates(m.Certificates); err != nil {
			return err
		}
		want.Signer = want.Published[0]
	}
	results, err := idpmeta.Check(doc, want, time.Now())
	if err != nil {
		return fault.New(fault.Invalid, "check metadata", err)
	}
	printResults(os.Stdout, results)
	if !idpmeta.Kept(results) {
		return fault.Newf(fault.Invalid, "check metadata", "a rule is broken")
	}
	return nil
}

func printResults(w io.Writer, results []idpmeta.Result) {
	for _, r := range results {
		word, more := "ok  ", r.Note
		if r.Err != nil {
			word, more = "FAIL", strings.ReplaceAll(r.Err.Error(), "\n", "; ")
		}
		if more != "" {
			more = ": " + more
		}
		fmt.Fprintf(w, "%s %-12s %s%s\n", word, r.Rule, r.What, more)
	}
}

// maxMetadata bounds a document, in octets; the check is stricter.
const maxMetadata = 4 << 20

func (m *metadataVerifyCmd) read(c *cli) ([]byte, error) {
	op := "read metadata " + m.Source
	var r io.ReadCloser
	switch {
	case m.Source == "":
		return c.publishedMetadata()
	case m.Source == "-":
		r = os.Stdin
	case strings.HasPrefix(m.Source, "https://"), strings.HasPrefix(m.Source, "http://"):
		client := http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		answer, err := client.Get(m.Source)
		if err != nil {
			return nil, fault.New(fault.Unavailable, op, err)
		}
		r = answer.Body
		if answer.StatusCode != http.StatusOK {
			_ = r.Close()
			return nil, fault.Newf(fault.Unavailable, op, "the answer is %s", answer.Status)
		}
	default:
		f, err := os.Open(m.Source)
		if err != nil {
			return nil, fault.New(fault.Fatal, op, err)
		}
		r = f
	}
	defer r.Close()
	doc, err := io.ReadAll(io.LimitReader(r, maxMetadata))
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	return doc, nil
}
