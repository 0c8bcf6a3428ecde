package worker

import (
	"errors"
	"time"

	"custode/internal/fault"
)

// other returns the token that is not b and is well, nil for none.
func (c *Client) other(b *backend) *backend {
	for _, o := range c.backends {
		if o != b {
			if s := o.state(); s.conn != nil && s.well {
				return o
			}
		}
	}
	return nil
}

// leave moves from b, which is in trouble, to the other token if that is well. It reports whether a call
// has another token to try, also when somebody moved before.
func (c *Client) leave(b *backend, why error) bool {
	o := c.other(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backends[c.active] != b {
		return true
	}
	if o == nil {
		return false
	}
	c.move(o, "the "+b.name+" token does not answer well", why)
	return true
}

// move makes o the token in use. mu is held.
func (c *Client) move(o *backend, reason string, why error) {
	for i, b := range c.backends {
		if b == o {
			c.active = i
		}
	}
	if c.pinned >= 0 && c.pinned != c.active {
		c.pinned = -1
	}
	c.moves++
	c.movedAt = time.Now()
	c.cfg.Log.Warn("TOKEN CHANGED", "in use", o.name, "reason", reason, "cause", why)
}

// reconsider moves after a probe: away from a token that is not well, back to the primary when it has
// been well for long.
func (c *Client) reconsider() {
	if len(c.backends) < 2 {
		return
	}
	b := c.inUse()
	b.mu.Lock()
	lost := !b.ready && !b.lostAt.IsZero() // calls move at once; without calls nobody else would
	ill, trouble := lost || b.misses >= 2 || b.misses > 0 && b.well.IsZero(), b.trouble
	b.mu.Unlock()
	if ill {
		c.leave(b, trouble)
		return
	}
	primary := c.backends[0]
	primary.mu.Lock()
	since, ready := primary.well, primary.ready
	primary.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active != 0 && c.pinned < 0 && ready && !since.IsZero() && time.Since(since) >= c.cfg.FailBack &&
		time.Since(c.movedAt) >= c.cfg.FailBack { // it was left although it probed well
		c.move(primary, "the primary token is well again", nil)
	}
}

// Failover makes the named token ("primary" or "standby") the one in use, if it is well. The standby then
// stays in use until it is ill or Failover names the primary.
func (c *Client) Failover(name string) error {
	op := "fail over to the " + name + " token"
	for i, b := range c.backends {
		if b.name != name {
			continue
		}
		s := b.state()
		if s.conn == nil || !s.well {
			if s.trouble == nil {
				s.trouble = errors.New("its worker is being started, or does not answer yet")
			}
			return fault.Newf(fault.Conflict, op, "it is not well: %w", s.trouble)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pinned = -1
		if i > 0 {
			c.pinned = i
		}
		if c.active != i {
			c.move(b, "an operator asked for it", nil)
		}
		return nil
	}
	return fault.Newf(fault.NotFound, op, "there is no such token")
}
