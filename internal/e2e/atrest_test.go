package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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

func gcore(t *testing.T, pid int) string {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "core")
	out, err := exec.CommandContext(t.Context(), "gcore", "-o", prefix, fmt.Sprint(pid)).CombinedOutput()
	core := fmt.Sprintf("%s.%d", prefix, pid)
	if _, missing := os.Stat(core); missing != nil {
		t.Fatalf("no core dump (install the Debian package gdb; run as root): %v\n%s", err, out)
	}
	return core
}

// TestNoPersonalDataAtRest: after logins of a subject none of its values is readable in the state directory, the
// certified log, a backup, the daemon's log and, after a quiet while, in the memory of the daemon.
func TestNoPersonalDataAtRest(t *testing.T) {
	f := newCircle(t, nil)
	l := f.l
	p := enrol(t, l, unique)
	tr := newTracer(t, traces(p))

	if v, got := login(t, l, post, 2, p); got.Attributes["familyName"] != "Quarantottini" {
		t.Fatalf("%v %v", v, got)
	}
	v := arrive(t, l, redirect, spsim.Request{Level: 1})
	v.submit("password", map[string]string{"username": p.Username, "password": "x" + p.Password})
	v.submit("password", map[string]string{"username": p.Password, "password": p.Username})
	v.password(p)
	v.submit("cancel", nil)
	b := browsersim.New(nil)
	logins := f.everywhere(b, p)
	f.follow(b, f.begin(b, f.all, "redirect", logins[f.all], slo.Options{RelayState: "torna"}), nil)
	run(t, l, "identity", "show", p.Username)
	from, to := interval()
	attestation := filepath.Join(t.TempDir(), "a.zip")
	run(t, l, "log", "seal")
	run(t, l, "log", "attest", "--subject", p.Attributes["spidCode"], "--name", "Zenobiagrazia", "--from", from, "--to", to, "--out", attestation)
	backup := filepath.Join(t.TempDir(), "copy.db")
	run(t, l, "backup", backup)

	for _, folder := range []string{filepath.Join(l.Dir, "state"), l.LogDir(), l.WitnessDir(), filepath.Join(l.Dir, "registry"), filepath.Dir(backup)} {
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
	if count, around := tr.search([]byte(logOf(l))); len(count) != 0 {
		t.Errorf("the log holds personal data: %v\n%s", count, strings.Join(around, "\n"))
	}
	for i, wait := range strings.Fields(os.Getenv("WAITS")) {
		d, _ := time.ParseDuration(wait)
		time.Sleep(d)
		t.Log(i, d)
		core := gcore(t, l.PID())
		tr.none(t, "core", core)
		if keep := os.Getenv("KEEP"); keep != "" {
			_ = exec.Command("mv", core, keep).Run()
		}
	}
}
