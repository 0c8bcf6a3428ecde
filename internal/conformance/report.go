package conformance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"custode/internal/fault"
)

// Report is what an audit found, in the order it was found.
type Report struct {
	URL      string    `json:"url"`
	EntityID string    `json:"entityID"` // of the instance
	SP       string    `json:"sp"`       // of the auditor
	Began    time.Time `json:"began"`
	Passed   int       `json:"passed"`
	Failed   int       `json:"failed"`
	Skipped  int       `json:"skipped"`
	Results  []Result  `json:"results"`
}

// Report begins a report about the opened instance.
func (a *Auditor) Report() *Report {
	r := &Report{URL: a.cfg.URL, SP: a.cfg.SP.EntityID, Began: a.cfg.Now().UTC().Truncate(time.Second), Results: []Result{}}
	if a.idp != nil {
		r.EntityID = a.idp.EntityID
	}
	return r
}

// Add adds a result.
func (r *Report) Add(res Result) {
	r.Results = append(r.Results, res)
	switch res.Verdict {
	case Pass:
		r.Passed++
	case Fail:
		r.Failed++
	default:
		r.Skipped++
	}
}

// Line is one result as text: verdict, rule, binding, source, what was seen; the
// faults follow on lines of their own.
func (res Result) Line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s/%s  [%s]  %s", res.Verdict, res.ID, cmp.Or(string(res.Binding), "all"), res.Source, cmp.Or(res.Seen, "nothing was seen"))
	if res.Verdict == Fail {
		fmt.Fprintf(&b, "\n      rule: %s; want: %s", res.Title, res.Want)
		for _, f := range res.Faults {
			fmt.Fprintf(&b, "\n      %s", f)
		}
	}
	return b.String()
}

// Summary is the last line of a report.
func (r *Report) Summary() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", r.Passed, r.Failed, r.Skipped)
}

// JSON writes the report as one indented document.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fault.New(fault.Unavailable, "write the report", err)
	}
	return nil
}
