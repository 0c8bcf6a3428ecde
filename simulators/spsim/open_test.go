package spsim

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOpenFetchesMetadata(t *testing.T) {
	var fail bool
	c := newClock()
	idp := newFakeIdP(t, c)
	raw := idp.metadata(t, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if fail {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(raw)
	}))
	defer server.Close()
	sp, _, _ := newSP(t, func(cfg *Config) { cfg.IdPMetadata, cfg.IdPMetadataURL = nil, server.URL })
	if _, _, err := sp.RedirectURL(Request{}); err == nil {
		t.Error("a request without IdP metadata")
	}
	fail = true
	if err := sp.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("IdP out of reach: got %v", err)
	}
	fail = false
	for range 2 {
		if err := sp.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if idp, err := sp.IdP(); err != nil || idp.EntityID != testIdP || idp.SSOPost != testIdP+"/sso/post" || len(idp.Signers) != 1 {
		t.Errorf("IdP %+v, %v", idp, err)
	}
	nowhere, _, _ := newSP(t, func(cfg *Config) { cfg.IdPMetadata = nil })
	if nowhere.Open(t.Context()) == nil {
		t.Error("opened without metadata and without an address")
	}
}
