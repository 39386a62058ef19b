package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// ClientConfig says where the store is.
type ClientConfig struct {
	// Replica is one whose state machine is a Store: a node of this process, Watchable if it is to be watched without
	// polling, or what consensus.Dial made. Required; not closed by the Client.
	//
	// If it is a consensus.Replica, the client opens a session: what it writes is written exactly once, and is tried
	// again until ctx ends. Else a try is one Propose, and its errors are those of coterie.Replica.
	Replica coterie.Replica
}

// Client is a typed client of a Store. Its methods are safe for concurrent use. Its reads are linearizable.
//
// Errors are those of the store (ErrCompacted and so on), and those of the replica: of a write, one that is
// coterie.ErrUnknownOutcome may have been done or may yet be.
type Client struct {
	replica  coterie.Replica
	sessions consensus.Replica // nil if the replica has none

	opening chan struct{} // holds one while a session is opened
	mu      sync.Mutex    // guards what follows
	session *consensus.Session
}

// NewClient makes a client. It asks nothing yet. The error names the field of the config.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Replica == nil {
		return nil, errors.New("kv: ClientConfig.Replica is required")
	}
	c := &Client{replica: cfg.Replica, opening: make(chan struct{}, 1)}
	c.sessions, _ = cfg.Replica.(consensus.Replica)
	return c, nil
}

// ExactlyOnce reports whether the client has sessions, so that what it writes is never written twice, however its tries
// fare.
func (c *Client) ExactlyOnce() bool { return c.sessions != nil }

// Get returns a key, or ErrNotFound.
func (c *Client) Get(ctx context.Context, key string) (KV, error) {
	res, _, err := c.Range(ctx, Get{Span: Key(key)})
	if err != nil {
		return KV{}, err
	}
	if len(res.KVs) == 0 {
		return KV{}, fmt.Errorf("%w: %q", ErrNotFound, key)
	}
	return res.KVs[0], nil
}

// Range reads keys, and tells the revision that they are of, which is the newest if g.Revision is 0. An answer has about
// a megabyte at most: if it has More, go on after its last key, at the same revision; or use All.
func (c *Client) Range(ctx context.Context, g Get) (res Result, revision uint64, err error) {
	q := query{kind: queryGet, get: g}
	r, revision, err := c.ask(ctx, &q)
	if err != nil {
		return Result{}, 0, err
	}
	res = readResult(&r)
	if g.Revision != 0 {
		revision = g.Revision
	}
	return res, revision, wrong(r.Done())
}

// All yields the keys of a span in order, all of one revision, 0 for the newest, however many answers that takes. An
// error ends it.
func (c *Client) All(ctx context.Context, s Span, revision uint64) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		for {
			res, at, err := c.Range(ctx, Get{Span: s, Revision: revision})
			if err != nil {
				yield(KV{}, err)
				return
			}
			for _, k := range res.KVs {
				if !yield(k, nil) {
					return
				}
			}
			if !res.More {
				return
			}
			s.From, revision = res.KVs[len(res.KVs)-1].Key+"\x00", at
		}
	}
}

// Put writes a key and returns the revision of that.
func (c *Client) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	res, err := c.Txn(ctx, Txn{Then: []Op{Put{Key: key, Value: value}}})
	return res.Revision, err
}

// Delete removes the keys of a span and returns how many there were.
func (c *Client) Delete(ctx context.Context, s Span) (count int, err error) {
	res, err := c.Txn(ctx, Txn{Then: []Op{Delete{Span: s}}})
	if err != nil {
		return 0, err
	}
	return res.Results[0].Count, nil
}

// Rollback makes the keys of a span what they were at a revision, as a new revision, and returns how many changed.
func (c *Client) Rollback(ctx context.Context, s Span, revision uint64) (changed int, err error) {
	res, err := c.Txn(ctx, Txn{Then: []Op{Rollback{Span: s, Revision: revision}}})
	if err != nil {
		return 0, err
	}
	return res.Results[0].Count, nil
}

// Txn does a transaction.
func (c *Client) Txn(ctx context.Context, t Txn) (TxnResult, error) {
	if err := t.check(); err != nil {
		return TxnResult{}, err
	}
	r, revision, err := c.do(ctx, t.encode())
	if err != nil {
		return TxnResult{}, err
	}
	res, err := readTxnResult(&r, revision)
	if err == nil && len(res.Results) != len(t.Then) && res.Succeeded {
		err = errors.New("kv: answer to another transaction")
	}
	return res, err
}

// Grant makes a lease, which ends if it is not renewed for the TTL, by the log's clock: at least a TTL after Grant was
// called if no clock of a replica is wrong. Its keys go with it. Most callers want KeepAlive.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (id uint64, err error) {
	if ttl <= 0 || ttl > MaxTTL {
		return 0, fmt.Errorf("%w: TTL %v is not from 1 ns to %v", ErrBadCommand, ttl, MaxTTL)
	}
	r, _, err := c.do(ctx, wire.AppendVarint(start(cmdGrant), int64(ttl)))
	if err != nil {
		return 0, err
	}
	id = r.Uvarint()
	return id, wrong(r.Done())
}

// Renew gives a lease its TTL anew. ErrNoLease says that it has ended, for ever.
func (c *Client) Renew(ctx context.Context, id uint64) error {
	_, _, err := c.do(ctx, wire.AppendUvarint(start(cmdKeepAlive), id))
	return err
}

// Revoke ends a lease and removes its keys. ErrNoLease says that it has ended before.
func (c *Client) Revoke(ctx context.Context, id uint64) error {
	_, _, err := c.do(ctx, wire.AppendUvarint(start(cmdRevoke), id))
	return err
}

// Compact makes the store forget the revisions before one. The newest is always kept.
func (c *Client) Compact(ctx context.Context, revision uint64) error {
	_, _, err := c.do(ctx, wire.AppendUvarint(start(cmdCompact), revision))
	return err
}

// LeaseInfo is what the store knows of a lease.
type LeaseInfo struct {
	TTL  time.Duration
	Left time.Duration // by the log's clock, which stands still while nothing is written
	Keys int           // that go with it
}

// Lease tells of a lease, or ErrNoLease.
func (c *Client) Lease(ctx context.Context, id uint64) (LeaseInfo, error) {
	r, _, err := c.ask(ctx, &query{kind: queryLease, lease: id})
	if err != nil {
		return LeaseInfo{}, err
	}
	info := LeaseInfo{TTL: time.Duration(r.Varint()), Left: time.Duration(r.Varint()), Keys: r.Int(1 << 40)}
	return info, wrong(r.Done())
}

// Status is what a Store says of itself.
type Status struct {
	Revision uint64 // the newest
	Oldest   uint64 // that can be read
	Keys     int
	Bytes    int64 // as Config.MaxBytes counts them
	Leases   int
}

// Status tells of the store.
func (c *Client) Status(ctx context.Context) (Status, error) {
	r, revision, err := c.ask(ctx, &query{kind: queryStatus})
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Revision: revision, Oldest: r.Uvarint(), Keys: r.Int(1 << 40), Bytes: int64(r.Int(1 << 60)), Leases: r.Int(1 << 40),
	}
	return s, wrong(r.Done())
}

// Close ends the client's session, as far as ctx lets it. Leases are left alone. The Client must not be used after.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	s := c.session
	c.session = nil
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close(ctx)
}

// ask asks until there is an answer: a question may be repeated.
func (c *Client) ask(ctx context.Context, q *query) (r wire.Reader, revision uint64, err error) {
	var b backoff
	for {
		r, revision, err = c.askOnce(ctx, q)
		if err == nil || !passing(err) {
			return r, revision, err
		}
		if err = b.pause(ctx, err, false); err != nil {
			return r, 0, err
		}
	}
}

func (c *Client) askOnce(ctx context.Context, q *query) (r wire.Reader, revision uint64, err error) {
	b := q.encode()
	if _, err := readQuery(b); err != nil {
		return r, 0, err
	}
	a, err := c.replica.Read(ctx, b)
	if err != nil {
		return r, 0, err
	}
	return readAnswer(a)
}

// do has a command applied, exactly once if there are sessions.
func (c *Client) do(ctx context.Context, b []byte) (r wire.Reader, revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return r, 0, err
	}
	var a []byte
	if c.sessions == nil {
		a, err = c.replica.Propose(ctx, b)
	} else {
		a, err = c.doOnce(ctx, b)
	}
	if err != nil {
		return r, 0, err
	}
	return readAnswer(a)
}

func (c *Client) doOnce(ctx context.Context, b []byte) ([]byte, error) {
	for {
		s, err := c.current(ctx)
		if err != nil {
			return nil, err
		}
		a, err := s.Propose(ctx, b)
		if !errors.Is(err, consensus.ErrSessionExpired) {
			return a, err
		}
		c.mu.Lock()
		if c.session == s {
			c.session = nil
		}
		c.mu.Unlock()
		if errors.Is(err, coterie.ErrUnknownOutcome) {
			return nil, err // an earlier try may have been applied: a new session would not know
		}
	}
}

// current returns the session, and opens it if there is none.
func (c *Client) current(ctx context.Context) (*consensus.Session, error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	select { // one caller opens, the others wait for it
	case c.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.opening }()
	c.mu.Lock()
	s = c.session
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := consensus.NewSession(ctx, c.sessions)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.session = s
	c.mu.Unlock()
	return s, nil
}
