package web

import (
	"net/http"
	"testing"

	"custode/authcore"
	"custode/authcore/web/words"
	"custode/internal/id"
)

// BenchmarkPages renders each page, routing and cookie checks included.
func BenchmarkPages(b *testing.B) {
	for _, p := range allPages() {
		switch p.name {
		case "credentials", "method", "code", "consent", "handover", "temporary-12", "anomaly-04", "browser", "home":
		default:
			continue
		}
		b.Run(p.name, func(b *testing.B) {
			room := newRoom(b, nil)
			size := len(p.show(b, room, words.Italian).body)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if a := p.show(b, room, words.Italian); len(a.body) != size {
					b.Fatalf("%d octets, then %d", size, len(a.body))
				}
			}
		})
	}
}

// BenchmarkAnswer is a post of a form: parsing, checks and redirect.
func BenchmarkAnswer(b *testing.B) {
	room := newRoom(b, nil)
	view := testView(b, authcore.StepCode)
	room.logins.answer = func(id.FlowID, authcore.Visitor, authcore.Answer) (authcore.Outcome, error) {
		return authcore.Outcome{View: view}, nil
	}
	b.ReportAllocs()
	for b.Loop() {
		if a := postFlow(b, room, nil); a.status != http.StatusSeeOther {
			b.Fatal(a.status)
		}
	}
}
