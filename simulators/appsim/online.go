package appsim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// StatusError is an answer of the identity provider other than 200.
type StatusError int

// Error implements error.
func (e StatusError) Error() string {
	return fmt.Sprintf("the identity provider answers HTTP %d", int(e))
}

// Activate fetches the account from the identity provider at base with an activation code.
func (a *App) Activate(ctx context.Context, base, serial, code string) error {
	key, err := a.PublicKey()
	if err != nil {
		return err
	}
	var got struct{ Parcel []byte }
	if err := post(ctx, base+"/app/activate", map[string]any{"serial": serial, "code": code, "key": key}, &got); err != nil {
		return err
	}
	return a.Receive(got.Parcel, serial, code)
}

// Confirm shows the identity provider a code, after which logins take them. It returns the
// subject's emergency code if this is their first.
func (a *App) Confirm(ctx context.Context, base, code string) (emergency string, err error) {
	var got struct{ EmergencyCode string }
	err = post(ctx, base+"/app/confirm", map[string]any{"serial": a.Serial, "code": code}, &got)
	return got.EmergencyCode, err
}

func post(ctx context.Context, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return StatusError(res.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(out)
}
