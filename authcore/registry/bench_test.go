package registry

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"custode/simulators/registrysim"
)

// large is a replica of a whole federation, made once.
var large = sync.OnceValues(func() (*Federation, error) {
	const entities = 40_000
	sim, err := registrysim.New(registrysim.Config{Entities: entities, Seed: 7})
	if err != nil {
		return nil, err
	}
	srv := httptest.NewServer(sim.Handler())
	defer srv.Close()
	dir, err := os.MkdirTemp("", "registry-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // the replica keeps the file open
	src, err := NewHTTP(HTTPConfig{AggregateURL: srv.URL + "/entities?entity_type=SP", Now: time.Now})
	if err != nil {
		return nil, err
	}
	f, err := NewFederation(FederationConfig{Source: src, CopyPath: filepath.Join(dir, "copy"), Pinned: []*x509.Certificate{sim.Certificate()},
		Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler), Rules: Rules{Pace: 100}})
	if err != nil {
		return nil, err
	}
	_, err = f.refresh(context.Background(), Accept{})
	return f, err
})

func benchmarkFederation(b *testing.B, different int) {
	f, err := large()
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, different)
	for i := range names {
		names[i] = registrysim.EntityID(i * (40_000 / different))
		f.Lookup(names[i])
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := f.Lookup(names[i%different]); !ok {
				b.Fatal("not found")
			}
		}
	})
}

// BenchmarkLookupRecent looks up service providers that are remembered.
func BenchmarkLookupRecent(b *testing.B) { benchmarkFederation(b, 1000) }

// BenchmarkLookupAny looks up all of them in turn: nearly all are read from the
// copy and parsed.
func BenchmarkLookupAny(b *testing.B) { benchmarkFederation(b, 40_000) }
