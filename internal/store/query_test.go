package store

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"custode/internal/id"
	"custode/internal/store/sqlite"
)

// TestGeneratedCodeIsCurrent compares each query with the text in the generated
// code: "sqlc generate" was not forgotten.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	files, err := filepath.Glob("query/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	queries := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		generated, err := os.ReadFile(filepath.Join("sqlite", filepath.Base(file)+".go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range strings.Split(string(source), "-- name: ")[1:] {
			queries++
			want := numbered(strings.TrimRight(strings.TrimSpace(q), ";"))
			if !strings.Contains(string(generated), "`-- name: "+want+"\n`") {
				t.Errorf("%s: the generated code lacks or differs from:\n%s", file, want)
			}
		}
		if got, want := strings.Count(string(generated), "`-- name: "), strings.Count(string(source), "-- name: "); got != want {
			t.Errorf("%s: %d generated queries, %d written", file, got, want)
		}
	}
	if queries < 30 {
		t.Errorf("only %d queries seen", queries)
	}
}

var argument = regexp.MustCompile(`sqlc\.arg\((\w+)\)`)

// numbered replaces the named arguments as sqlc does: ?1, ?2 by first use.
func numbered(query string) string {
	numbers := map[string]int{}
	return argument.ReplaceAllStringFunc(query, func(a string) string {
		if numbers[a] == 0 {
			numbers[a] = len(numbers) + 1
		}
		return fmt.Sprintf("?%d", numbers[a])
	})
}

// FuzzDecodeFlow: no document panics, and what is accepted comes back the same.
func FuzzDecodeFlow(f *testing.F) {
	f.Add(`{"V":3}`, `{"V":3}`, "https://sp.example.it")
	f.Add(`{"V":3,"WrongPassword":2,"Subject":"s_0123456789abcdef0123456789abcdef","Challenge":"","Authenticated":1,"Outcome":25}`,
		`{"V":3,"Started":-5,"SPName":{"it":"x"},"RelayState":"AP8=","Attributes":["name"],"Level":2}`, "urn:x:y")
	f.Add(`{"V":3}`, `[]`, "")
	f.Add(`{"V":3,"Flow":1}`, `{"V":3,"Level":256}`, "x")
	f.Fuzz(func(t *testing.T, progress, document, sp string) {
		row := sqlite.GetFlowRow{Version: 1, Step: 1, Browser: make([]byte, 32), Sp: sp, RequestID: "_1", Progress: progress, Document: []byte(document)}
		flow, err := decodeFlow(idOfFlow(t), row)
		if err != nil {
			return
		}
		if row.Progress, err = encodeProgress(flow); err != nil {
			t.Fatal(err)
		}
		encoded, err := encodeRequest(flow)
		if err != nil {
			t.Fatal(err)
		}
		row.Document = []byte(encoded)
		again, err := decodeFlow(idOfFlow(t), row)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fmt.Sprintf("%#v", flow), fmt.Sprintf("%#v", again)); diff != "" {
			t.Error(diff)
		}
	})
}

func idOfFlow(t *testing.T) id.FlowID {
	t.Helper()
	f, err := id.ParseFlowID("f_0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return f
}
