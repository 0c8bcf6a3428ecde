package e2e

import (
	"bytes"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"custode/simulators/browsersim"
	"custode/simulators/lab"
	"custode/simulators/spsim"
	"custode/simulators/spsim/slo"
)

// unique is a person whose every value is found nowhere else.
func unique(p *lab.Person) {
	p.Username, p.Password, p.Phone = "zenobia.q8812x", "Camelia-Persa_7719", "+393479871236"
	p.Attributes = map[string]string{
		"spidCode": "LABXZQ88127719", "name": "Zenobiagrazia", "familyName": "Quarantottini", "gender": "F",
		"dateOfBirth": "1937-02-11", "placeOfBirth": "Z614", "countyOfBirth": "EE",
		"fiscalNumber": "TINIT-QRTZBG37B51Z614H", "email": "zq8812@posta-unica.example.it", "digitalAddress": "zq7719@pec-unica.example.it",
		"address": "vicolo delle Camelie 7719 00187 Roma RM", "domicileStreetAddress": "calle Quintavalle 8812/ter",
		"domicilePostalCode": "00187", "domicileMunicipality": "Borgofranco sul Quarzo", "domicileProvince": "RM", "domicileNation": "Esperantoland",
		"idCard":         "passaporto ZQ7719881 comuneBorgofranco 2021-03-17 2031-03-16",
		"expirationDate": "2031-03-16", "mobilePhone": p.Phone,
	}
}

// traces are the person's values that identify; what thousands share (a province) is left out.
func traces(p lab.Person) map[string]string {
	values := map[string]string{"username": p.Username, "password": p.Password, "telephone": p.Phone, "place of birth": ">Z614<", "place of birth in JSON": `"Z614"`}
	for name, v := range p.Attributes {
		if len(v) >= 8 && name != "mobilePhone" {
			values[name] = v
		}
	}
	return values
}

// mayTrace reports whether this process may read the memory of one that forbids it: CAP_SYS_PTRACE, which root has
// except in some containers.
func mayTrace(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^CapEff:\s*([0-9a-f]+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("no CapEff in /proc/self/status")
	}
	caps, err := strconv.ParseUint(string(m[1]), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return caps&(1<<unix.CAP_SYS_PTRACE) != 0
}

// inMemory searches a core dump of a process, which only root can take: anybody else must be refused, and finds nothing.
// What is not personal and always there must be found, else it is no dump of that process.
func inMemory(t *testing.T, tr *tracer, pid int) (count map[string]int, around []string) {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "core")
	out, err := exec.CommandContext(t.Context(), "gcore", "-o", prefix, fmt.Sprint(pid)).CombinedOutput()
	core := fmt.Sprintf("%s.%d", prefix, pid)
	defer os.Remove(core) // two gigabytes, mostly of nothing
	if !mayTrace(t) {
		if _, made := os.Stat(core); made == nil {
			t.Error("the process's own user can dump its memory")
		}
		t.Log("the memory is not searched: this needs CAP_SYS_PTRACE")
		return nil, nil
	}
	if _, missing := os.Stat(core); missing != nil {
		t.Fatalf("no core dump (install the Debian package gdb): %v\n%s", err, out)
	}
	always := newTracer(t, map[string]string{"label of a key": "custode/records/2026-1"})
	if there, _, size := always.searchFile(t, core); there["label of a key"] == 0 || size < 10<<20 {
		t.Fatalf("this is no core dump of process %d: %d octets, %v", pid, size, there)
	}
	count, around, _ = tr.searchFile(t, core)
	return count, around
}

// quiet is how long after the last request nothing of it is in the memory; docs/design/internal-forget.md
// says what keeps what until when. On a busy machine the last collection may come later: patience is when it is a failure.
const quiet, patience = 95 * time.Second, 4 * time.Minute

// forgotten waits until a dump of each process holds nothing of the person. The daemon stands still while its
// worker is dumped, which takes seconds: it gives up a worker that does not answer for ten.
func forgotten(t *testing.T, tr *tracer, pids map[string]int) {
	t.Helper()
	since := time.Now()
	time.Sleep(quiet)
	dump := func(pid int) (map[string]int, []string) {
		if daemon := pids["daemon"]; pid != daemon {
			if err := syscall.Kill(daemon, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(daemon, syscall.SIGCONT) }()
		}
		return inMemory(t, tr, pid)
	}
	for _, name := range []string{"daemon", "token's worker"} {
		pid := pids[name]
		count, around := dump(pid)
		for len(count) != 0 && time.Since(since) < patience {
			time.Sleep(quiet / 6)
			count, around = dump(pid)
		}
		if len(count) != 0 {
			t.Errorf("the memory of the %s holds personal data: %v\n%s", name, count, strings.Join(around, "\n"))
		}
		t.Logf("%s: nothing after %v", name, time.Since(since).Round(time.Second))
	}
}

// devices has the person log in with a pushed code and with one that the app shows, after an operator
// who writes names into reasons had to do with the device.
func devices(t *testing.T, l *lab.Lab, p lab.Person) {
	t.Helper()
	out, err := l.Run(t.Context(), "token", "enrol", p.Username, "--code")
	if err != nil {
		t.Fatal(err)
	}
	serial, a := word(t, out, `serial: (\S+)`), &app{t: t, l: l}
	a.confirmed(serial, word(t, out, `activation code: (\S+)`))
	reason := "ha chiamato " + p.Attributes["name"] + " " + p.Attributes["familyName"] + " dal " + p.Phone
	run(t, l, "token", "block", serial, "--reason", reason)
	run(t, l, "token", "unblock", serial, "--reason", reason)
	v := arrive(t, l, redirect, spsim.Request{Level: 2})
	v.password(p)
	v.choose("push")
	message, err := l.Pushes.Wait(t.Context(), serial, 1)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := a.Open(message, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v.code(pushed.Code)
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	v = arrive(t, l, post, spsim.Request{Level: 2})
	v.password(p)
	v.choose("app")
	code, err := a.Code(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v.code(wrong(code))
	v.code(code)
	v.submit("consent", nil)
	if _, err := v.consume(); err != nil {
		t.Fatal(err)
	}
	enrolQR(t, l, p)
}

// TestNoPersonalDataAtRest: after logins of a subject none of its values, no seed of a device and not the token's PIN is readable in the state directory, the
// certified log, a backup, the daemon's log and, after a quiet while, in the memory of the daemon and of the token's worker.
func TestNoPersonalDataAtRest(t *testing.T) {
	t.Parallel()
	f := newCircle(t, nil)
	l := f.l
	p := enrol(t, l, unique)
	marks := traces(p)
	holder, _, uri := activated(t, l)
	marks["seed of a device"] = uri.Get("secret")
	octets, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(uri.Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	marks["seed of a device, as octets"] = string(octets)
	pin, err := os.ReadFile(l.HSM.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	marks["PIN of the token"] = strings.TrimSpace(string(pin))
	tr := newTracer(t, marks)

	app := arrive(t, l, redirect, spsim.Request{Level: 2})
	app.password(holder)
	app.choose("app")
	app.code(uri.code(t, 0))
	app.submit("consent", nil)
	if _, got := login(t, l, post, 2, p); got.Attributes["familyName"] != "Quarantottini" {
		t.Fatalf("%v", got.Attributes)
	}
	v := arrive(t, l, redirect, spsim.Request{Level: 1})
	v.submit("password", map[string]string{"username": p.Username, "password": "x" + p.Password})
	v.submit("password", map[string]string{"username": p.Password, "password": p.Username})
	v.password(p)
	v.submit("cancel", nil)
	devices(t, l, p)
	b := browsersim.New(nil)
	logins := f.everywhere(b, p)
	pids := map[string]int{"daemon": l.PID(), "token's worker": tokens(t, l)[0].Worker.PID}
	// The search is able to fail: it finds who is in the middle of a login, and what was just used.
	if count, _ := inMemory(t, tr, l.PID()); mayTrace(t) && (count["name"] == 0 || count["spidCode"] == 0) {
		t.Errorf("the search does not find a person who is logging in: %v", count)
	}
	f.follow(b, f.begin(b, f.all, "redirect", logins[f.all], slo.Options{RelayState: "torna"}), nil)
	run(t, l, "identity", "show", p.Username)
	from, to := interval()
	run(t, l, "log", "seal")
	run(t, l, "log", "attest", "--subject", p.Attributes["spidCode"], "--name", "Zenobiagrazia", "--from", from, "--to", to,
		"--out", filepath.Join(t.TempDir(), "a.zip"))
	backup := filepath.Join(t.TempDir(), "copy.db")
	run(t, l, "backup", backup)
	refused(t, l, 75, "backup", backup) // never over a file
	if st, err := os.Stat(backup); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v", st, err)
	}
	noneIn(t, tr, filepath.Join(l.Dir, "state"), l.LogDir(), l.WitnessDir(), filepath.Dir(backup))
	noneInLog(t, tr, l)

	for name, pid := range pids {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
			t.Errorf("the %s may dump core: %v\n%s", name, err, limits)
		}
	}
	if now := tokens(t, l)[0].Worker.PID; now != pids["token's worker"] {
		t.Errorf("the token's worker was replaced: %d, then %d", pids["token's worker"], now)
	}
	forgotten(t, tr, pids)
	restore(t, l, p, backup)
	noneIn(t, tr, filepath.Join(l.Dir, "state"), l.LogDir(), l.WitnessDir())
	noneInLog(t, tr, l)
}

func noneIn(t *testing.T, tr *tracer, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		files := 0
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files++
				tr.none(t, path, path)
			}
			return err
		})
		if err != nil || files == 0 {
			t.Errorf("%s: %d files, %v", folder, files, err)
		}
	}
}

func noneInLog(t *testing.T, tr *tracer, l *lab.Lab) {
	t.Helper()
	log := logOf(l)
	if !strings.Contains(log, `"level":"DEBUG"`) {
		t.Error("this is no debug log")
	}
	if count, around := tr.search([]byte(log)); len(count) != 0 {
		t.Errorf("the log holds personal data: %v\n%s", count, strings.Join(around, "\n"))
	}
}

// restore puts the copy in the database's place, as docs/operator.md says, and logs in; before, it makes another
// copy without the daemon.
func restore(t *testing.T, l *lab.Lab, p lab.Person, backup string) {
	t.Helper()
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	run(t, l, "backup", filepath.Join(t.TempDir(), "offline.db"))
	state := filepath.Join(l.Dir, "state", "custode.db")
	for _, old := range []string{state, state + "-wal", state + "-shm"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, got := login(t, l, redirect, 1, p); got.Attributes["name"] != "Zenobiagrazia" {
		t.Errorf("from the backup: %v", got.Attributes)
	}
}

// TestDatabaseOfAnotherKey: the daemon refuses it by name and writes nothing.
func TestDatabaseOfAnotherKey(t *testing.T) {
	t.Parallel()
	l := own(t, lab.Config{})
	enrol(t, l, unique)
	if err := l.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	state, policy := filepath.Join(l.Dir, "state", "custode.db"), filepath.Join(l.Dir, "policy.yaml")
	before, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{
		"custode/records/none": "find key custode/records/none", "custode/outbox/2026-1": "one key serves one purpose",
	} {
		changed := strings.Replace(string(text), "custode/records/2026-1", label, 1)
		if changed == string(text) {
			t.Fatal("the case changes nothing")
		}
		if err := os.WriteFile(policy, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"serve", "migrate"} {
			if _, err := l.Run(t.Context(), command); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with records key %s: %v", command, label, err)
			}
		}
	}
	// The keys of outbox and records exchanged: both are there, and neither fits.
	swapped := strings.NewReplacer("custode/records/2026-1", "custode/outbox/2026-1", "custode/outbox/2026-1", "custode/records/2026-1").Replace(string(text))
	if err := os.WriteFile(policy, []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"serve", "migrate"} {
		if out := refused(t, l, 78, command); !strings.Contains(out, "data key 1 is not of this records key") {
			t.Errorf("%s with another key: %s", command, out)
		}
	}
	after, err := os.ReadFile(state)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database was written to (%v)", err)
	}
}
