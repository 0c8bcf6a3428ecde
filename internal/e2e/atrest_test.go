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
	"strings"
	"testing"
	"time"

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

// inMemory searches a core dump of the daemon, which only root can take: anybody else must be refused, and finds nothing.
func inMemory(t *testing.T, tr *tracer, l *lab.Lab) (count map[string]int, around []string) {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "core")
	out, err := exec.CommandContext(t.Context(), "gcore", "-o", prefix, fmt.Sprint(l.PID())).CombinedOutput()
	core := fmt.Sprintf("%s.%d", prefix, l.PID())
	defer os.Remove(core) // two gigabytes, mostly of nothing
	if os.Geteuid() != 0 {
		if _, made := os.Stat(core); made == nil {
			t.Error("the daemon's own user can dump its memory")
		}
		t.Log("the daemon's memory is not searched: not run as root")
		return nil, nil
	}
	if _, missing := os.Stat(core); missing != nil {
		t.Fatalf("no core dump (install the Debian package gdb): %v\n%s", err, out)
	}
	count, around, size := tr.searchFile(t, core)
	if size < 20<<20 {
		t.Fatalf("this is no core dump of the daemon: %d octets", size)
	}
	return count, around
}

// quiet is how long after the last request nothing of it is in the memory; docs/design/internal-forget.md
// says what keeps what until when. On a busy machine the last collection may come later.
const quiet = 95 * time.Second

// TestNoPersonalDataAtRest: after logins of a subject none of its values, and no seed of a device, is readable in the state directory, the
// certified log, a backup, the daemon's log and, after a quiet while, in the memory of the daemon.
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
	b := browsersim.New(nil)
	logins := f.everywhere(b, p)
	// The search is able to fail: it finds who is in the middle of a login, and what was just used.
	if count, _ := inMemory(t, tr, l); os.Geteuid() == 0 && (count["name"] == 0 || count["spidCode"] == 0) {
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

	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", l.PID()))
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("the daemon may dump core: %v\n%s", err, limits)
	}
	time.Sleep(quiet)
	count, around := inMemory(t, tr, l)
	for n := 0; n < 2 && len(count) != 0; n++ {
		time.Sleep(quiet / 4)
		count, around = inMemory(t, tr, l)
	}
	if len(count) != 0 {
		t.Errorf("the daemon's memory holds personal data: %v\n%s", count, strings.Join(around, "\n"))
	}
	restore(t, l, p, backup)
	noneIn(t, tr, filepath.Join(l.Dir, "state"), l.LogDir())
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
