package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
)

// tally counts how often each call was executed.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

func newTally() *tally { return &tally{count: make(map[string]int)} }

func (a *tally) do(_ context.Context, id string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[id]++
	return "did " + id, nil
}

// doUnless is do of a process that executes nothing once it is dead.
func (a *tally) doUnless(dead *bool) func(context.Context, string) (string, error) {
	return func(_ context.Context, id string) (string, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if *dead {
			return "", errors.New("dead")
		}
		a.count[id]++
		return "did " + id, nil
	}
}

func (a *tally) kill(dead *bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*dead = true
}

func (a *tally) of(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[id]
}

// memory is a journal that outlives the server that has it. A crash loses what was not appended.
type memory struct {
	mu      sync.Mutex
	records [][]byte
	err     error
	keeps   int
}

func (m *memory) Replay(f func([]byte) error) error {
	for _, r := range m.records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Append(records ...[]byte) error {
	time.Sleep(time.Millisecond) // a disk takes its time, so that records share a sync
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.records = append(m.records, records...)
	}
	return m.err
}

func (m *memory) Keep(newest int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keeps++
	m.records = m.records[len(m.records)-newest:]
	return nil
}

func (m *memory) Close() error { return nil }

// crashed is what a crash leaves: a journal of its own with the records that are durable now.
func (m *memory) crashed() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{records: append([][]byte(nil), m.records...)}
}

// storm runs calls of one semantics from several callers while connections break, answers are lost and the server is
// restarted, and returns how often each was executed, and which returned an answer.
func storm(t *testing.T, semantics Semantics, journal *memory, seed uint64) (executed *tally, answered map[string]bool) {
	t.Helper()
	executed, answered = newTally(), make(map[string]bool)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWires()
	var dead *bool
	start := func() *Server {
		dead = new(bool)
		cfg := ServerConfig{}
		if journal != nil {
			cfg.Journal = journal
		}
		s, err := NewServer(cfg)
		require.NoError(t, err)
		Handle(s, "do", executed.doUnless(dead))
		serveOn(s, &shared{wires: w, gone: make(chan struct{})})
		return s
	}
	s := start()
	var mu sync.Mutex
	w.answers = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(4) > 0
	}
	c, err := NewClient(ClientConfig{Dial: w.Dial, Options: Options{Semantics: semantics, TryTimeout: time.Second}, RetryRate: 1000})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 20 {
				id := fmt.Sprintf("%d/%d", i, k)
				got, err := Call[string, string](ctx, c, "do", id)
				mu.Lock()
				answered[id] = err == nil
				mu.Unlock()
				if err == nil {
					assert.Equal(t, "did "+id, got)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	for range 5 {
		time.Sleep(40 * time.Millisecond)
		executed.kill(dead)
		w.cut()
		if journal != nil {
			journal = journal.crashed()
		}
		require.NoError(t, s.Close())
		s = start()
	}
	w.mu.Lock()
	w.answers = nil // healed
	w.mu.Unlock()
	wg.Wait()
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
	return executed, answered
}

// shared is a listener on wires that outlive it.
type shared struct {
	*wires
	gone chan struct{}
	once sync.Once
}

func (l *shared) Accept() (conn netConn, err error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.gone:
		return nil, errors.New("gone")
	}
}

func (l *shared) Close() error {
	l.once.Do(func() { close(l.gone) })
	return nil
}

// Retries are not applied twice, be answers lost and servers killed meanwhile (CurvineIO/curvine#676,
// vesoft-inc/nebula#3109, cockroachdb/cockroach#111564).
func TestSemanticsUnderLossAndRestarts(t *testing.T) {
	for seed := range uint64(testsize.N(10, 500)) {
		for _, c := range []struct {
			semantics Semantics
			durable   bool
			most      int
		}{
			{Maybe, false, 1},
			{AtLeastOnce, false, 1 << 30},
			{AtMostOnce, false, 1},
			{AtMostOnce, true, 1},
		} {
			synctest.Test(t, func(t *testing.T) {
				var journal *memory
				if c.durable {
					journal = &memory{}
				}
				executed, answered := storm(t, c.semantics, journal, seed)
				lost := 0
				for id, ok := range answered {
					n := executed.of(id)
					require.LessOrEqual(t, n, c.most, "%v, seed %d: call %s", c.semantics, seed, id)
					if ok {
						require.GreaterOrEqual(t, n, 1, "%v, seed %d: call %s has an answer", c.semantics, seed, id)
					} else {
						lost++
					}
				}
				if c.semantics == AtLeastOnce {
					require.Zero(t, lost, "seed %d: after healing all are answered", seed)
				}
			})
		}
	}
}

// The answer is lost, the server is killed, and the retry comes to one that has only the journal: it is not executed
// again, and gets the answer that the first try made.
func TestAnswerOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		w := newWires()
		var counter atomic.Int64
		start := func(j *memory) *Server {
			s, err := NewServer(ServerConfig{Journal: j})
			require.NoError(t, err)
			Handle(s, "add", func(_ context.Context, n int64) (int64, error) { return counter.Add(n), nil })
			serveOn(s, &shared{wires: w, gone: make(chan struct{})})
			return s
		}
		s := start(journal)
		c, err := NewClient(ClientConfig{Dial: w.Dial, Options: Options{Semantics: AtMostOnce}})
		require.NoError(t, err)
		sum, err := Call[int64, int64](t.Context(), c, "add", 1)
		require.NoError(t, err)
		require.Equal(t, int64(1), sum)

		w.mu.Lock()
		w.answers = func() bool { return false }
		w.mu.Unlock()
		result := make(chan int64, 1)
		go func() {
			sum, err := Call[int64, int64](t.Context(), c, "add", 1)
			assert.NoError(t, err)
			result <- sum
		}()
		time.Sleep(time.Second)
		require.NoError(t, s.Close())
		w.mu.Lock()
		w.answers = nil
		w.mu.Unlock()
		s = start(journal.crashed())
		require.Equal(t, int64(2), <-result)
		require.Equal(t, int64(2), counter.Load())
		require.Positive(t, s.Metrics().Repeats)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

// A call that ran when the server died may have been executed, and is not executed again.
func TestCallInterruptedByARestartIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		w := newWires()
		runs := make(chan struct{}, 10)
		start := func(j *memory) *Server {
			s, err := NewServer(ServerConfig{Journal: j})
			require.NoError(t, err)
			Handle(s, "hang", func(ctx context.Context, _ int) (int, error) {
				runs <- struct{}{}
				<-ctx.Done()
				return 0, ctx.Err()
			})
			serveOn(s, &shared{wires: w, gone: make(chan struct{})})
			return s
		}
		s := start(journal)
		c, err := NewClient(ClientConfig{Dial: w.Dial, Options: Options{Semantics: AtMostOnce}})
		require.NoError(t, err)
		result := make(chan error, 1)
		go func() {
			_, err := Call[int, int](t.Context(), c, "hang", 1)
			result <- err
		}()
		<-runs
		left := journal.crashed() // power is cut while the handler runs
		w.cut()
		require.NoError(t, s.Close())
		s = start(left)
		require.ErrorIs(t, <-result, coterie.ErrUnknownOutcome)
		require.Empty(t, runs)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

// A retry that comes while the first try runs waits for its answer.
func TestRepetitionWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		var runs atomic.Int64
		Handle(s, "slow", func(ctx context.Context, _ int) (int64, error) {
			n := runs.Add(1)
			select {
			case <-time.After(10 * time.Second):
				return n, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial, Options: Options{Semantics: AtMostOnce, TryTimeout: time.Second}})
		require.NoError(t, err)
		go func() {
			time.Sleep(5 * time.Second)
			w.cut()
		}()
		got, err := Call[int, int64](t.Context(), c, "slow", 1)
		require.NoError(t, err)
		require.Equal(t, int64(1), got)
		require.Equal(t, int64(1), runs.Load())
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestForgottenSessionIsRefusedNotExecuted(t *testing.T) {
	s := newTestServer(t, ServerConfig{MaxSessions: 1})
	executed := newTally()
	Handle(s, "do", executed.do)
	addr := mustListen(t, s)
	a := newTestClient(t, ClientConfig{Addr: addr, Options: Options{Semantics: AtMostOnce}})
	b := newTestClient(t, ClientConfig{Addr: addr, Options: Options{Semantics: AtMostOnce}})
	for _, c := range []*Client{a, b, a} { // b's session takes the place of a's, and a's next of b's
		_, err := Call[string, string](t.Context(), c, "do", "x")
		require.NoError(t, err)
	}
	require.Equal(t, 3, executed.of("x"))
	q := request{method: []byte("do"), payload: []byte("y"), tag: tag{session: 12345, seq: 1, low: 1}}
	_, err := a.link.call(t.Context(), t.Context(), &q)
	require.ErrorIs(t, err, ErrSessionExpired)
	require.Zero(t, executed.of("y"))
	require.Equal(t, uint64(2), s.Metrics().RefusedRepeats)
}

// The table is bounded, and what its journal keeps is, too.
func TestSessionsAreCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memory{}
		tb, err := newTable(journal, 10, 64<<10)
		require.NoError(t, err)
		id, err := tb.open(true)
		require.NoError(t, err)
		payload := make([]byte, 4<<10)
		for seq := uint64(1); seq <= 500; seq++ {
			g := tag{session: id, seq: seq, low: max(seq, 10) - 9}
			o, mine, _, refused := tb.begin(g)
			require.Nil(t, refused)
			require.True(t, mine)
			tb.end(g, o, nil, payload)
		}
		require.NoError(t, tb.close()) // waits for the journal
		require.Positive(t, journal.keeps)
		require.Less(t, len(journal.records), 200)
		require.LessOrEqual(t, tb.bytes, 64<<10)

		again, err := newTable(journal, 10, 64<<10)
		require.NoError(t, err)
		require.Equal(t, tb.bytes, again.bytes)
		for seq := uint64(1); seq <= 500; seq++ {
			o, mine, _, refused := again.begin(tag{session: id, seq: seq, low: 1})
			require.False(t, mine)
			if seq < 491 {
				require.Equal(t, UnknownOutcome, refused.Code)
			} else {
				require.Len(t, o.payload, len(payload))
			}
		}
		_, _, _, refused := again.begin(tag{session: id, seq: 491 + window, low: 1})
		require.Equal(t, Overloaded, refused.Code)
		require.NoError(t, again.close())
	})
}

// With a journal that fails nothing is executed of which it would not be known after a restart.
func TestJournalThatFails(t *testing.T) {
	journal := &memory{}
	s := newTestServer(t, ServerConfig{Journal: journal})
	executed := newTally()
	Handle(s, "do", executed.do)
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s), Options: Options{Semantics: AtMostOnce, MaxTries: 2}})
	_, err := Call[string, string](t.Context(), c, "do", "x")
	require.NoError(t, err)
	journal.mu.Lock()
	journal.err = errors.New("disk full")
	journal.mu.Unlock()
	_, err = Call[string, string](t.Context(), c, "do", "y")
	require.ErrorContains(t, err, "disk full")
	require.Zero(t, executed.of("y"))
	maybe, err := c.With(Options{})
	require.NoError(t, err)
	_, err = Call[string, string](t.Context(), maybe, "do", "z")
	require.NoError(t, err, "other calls do not need it")

	_, err = NewServer(ServerConfig{Journal: &memory{records: [][]byte{{recordFormat + 1}}}})
	var format *coterie.FormatError
	require.ErrorAs(t, err, &format)
}

func TestHedgeAsksABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, fast := newWires(), newWires()
		var servers []*Server
		ended := make(chan struct{}, 1)
		for i, w := range []*wires{slow, fast} {
			s, err := NewServer(ServerConfig{})
			require.NoError(t, err)
			Handle(s, "who", func(ctx context.Context, _ int) (int, error) {
				if i == 0 {
					<-ctx.Done()
					ended <- struct{}{}
				}
				return i, ctx.Err()
			})
			serveOn(s, w)
			servers = append(servers, s)
		}
		backup, err := NewClient(ClientConfig{Dial: fast.Dial})
		require.NoError(t, err)
		c, err := NewClient(ClientConfig{Dial: slow.Dial, Options: Options{
			Semantics: AtLeastOnce, Hedge: 50 * time.Millisecond, Backups: []*Client{backup},
		}})
		require.NoError(t, err)
		begin := time.Now()
		got, err := Call[int, int](t.Context(), c, "who", 0)
		require.NoError(t, err)
		require.Equal(t, 1, got)
		require.Equal(t, 50*time.Millisecond, time.Since(begin))
		<-ended // the loser is told
		require.Equal(t, uint64(1), c.Metrics().Methods["who"].Hedges)
		require.Zero(t, c.Metrics().Methods["who"].Retries)
		require.NoError(t, c.Close())
		require.NoError(t, backup.Close())
		for _, s := range servers {
			require.NoError(t, s.Close())
		}
	})
}

// Retries of calls that all fail are bounded by the budget: 10 at once, a fifth of the calls, and 10 a second.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient(ClientConfig{
			Dial: func(context.Context) (netConn, error) { return nil, errors.New("no route") }, Options: Options{Semantics: AtLeastOnce},
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		const calls = 200
		for range calls {
			wg.Go(func() {
				_, err := Call[int, int](ctx, c, "x", 1)
				assert.ErrorIs(t, err, ErrUnreachable)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.NotErrorIs(t, err, coterie.ErrUnknownOutcome)
			})
		}
		wg.Wait()
		retries := c.Metrics().Methods["x"].Retries
		require.LessOrEqual(t, retries, uint64(10+calls/5+10*10+1))
		require.GreaterOrEqual(t, retries, uint64(100))
		require.NoError(t, c.Close())
	})
}
