package leased

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/lock"
)

// session is a lease of the store and the locks that end with it.
type session struct {
	lease *kv.Lease
	alive context.Context // ends with the lease
	over  context.CancelFunc

	mu      sync.Mutex // guards what follows
	expires time.Time
	held    map[*lock.Lease]struct{} // nil when it is over
}

// session returns the living session of a TTL, and opens it if there is none.
func (c *Client) session(ctx context.Context, ttl time.Duration) (*session, error) {
	for {
		c.mu.Lock()
		s, opening, closed := c.sessions[ttl], c.opening[ttl], c.closed
		if !closed && (s == nil || s.lease.Err() != nil) && opening == nil {
			opening = make(chan struct{})
			c.opening[ttl] = opening
			c.mu.Unlock()
			return c.open(ctx, ttl, opening)
		}
		c.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case opening == nil:
			return s, nil
		}
		select {
		case <-opening:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open makes the session of a TTL; others wait for it.
func (c *Client) open(ctx context.Context, ttl time.Duration, opening chan struct{}) (*session, error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.opening, ttl)
		close(opening)
	}()
	s := &session{held: map[*lock.Lease]struct{}{}}
	s.alive, s.over = context.WithCancel(context.Background())
	lease, err := c.kv.KeepAlive(ctx, kv.LeaseConfig{TTL: ttl, Drift: c.cfg.Drift, Renewed: s.renewed, Ended: s.ended})
	if err != nil {
		return nil, err
	}
	s.lease = lease
	s.renewed(lease.Expires())
	c.mu.Lock()
	old, closed := c.sessions[ttl], c.closed
	if !closed {
		c.sessions[ttl] = s
	}
	c.mu.Unlock()
	if old != nil {
		c.start(func() { c.abandon(old) }) // it has ended; what is left of it is its goroutine
	}
	if closed {
		c.abandon(s)
		return nil, errClosed
	}
	return s, nil
}

// hold makes a lease that lasts as long as the session; nil if that has ended.
func (s *session) hold(cfg lock.LeaseConfig) *lock.Lease {
	if s.lease.Err() != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		return nil
	}
	cfg.Expires = s.expires
	l := lock.NewLease(cfg)
	s.held[l] = struct{}{}
	return l
}

func (s *session) forget(l *lock.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, l)
}

func (s *session) renewed(expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !expires.After(s.expires) {
		return
	}
	s.expires = expires
	for l := range s.held {
		l.Extend(expires)
	}
}

func (s *session) ended() {
	s.over()
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.held {
		l.Lose()
	}
	s.held = nil
}

// abandon ends a session and all that is held by it. Where the store cannot be told the lease ends by itself.
func (c *Client) abandon(s *session) { _ = s.lease.Close(c.life) }
