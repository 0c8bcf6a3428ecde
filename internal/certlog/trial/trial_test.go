package trial

import "testing"

func TestRun(t *testing.T) {
	r, err := Run(t.Context(), Config{Dir: t.TempDir(), Records: 500, Writers: 8})
	if err != nil {
		t.Fatal(err)
	}
	if r.Append <= 0 || r.P95 < r.P50 || r.Octets < 500*1000 || r.Octets > r.PlainOctets || r.Verify <= 0 {
		t.Errorf("%+v", r)
	}
	t.Logf("%+v", r)
}
