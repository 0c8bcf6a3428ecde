package attest

import (
	"bytes"
	_ "embed"
	"html/template"
	"strings"
	"time"
)

//go:embed README.txt
var readme string

//go:embed report.html
var reportText string

// rome is the civil time of the people who read reports; UTC stands beside it.
var rome = func() *time.Location {
	l, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		return time.UTC // no zone files: UTC twice
	}
	return l
}()

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"utc":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"local": func(t time.Time) string { return t.In(rome).Format("02/01/2006 15:04:05 -0700") },
	"list":  func(s []string) string { return strings.Join(s, ", ") },
}).Parse(reportText))

type row struct {
	Seq uint64
	Access
}

func renderReport(s Statement, q Question, accesses []Access) ([]byte, error) {
	rows := make([]row, len(accesses))
	for i, a := range accesses {
		rows[i] = row{s.Records[i], a}
	}
	var b bytes.Buffer
	err := reportPage.Execute(&b, struct {
		Statement
		Name string
		Rows []row
	}{s, q.Name, rows})
	return b.Bytes(), err
}
