package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestRegistry(t *testing.T) {
	machine, err := os.ReadFile(examples + "machine.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(examples + "policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const directory, certificates = "registry_directory: /var/lib/custode/registry", `registry_certificates: ""`
	remote := []string{directory, `registry_directory: ""`, certificates, "registry_certificates: /etc/custode/agid.pem", `aggregate: ""`, "aggregate: https://registry.example.it/entities?entity_type=SP"}
	for name, c := range map[string]struct {
		change []string
		want   string // "" for accepted
	}{
		"remote":           {remote, ""},
		"paged, listing":   {append([]string{"page_size: 0", "page_size: 50", `listing: ""`, "listing: https://registry.example.it/entities-sp?output=json"}, remote...), ""},
		"file":             {append([]string{"aggregate: https", "x"}, append(remote[:4:4], `aggregate: ""`, "aggregate: /srv/sp.xml")...), ""},
		"no pin":           {append(remote[:2:2], remote[4:]...), "registry_certificates"},
		"both":             {remote[2:], "registry_directory"},
		"neither":          {remote[:4], "registry_directory"},
		"plain http":       {append(remote[:4:4], `aggregate: ""`, "aggregate: http://registry.example.it/"), "registry.aggregate"},
		"relative":         {append(remote[:4:4], `aggregate: ""`, "aggregate: sp.xml"), "registry.aggregate"},
		"file and URL":     {append([]string{`listing: ""`, "listing: /srv/sp.json"}, remote...), "registry.listing"},
		"listing alone":    {[]string{`listing: ""`, "listing: https://registry.example.it/"}, "registry"},
		"too large":        {append([]string{"max_mib: 1024", "max_mib: 100000"}, remote...), "registry.max_mib"},
		"interval":         {[]string{"interval: 1h", "interval: 1ms"}, "registry.interval"},
		"shrink":           {[]string{"max_shrink_percent: 25", "max_shrink_percent: 101"}, "registry.max_shrink_percent"},
		"stop before tell": {[]string{"stop_age: 0s", "stop_age: 1h"}, "registry.stop_age"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m, p := filepath.Join(dir, "machine.yaml"), filepath.Join(dir, "policy.yaml")
			r := strings.NewReplacer(c.change...)
			if r.Replace(string(machine)+string(policy)) == string(machine)+string(policy) {
				t.Fatal("the case changes nothing")
			}
			for path, text := range map[string][]byte{m: machine, p: policy} {
				if err := os.WriteFile(path, []byte(r.Replace(string(text))), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Load[Machine](m)
			if err == nil {
				_, err = Load[Policy](p)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an invalid-error naming %q", err, c.want)
			}
		})
	}
}
