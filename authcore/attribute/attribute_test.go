package attribute

import (
	"strings"
	"testing"
	"time"

	"custode/internal/fault"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func TestFormats(t *testing.T) {
	good := map[string][]string{
		"spidCode": {"ABCD123456789A"}, "name": {"Mario", "Maria José", "Nicolò D'Àngelo"}, "familyName": {"De Li"}, "placeOfBirth": {"F205", "Z404"},
		"countyOfBirth": {"MI", "EE"}, "dateOfBirth": {"1980-02-29"}, "gender": {"F", "M"}, "companyName": {"Prova S.r.l."},
		"registeredOffice": {"via Listz 21 00144 Roma"}, "fiscalNumber": {"TINIT-RSSMRA80A01H501U"}, "ivaCode": {"VATIT-12345678903"},
		"companyFiscalNumber": {"TINIT-12345678903", "TINIT-RSSMRA80A01H501U"},
		"idCard":              {"cartaIdentita CA12345AA comuneRoma 2020-01-01 2030-01-01"}, "mobilePhone": {"34912345678", "+393331234567"},
		"email": {"mario.rossi+x@example.org"}, "address": {"via Roma 1 00144 Roma RM"}, "domicileStreetAddress": {"via Roma 1"},
		"domicilePostalCode": {"00144", "SW1A 1AA"}, "domicileMunicipality": {"Roma"}, "domicileProvince": {"RM"}, "domicileNation": {"Italia"},
		"expirationDate": {"2030-01-01"}, "digitalAddress": {"x@pec.example.org"},
	}
	bad := map[string][]string{
		"spidCode": {"abcd1234567890", "ABCD123"}, "name": {" Mario", "Maria  José", "Ma\trio", "Ma\nrio", "\xff", strings.Repeat("x", 257), "x\u202ey"},
		"placeOfBirth": {"f205", "F20"}, "countyOfBirth": {"Milano"}, "dateOfBirth": {"1981-02-29", "01/02/1980", "2027-01-01", "0001-01-01"}, "gender": {"f"},
		"fiscalNumber": {"TINIT-RSSMRA80A01H501X", "TINDE-123"}, "ivaCode": {"VATIT-12345678901", "12345678903", "VATIT-1"},
		"companyFiscalNumber": {"12345678903", "TINIT-1"},
		"idCard":              {"cartaIdentita CA1 comuneRoma 2020-01-01", "tessera CA1 comuneRoma 2020-01-01 2030-01-01", "cartaIdentita CA1 comuneRoma 2020-13-01 2030-01-01", "cartaIdentita CA1 comuneRoma 2020-01-01 2019-01-01"},
		"mobilePhone":         {"349 1234567", "x"}, "email": {"mario", "Mario <m@example.org>", "a@b\r\nc", "\"a b\"@example.org"},
		"domicilePostalCode": {"1"}, "domicileProvince": {"Roma"}, "expirationDate": {"2030"}, "digitalAddress": {"x"}, "shoeSize": {"42", ""}, "Name": {"Mario"},
	}
	if n := len(Names()); n != 23 || len(good) != n {
		t.Errorf("%d attribute names, %d with examples, want 23", n, len(good))
	}
	for name, values := range good {
		for _, v := range append(values, "") {
			if got, err := Parse(name, v, start); err != nil || got != v {
				t.Errorf("%s %q: %q, %v", name, v, got, err)
			}
		}
	}
	for name, values := range bad {
		for _, v := range values {
			if _, err := Parse(name, v, start); !fault.Is(err, fault.Invalid) || (len(v) > 2 && strings.Contains(err.Error(), v)) {
				t.Errorf("%s %.40q: %v", name, v, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("idCard", "cartaIdentita CA12345AA comuneRoma 2020-01-01 2030-01-01")
	f.Add("email", "a@example.org")
	f.Add("fiscalNumber", "rssmra80a01h501u")
	f.Fuzz(func(t *testing.T, name, value string) {
		got, err := Parse(name, value, start)
		if err != nil {
			return
		}
		if again, err := Parse(name, got, start); err != nil || again != got {
			t.Errorf("%s %q gives %q, which gives %q, %v", name, value, got, again, err)
		}
		if strings.ContainsFunc(got, unprintable) {
			t.Errorf("%s %q gives %q", name, value, got)
		}
	})
}
