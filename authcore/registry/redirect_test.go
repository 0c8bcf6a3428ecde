package registry

import (
	"net/http"
	"testing"
)

// TestSameHost: a redirect may change the path only. That another host does not
// answer proves nothing.
func TestSameHost(t *testing.T) {
	request := func(u string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := request("https://registry.example.it/entities")
	for u, good := range map[string]bool{
		"https://registry.example.it/moved": true, "http://registry.example.it/entities": false, "https://registry.example.it:8443/": false,
		"https://registry.example.it.attacker.example/": false, "https://169.254.169.254/": false,
	} {
		if err := sameHost(request(u), []*http.Request{first}); (err == nil) != good {
			t.Errorf("%s: %v", u, err)
		}
	}
	if sameHost(request("https://registry.example.it/x"), []*http.Request{first, first, first, first}) == nil {
		t.Error("redirects without end")
	}
}
