package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

const examples = "../../docs/examples/"

func TestExamplesLoad(t *testing.T) {
	m, err := Load[Machine](examples + "machine.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if m.HSM.Sessions != 8 || len(m.Modems) != 1 || m.Modems[0].Name != "bay-1" {
		t.Errorf("machine: %+v", m)
	}
	p, err := Load[Policy](examples + "policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if p.Codes.Lifetime != 5*time.Minute || p.Keys.Sign.String() != "custode/sign/2026-1" || !strings.Contains(p.Codes.Text, "{code}") {
		t.Errorf("policy: %+v", p)
	}
}

// TestExamplesNameEveryKey keeps the example files complete: each yaml tag of
// the structs must stand in the file.
func TestExamplesNameEveryKey(t *testing.T) {
	for file, typ := range map[string]reflect.Type{"machine.yaml": reflect.TypeFor[Machine](), "policy.yaml": reflect.TypeFor[Policy]()} {
		text, err := os.ReadFile(examples + file)
		if err != nil {
			t.Fatal(err)
		}
		var walk func(reflect.Type)
		walk = func(typ reflect.Type) {
			switch typ.Kind() {
			case reflect.Slice:
				walk(typ.Elem())
			case reflect.Struct:
				for f := range typ.Fields() {
					tag := f.Tag.Get("yaml")
					if tag == "" {
						continue
					}
					if tag == ",inline" {
						walk(f.Type)
						continue
					}
					if !regexp.MustCompile(`(?m)^[ -]*` + tag + `:`).Match(text) {
						t.Errorf("%s does not document %q", file, tag)
					}
					walk(f.Type)
				}
			}
		}
		walk(typ)
	}
}

func TestRefusals(t *testing.T) {
	good, err := os.ReadFile(examples + "machine.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":       {"listen:", "lissen: x\nlisten:", "lissen"},
		"duplicate key":     {"listen:", "listen: x:1\nlisten:", "listen"},
		"two documents":     {"\nlog:", "\n---\nlog:", "more than one"},
		"no TLS":            {"certificate_file: /etc/custode/tls/chain.pem", "certificate_file: \"\"", "go together"},
		"plain not loop":    {"insecure_http_for_development: false", "insecure_http_for_development: true", "loopback"},
		"relative TLS key":  {"key_file: /etc/custode/tls/key.pem", "key_file: key.pem", "tls.key_file"},
		"relative path":     {"state_directory: /var/lib/custode", "state_directory: var", "state_directory"},
		"pin in the URI":    {"pin-source=file:/run/credentials/custode.service/pin", "pin-value=1234", "pin-value"},
		"bad level":         {"level: info", "level: loud", "log.level"},
		"bad modem name":    {"name: bay-1", "name: Bay 1", "modems[0].name"},
		"clock":             {"clock: kernel", "clock: none", "certified_log.clock"},
		"log directory":     {"directory: /var/lib/custode/log", "directory: log", "certified_log.directory"},
		"witness inside":    {"/mnt/auditor/custode", "/var/lib/custode/log/w", "certified_log.witness_directories"},
		"witness plain":     {"https://auditor.example.it", "http://auditor.example.it", "certified_log.witness_urls"},
		"relative roots":    {"/etc/custode/log/tsa.pem", "tsa.pem", "certified_log.tsa_certificates"},
		"mail without TLS":  {"tls: starttls", "tls: none", "certified_log.witness_mail.tls"},
		"mail to nobody":    {"to: [auditor@example.it]", "to: []", "certified_log.witness_mail.to"},
		"a forged header":   {"from: custode@idp.example.it", "from: \"a@b.it\\r\\nBcc: c@d.it\"", "certified_log.witness_mail.from"},
		"login by halves":   {"username: custode", "username: \"\"", "certified_log.witness_mail.username"},
		"metrics for all":   {"metrics_listen: 127.0.0.1:9464", "metrics_listen: 0.0.0.0:9464", "metrics_listen"},
		"too many sessions": {"sessions: 8", "sessions: 1000", "hsm.sessions"},
		"worker's socket":   {`worker_socket: ""`, `worker_socket: "x"`, "hsm.worker_socket"},
		"worker's user":     {`worker_user: ""`, `worker_user: "x"`, "hsm.worker_user"},
		"call limit":        {"call_limit: 5s", "call_limit: 5h", "hsm.call_limit"},
		"fail back":         {"fail_back: 30s", "fail_back: 1ms", "hsm.fail_back"},
		"little memory":     {"max_memory_mib: 512", "max_memory_mib: 1", "hsm.max_memory_mib"},
		"another library":   {"environment: {}", "environment: {LD_PRELOAD: /tmp/x.so}", "hsm.environment"},
		"odd variable":      {"environment: {}", "environment: {a-b: x}", "hsm.environment"},
		"standby without":   {"    init_args: \"\"", "    init_args: x", "hsm.standby.uri"},
		"standby's PIN":     {`    uri: ""`, "    uri: 'pkcs11:token=x?pin-value=1'", "hsm.standby.uri"},
		"standby's socket":  {"    uri: \"\"\n    init_args: \"\"\n    tolerate: []\n    worker_socket: \"\"", "    uri: 'pkcs11:token=x'\n    worker_socket: /run/x", "both workers"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(good), c.old, c.new, 1)
			if text == string(good) {
				t.Fatal("the case changes nothing")
			}
			path := filepath.Join(t.TempDir(), "machine.yaml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load[Machine](path)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an invalid-error naming %q", err, c.want)
			}
		})
	}
}

func TestPolicyRefusals(t *testing.T) {
	good, err := os.ReadFile(examples + "policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"short retention":  {"retention: 17520h", "retention: 8760h", "certified_log.retention"},
		"log key of codes": {"custode/log/2026-11", "custode/codes/2026-1", "one purpose"},
		"earlier log key":  {"earlier_log: []", "earlier_log: [custode/log/2026-11]", "earlier_log"},
		"no seal key":      {"  seal: custode/seal/2026-1\n", "", "keys.seal"},
		"TSA policy":       {"policy: 1.3.6", "policy: x.3.6", "certified_log.time_stamps"},
		"TSA address":      {"url: http://tsa.example.it/", "url: ftp://tsa.example.it/", "certified_log.time_stamps"},
		"verify hour":      {"verify_hour: 3", "verify_hour: 24", "verify_hour"},
		"long flow":        {"lifetime: 8m", "lifetime: 10m", "flow.lifetime"},
		"short flow":       {"lifetime: 8m", "lifetime: 30s", "flow.lifetime"},
		"shared key":       {"custode/codes/2026-1", "custode/pepper/2026-1", "one purpose"},
		"published sign":   {"also_published: []", "also_published: [custode/sign/2026-1]", "also_published"},
		"published twice":  {"also_published: []", "also_published: [custode/sign/2027-1, custode/sign/2027-1]", "also_published"},
		"published four":   {"also_published: []", "also_published: [s/1, s/2, s/3, s/4]", "also_published"},
		"unknown decision": {"replay_page: false", "replay_pages: false", "replay_pages"},
		"bad label":        {"custode/codes/2026-1", "Custode Codes", "key label"},
		"entityID":         {"entity_id: https://idp.example.it", "entity_id: idp", "entityID"},
		"URL with path":    {"public_url: https://idp.example.it", "public_url: https://idp.example.it/x", "public_url"},
		"plain, not loop":  {"public_url: https://idp.example.it", "public_url: http://idp.example.it", "public_url"},
		"fragment":         {"public_url: https://idp.example.it", "public_url: https://idp.example.it#x", "public_url"},
		"not a web site":   {"url: https://www.example.it", "url: www.example.it", "organization.url"},
		"costly hash":      {"memory_kib: 19456\n  iterations: 2", "memory_kib: 131072\n  iterations: 5", "memory_kib times iterations"},
		"part of minute":   {"lifetime: 5m", "lifetime: 90s", "codes.lifetime"},
		"too many tries":   {"wrong_codes: 3", "wrong_codes: 4", "wrong_codes"},
		"plain link":       {"privacy: https://www.example.it/privacy", "privacy: http://localhost/privacy", "pages.privacy"},
		"link of a path":   {"help: https://www.example.it/{lang}/assistenza", "help: /assistenza", "pages.help"},
		"quote in a link":  {"privacy: https://www.example.it/privacy", `privacy: 'https://www.example.it/">'`, "pages.privacy"},
		"bad budget":       {"burst: 3", "burst: -2", "sms.burst"},
		"bad prefix":       {"prefix: \"+882\"", "prefix: \"882\"", "sms.prefixes[0].prefix"},
		"long idle":        {"idle: 30m", "idle: 25h", "session.idle"},
		"short absolute":   {"absolute: 2h", "absolute: 20m", "session.absolute"},
		"patient logout":   {"logout_per_sp: 4s", "logout_per_sp: 11s", "session.logout_per_sp"},
		"hasty logout":     {"logout_total: 10s", "logout_total: 2s", "session.logout_total"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			text := strings.Replace(string(good), c.old, c.new, 1)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load[Policy](path); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an invalid-error naming %q", err, c.want)
			}
		})
	}
}

func TestBoundedAndSecretFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load[Machine](filepath.Join(dir, "none.yaml")); !fault.Is(err, fault.Fatal) {
		t.Errorf("no file: %v", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load[Machine](big); !fault.Is(err, fault.Invalid) {
		t.Errorf("oversize file: %v", err)
	}
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("1234\r\nrest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadSecret(pin); err != nil || string(s) != "1234" {
		t.Errorf("secret: %q, %v", s, err)
	}
	if err := os.Chmod(pin, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(pin); !fault.Is(err, fault.Fatal) || strings.Contains(err.Error(), "1234") {
		t.Errorf("group-readable secret: %v", err)
	}
}
