// Package backchannel carries SOAP envelopes to service providers: the one place
// where the product opens connections to addresses that others publish. It posts
// one bounded document and reads one bounded answer, over TLS 1.2 or later, with
// no redirect, no proxy of the environment, no cookie and no connection kept.
// Addresses of this machine and of private networks are refused when connecting,
// after the name was resolved, unless the operator allows them: what metadata says
// must not make the daemon knock at doors behind the firewall.
//
// It is not a SOAP library: what an envelope says is authcore/saml/logout's
// business, who is told what is authcore/session's, whose Channel it is. Used by
// cmd/custode.
package backchannel

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"custode/internal/fault"
)

// maxAnswer bounds an answer, octets: more than any logout response.
const maxAnswer = 64 << 10

// Config configures a Client.
type Config struct {
	// Private allows addresses of private networks (RFC 1918, RFC 4193) and of
	// this machine.
	Private bool
	// Plain allows http to loopback addresses, for development.
	Plain bool
	// TLS replaces the settings of connections, for tests; nil: the system's
	// certificate authorities and TLS 1.2 or later.
	TLS *tls.Config
}

// Client sends envelopes. It is safe for concurrent use.
type Client struct {
	plain bool
	http  *http.Client
}

// New returns a client. It opens nothing.
func New(c Config) *Client {
	settings := c.TLS
	if settings == nil {
		settings = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		return check(address, c.Private || c.Plain)
	}}
	return &Client{plain: c.Plain, http: &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, TLSClientConfig: settings, TLSHandshakeTimeout: 5 * time.Second,
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Special-purpose addresses (RFC 6890 and its registries) that netip has no word
// for. nowhere is for no server at all, or carries an IPv4 address to where nobody
// judges it (IPv4-compatible and -translated, Teredo, 6to4, local translators);
// inner is a network's own.
var (
	nowhere = prefixes("0.0.0.0/8", "192.0.0.0/24", "240.0.0.0/4",
		"::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16", "fec0::/10")
	inner = prefixes("100.64.0.0/10", "198.18.0.0/15")
	// translated holds an IPv4 address in its last four octets (RFC 6052).
	translated = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(all ...string) (list []netip.Prefix) {
	for _, p := range all {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// check refuses addresses that nobody can publish a service at.
func check(address string, private bool) error {
	const op = "connect to a service provider"
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.New(fault.Denied, op, err)
	}
	a := ap.Addr().Unmap().WithZone("")
	if translated.Contains(a) {
		octets := a.As16()
		a = netip.AddrFrom4([4]byte(octets[12:]))
	}
	if !a.IsLoopback() && (!a.IsGlobalUnicast() || within(nowhere, a)) {
		return fault.Newf(fault.Denied, op, "%s is no address of a server", a)
	}
	if (a.IsPrivate() || a.IsLoopback() || within(inner, a)) && !private {
		return fault.Newf(fault.Denied, op, "%s is not a public address", a)
	}
	return nil
}

// Send posts the envelope to location and returns the answer's body. ctx bounds
// the whole exchange. fault.Unavailable when there is no answer of status 200
// and type text/xml.
func (c *Client) Send(ctx context.Context, location string, envelope []byte) ([]byte, error) {
	op := "send to " + location
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && c.plain) {
		return nil, fault.Newf(fault.Invalid, op, "not an https location")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(envelope))
	if err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	// SAML Bindings 3.2.3.1: a fixed value, which receivers may not rely on.
	r.Header.Set("SOAPAction", `"http://www.oasis-open.org/committees/security"`)
	r.Header.Set("Cache-Control", "no-store")
	r.Header.Set("User-Agent", "custode")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fault.Newf(fault.Unavailable, op, "status %d", answer.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type")); err != nil || kind != "text/xml" && kind != "application/soap+xml" {
		return nil, fault.Newf(fault.Unavailable, op, "the answer is no XML")
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	if len(body) > maxAnswer {
		return nil, fault.Newf(fault.Unavailable, op, "the answer exceeds %d octets", maxAnswer)
	}
	return body, nil
}
