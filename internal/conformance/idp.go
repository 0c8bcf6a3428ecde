package conformance

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// idp is what the instance's metadata says.
type idp struct {
	entityID     string
	sso          map[Binding]string
	slo          map[Binding]string
	certificates []*x509.Certificate
}

// fetchIDP reads and checks the metadata of the instance.
func fetchIDP(ctx context.Context, client *http.Client, base string) (*idp, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/metadata", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxXML+1))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metadata: HTTP %d", resp.StatusCode)
	}
	return readIDP(string(text))
}

func readIDP(text string) (*idp, error) {
	root, err := parseXML(text)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	role := root.child(nsMetadata, "IDPSSODescriptor")
	if !root.is(nsMetadata, "EntityDescriptor") || role == nil || root.get("entityID") == "" {
		return nil, fmt.Errorf("metadata: no EntityDescriptor with one IDPSSODescriptor")
	}
	out := &idp{entityID: root.get("entityID"), sso: locations(role, "SingleSignOnService"), slo: locations(role, "SingleLogoutService")}
	role.walk(func(n *node) {
		if !n.is(nsDS, "X509Certificate") {
			return
		}
		der, e := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.text()), ""))
		if e != nil {
			err = e
			return
		}
		c, e := x509.ParseCertificate(der)
		if e != nil {
			err = e
			return
		}
		out.certificates = append(out.certificates, c)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("metadata: certificate: %w", err)
	case out.sso[Redirect] == "" || out.sso[Post] == "":
		return nil, fmt.Errorf("metadata: SingleSignOnService for both bindings is missing")
	}
	if err := verifyEnveloped(root, out.certificates); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return out, nil
}

func locations(role *node, name string) map[Binding]string {
	found := map[Binding]string{}
	for _, n := range role.children(nsMetadata, name) {
		switch n.get("Binding") {
		case bindingPrefix + "HTTP-Redirect":
			found[Redirect] = n.get("Location")
		case bindingPrefix + "HTTP-POST":
			found[Post] = n.get("Location")
		}
	}
	return found
}
