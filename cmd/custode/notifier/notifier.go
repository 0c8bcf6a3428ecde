// Package notifier hands sealed messages for apps to the service that can reach them: each is
// posted as JSON, once. What it carries is encrypted to the app; the service learns
// the device's serial number and that it logs in. It is wiring of cmd/custode, in a
// folder of its own.
package notifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/otpvault/proof"
)

// atOnce is how many messages may be on their way.
const atOnce = 64

// HTTP posts to one address.
type HTTP struct {
	address string
	token   string
	client  *http.Client
	places  chan struct{}
}

var _ proof.Notifier = (*HTTP)(nil)

// posted is what the service gets.
type posted struct {
	Serial  string `json:"serial"`
	Message []byte `json:"message"` // base64
}

// New returns a notifier to an absolute http or https address. token, if any, is sent as a
// bearer token.
func New(address, token string) *HTTP {
	return &HTTP{address: address, token: token, places: make(chan struct{}, atOnce), client: &http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxIdleConns: 8, MaxIdleConnsPerHost: 8,
			IdleConnTimeout: time.Minute, DisableCompression: true, ResponseHeaderTimeout: 5 * time.Second},
	}}
}

// Notify implements proof.Notifier: nil when the service answered 2xx; fault.Busy when too
// many messages are on their way, fault.Unavailable for everything else.
func (h *HTTP) Notify(ctx context.Context, serial id.Serial, message []byte) error {
	op := "push a message to device " + serial.String()
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return fault.Newf(fault.Busy, op, "%d messages are on their way", atOnce)
	}
	body, err := json.Marshal(posted{serial.String(), message})
	if err != nil {
		return fault.New(fault.Internal, op, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.address, bytes.NewReader(body))
	if err != nil {
		return fault.Newf(fault.Internal, op, "the address is none") // err repeats it
	}
	req.Header.Set("Content-Type", "application/json")
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	res, err := h.client.Do(req)
	if err != nil {
		var with *url.Error // it repeats the address, in which operators put tokens
		if errors.As(err, &with) {
			err = with.Err
		}
		return fault.New(fault.Unavailable, op, err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fault.Newf(fault.Unavailable, op, "the notifier answers HTTP %d", res.StatusCode)
	}
	return nil
}
