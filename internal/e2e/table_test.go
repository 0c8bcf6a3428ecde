package e2e

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var anomalyTable = sync.OnceValues(func() (map[int]map[string]string, error) {
	text, err := os.ReadFile("testdata/errors.tsv")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	names := strings.Split(lines[0], "\t")
	rows := map[int]map[string]string{}
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, v := range strings.Split(line, "\t") {
			row[names[i]] = v
		}
		n, err := strconv.Atoi(row["code"])
		if err != nil {
			return nil, err
		}
		rows[n] = row
	}
	return rows, nil
})

// table returns the federation's anomaly table, by code and column.
func table(t *testing.T) map[int]map[string]string {
	t.Helper()
	rows, err := anomalyTable()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
