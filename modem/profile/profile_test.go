package profile

import (
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

func mustParse(t *testing.T, extra string) *Set {
	t.Helper()
	s, err := Parse("test", []byte(extra))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMatch(t *testing.T) {
	s := mustParse(t, "")
	for _, c := range []struct{ manufacturer, model, want string }{
		{"SIMCOM_Ltd", "SIMCOM_SIM800L", "sim800"}, {"SIMCOM INCORPORATED", "SIMCOM_SIM7600E-H", "sim7600"}, {"SIMCOM INCORPORATED", "A7670E-LASE", "sim7600"},
		{"Quectel_Ltd", "Quectel_M66", "m66"}, {"Quectel", "EC25", "ec25"}, {"Quectel", "EG25", "ec25"}, {"Quectel", "BG96", "bg96"}, {"Quectel", "UC20", "ec25"},
		{"huawei", "E3372", "huawei"}, {"ZTE CORPORATION", "MF190", "zte"}, {"Telit", "LE910C1-EU", "telit"}, {"WAVECOM MODEM", "MULTIBAND 900E 1800", "wavecom"},
		{"Sierra Wireless, Incorporated", "MC7304", "wavecom"}, {"u-blox", "SARA-R410M", "ublox"}, {"QUALCOMM INCORPORATED", "MSM", "qualcomm"},
		{"Novatel Wireless", "MC950D", "novatel"}, {"SIMULATOR", "x", "generic"}, {"", "", "generic"},
	} {
		if got := s.Match(c.manufacturer, c.model).Name; got != c.want {
			t.Errorf("%s %s: %s, want %s", c.manufacturer, c.model, got, c.want)
		}
	}
}

// TestInherited: what a profile does not say, generic says.
func TestInherited(t *testing.T) {
	s := mustParse(t, "")
	p := s.Match("SIMCOM_Ltd", "SIM800")
	if p.Defaults != "ATZ" || p.Reset != "AT+CFUN=1,1" || p.CommandGap != 100*time.Millisecond || p.CNMI[0] != "1,1,0,1,0" {
		t.Errorf("%+v", p)
	}
	if g := s.Generic(); len(g.Ready) != 6 || len(p.Ready) != 7 {
		t.Errorf("ready lines: %v and %v", g.Ready, p.Ready)
	}
}

func TestOperatorsFile(t *testing.T) {
	s := mustParse(t, `profiles:
  - name: ec25
    manufacturer: '(?i)quectel'
    model: 'EC25'
    submit_timeout: 33s
  - name: house
    manufacturer: 'House'
    model: '.*'
    defaults: ''
`)
	if p := s.Match("Quectel", "EC25"); p.SubmitTimeout != 33*time.Second || p.ReportStore != "" {
		t.Errorf("replaced: %+v", p)
	}
	if p := s.Match("House", "1"); p.Name != "house" || p.Defaults != "" || s.Names()[0] != "house" {
		t.Errorf("added: %+v", p)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]string{
		"unknown field": "profiles:\n  - {name: a, manufacturer: x, model: y, colour: red}",
		"pattern":       "profiles:\n  - {name: a, manufacturer: '(', model: y}",
		"no pattern":    "profiles:\n  - {name: a, model: y}",
		"twice":         "profiles:\n  - {name: a, manufacturer: x, model: y}\n  - {name: a, manufacturer: x, model: y}",
		"command":       "profiles:\n  - {name: a, manufacturer: x, model: y, reset: \"AT+CFUN=1\\rATD1\"}",
		"dial":          "profiles:\n  - {name: a, manufacturer: x, model: y, extras: ['ATD39']}",
		"cnmi":          "profiles:\n  - {name: a, manufacturer: x, model: y, cnmi: ['9']}",
		"storage":       "profiles:\n  - {name: a, manufacturer: x, model: y, storages: [x]}",
		"time":          "profiles:\n  - {name: a, manufacturer: x, model: y, submit_timeout: 1h}",
		"route":         "profiles:\n  - {name: a, manufacturer: x, model: y, report_route: fax}",
		"2g":            "profiles:\n  - {name: a, manufacturer: x, model: y, prefer_2g: [AT]}",
		"line":          "profiles:\n  - {name: a, manufacturer: x, model: y, boot: ['']}",
		"poor generic":  "profiles:\n  - {name: generic, manufacturer: x, model: y, cnmi: []}",
		"csms":          "profiles:\n  - {name: a, manufacturer: x, model: y, csms: 3}",
		"no list":       "profiles: []",
		"long":          strings.Repeat("#", maxFile+1),
	} {
		if _, err := Parse("test", []byte(c)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(builtin)
	f.Add([]byte("profiles:\n  - {name: a, manufacturer: x, model: y}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse("fuzz", b)
		if err == nil && s.Match("x", "y").Name == "" {
			t.Error("a profile without a name")
		}
	})
}
