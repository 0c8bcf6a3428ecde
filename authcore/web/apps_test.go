package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"custode/internal/fault"
)

// officeFake serves one app.
type officeFake struct {
	err  error
	said []string
}

func (o *officeFake) Redeem(_ context.Context, serial, code string, key []byte) ([]byte, error) {
	o.said = append(o.said, "redeem "+serial+" "+code+" "+string(key))
	return []byte("parcel"), o.err
}

func (o *officeFake) Confirm(_ context.Context, serial, code string) (string, error) {
	o.said = append(o.said, "confirm "+serial+" "+code)
	if o.err != nil {
		return "", o.err
	}
	return "EMER-GENC", nil
}

func TestApps(t *testing.T) {
	office := &officeFake{}
	room := newRoom(t, func(c *Config) { c.Apps = office })
	post := func(path, body string) answer {
		_, a := room.route(t.Context(), request{method: http.MethodPost, path: path, contentType: "application/json", body: []byte(body)})
		return a
	}
	a := post("/app/activate", `{"serial":"APP-1","code":"AAAA","key":"a2V5"}`)
	var out struct{ Parcel []byte }
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusOK || string(out.Parcel) != "parcel" || a.cache != "" {
		t.Errorf("%+v %v", a, err)
	}
	if a = post("/app/confirm", `{"serial":"APP-1","code":"123456"}`); a.status != http.StatusOK || string(a.body) != `{"emergencyCode":"EMER-GENC"}` {
		t.Errorf("%+v", a)
	}
	if got := strings.Join(office.said, "|"); got != "redeem APP-1 AAAA key|confirm APP-1 123456" {
		t.Error(got)
	}
	for kind, want := range map[fault.Kind]int{
		fault.Invalid: 400, fault.Denied: 403, fault.Conflict: 409, fault.Expired: 410, fault.Exhausted: 429, fault.Unavailable: 503, fault.Internal: 503, fault.Busy: 503,
	} {
		office.err = fault.Newf(kind, "redeem", "geheim")
		for _, path := range []string{"/app/activate", "/app/confirm"} {
			if a := post(path, `{"serial":"APP-1","code":"AAAA","key":"a2V5"}`); a.status != want || string(a.body) != "{}" {
				t.Errorf("%s, %v: %d %s", path, kind, a.status, a.body)
			}
		}
	}
	office.err, office.said = nil, nil
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "x", "more": `{"serial":"A"} {}`, "unknown field": `{"seriale":"A"}`, "long": `{"serial":"` + strings.Repeat("A", maxAppRequest) + `"}`,
		"no base64": `{"key":"%%"}`,
	} {
		if a := post("/app/activate", body); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if _, a := room.route(t.Context(), request{method: http.MethodPost, path: "/app/activate", contentType: "text/plain", body: []byte(`{}`)}); a.status != http.StatusBadRequest {
		t.Errorf("another type: %d", a.status)
	}
	if _, a := room.route(t.Context(), request{method: http.MethodGet, path: "/app/activate", lang: "it"}); a.status != http.StatusMethodNotAllowed || a.allow != "POST" {
		t.Errorf("GET: %d", a.status)
	}
	if len(office.said) != 0 {
		t.Errorf("%v", office.said)
	}
	closed := newRoom(t, nil)
	if _, a := closed.route(t.Context(), request{method: http.MethodPost, path: "/app/activate", lang: "it"}); a.status != http.StatusNotFound {
		t.Errorf("without apps: %d", a.status)
	}
}
