package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// LeaseConfig is how a Lease is kept alive.
type LeaseConfig struct {
	TTL time.Duration // how long the store keeps it without a renewal; default 10 s
	// Drift is how much sooner the owner takes it for lost than the store does: a bound on how far the wall clocks of
	// the replicas differ from each other, plus what they and the owner's monotonic clock drift in a TTL. Default a
	// fifth of the TTL.
	Drift time.Duration

	Renewed func(expires time.Time) // told of each renewal; must not block; default none
	Ended   func()                  // told when the lease is lost or closed; must not block; default none
}

func (cfg *LeaseConfig) prepare() error {
	if cfg.TTL == 0 {
		cfg.TTL = 10 * time.Second
	}
	if cfg.Drift == 0 {
		cfg.Drift = cfg.TTL / 5
	}
	switch {
	case cfg.TTL < 0 || cfg.TTL > MaxTTL:
		return fmt.Errorf("kv: LeaseConfig.TTL %v is not from 0 to %v", cfg.TTL, MaxTTL)
	case cfg.Drift < 0 || cfg.Drift >= cfg.TTL:
		return fmt.Errorf("kv: LeaseConfig.Drift %v is not from 0 to below the TTL, %v", cfg.Drift, cfg.TTL)
	}
	return nil
}

// Lease is a lease of the store that is renewed until Close, three times as often as is needed. It counts as lost when
// the time is over by the owner's own monotonic clock since the newest renewal left that was answered: no answer is
// needed to know, and an answer that comes later does not bring it back. Its methods are safe for concurrent use. It
// has one goroutine, which ends with Close.
type Lease struct {
	c   *Client
	cfg LeaseConfig
	id  uint64

	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	lost   chan struct{}

	mu      sync.Mutex // guards what follows
	expires time.Time
	ended   bool
	gone    bool        // by the word of the store
	timer   *time.Timer // runs look when it expires
}

// KeepAlive makes a lease and keeps it alive. Close it.
func (c *Client) KeepAlive(ctx context.Context, cfg LeaseConfig) (*Lease, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	sent := time.Now()
	id, err := c.Grant(ctx, cfg.TTL)
	if err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lease{
		c: c, cfg: cfg, id: id, cancel: cancel, done: make(chan struct{}), lost: make(chan struct{}), expires: endOf(sent, &cfg),
	}
	l.mu.Lock() // the timer may be quicker than its assignment
	l.timer = time.AfterFunc(time.Until(l.expires), l.look)
	l.mu.Unlock()
	go l.run(inner, sent)
	return l, nil
}

// endOf is when a lease ends whose renewal left then.
func endOf(sent time.Time, cfg *LeaseConfig) time.Time { return sent.Add(cfg.TTL - cfg.Drift) }

// ID is the id of the lease, for Put.
func (l *Lease) ID() uint64 { return l.id }

// Lost is closed when the lease may have ended. It is not closed by Close.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Expires is when the lease counts as lost if it is not renewed any more.
func (l *Lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Err is nil while the lease lives, and an ErrNoLease afterwards. It looks at the clock itself, and so is right at the
// moment it looks even if a pause delayed Lost.
func (l *Lease) Err() error {
	l.look()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return fmt.Errorf("%w: %d", ErrNoLease, l.id)
	}
	return nil
}

// Close ends the lease, and removes its keys as far as ctx lets it: else they go when the store takes the lease for
// dead. ErrNoLease says that it had ended before.
func (l *Lease) Close(ctx context.Context) error {
	l.end(false)
	l.cancel()
	<-l.done
	l.mu.Lock()
	gone := l.gone
	l.mu.Unlock()
	if gone {
		return fmt.Errorf("%w: %d", ErrNoLease, l.id)
	}
	return l.c.Revoke(ctx, l.id)
}

// run renews until the lease has ended.
func (l *Lease) run(ctx context.Context, sent time.Time) {
	defer close(l.done)
	interval := (l.cfg.TTL - l.cfg.Drift) / 3
	timer := time.NewTimer(time.Until(sent.Add(interval)))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.lost:
			return
		case <-ctx.Done():
			return
		}
		sent = time.Now()
		// The answer is of no use after the end.
		try, cancel := context.WithDeadline(ctx, l.Expires())
		err := l.c.Renew(try, l.id)
		cancel()
		next := sent.Add(interval)
		switch {
		case err == nil:
			l.renewed(sent)
		case errors.Is(err, ErrNoLease):
			l.mu.Lock()
			l.gone = true
			l.mu.Unlock()
			l.end(true)
		default:
			next = time.Now().Add(interval / 8)
		}
		timer.Reset(time.Until(next))
	}
}

// renewed moves the end, unless it has come already. That the renewal was tried several times does no harm: the store
// counted the TTL from a later time than the first try.
func (l *Lease) renewed(sent time.Time) {
	l.look()
	l.mu.Lock()
	defer l.mu.Unlock()
	expires := endOf(sent, &l.cfg)
	if l.ended || !expires.After(l.expires) {
		return
	}
	l.expires = expires
	l.timer.Reset(time.Until(expires))
	if l.cfg.Renewed != nil {
		l.cfg.Renewed(expires)
	}
}

// look ends the lease if its time is over.
func (l *Lease) look() {
	l.mu.Lock()
	over := !time.Now().Before(l.expires)
	l.mu.Unlock()
	if over {
		l.end(true)
	}
}

func (l *Lease) end(lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	l.timer.Stop()
	if lost {
		close(l.lost)
	}
	if l.cfg.Ended != nil {
		l.cfg.Ended()
	}
}
