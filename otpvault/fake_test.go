package otpvault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"sync"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// fakeHSM computes with a key in memory and keeps the buffers it was handed, to
// see whether they are cleared.
type fakeHSM struct {
	mu     sync.Mutex
	macErr error
	short  bool
	clear  bool // Wrap returns the plaintext
	wrpErr error
	macIn  [][]byte // the caller's buffers
	macWas [][]byte // copies of them
	wrapIn [][]byte
}

var hsmKey = make([]byte, 32)

func (h *fakeHSM) MAC(_ context.Context, data []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.macIn = append(h.macIn, data)
	h.macWas = append(h.macWas, append([]byte(nil), data...))
	if h.macErr != nil {
		return nil, h.macErr
	}
	m := hmac.New(sha256.New, hsmKey)
	m.Write(data)
	if h.short {
		return m.Sum(nil)[:8], nil
	}
	return m.Sum(nil), nil
}

func gcm() cipher.AEAD {
	b, err := aes.NewCipher(hsmKey)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return a
}

func (h *fakeHSM) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrapIn = append(h.wrapIn, plaintext)
	if h.wrpErr != nil {
		return nil, h.wrpErr
	}
	if h.clear {
		return append([]byte("0123456789"), plaintext...), nil
	}
	return gcm().Seal(nil, make([]byte, 12), plaintext, aad), nil
}

func unwrap(m Message) (string, error) {
	b, err := gcm().Open(nil, make([]byte, 12), m.Wrapped, []byte(m.ID.String()))
	return string(b), err
}

// fakeStore is the contract of Store over a map. before, when set, runs ahead of
// each call and may fail it.
type fakeStore struct {
	mu       sync.Mutex
	rows     map[id.ChallengeID]*Challenge
	open     map[id.ChallengeID]bool
	messages []Message
	calls    []string
	before   func(call string) error
}

func newFakeStore() *fakeStore {
	return &fakeStore{rows: map[id.ChallengeID]*Challenge{}, open: map[id.ChallengeID]bool{}}
}

func (s *fakeStore) enter(call string) error {
	s.calls = append(s.calls, call)
	if s.before != nil {
		return s.before(call)
	}
	return nil
}

func (s *fakeStore) IssueChallenge(_ context.Context, c Challenge, m Message, l Limit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter("issue"); err != nil {
		return err
	}
	sent := 0
	for _, o := range s.rows {
		if o.Subject == c.Subject && o.Created.After(c.Created.Add(-l.Window)) {
			sent++
		}
	}
	if sent >= l.Messages {
		return fault.New(fault.Exhausted, "issue", nil)
	}
	for _, o := range s.rows {
		if o.Flow == c.Flow {
			s.open[o.ID] = false
		}
	}
	s.rows[c.ID], s.open[c.ID] = &c, true
	s.messages = append(s.messages, m)
	return nil
}

func (s *fakeStore) TakeAttempt(_ context.Context, c id.ChallengeID, f id.FlowID, u id.Subject, now time.Time) (Challenge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter("take"); err != nil {
		return Challenge{}, err
	}
	row := s.rows[c]
	switch {
	case row == nil || row.Flow != f || row.Subject != u:
		return Challenge{}, fault.New(fault.NotFound, "take", nil)
	case !s.open[c]:
		return Challenge{}, fault.New(fault.Conflict, "take", nil)
	case row.Left == 0:
		return Challenge{}, fault.New(fault.Exhausted, "take", nil)
	case !now.Before(row.Expires):
		return Challenge{}, fault.New(fault.Expired, "take", nil)
	}
	row.Left--
	return *row, nil
}

func (s *fakeStore) BurnChallenge(_ context.Context, c id.ChallengeID, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter("burn"); err != nil {
		return err
	}
	if !s.open[c] {
		return fault.New(fault.Conflict, "burn", nil)
	}
	s.open[c] = false
	return nil
}
