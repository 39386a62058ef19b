package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// requests are for the calls that clients make: nobody has one when its call is over.
var requests = sync.Pool{New: func() any { return new(request) }}

// do makes a call as often as its semantics allow.
func (c *Client) do(ctx context.Context, m *clientMethod, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := requests.Get().(*request)
	defer requests.Put(q)
	*q = request{method: m.name, payload: payload, trace: TraceOf(ctx)}
	if len(q.trace.State) > maxTraceState {
		q.trace.State = "" // section 3.3.1.5: rather none than a part
	}
	switch {
	case c.options.Semantics == AtLeastOnce:
		answer, _, err := c.retry(ctx, m, q)
		return answer, err
	case c.options.Semantics == AtMostOnce || c.cfg.Endpoint != nil:
		return c.once(ctx, m, q)
	}
	return c.try(ctx, q)
}

// try makes one try that counts. Of a server that is shutting down, and says that it has not begun, another
// connection may lead to one that is not.
func (c *Client) try(ctx context.Context, q *request) ([]byte, error) {
	for again := 3; ; again-- {
		answer, err := c.link.call(ctx, ctx, q)
		if err == nil {
			return answer, nil
		}
		if e := (*Error)(nil); again == 0 || ctx.Err() != nil || !errors.As(err, &e) || !e.NotRun || e.Code != Unavailable {
			return nil, err
		}
	}
}

// once makes a call that the server knows by its tag. Only if it is certain that no try was executed is one made in
// another session.
func (c *Client) once(ctx context.Context, m *clientMethod, q *request) ([]byte, error) {
	for {
		s, err := c.session(ctx, c.options.Semantics == AtMostOnce)
		if err != nil {
			return nil, fmt.Errorf("rpc: open a session: %w", err)
		}
		if q.tag, err = s.begin(ctx); err != nil {
			return nil, err
		}
		var answer []byte
		unknown := false
		if c.options.Semantics == AtMostOnce {
			answer, unknown, err = c.retry(ctx, m, q)
		} else {
			answer, err = c.try(ctx, q)
		}
		s.finish(q.tag.seq)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Code != SessionExpired || !e.NotRun {
			return answer, err
		}
		c.dropSession(s)
		if c.cfg.Endpoint != nil {
			// A transport may repeat: the server refused this copy of the request, and had executed another before it
			// forgot the session.
			return nil, fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, err)
		}
		if unknown || ctx.Err() != nil {
			return nil, err
		}
	}
}

// retry makes tries until one is answered for good. unknown tells that one of them may have been executed unseen.
func (c *Client) retry(ctx context.Context, m *clientMethod, q *request) (answer []byte, unknown bool, err error) {
	c.budget.earn()
	pause := c.options.MinBackoff
	for tries := 1; ; tries++ {
		var more int
		answer, more, err = c.tryFor(ctx, m, q, tries)
		tries += more
		if err == nil {
			return answer, unknown, nil
		}
		unknown = unknown || sentUnanswered(err)
		if !retryable(err) || ctx.Err() != nil || c.options.MaxTries > 0 && tries >= c.options.MaxTries {
			break
		}
		if wait(ctx, pause-rand.N(pause/2+1)) != nil || c.budget.take(ctx) != nil {
			err = fmt.Errorf("%w, after: %w", ctx.Err(), err)
			break
		}
		pause = min(2*pause, c.options.MaxBackoff)
		m.retries.Add(1)
	}
	if unknown && !errors.Is(err, coterie.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, err)
	}
	return nil, unknown, err
}

// wait waits, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errTryTimeout is a try that was not answered in time.
var errTryTimeout = fmt.Errorf("rpc: no answer within Options.TryTimeout: %w", coterie.ErrUnknownOutcome)

// tryFor makes a try within TryTimeout, and others beside it if the call is hedged, of which it tells how many.
func (c *Client) tryFor(ctx context.Context, m *clientMethod, q *request, tries int) (answer []byte, hedges int, err error) {
	limited := ctx
	if c.options.TryTimeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.options.TryTimeout)
		defer cancel()
	}
	outer := limited
	if q.tag != (tag{}) {
		outer = ctx // a later try will ask for the answer to this one
	}
	if c.options.Hedge > 0 {
		answer, hedges, err = c.hedge(limited, m, q, tries)
	} else {
		answer, err = c.link.call(limited, outer, q)
	}
	if err != nil && ctx.Err() == nil && limited.Err() != nil && !isError(err) {
		if errors.Is(err, ErrUnreachable) {
			return nil, hedges, fmt.Errorf("%w within Options.TryTimeout", ErrUnreachable)
		}
		err = errTryTimeout
	}
	return answer, hedges, err
}

func isError(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e)
}

// sentUnanswered reports whether a try may have been executed although no answer came.
func sentUnanswered(err error) bool {
	return !isError(err) && errors.Is(err, coterie.ErrUnknownOutcome)
}

// retryable reports whether another try may fare better: there was no answer, or the server says that it has not begun.
func retryable(err error) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.NotRun && (e.Code == Overloaded || e.Code == Unavailable)
	}
	return !errors.Is(err, coterie.ErrClosed) && (errors.Is(err, ErrUnreachable) ||
		errors.Is(err, coterie.ErrUnknownOutcome) || errors.Is(err, coterie.ErrOverloaded))
}

// hedge makes a try, and after a while without an answer others beside it; the first answer counts. All tries are over
// when it returns.
func (c *Client) hedge(ctx context.Context, m *clientMethod, q *request, tries int) (answer []byte, hedges int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type result struct {
		answer []byte
		err    error
	}
	targets := c.options.Backups
	if len(targets) == 0 {
		targets = []*Client{c}
	}
	results := make(chan result, 1+len(targets)) // so that no try waits for a taker
	start := func(to *Client) {
		each := *q
		wg.Go(func() {
			answer, err := to.link.call(ctx, ctx, &each)
			results <- result{answer, err}
		})
	}
	start(c)
	timer := time.NewTimer(c.options.Hedge)
	defer timer.Stop()
	for running := 1; ; {
		select {
		case r := <-results:
			running--
			if r.err == nil || !retryable(r.err) || running == 0 {
				return r.answer, hedges, r.err
			}
		case <-timer.C:
			if hedges < len(targets) && (c.options.MaxTries == 0 || tries+hedges < c.options.MaxTries) && c.budget.tryTake() {
				start(targets[hedges])
				hedges++
				running++
				m.hedges.Add(1)
				timer.Reset(c.options.Hedge)
			}
		}
	}
}

// budget bounds retries, see ClientConfig.RetryRatio.
type budget struct {
	ratio, rate float64

	mu     sync.Mutex // guards what follows
	tokens float64
	filled time.Time
}

// maxTokens is how many retries may come at once.
const maxTokens = 100

func newBudget(ratio, rate float64) budget {
	return budget{ratio: ratio, rate: rate, tokens: 10}
}

func (b *budget) earn() {
	b.mu.Lock()
	b.tokens = min(b.tokens+b.ratio, maxTokens)
	b.mu.Unlock()
}

func (b *budget) tryTake() bool { return b.need() == 0 }

// need takes a token, or returns how long it will take until there is one.
func (b *budget) need() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !b.filled.IsZero() {
		b.tokens = min(b.tokens+b.rate*now.Sub(b.filled).Seconds(), maxTokens)
	}
	b.filled = now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1-b.tokens)/b.rate*float64(time.Second)) + 1
}

func (b *budget) take(ctx context.Context) error {
	for {
		d := b.need()
		if d == 0 {
			return nil
		}
		if err := wait(ctx, d); err != nil {
			return err
		}
	}
}

// clientSession numbers the calls that the server must not execute twice.
type clientSession struct {
	id      uint64
	durable bool

	mu     sync.Mutex      // guards what follows
	next   uint64          // the number of the next call
	low    uint64          // the oldest under way; next if there is none
	over   map[uint64]bool // those from low on that are not under way any more
	lowers chan struct{}   // closed when low rises
}

// session returns the session, or opens one.
func (c *Client) session(ctx context.Context, durable bool) (*clientSession, error) {
	slot := 0
	if durable {
		slot = 1
	}
	c.mu.Lock()
	s := c.sessions[slot]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	q := request{method: []byte(methodSession), payload: []byte{byte(slot)}}
	answer, _, err := c.retry(ctx, c.method(methodSession), &q)
	if err != nil {
		if errors.Is(err, coterie.ErrUnknownOutcome) {
			// It is that of the session which is unknown; the call was not sent.
			err = fmt.Errorf("%w: no session: %s", ErrUnreachable, err.Error())
			if ctx.Err() != nil {
				err = errors.Join(ctx.Err(), err)
			}
		}
		return nil, err
	}
	if len(answer) != 8 {
		return nil, fmt.Errorf("%w: session of %d bytes", ErrBadRequest, len(answer))
	}
	s = &clientSession{
		id: binary.BigEndian.Uint64(answer), durable: durable, next: 1, low: 1,
		over: make(map[uint64]bool), lowers: make(chan struct{}),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[slot] == nil { // else another call was quicker, and this one is forgotten in time
		c.sessions[slot] = s
	}
	return c.sessions[slot], nil
}

// dropSession makes the next call open another.
func (c *Client) dropSession(s *clientSession) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.sessions {
		if c.sessions[i] == s {
			c.sessions[i] = nil
		}
	}
}

// begin numbers a call, when it is within the window.
func (s *clientSession) begin(ctx context.Context) (tag, error) {
	for {
		s.mu.Lock()
		if s.next-s.low < window {
			g := tag{session: s.id, seq: s.next, low: s.low}
			s.next++
			s.mu.Unlock()
			return g, nil
		}
		lowers := s.lowers
		s.mu.Unlock()
		select {
		case <-lowers:
		case <-ctx.Done():
			return tag{}, ctx.Err()
		}
	}
}

// finish notes that a call is not under way any more: answered or given up.
func (s *clientSession) finish(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[seq] = true
	if seq != s.low {
		return
	}
	for s.over[s.low] {
		delete(s.over, s.low)
		s.low++
	}
	close(s.lowers)
	s.lowers = make(chan struct{})
}
