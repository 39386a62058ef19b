package leased

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/lock"
)

// Config says where the store is and how long its leases last.
type Config struct {
	// Replica is one of a kv.Store: of this process, and then kv.Watchable so that waiters are told at once, or what
	// consensus.Dial made. Required; not closed by the Client. One that is not a consensus.Replica has no sessions: then
	// an outcome that is not known costs the Client all that it holds of that TTL.
	Replica coterie.Replica
	TTL     time.Duration // of leases whose Options have none; default 10 s
	// Drift is a bound on the difference of clocks, see kv.LeaseConfig: holders give up so much before their TTL is
	// over. Default a fifth of each TTL.
	Drift  time.Duration
	Prefix string // of the keys in the store; default "lock/"
}

// Client acquires locks and leads elections for one process. It owns a goroutine for each TTL in use, and for what
// outlives a call that was given up; they have ended when Close returns. Its methods are safe for concurrent use.
type Client struct {
	cfg  Config
	kv   *kv.Client
	life context.Context // ends with Close
	end  context.CancelFunc
	wg   sync.WaitGroup
	bug  bug

	mu       sync.Mutex // guards what follows
	sessions map[time.Duration]*session
	opening  map[time.Duration]chan struct{} // closed when the opening is over
	closed   bool
}

var _ lock.Locker = (*Client)(nil)

// closeTimeout is how long Close tries to tell the store.
const closeTimeout = 5 * time.Second

// New makes a Client. It asks nothing yet. The error names the field of the Config.
func New(cfg Config) (*Client, error) {
	if cfg.TTL == 0 {
		cfg.TTL = 10 * time.Second
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "lock/"
	}
	var errs []error
	if cfg.Replica == nil {
		errs = append(errs, errors.New("leased: Config.Replica is required"))
	}
	if cfg.TTL < 0 || cfg.TTL > kv.MaxTTL {
		errs = append(errs, fmt.Errorf("leased: Config.TTL %v is not from 0 to %v", cfg.TTL, kv.MaxTTL))
	}
	if cfg.Drift < 0 || cfg.TTL > 0 && cfg.Drift >= cfg.TTL {
		errs = append(errs, fmt.Errorf("leased: Config.Drift %v is not from 0 to below the TTL, %v", cfg.Drift, cfg.TTL))
	}
	if len(cfg.Prefix) > kv.MaxKeyBytes/4 {
		errs = append(errs, fmt.Errorf("leased: Config.Prefix of %d bytes", len(cfg.Prefix)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	store, err := kv.NewClient(kv.ClientConfig{Replica: cfg.Replica})
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, kv: store, sessions: map[time.Duration]*session{}, opening: map[time.Duration]chan struct{}{},
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// Acquire waits for its turn and returns the lease. See lock.Locker; the error may be one of the replica too.
func (c *Client) Acquire(ctx context.Context, name string, o lock.Options) (*lock.Lease, error) {
	q, err := c.queue(name, o)
	if err != nil {
		return nil, err
	}
	return c.acquire(ctx, q, nil)
}

// TryAcquire returns the lease if nobody holds or waits for what excludes it, and lock.ErrBusy otherwise.
func (c *Client) TryAcquire(ctx context.Context, name string, o lock.Options) (*lock.Lease, error) {
	q, err := c.queue(name, o)
	if err != nil {
		return nil, err
	}
	s, err := c.session(ctx, q.ttl)
	if err != nil {
		return nil, err
	}
	t, err := c.enter(ctx, s, q, q.tryTxn(s.lease.ID()))
	if errors.Is(err, kv.ErrNoLease) {
		c.abandon(s)
	}
	if err != nil {
		return nil, err
	}
	if lease := c.hold(s, q, t); lease != nil {
		return lease, nil
	}
	return nil, fmt.Errorf("leased: %s: %w", name, lock.ErrLost)
}

// Do acquires an exclusive lock, runs f and releases it: see lock.Do.
func (c *Client) Do(ctx context.Context, name string, f func(ctx context.Context, token uint64) error) error {
	return lock.Do(ctx, c, name, lock.Options{}, f)
}

// Close gives up all that is held, tells the store, and waits for the Client's goroutines. Closing twice is harmless.
// The error is that of the store not having been told: locks then last until their TTL is over.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.wg.Wait()
	c.mu.Lock()
	sessions := c.sessions
	c.sessions = nil
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, s := range sessions {
		if err := s.lease.Close(ctx); !errors.Is(err, kv.ErrNoLease) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, c.kv.Close(ctx))...)
}

// queue is the folder of a name and the place in it that an acquisition wants.
type queue struct {
	name   string
	folder kv.Span // of the name
	class  kv.Span // of those who use the name in the same way
	put    string  // the prefix of the sequential key
	ahead  []string
	below  int // how many may be ahead
	ttl    time.Duration
}

// The folder of a name, PREFIX NAME "/", has rw/x/ for the exclusive, rw/s/ for the shared, and sem/LIMIT/ for
// semaphores. Names are escaped, so that no folder is within another.
func (c *Client) queue(name string, o lock.Options) (*queue, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if name == "" {
		return nil, errors.New("leased: the name of a lock is empty")
	}
	folder := c.cfg.Prefix + url.PathEscape(name) + "/"
	if len(folder) > kv.MaxKeyBytes-64 {
		return nil, fmt.Errorf("leased: the name of a lock has %d bytes", len(name))
	}
	q := &queue{name: name, folder: kv.Prefix(folder), class: kv.Prefix(folder + "rw/"), below: max(o.Limit, 1), ttl: o.TTL}
	if q.ttl == 0 {
		q.ttl = c.cfg.TTL
	}
	exclusive, shared := folder+"rw/x/", folder+"rw/s/"
	switch {
	case o.Limit > 1:
		q.put = fmt.Sprintf("%ssem/%d/", folder, o.Limit)
		q.class = kv.Prefix(q.put)
		q.ahead = []string{q.put}
	case o.Mode == lock.Shared:
		q.put, q.ahead = shared, []string{exclusive}
	default:
		q.put, q.ahead = exclusive, []string{shared, exclusive}
	}
	return q, nil
}

// alone are the conditions that nobody uses the name in another way.
func (q *queue) alone() []kv.Compare {
	return []kv.Compare{
		{Span: kv.Span{From: q.folder.From, To: q.class.From}, Field: kv.FieldCount, Is: kv.Equal},
		{Span: kv.Span{From: q.class.To, To: q.folder.To}, Field: kv.FieldCount, Is: kv.Equal},
	}
}

// counts are the acts that count those who are ahead. They come before the put.
func (q *queue) counts() (ops []kv.Op) {
	for _, prefix := range q.ahead {
		ops = append(ops, kv.Get{Span: kv.Prefix(prefix), CountOnly: true})
	}
	return ops
}

func (q *queue) enterTxn(lease uint64, value []byte) kv.Txn {
	return kv.Txn{
		If:   q.alone(),
		Then: append(q.counts(), kv.Put{Key: q.put, Value: value, Lease: lease, Sequential: true}),
	}
}

func (q *queue) tryTxn(lease uint64) kv.Txn {
	t := q.enterTxn(lease, nil)
	for _, prefix := range q.ahead {
		t.If = append(t.If, kv.Compare{
			Span: kv.Prefix(prefix), Field: kv.FieldCount, Is: kv.Less, Number: uint64(q.below),
		})
	}
	t.Else = q.counts()
	return t
}

// turn is the question whether it is the ticket's turn.
func (q *queue) turn(t ticket) kv.Turn {
	turn := kv.Turn{Key: t.key, Below: q.below, Revision: t.token}
	for _, prefix := range q.ahead {
		turn.Spans = append(turn.Spans, kv.Span{From: prefix, To: prefix + t.key[len(q.put):]})
	}
	return turn
}

// ticket is a place in a queue.
type ticket struct {
	key   string
	token uint64
	ahead int
}

// acquire enters the queue and waits for the turn.
func (c *Client) acquire(ctx context.Context, q *queue, value []byte) (*lock.Lease, error) {
	for {
		s, err := c.session(ctx, q.ttl)
		if err != nil {
			return nil, err
		}
		t, err := c.enter(ctx, s, q, q.enterTxn(s.lease.ID(), value))
		if errors.Is(err, kv.ErrNoLease) {
			c.abandon(s) // the store knows better
			continue
		}
		if err != nil {
			return nil, err
		}
		there := true
		if t.ahead >= q.below {
			there, err = c.await(ctx, s, q.turn(t))
		}
		if err != nil {
			c.leave(s, t.key)
			return nil, err
		}
		// What a replica said may be history: the lease may have ended while this one waited, or was paused. Its own
		// clock knows.
		if !there && c.bug != bugGrantDead {
			continue
		}
		if lease := c.hold(s, q, t); lease != nil {
			return lease, nil
		}
	}
}

// await waits for a turn. It reports false if the session has ended.
func (c *Client) await(ctx context.Context, s *session, t kv.Turn) (there bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	defer context.AfterFunc(s.alive, cancel)()
	there, err = c.kv.Await(ctx, t)
	switch {
	case err == nil:
		return there, nil
	case s.alive.Err() != nil:
		return false, nil
	case c.life.Err() != nil:
		return false, errClosed
	}
	return false, fmt.Errorf("leased: wait: %w", err)
}

var errClosed = fmt.Errorf("leased: client is %w", coterie.ErrClosed)

// enter does the transaction that puts a key in a queue. If ctx ends first, the key is removed when it is known.
func (c *Client) enter(ctx context.Context, s *session, q *queue, txn kv.Txn) (ticket, error) {
	type outcome struct {
		res kv.TxnResult
		err error
	}
	answer := make(chan outcome, 1)
	// The command is tried until its outcome is known, whatever becomes of the caller: only then it is known too what
	// is to be removed.
	if !c.start(func() {
		res, err := c.kv.Txn(c.life, txn)
		if err != nil && errors.Is(err, coterie.ErrUnknownOutcome) {
			c.abandon(s) // it may yet be applied: not for a lease that has ended
		}
		answer <- outcome{res, err}
	}) {
		return ticket{}, errClosed
	}
	var o outcome
	select {
	case o = <-answer:
	case <-ctx.Done():
		c.start(func() {
			if o := <-answer; o.err == nil && o.res.Succeeded {
				c.remove(s, q.ticket(&o.res).key)
			}
		})
		return ticket{}, fmt.Errorf("leased: %w", ctx.Err())
	}
	switch {
	case o.err != nil && c.life.Err() != nil:
		return ticket{}, errClosed
	case o.err != nil:
		return ticket{}, fmt.Errorf("leased: %w", o.err)
	case !o.res.Succeeded && len(o.res.Results) > 0 && sum(o.res.Results) >= q.below:
		return ticket{}, fmt.Errorf("leased: %s: %w", q.name, lock.ErrBusy)
	case !o.res.Succeeded:
		return ticket{}, fmt.Errorf("leased: %s is in use with another Options.Limit", q.name)
	}
	return q.ticket(&o.res), nil
}

// ticket reads the answer to a transaction of enterTxn or tryTxn that succeeded.
func (q *queue) ticket(res *kv.TxnResult) ticket {
	n := len(q.ahead)
	return ticket{key: res.Results[n].Key, token: res.Revision, ahead: sum(res.Results[:n])}
}

func sum(results []kv.Result) (n int) {
	for _, r := range results {
		n += r.Count
	}
	return n
}

// start runs f on a goroutine that Close waits for, unless the Client is closed.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// hold makes the lease of a ticket whose turn has come, nil if the session has ended by the clock of this process.
func (c *Client) hold(s *session, q *queue, t ticket) *lock.Lease {
	var lease *lock.Lease
	lease = s.hold(lock.LeaseConfig{Name: q.name, Token: t.token, Release: func(ctx context.Context) error {
		s.forget(lease)
		return c.release(ctx, s, q, t)
	}})
	return lease
}

// release removes the key of a ticket. Of a call that fails, the rest is done later.
func (c *Client) release(ctx context.Context, s *session, q *queue, t ticket) error {
	span := kv.Key(t.key)
	if c.bug == bugReleaseAny {
		span = kv.Prefix(q.put)
	}
	n, err := c.kv.Delete(ctx, span)
	switch {
	case err != nil:
		c.leave(s, t.key)
		return err
	case n == 0:
		return fmt.Errorf("%w: %s, token %d", lock.ErrLost, q.name, t.token)
	}
	return nil
}

// leave removes a key in the background, as long as its session lives.
func (c *Client) leave(s *session, key string) {
	c.start(func() { c.remove(s, key) }) // closed: the key goes with its lease
}

func (c *Client) remove(s *session, key string) {
	ctx, cancel := context.WithCancel(c.life)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	if _, err := c.kv.Delete(ctx, kv.Key(key)); err != nil && s.alive.Err() == nil && c.life.Err() == nil {
		c.abandon(s) // a lease that is kept alive would keep the key for ever
	}
}
