package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/simulators/browsersim"
	"custode/simulators/hsmsim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
)

// desk is the operators' table: a lab, keys of two operators, a folder for papers.
type desk struct {
	t   *testing.T
	l   *lab.Lab
	dir string
}

func newDesk(t *testing.T, policy map[string]string) desk {
	t.Helper()
	d := desk{t, own(t, lab.Config{Policy: policy}), t.TempDir()}
	text := "ceremony:\n  approvals: 2\n  operators:\n"
	for name, algorithm := range map[string][]string{"anna": {"-algorithm", "ed25519"}, "bruno": {"-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"}} {
		key := d.file(name + ".key")
		d.tool("openssl", append([]string{"genpkey", "-out", key}, algorithm...)...)
		d.tool("openssl", "pkey", "-in", key, "-pubout", "-out", d.file(name+".pem"))
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("    - name: %s\n      public_key: %s\n", name, d.file(name+".pem"))
	}
	machine := filepath.Join(d.l.Dir, "machine.yaml")
	before, err := os.ReadFile(machine)
	if err != nil {
		t.Fatal(err)
	}
	d.write(machine, string(before)+text)
	return d
}

func (d desk) file(name string) string { return filepath.Join(d.dir, name) }

func (d desk) write(path, text string) string {
	d.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func (d desk) read(path string) string {
	d.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

func (d desk) tool(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func (d desk) run(args ...string) string {
	d.t.Helper()
	out, err := d.l.Run(d.t.Context(), append([]string{"ceremony"}, args...)...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d desk) refused(says string, args ...string) {
	d.t.Helper()
	if out, err := d.l.Run(d.t.Context(), append([]string{"ceremony"}, args...)...); err == nil || !strings.Contains(err.Error(), says) {
		d.t.Errorf("%v: %v %s, want a refusal with %q", args, err, out, says)
	}
}

// ordered writes an order, has both operators approve it, and returns the flags.
func (d desk) ordered(name string, args ...string) []string {
	d.t.Helper()
	order := d.file(name + ".order")
	d.run(append(append([]string{"order"}, args...), "--out", order, "--reason", "prova "+name)...)
	flags := []string{"--order", order}
	for _, who := range []string{"anna", "bruno"} {
		d.run("approve", order, "--name", who, "--key", d.file(who+".key"))
		flags = append(flags, "--approval", order+"."+who+".approval")
	}
	return flags
}

const rotationPlan = `ceremony: laboratory-2026-2
token:
  label: simulator
approvals: 2
copies:
  custodians: [anna, bruno, carla]
  threshold: 2
keys:
  - label: custode/pepper/2026-2
    role: mac
    bits: 256
    copy: true
  - label: custode/outbox/2026-2
    role: wrap
    bits: 256
  - label: custode/records/2026-2
    role: wrap
    bits: 256
  - label: custode/sign/2026-2
    role: sign
    bits: 2048
    certificate:
      subject:
        common-name: Custode Laboratory
        organization: Custode Laboratory
        organization-identifier: VATIT-00000000000
        uri: https://idp.example.it
        country: IT
        locality: Roma
      validity-days: 365
`

// edit replaces text in one of the lab's files.
func (d desk) edit(name, old, fresh string) {
	d.t.Helper()
	path := filepath.Join(d.l.Dir, name)
	text := d.read(path)
	if !strings.Contains(text, old) {
		d.t.Fatalf("%s lacks %q", name, old)
	}
	d.write(path, strings.Replace(text, old, fresh, 1))
}

// TestRotationUnderDualControl goes through what an operator's year has: keys made
// under two approvals with a sealed report, pepper and outbox key changed under
// logins, the old keys refused for destruction until nothing needs them, the copy
// restored in another token, and all of it in the security log.
func TestRotationUnderDualControl(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	plan := d.write(d.file("plan.yaml"), rotationPlan)
	early, late := enrol(t, d.l), enrol(t, d.l)

	d.refused("2 operators must approve", "run", plan)
	flags := d.ordered("run", "run", "--token", "simulator", "--plan", plan)
	d.refused("1 of 2 approvals", append([]string{"run", plan}, flags[:4]...)...)
	other := d.write(d.file("other.yaml"), strings.Replace(rotationPlan, "2026-2\n    role: wrap", "2026-3\n    role: wrap", 1))
	d.refused("for something else", append([]string{"run", other}, flags...)...)
	report := d.run(append([]string{"run", plan, "--witness", "Carla Verdi"}, flags...)...)
	for _, want := range []string{"approved by     anna", "approved by     bruno", "witness         Carla Verdi", "custode/pepper/2026-2", "opened by any 2 of"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	d.papers(report)
	d.restoreElsewhere()
	d.authority("custode/sign/2026-2")
	d.newPIN()

	// Both people have a password under the old pepper.
	pepper, outbox, records := "custode/pepper/2026-1", "custode/outbox/2026-1", "custode/records/2026-1"
	d.refused("policy.yaml names it: keys.records; 1 data keys of the database are wrapped by it", append([]string{"destroy", records}, d.ordered("d0", "destroy", "--token", "simulator", "--key", records)...)...)
	d.refused("policy.yaml names it: keys.pepper", append([]string{"destroy", pepper}, d.ordered("d1", "destroy", "--token", "simulator", "--key", pepper)...)...)
	d.edit("policy.yaml", "  pepper: custode/pepper/2026-1", "  pepper: custode/pepper/2026-2\n  earlier_pepper: [custode/pepper/2026-1]")
	d.edit("policy.yaml", "  outbox: custode/outbox/2026-1", "  outbox: custode/outbox/2026-2\n  earlier_outbox: [custode/outbox/2026-1]")
	d.edit("policy.yaml", "  records: custode/records/2026-1", "  records: custode/records/2026-2\n  earlier_records: [custode/records/2026-1]")
	d.edit("machine.yaml", "hsm:\n", "hsm:\n  copied: [custode/pepper/2026-2]\n")
	d.restart()
	login := func(p lab.Person) {
		t.Helper()
		if _, err := d.l.Login(t.Context(), browsersim.New(nil), spsim.Request{Level: 2}, true, p); err != nil {
			t.Fatal(err)
		}
	}
	login(early)
	login(early) // under the new pepper now
	if out := d.run("keys"); !strings.Contains(out, `"custode/pepper/2026-2": 1`) || !strings.Contains(out, `"custode/pepper/2026-1": 1`) || !strings.Contains(out, `"done": true`) {
		t.Errorf("keys: %s", out)
	}
	d.refused("keys.earlier_pepper; 1 passwords are hashed under it", append([]string{"destroy", pepper}, d.ordered("d2", "destroy", "--token", "simulator", "--key", pepper)...)...)
	login(late)
	if out := d.run("keys"); !strings.Contains(out, `"custode/pepper/2026-1": 0`) {
		t.Errorf("keys: %s", out)
	}
	d.edit("policy.yaml", "  earlier_pepper: [custode/pepper/2026-1]\n", "")
	d.edit("policy.yaml", "  earlier_outbox: [custode/outbox/2026-1]\n", "")
	d.rewrapped("records")
	d.edit("policy.yaml", "  earlier_records: [custode/records/2026-1]\n", "")
	d.restart()
	for _, key := range []string{pepper, outbox, records} {
		d.run(append([]string{"destroy", key}, d.ordered("d3"+filepath.Base(filepath.Dir(key)), "destroy", "--token", "simulator", "--key", key)...)...)
	}
	d.restart()
	login(early)
	login(late)
	d.logged("ceremony-run", "ceremony-run-key", "ceremony-run-done", "approved by anna, bruno", "ceremony-destroy-done", "ceremony-restore-done", "ceremony-import-done", "ceremony-pin-done", "key "+pepper)
}

// rewrapped waits until everything of a table is under today's key.
func (d desk) rewrapped(table string) {
	d.t.Helper()
	for limit := time.Now().Add(40 * time.Second); ; time.Sleep(time.Second) {
		var s struct {
			Rewrapping map[string]struct{ Done bool }
		}
		if err := json.Unmarshal([]byte(d.run("keys")), &s); err != nil {
			d.t.Fatal(err)
		}
		if s.Rewrapping[table].Done {
			return
		}
		if time.Now().After(limit) {
			d.t.Fatalf("%s: %+v", table, s.Rewrapping[table])
		}
	}
}

func (d desk) restart() {
	d.t.Helper()
	if err := d.l.StopDaemon(); err != nil {
		d.t.Fatal(err)
	}
	if err := d.l.StartDaemon(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// papers has tools that are not ours judge the report: openssl its seals, poppler
// nothing (a PDF begins with its name).
func (d desk) papers(report string) {
	d.t.Helper()
	base := d.file("laboratory-2026-2.report")
	seal := d.l.SealCertificate()
	for _, form := range []string{".txt", ".pdf"} {
		out := d.file("opened" + form)
		d.tool("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", base+form+".p7m", "-CAfile", seal, "-purpose", "any", "-out", out)
		if d.read(out) != d.read(base+form) {
			d.t.Errorf("the seal of the report%s is over something else", form)
		}
	}
	if d.read(base+".txt") != report || !strings.HasPrefix(d.read(base+".pdf"), "%PDF-1.") {
		d.t.Error("the files are not the report")
	}
	d.run("sign", base+".txt", "--name", "anna", "--key", d.file("anna.key"))
	if out := d.run("verify", base+".txt", base+".txt.anna.sig"); !strings.Contains(out, "signed by anna") {
		d.t.Error(out)
	}
	d.refused("another file", "verify", base+".pdf", base+".txt.anna.sig")
}

// authority has openssl issue the certificate of a signing key.
func (d desk) authority(key string) {
	d.t.Helper()
	d.run("request", key, "--out", d.file("sign.csr"))
	d.tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", d.file("ca.key"), "-out", d.file("ca.pem"), "-subj", "/C=IT/CN=Prova CA", "-days", "30")
	d.tool("openssl", "x509", "-req", "-in", d.file("sign.csr"), "-CA", d.file("ca.pem"), "-CAkey", d.file("ca.key"), "-days", "10", "-copy_extensions", "copyall", "-out", d.file("issued.pem"))
	d.refused("operators must approve", "import", key, d.file("issued.pem"), "--roots", d.file("ca.pem"))
	flags := d.ordered("import", "import", "--token", "simulator", "--key", key)
	if out := d.run(append([]string{"import", key, d.file("issued.pem"), "--roots", d.file("ca.pem")}, flags...)...); !strings.Contains(out, key+".was-") {
		d.t.Error(out)
	}
}

// newPIN changes the token's PIN while the daemon is logged in; its next start, which
// comes with the next restart, uses the new one.
func (d desk) newPIN() {
	d.t.Helper()
	const pin = "a-new-and-long-pin"
	file := d.write(d.file("new-pin"), pin+"\n")
	d.run(append([]string{"pin", "--new", file}, d.ordered("pin", "pin", "--token", "simulator")...)...)
	if got := d.read(d.l.HSM.PINFile); got != pin+"\n" {
		d.t.Error("the PIN file has not the new PIN")
	}
}

// restoreElsewhere puts the copied key into a second token, which has a
// configuration file of SoftHSM of its own.
func (d desk) restoreElsewhere() {
	t := d.t
	t.Helper()
	second, err := hsmsim.New(filepath.Join(d.dir, "second"))
	if err != nil {
		t.Fatal(err)
	}
	backup, share := d.file("laboratory-2026-2.backup"), d.file("laboratory-2026-2.share-")
	flags := d.ordered("restore", "restore", "--token", "simulator", "--backup", backup)
	run := func(args ...string) (string, error) {
		return runWith(t.Context(), d.l, second.Env(), append(append([]string{"ceremony", "restore", backup, "--uri", second.URI(), "--out", d.file("restored.txt")}, args...), flags...)...)
	}
	if out, err := run("--share", share+"1-anna.txt"); err == nil || !strings.Contains(out, "1 of 2 needed") {
		t.Errorf("one share: %v %s", err, out)
	}
	out, err := run("--share", share+"1-anna.txt", "--share", share+"3-carla.txt", "--witness", "Dino Neri")
	if err != nil || !strings.Contains(out, "custodians      anna, carla") || !strings.Contains(out, "the very result that the first token gave") || !strings.Contains(out, "serial "+second.Serial) {
		t.Errorf("restore: %v %s", err, out)
	}
}

// runWith is Lab.Run with another environment.
func runWith(ctx context.Context, l *lab.Lab, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, custode, append([]string{"--machine", filepath.Join(l.Dir, "machine.yaml"), "--policy", filepath.Join(l.Dir, "policy.yaml")}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// logged insists on texts in the security log.
func (d desk) logged(want ...string) {
	d.t.Helper()
	for _, args := range [][]string{{"log", "seal", "--log", "security"}, {"log", "export", "--plain", "--log", "security", d.file("security.jsonl")}} {
		if _, err := d.l.Run(d.t.Context(), args...); err != nil {
			d.t.Fatal(err)
		}
	}
	kept := d.read(d.file("security.jsonl"))
	for _, w := range want {
		if !strings.Contains(kept, w) {
			d.t.Errorf("the security log lacks %q", w)
		}
	}
}

// TestRehearsal: a whole plan runs on a rehearsal's token without approvals, says so
// on paper, and no appliance serves with that token; a real token takes no rehearsal.
func TestRehearsal(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	toy, err := hsmsim.NewLabelled(filepath.Join(d.dir, "toy"), "rehearsal-1")
	if err != nil {
		t.Fatal(err)
	}
	plan := d.write(d.file("plan.yaml"), rotationPlan)
	d.refused("a rehearsal wants a token whose label begins with", "run", plan, "--rehearse", "--out", d.file("a"))
	onToy := func(args ...string) (string, error) {
		return runWith(t.Context(), d.l, toy.Env(), append([]string{"ceremony"}, args...)...)
	}
	flags := d.ordered("run", "run", "--token", "simulator", "--plan", plan)
	if out, err := onToy(append([]string{"run", plan, "--uri", toy.URI(), "--out", d.file("b")}, flags...)...); err == nil || !strings.Contains(out, "the plan wants") {
		t.Errorf("a real ceremony on it: %v %s", err, out)
	}
	out, err := onToy("run", plan, "--uri", toy.URI(), "--rehearse", "--out", d.file("c"))
	if err != nil || !strings.Contains(out, "REHEARSAL  REHEARSAL") {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := onToy("restore", d.file("c/REHEARSAL-laboratory-2026-2.backup"), "--uri", d.l.HSM.URI(), "--out", d.file("r.txt"),
		"--share", d.file("c/REHEARSAL-laboratory-2026-2.share-1-anna.txt"), "--share", d.file("c/REHEARSAL-laboratory-2026-2.share-2-bruno.txt")); err == nil {
		t.Errorf("a rehearsal's backup went into the real token: %s", out)
	}
	if out, err := onToy("destroy", "custode/pepper/2026-2", "--uri", toy.URI(), "--rehearse"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	// Nobody serves with it.
	if err := d.l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	d.edit("machine.yaml", d.l.HSM.URI(), toy.URI())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if out, err := runWith(ctx, d.l, toy.Env(), "serve"); err == nil || ctx.Err() != nil || !strings.Contains(out, "for rehearsals") {
		t.Errorf("it serves with a rehearsal's token: %v %s", err, out)
	}
}

// TestReseed: a device's secret comes under a new seed key from its escrow copy while
// the appliance stands still; the old key is destroyed, and the device goes on.
func TestReseed(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	recovery := d.file("recovery.key")
	d.tool("openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-keyout", recovery, "-out", d.file("recovery.pem"), "-subj", "/CN=recovery", "-days", "3650")
	if err := os.Chmod(recovery, 0o600); err != nil {
		t.Fatal(err)
	}
	d.edit("machine.yaml", "hsm:\n", "hsm:\n  recovery_certificate: "+d.file("recovery.pem")+"\n")
	d.restart()
	const secret = "3132333435363738393031323334353637383930"
	p := enrol(t, d.l, func(p *lab.Person) { p.Phone = "" })
	serial := "RS-" + strings.TrimPrefix(p.Attributes["spidCode"], "LABX") // a SPID code in the log is personal data
	delivered(t, d.l, p, serial, secret)
	if out, err := feed(t, d.l, hotp(t, secret, 3), "token", "activate", serial); err != nil {
		t.Fatal(err, out)
	}
	plan := d.write(d.file("plan.yaml"), "ceremony: seed-2\ntoken:\n  label: simulator\nkeys:\n  - label: custode/seed/2026-2\n    role: seed\n    bits: 256\n")
	d.run(append([]string{"run", plan}, d.ordered("run", "run", "--token", "simulator", "--plan", plan)...)...)
	const old = "custode/seed/2026-1"
	d.edit("policy.yaml", "  seed: "+old, "  seed: custode/seed/2026-2\n  earlier_seed: ["+old+"]")
	flags := d.ordered("reseed", "reseed", "--token", "simulator")
	d.refused("another custode serves", append([]string{"reseed", "--key", recovery}, flags...)...)
	if err := d.l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	d.refused("operators must approve", "reseed", "--key", recovery)
	if out := d.run(append([]string{"reseed", "--key", recovery}, flags...)...); !strings.Contains(out, `"resealed": 1`) || !strings.Contains(out, `"left": 0`) {
		t.Errorf("reseed: %s", out)
	}
	d.edit("policy.yaml", "  earlier_seed: ["+old+"]\n", "")
	if err := d.l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.run(append([]string{"destroy", old}, d.ordered("destroy", "destroy", "--token", "simulator", "--key", old)...)...)
	v := arrive(t, d.l, post, spsim.Request{Level: 2})
	v.password(p)
	v.choose("token")
	v.code(hotp(t, secret, 4))
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	d.logged("ceremony-reseed-done", "1 resealed, 0 left")
}
