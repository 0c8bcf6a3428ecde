// Package webhook hands messages that the modems received to a web hook: each is
// posted as JSON, three times at most. They are in the database already
// (`custode modem inbox`), so what the hook does not take is not lost. It is
// wiring of cmd/custode, in a folder of its own.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"custode/modem"
)

// Forwarder posts to one address. A nil Forwarder does nothing.
type Forwarder struct {
	address string
	client  *http.Client
	queue   chan modem.Received
	pauses  []time.Duration // before each further try
	log     *slog.Logger
}

// forwarded is what the hook gets.
type forwarded struct {
	ID   string    `json:"id"` // the same whenever the same message is sent again
	From string    `json:"from"`
	Text string    `json:"text"`
	Bay  string    `json:"bay"`
	At   time.Time `json:"at"`
}

// New returns a Forwarder to an absolute https address; nil without one.
func New(address string, log *slog.Logger) *Forwarder {
	if address == "" {
		return nil
	}
	return &Forwarder{
		address: address, log: log, queue: make(chan modem.Received, 64), pauses: []time.Duration{time.Second, 10 * time.Second},
		client: &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Hook is what the pool calls; it never waits. What is too much is dropped and logged.
func (f *Forwarder) Hook() modem.Forward {
	if f == nil {
		return nil
	}
	return func(m modem.Received) {
		select {
		case f.queue <- m:
		default:
			f.log.Warn("received message not forwarded: too many wait", "bay", m.Bay, "message", m.Mark)
		}
	}
}

// Run forwards until ctx ends.
func (f *Forwarder) Run(ctx context.Context) error {
	for f != nil {
		select {
		case <-ctx.Done():
			return nil
		case m := <-f.queue:
			f.forward(ctx, m)
		}
	}
	return nil
}

func (f *Forwarder) forward(ctx context.Context, m modem.Received) {
	body, err := json.Marshal(forwarded{ID: m.Mark, From: m.From, Text: m.Text, Bay: m.Bay, At: m.At})
	for i := 0; err == nil; i++ {
		if err = f.post(ctx, body); err == nil {
			return
		}
		if i == len(f.pauses) || ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(f.pauses[i]):
			err = nil
		case <-ctx.Done():
		}
	}
	f.log.Warn("received message not forwarded", "bay", m.Bay, "message", m.Mark, "error", err)
}

func (f *Forwarder) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		var with *url.Error // it repeats the address, in which operators put tokens
		if errors.As(err, &with) {
			err = with.Err
		}
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the hook answers HTTP %d", res.StatusCode)
	}
	return nil
}
