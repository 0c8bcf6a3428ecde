package request

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// IDP is what the instance's metadata says.
type IDP struct {
	EntityID     string
	SSO          map[Binding]string
	SLO          map[Binding]string
	Certificates []*x509.Certificate
}

// FetchIDP reads and checks the metadata of the instance.
func FetchIDP(ctx context.Context, client *http.Client, base string) (*IDP, error) {
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
	return ReadIDP(string(text))
}

// ReadIDP reads the metadata and checks that its own key signed it.
func ReadIDP(text string) (*IDP, error) {
	root, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	role := root.Child(NSMetadata, "IDPSSODescriptor")
	if !root.Is(NSMetadata, "EntityDescriptor") || role == nil || root.Get("entityID") == "" {
		return nil, fmt.Errorf("metadata: no EntityDescriptor with one IDPSSODescriptor")
	}
	out := &IDP{EntityID: root.Get("entityID"), SSO: locations(role, "SingleSignOnService"), SLO: locations(role, "SingleLogoutService")}
	role.Walk(func(n *Node) {
		if !n.Is(NSSignature, "X509Certificate") {
			return
		}
		der, e := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Text()), ""))
		if e != nil {
			err = e
			return
		}
		c, e := x509.ParseCertificate(der)
		if e != nil {
			err = e
			return
		}
		out.Certificates = append(out.Certificates, c)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("metadata: certificate: %w", err)
	case out.SSO[Redirect] == "" || out.SSO[Post] == "":
		return nil, fmt.Errorf("metadata: SingleSignOnService for both bindings is missing")
	}
	if err := Verify(root, out.Certificates); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return out, nil
}

func locations(role *Node, name string) map[Binding]string {
	found := map[Binding]string{}
	for _, n := range role.Children(NSMetadata, name) {
		switch n.Get("Binding") {
		case BindingPrefix + "HTTP-Redirect":
			found[Redirect] = n.Get("Location")
		case BindingPrefix + "HTTP-POST":
			found[Post] = n.Get("Location")
		}
	}
	return found
}
