package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog/notary"
	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/mailsim"
	"custode/simulators/spsim/slo"
)

// reconfigure changes the machine file, and the policy file, under a stopped daemon; each
// pair is what stands there and what is to stand.
func reconfigure(t *testing.T, l *lab.Lab, pairs ...[2]string) {
	t.Helper()
	err := l.Restart(t.Context(), func(machine, policy string) (string, string) {
		for _, p := range pairs {
			if n := strings.Count(machine, p[0]) + strings.Count(policy, p[0]); n != 1 {
				t.Fatalf("%q is there %d times", p[0], n)
			}
			machine, policy = strings.Replace(machine, p[0], p[1], 1), strings.Replace(policy, p[0], p[1], 1)
		}
		return machine, policy
	})
	if err != nil {
		t.Fatal(err)
	}
}

// nextKeys is the plan of the month after.
const nextKeys = `ceremony: laboratory-2026-2
token:
  label: simulator
keys:
  - label: custode/seal/2026-2
    role: sign
    bits: 2048
    certificate:
      subject:
        common-name: Second Log Seal
        organization: Custode Laboratory
        organization-identifier: VATIT-00000000000
        uri: https://idp.example.it
        country: IT
        locality: Roma
      validity-days: 3650
  - label: custode/log/2026-2
    role: wrap
    bits: 256
`

// lines returns a file of JSON lines.
func lines(t *testing.T, path string) (out []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		out = append(out, one)
	}
	return out
}

// TestKeysOfTheLog: an escrow key opens the log without the token, and seal and wrap
// key are rolled over while old segments stay readable and verifiable.
func TestKeysOfTheLog(t *testing.T) {
	l := own(t, lab.Config{})
	dir := t.TempDir()
	for _, name := range []string{"escrow", "other"} {
		if out, err := command(t, dir, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN="+name, "-days", "30", "-keyout", name+".key", "-out", name+".pem"); err != nil {
			t.Fatal(err, out)
		}
	}
	escrow := filepath.Join(dir, "escrow.key")
	reconfigure(t, l, [2]string{"certified_log:\n  directory:", "certified_log:\n  escrow_certificate: " + filepath.Join(dir, "escrow.pem") + "\n  directory:"})
	p := enrol(t, l)
	login(t, l, redirect, 1, p)
	run(t, l, "log", "seal")

	plan := filepath.Join(dir, "plan.yaml")
	if err := os.WriteFile(plan, []byte(nextKeys), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	run(t, l, "ceremony", "run", plan, "--out", dir)
	first, second := l.SealCertificate(), filepath.Join(dir, "custode_seal_2026-2.crt.pem")
	reconfigure(t, l, [2]string{"seal: custode/seal/2026-1", "seal: custode/seal/2026-2"}, [2]string{"  log: custode/log/2026-1", "  log: custode/log/2026-2\n  earlier_log: [custode/log/2026-1]"},
		[2]string{"  escrow_certificate:", "  seal_certificates: " + first + "\n  escrow_certificate:"})
	login(t, l, redirect, 1, p)
	run(t, l, "log", "seal")
	folder := filepath.Join(l.LogDir(), "transactions")
	for n, label := range map[int]string{1: "custode/log/2026-1", 2: "custode/log/2026-2"} {
		var key struct{ Operational, Escrow []byte }
		text, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("%012d.key", n)))
		if err == nil {
			err = json.Unmarshal(text, &key)
		}
		if err != nil || !strings.Contains(string(key.Operational), label) || len(key.Escrow) != 256 {
			t.Errorf("segment %d is not under %s and the escrow key: %v", n, label, err)
		}
	}
	clear := filepath.Join(dir, "clear.jsonl")
	run(t, l, "log", "export", "--plain", clear)
	if got := lines(t, clear); len(got) != 2 {
		t.Errorf("%d records by both wrap keys", len(got))
	}

	// Both seals are trusted, or segment 1 is named.
	both := []string{"--seal", first, "--seal", second, "--tsa", l.TSACertificates()}
	run(t, l, append([]string{"log", "verify", folder}, both...)...)
	if out, err := command(t, dir, verifier(t), append(both, folder)...); err != nil || !strings.Contains(out, "VERIFIED") {
		t.Errorf("custode-verify: %v\n%s", err, out)
	}
	if out := refused(t, l, 65, "log", "verify", folder, "--seal", second, "--tsa", l.TSACertificates()); !strings.Contains(out, `segment 1: the seal is not good`) || !strings.Contains(out, "which is not a trusted seal") {
		t.Errorf("with the new seal alone: %s", out)
	}
	from, to := interval()
	file := filepath.Join(dir, "a.zip")
	run(t, l, "log", "attest", "--subject", p.Attributes["spidCode"], "--from", from, "--to", to, "--out", file)
	if out, err := command(t, dir, verifier(t), append(both, file)...); err != nil || !strings.Contains(out, "2 accesses") {
		t.Errorf("attestation over two seals: %v\n%s", err, out)
	}

	// A record that nobody sealed; then the machine dies. What is left is a copy of the disk.
	login(t, l, redirect, 1, p)
	l.KillDaemon()
	copied := filepath.Join(dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	off := func(key, out string) (string, error) { // no machine file, no token
		return command(t, dir, l.Binary(), "--machine", "/nowhere", "log", "export", "--escrow-key", key, "--folder", copied, "--seal", first, "--seal", second, out)
	}
	recovered := filepath.Join(dir, "recovered.jsonl")
	if out, err := off(escrow, recovered); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := lines(t, recovered)
	if len(got) != 3 || got[1]["unsealed"] != nil || got[2]["unsealed"] != true || !strings.Contains(got[2]["requestXML"].(string), "AuthnRequest") {
		t.Errorf("recovered %d records", len(got))
	}
	if out, err := off(filepath.Join(dir, "other.key"), filepath.Join(dir, "no.jsonl")); err == nil || !strings.Contains(out, "escrow wrap") {
		t.Errorf("another key: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "no.jsonl")); err == nil {
		t.Error("a file is left of a failed export")
	}
	if err := os.Chmod(escrow, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := off(escrow, filepath.Join(dir, "no.jsonl")); err == nil || !strings.Contains(out, "only its owner") {
		t.Errorf("a key that everybody may read: %v\n%s", err, out)
	}
}

// TestKernelClock: while the kernel's clock is not synchronised (on a machine without
// chrony it never is) nothing is sealed, logins go on, and what waited is sealed afterwards.
func TestKernelClock(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	reconfigure(t, l, [2]string{"clock: none", "clock: kernel"})
	good := notary.KernelClock(t.Context()) == nil
	login(t, l, redirect, 1, p)
	if good {
		run(t, l, "log", "seal")
	} else if out := refused(t, l, 75, "log", "seal"); !strings.Contains(out, "clock cannot be trusted") {
		t.Errorf("seal: %s", out)
	}
	login(t, l, redirect, 1, p)
	waiting := map[bool]string{true: " 0", false: " 1"}[good]
	if page := figures(t, l); !strings.Contains(page, `custode_log_unsealed_segments{log="transactions"}`+waiting) {
		t.Errorf("synchronised %t:\n%s", good, page)
	}
	reconfigure(t, l, [2]string{"clock: kernel", "clock: none"})
	run(t, l, "log", "seal")
	run(t, l, "log", "verify", filepath.Join(l.LogDir(), "transactions"), "--seal", l.SealCertificate())
	if out := run(t, l, "log", "status"); strings.Contains(out, `"unsealed": 1`) {
		t.Errorf("status: %s", out)
	}
	t.Logf("the kernel's clock is synchronised: %t", good)
}

func figures(t *testing.T, l *lab.Lab) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.Metrics+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMailWitness: an auditor's mailbox shows a log that was shortened, whatever else
// arrives in it; a mail server that is away stops nothing.
func TestMailWitness(t *testing.T) {
	box := t.TempDir()
	server, err := mailsim.Start(mailsim.Config{Dir: box, User: "custode", Pass: "Vento-Fresco_9"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dir := t.TempDir()
	for name, text := range map[string][]byte{"mail.pem": server.RootPEM(), "password": []byte("Vento-Fresco_9\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := own(t, lab.Config{})
	reconfigure(t, l, [2]string{"  clock: none", fmt.Sprintf("  clock: none\n  witness_mail: {server: %q, tls: starttls, certificates: %s, from: custode@idp.example.it, to: [auditor@example.it], username: custode, password_file: %s}",
		server.Addr, filepath.Join(dir, "mail.pem"), filepath.Join(dir, "password"))})
	p := enrol(t, l)
	server.Refuse("451 later")
	login(t, l, redirect, 1, p)
	run(t, l, "log", "seal")
	if out := run(t, l, "log", "status"); !strings.Contains(out, "451 ") || !strings.Contains(out, "mailto:auditor@example.it") || strings.Contains(out, "Vento") {
		t.Errorf("status: %s", out)
	}
	server.Refuse("")
	login(t, l, redirect, 1, p)
	run(t, l, "log", "seal")
	run(t, l, "log", "seal", "--log", "security")
	if n := len(server.Letters()); n < 3 {
		t.Fatalf("%d letters", n)
	}
	if err := os.WriteFile(filepath.Join(box, "spam.eml"), []byte("Content-Type: application/pkcs7-mime\r\n\r\nbuy"), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := []string{"--seal", l.SealCertificate(), "--tsa", l.TSACertificates(), "--mail", box}
	copied := filepath.Join(dir, "copy")
	run(t, l, "log", "export", copied)
	if out := run(t, l, append([]string{"log", "verify", copied}, trust...)...); !strings.Contains(out, "1 of them not good and ignored") {
		t.Errorf("verify: %s", out)
	}
	for _, suffix := range []string{"seg", "idx", "hsh", "key", "p7m"} {
		if err := os.Remove(filepath.Join(copied, "000000000002."+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	if out := refused(t, l, 65, append([]string{"log", "verify", copied}, trust...)...); !strings.Contains(out, "segment 2: the witness "+box+" holds its checkpoint") {
		t.Errorf("shortened: %s", out)
	}
	if out, err := command(t, dir, verifier(t), append(trust, copied)...); err == nil || !strings.Contains(out, "segment 2: the witness") {
		t.Errorf("custode-verify: %v\n%s", err, out)
	}
}

// TestLogThrownAway: a folder that was emptied is not begun anew, and a running daemon
// whose records vanish says so within seconds.
func TestLogThrownAway(t *testing.T) {
	l := own(t, lab.Config{})
	p := enrol(t, l)
	login(t, l, redirect, 1, p)
	login(t, l, redirect, 1, p)
	folder := filepath.Join(l.LogDir(), "transactions")
	if err := os.Remove(filepath.Join(folder, "000000000001.seg")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); health(t, l) != http.StatusServiceUnavailable; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the open segment was removed 20 s ago, and the appliance is healthy")
		}
	}
	_ = l.StopDaemon()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(context.WithoutCancel(t.Context())); err == nil {
		t.Error("the daemon starts with an empty log in the place of the old one")
	}
}

// TestSessionsInTheSecurityLog: how sessions end, and what came of telling the others.
func TestSessionsInTheSecurityLog(t *testing.T) {
	f := newCircle(t, nil)
	who := enrol(t, f.l)
	ends := map[string]func(b *browsersim.Browser){
		"by a service provider": func(b *browsersim.Browser) {
			logins := f.everywhere(b, who)
			f.follow(b, f.begin(b, f.redir, "redirect", logins[f.redir], slo.Options{}), nil)
		},
		"by the subject": func(b *browsersim.Browser) {
			f.login(b, f.all, &who)
			f.follow(b, f.submit(b, f.get(b, f.l.IdP+"/session"), "", nil), nil)
		},
	}
	for by, end := range ends {
		end(browsersim.New(nil))
		events := plain(t, f.l, "security")
		for _, want := range []string{`"session-ended"`, by, f.all.sp.EntityID(), `"logout-told"`, "not confirmed: none; confirmed: ", "127.0.0.1"} {
			if !strings.Contains(events, want) {
				t.Errorf("%s: the security log does not hold %q", by, want)
			}
		}
	}
	if all := recorded(t, f.l); len(all) == 0 {
		t.Error("the register is empty")
	}
	for xml := range recorded(t, f.l) {
		if strings.Contains(xml, "LogoutResponse") {
			t.Error("a logout is in the register of transactions")
		}
	}
}
