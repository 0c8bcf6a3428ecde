package web

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"custode/internal/fault"
)

// Apps activates virtual OATH devices: what our app asks for, without a browser.
type Apps interface {
	// Redeem takes an activation code and the app's public key, and returns the seed encrypted
	// to that key. fault.Denied, Conflict, Exhausted and Expired say what is wrong with the code.
	Redeem(ctx context.Context, serial, code string, key []byte) ([]byte, error)
	// Confirm takes the first code that the app shows. It returns the subject's emergency code
	// if this is the first that they get, for the app to show once; else "".
	Confirm(ctx context.Context, serial, code string) (emergency string, err error)
}

// maxAppRequest bounds what an app sends.
const maxAppRequest = 1 << 10

// appStatus are the answers to an app; every other kind is 503. An unknown serial number
// is a wrong code.
var appStatus = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.Denied: http.StatusForbidden, fault.Conflict: http.StatusConflict,
	fault.Exhausted: http.StatusTooManyRequests, fault.Expired: http.StatusGone,
}

// appRoute serves POST /app/activate and /app/confirm: JSON in and out, no cookie. A page of another
// site could only send what it knows itself: there is nothing of a browser's in it.
func (s *Server) appRoute(ctx context.Context, r request) (string, answer, bool) {
	name := map[string]string{"/app/activate": "app-activate", "/app/confirm": "app-confirm"}[r.path]
	if name == "" || s.cfg.Apps == nil {
		return "", answer{}, false
	}
	if r.method != http.MethodPost {
		return name, s.wrongMethod(r, "POST"), true
	}
	var in struct {
		Serial string `json:"serial"`
		Code   string `json:"code"`
		Key    []byte `json:"key"` // X25519, base64; of activate
	}
	d := json.NewDecoder(bytes.NewReader(r.body[:min(len(r.body), maxAppRequest+1)]))
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	kind, _, _ := strings.Cut(r.contentType, ";")
	if _, end := d.Token(); err != nil || end != io.EOF || len(r.body) > maxAppRequest || kind != "application/json" {
		return name, appAnswer(http.StatusBadRequest, nil, ""), true
	}
	var parcel []byte
	var emergency string
	if name == "app-activate" {
		parcel, err = s.cfg.Apps.Redeem(ctx, in.Serial, in.Code, in.Key)
	} else {
		emergency, err = s.cfg.Apps.Confirm(ctx, in.Serial, in.Code)
	}
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "app not served", "route", name, "peer", r.peer.String(), "error", err)
		status, ok := appStatus[fault.KindOf(err)]
		if !ok {
			status = http.StatusServiceUnavailable
		}
		return name, appAnswer(status, nil, ""), true
	}
	return name, appAnswer(http.StatusOK, parcel, emergency), true
}

func appAnswer(status int, parcel []byte, emergency string) answer {
	body, _ := json.Marshal(struct {
		Parcel    []byte `json:"parcel,omitempty"`
		Emergency string `json:"emergencyCode,omitempty"`
	}{parcel, emergency}) // octets and letters always encode
	return answer{status: status, contentType: "application/json", body: body}
}
