package lab

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Pushes is a notifier: it keeps what the appliance pushes to apps.
type Pushes struct {
	URL string

	mu sync.Mutex
	by map[string][][]byte
}

// ServeHTTP implements http.Handler.
func (p *Pushes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Serial  string
		Message []byte
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&in); err != nil || r.Method != http.MethodPost {
		http.Error(w, "not a push", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[string][][]byte{}
	}
	p.by[in.Serial] = append(p.by[in.Serial], in.Message)
}

// Wait returns the n-th message to a device, from 1, when it has come.
func (p *Pushes) Wait(ctx context.Context, serial string, n int) ([]byte, error) {
	for {
		p.mu.Lock()
		got := p.by[serial]
		p.mu.Unlock()
		if len(got) >= n {
			return got[n-1], nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *Lab) startPushes(context.Context) (err error) {
	l.Pushes = &Pushes{}
	l.Pushes.URL, err = l.serve("", l.Pushes)
	return err
}
