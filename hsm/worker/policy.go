package worker

import (
	"maps"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
)

// allowed parses the label of a question and insists that the configuration lets it be asked.
func (s *Server) allowed(q *message, use Use) (id.KeyLabel, error) {
	label, err := id.ParseKeyLabel(q.label)
	if err != nil {
		return label, err
	}
	return label, s.permit(label, use, Operation(q.code).String())
}

func (s *Server) permit(label id.KeyLabel, use Use, what string) error {
	switch may, known := s.uses(label, use); {
	case !known:
		return fault.Newf(fault.Denied, what+" with key "+label.String(), "the worker's configuration does not name this key")
	case may&use != use:
		return fault.Newf(fault.Denied, what+" with key "+label.String(), "the worker's configuration does not allow it")
	}
	return nil
}

// uses is what the key may be asked for, also by the latest configuration if the one at hand does not allow use.
func (s *Server) uses(label id.KeyLabel, use Use) (may Use, known bool) {
	look := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		may, known = s.allow[label]
		return known && may&use == use
	}
	if look() || s.cfg.Reread == nil {
		return may, known
	}
	s.reread.Lock() // a file system that stands still holds up those only who wait for it
	defer s.reread.Unlock()
	if time.Since(s.reread.at) >= time.Second {
		s.readAgain()
	}
	look()
	return may, known
}

// health is the token's, without the keys that are not in it any more and that the configuration does not name:
// after a roll-over without a restart they are destroyed.
func (s *Server) health() error {
	err := s.cfg.Token.Health()
	forgetter, ok := s.cfg.Token.(interface {
		Forget(needed func(id.KeyLabel) bool)
	})
	if !fault.Is(err, fault.Fatal) || !ok || s.cfg.Reread == nil || !s.reread.TryLock() {
		return err
	}
	defer s.reread.Unlock()
	if time.Since(s.reread.at) < time.Second {
		return err
	}
	named := s.readAgain()
	if named == nil {
		return err
	}
	forgetter.Forget(func(l id.KeyLabel) bool { _, is := named[l]; return is })
	return s.cfg.Token.Health()
}

// readAgain adds what the configuration allows by now, and returns that, nil for an error. reread is held.
func (s *Server) readAgain() map[id.KeyLabel]Use {
	defer func() { s.reread.at = time.Now() }()
	fresh, err := s.cfg.Reread()
	if err != nil {
		s.cfg.Log.Error("what each key may be asked for was not read again", "error", err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[id.KeyLabel]Use, len(fresh))
	maps.Copy(all, s.allow)
	for label, use := range fresh {
		all[label] |= use
	}
	s.allow = all
	return fresh
}
