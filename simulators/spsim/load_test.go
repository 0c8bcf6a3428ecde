package spsim

import (
	"sync"
	"testing"
	"time"
)

// The load driver uses one SP from many goroutines.
func TestConcurrentUse(t *testing.T) {
	sp, idp, c := newSP(t, func(cfg *Config) { cfg.MaxPending = 1000 })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				_, id, err := sp.RedirectURL(Request{Level: 1})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := sp.Consume(idp.respond(t, sp, id, answer{}), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		c.advance(time.Millisecond)
		if err := sp.SetIdPMetadata(idp.metadata(t, nil)); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func BenchmarkRedirectURL(b *testing.B) {
	sp, _, _ := newSP(b, nil)
	for b.Loop() {
		if _, _, err := sp.RedirectURL(Request{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPostForm(b *testing.B) {
	sp, _, _ := newSP(b, nil)
	for b.Loop() {
		if _, _, _, err := sp.PostForm(Request{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConsume(b *testing.B) {
	sp, idp, c := newSP(b, nil)
	response := idp.respond(b, sp, ask(b, sp, c, Request{}), answer{})
	for b.Loop() {
		forget(sp)
		if _, err := sp.Consume(response, ""); err != nil {
			b.Fatal(err)
		}
	}
}
