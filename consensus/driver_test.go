package consensus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// rig is a driver of solo and what outlives it.
type rig struct {
	*Driver[*solo]
	core    *solo
	sm      *tally
	net     *transport.Network
	journal *host.MemoryJournal
	store   *memory
	cfg     Config
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{net: transport.NewNetwork(transport.NetworkConfig{}), journal: new(host.MemoryJournal), store: newMemory(), cfg: cfg}
	r.start(t)
	return r
}

// start starts the driver, anew after a Close.
func (r *rig) start(t *testing.T) {
	t.Helper()
	require.NoError(t, r.tryStart(t))
}

func (r *rig) tryStart(t *testing.T) error {
	t.Helper()
	r.core, r.sm = &solo{id: "a"}, new(tally)
	cfg := r.cfg
	cfg.Transport, cfg.Journal, cfg.Snapshots, cfg.StateMachine = r.net.Join("a"), r.journal, r.store, r.sm
	var err error
	r.Driver, err = Start(r.core, cfg)
	if err != nil {
		require.NoError(t, cfg.Transport.Close())
		return err
	}
	d := r.Driver
	t.Cleanup(func() { _ = d.Close() })
	return nil
}

// stop closes the driver and leaves the journal as it is.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, r.Close())
	require.NoError(t, r.cfgTransport().Close())
}

func (r *rig) cfgTransport() coterie.Transport { return r.Driver.cfg.Transport }

func (r *rig) mustDo(t *testing.T, f func(s *solo)) {
	t.Helper()
	require.NoError(t, r.Do(t.Context(), func(_ time.Time, s *solo) { f(s) }))
}

func (r *rig) mustPropose(t *testing.T, n int) int {
	t.Helper()
	result, err := r.Propose(t.Context(), strconv.AppendInt(nil, int64(n), 10))
	require.NoError(t, err)
	total, err := strconv.Atoi(string(result))
	require.NoError(t, err)
	return total
}

// mustExpireAfter sets the state machine's deadline.
func (r *rig) mustExpireAfter(t *testing.T, duration string) {
	t.Helper()
	_, err := r.Propose(t.Context(), []byte("due "+duration))
	require.NoError(t, err)
}

func TestProposeAndReadFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 50 {
					before := r.mustPropose(t, 1)
					result, err := r.Read(t.Context(), nil)
					assert.NoError(t, err)
					seen, _ := strconv.Atoi(string(result))
					assert.GreaterOrEqual(t, seen, before, "a read misses a proposal that had returned")
				}
			})
		}
		wg.Wait()
		assert.Equal(t, 3200, r.sm.total)
		synctest.Wait()
		status := r.Status()
		assert.Equal(t, coterie.Status{ID: "a", Leader: "a", Term: 1, Committed: 3200, Applied: 3200}, status)
		assert.Equal(t, 0, r.desk.count)
		assert.Equal(t, 0, r.desk.bytes)
		r.mustDo(t, func(s *solo) { assert.Equal(t, uint64(3200), s.applied[len(s.applied)-1]) })
		_, err := r.Read(t.Context(), []byte("?"))
		assert.ErrorContains(t, err, `query "?"`)
	})
}

func TestProposeWhoseContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.hold = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Propose(ctx, []byte("1"))
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = r.Read(ctx, nil)
		require.Equal(t, context.DeadlineExceeded, err)
		// What was forsaken is committed all the same, and the next answers go to whom they belong.
		r.mustDo(t, (*solo).release)
		assert.Equal(t, 3, r.mustPropose(t, 2))
		assert.Equal(t, 0, r.desk.count)

		_, err = r.Propose(ctx, []byte("1"))
		require.Equal(t, context.DeadlineExceeded, err, "nothing left this node")
	})
}

// A proposal that its caller gave up before the host took it is never made.
func TestProposeForsakenBeforeItIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		blocked, release := make(chan struct{}), make(chan struct{})
		go func() {
			_ = r.Do(t.Context(), func(time.Time, *solo) { close(blocked); <-release })
		}()
		<-blocked
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		command := []byte("1")
		_, err := r.Propose(ctx, command)
		require.Equal(t, context.DeadlineExceeded, err)
		command[0] = '?' // it is the caller's again
		close(release)
		assert.Equal(t, 2, r.mustPropose(t, 2))
		assert.Equal(t, 0, r.desk.count)
	})
}

func TestRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.refuse = &coterie.NotLeaderError{Leader: "b"} })
		for _, err := range []error{
			func() error { _, err := r.Propose(t.Context(), []byte("1")); return err }(),
			func() error { _, err := r.Read(t.Context(), nil); return err }(),
		} {
			require.ErrorIs(t, err, coterie.ErrNotLeader)
			var not *coterie.NotLeaderError
			require.ErrorAs(t, err, &not)
			assert.Equal(t, coterie.NodeID("b"), not.Leader)
		}
		assert.Equal(t, 0, r.desk.count)
	})
}

func TestOverloaded(t *testing.T) {
	for name, cfg := range map[string]Config{"count": {MaxPending: 2}, "bytes": {MaxPendingBytes: 2 * maxHeader}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, cfg)
				r.mustDo(t, func(s *solo) { s.hold = true })
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var mu sync.Mutex
				var over, unknown int
				for range 30 {
					wg.Go(func() {
						_, err := r.Propose(ctx, []byte("1"))
						mu.Lock()
						defer mu.Unlock()
						if errors.Is(err, coterie.ErrOverloaded) {
							over++
						} else if errors.Is(err, coterie.ErrUnknownOutcome) {
							unknown++
						}
					})
				}
				synctest.Wait()
				_, err := r.Read(ctx, make([]byte, maxHeader))
				assert.ErrorIs(t, err, coterie.ErrOverloaded)
				cancel()
				wg.Wait()
				assert.Equal(t, 30, over+unknown)
				assert.Positive(t, over)
				// The forsaken count until the core has answered.
				_, err = r.Propose(t.Context(), make([]byte, 200))
				assert.ErrorIs(t, err, coterie.ErrOverloaded)
				r.mustDo(t, (*solo).release)
				synctest.Wait()
				assert.Equal(t, unknown+1, r.mustPropose(t, 1))
			})
		})
	}
}

func TestCloseAnswersEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.hold = true })
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := r.Propose(t.Context(), []byte("1"))
			assert.ErrorIs(t, err, coterie.ErrUnknownOutcome)
			assert.ErrorIs(t, err, coterie.ErrClosed)
		})
		wg.Go(func() {
			_, err := r.Read(t.Context(), nil)
			assert.ErrorIs(t, err, coterie.ErrClosed)
		})
		synctest.Wait()
		require.NoError(t, r.Close())
		wg.Wait()
		_, err := r.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrClosed)
		assert.NotErrorIs(t, err, coterie.ErrUnknownOutcome)
		_, err = r.Read(t.Context(), nil)
		assert.ErrorIs(t, err, coterie.ErrClosed)
		assert.ErrorIs(t, r.Do(t.Context(), func(time.Time, *solo) {}), coterie.ErrClosed)
		assert.ErrorIs(t, r.Snapshot(t.Context()), coterie.ErrClosed)
		assert.NoError(t, r.Err())
		require.NoError(t, r.Close())
	})
}

// failing is a journal whose disk breaks.
type failing struct {
	host.MemoryJournal
	broken error
}

func (f *failing) Append(records ...[]byte) error {
	if f.broken != nil {
		return f.broken
	}
	return f.MemoryJournal.Append(records...)
}

func TestHostThatFailsAnswersEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := new(failing)
		d, err := Start(&solo{id: "a"}, Config{
			Transport: transport.NewNetwork(transport.NetworkConfig{}).Join("a"),
			Journal:   journal, Snapshots: newMemory(), StateMachine: new(tally),
		})
		require.NoError(t, err)
		_, err = d.Propose(t.Context(), []byte("1"))
		require.NoError(t, err)
		broken := errors.New("disk on fire")
		require.NoError(t, d.Do(t.Context(), func(time.Time, *solo) { journal.broken = broken }))
		_, err = d.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		assert.ErrorIs(t, err, broken)
		<-d.Done()
		assert.ErrorIs(t, d.Err(), broken)
		_, err = d.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrClosed)
		assert.ErrorIs(t, d.Close(), broken)
		require.ErrorIs(t, d.Close(), broken)
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := Start(&solo{}, Config{MaxPending: -1})
	for _, field := range []string{"Transport", "Journal", "Snapshots", "StateMachine", "MaxPending"} {
		assert.ErrorContains(t, err, "Config."+field)
	}
}

// A read waits until the state is as new as the core says it must be (etcd-io/etcd#3879).
func TestReadWaitsForWhatItMustSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.hold = true })
		var got string
		var wg sync.WaitGroup
		wg.Go(func() {
			result, err := r.Read(t.Context(), nil)
			assert.NoError(t, err)
			got = string(result)
		})
		synctest.Wait()
		// The leader says 1; the entry comes later.
		r.mustDo(t, func(s *solo) {
			s.Emit(ReadAt{s.held[0], 1})
			s.held = nil
		})
		wg.Go(func() {
			_, err := r.Propose(t.Context(), []byte("5"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		assert.Empty(t, got, "answered before the entry was applied")
		r.mustDo(t, (*solo).release)
		wg.Wait()
		assert.Equal(t, "5", got)
	})
}

// The driver itself allocates only the buffer that a batch's commands stand in.
func TestProposeAllocates(t *testing.T) {
	if testsize.Race() {
		t.Skip("sync.Pool forgets on purpose under the race detector")
	}
	d, err := Start(&solo{id: "a"}, Config{
		Transport: transport.NewNetwork(transport.NetworkConfig{}).Join("a"),
		Journal:   discard{}, Snapshots: newMemory(), StateMachine: nothing{},
	})
	require.NoError(t, err)
	defer d.Close()
	command := make([]byte, 16)
	allocs := testing.AllocsPerRun(2000, func() {
		if _, err := d.Propose(context.Background(), command); err != nil {
			t.Fatal(err)
		}
	})
	// solo itself: the record, and an event in an interface, and the growth of its log
	assert.Less(t, allocs, 5.0)
}

// The log's clock: the stamp of the proposing driver, but never back.
func TestEntryTimeNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		wall := time.Unix(1000, 0)
		r := newRig(t, Config{Clock: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return wall
		}})
		for _, at := range []int64{1000, 1005, 990, 1006} {
			mu.Lock()
			wall = time.Unix(at, 0)
			mu.Unlock()
			r.mustPropose(t, 1)
		}
		var got []int64
		for _, e := range r.sm.entries {
			got = append(got, e.Time.Unix())
		}
		assert.Equal(t, []int64{1000, 1005, 1005, 1006}, got)
	})
}

// An idle log moves on when the state machine's deadline has come, and only then.
func TestDeadlineMakesTheLeaderPropose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		deadline := time.Now().Add(90 * time.Second)
		r.mustExpireAfter(t, "90s")
		time.Sleep(89 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 0, r.sm.ticks.Load())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, r.sm.ticks.Load())
		tick := r.sm.entries[len(r.sm.entries)-1]
		assert.False(t, tick.Time.Before(deadline))
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.EqualValues(t, 1, r.sm.ticks.Load())
	})
}

func TestFollowerDoesNotTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustDo(t, func(s *solo) { s.Emit(Leader{ID: "b", Term: 2}) })
		r.mustExpireAfter(t, "1s")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 0, r.sm.ticks.Load())
		r.mustDo(t, func(s *solo) { s.Emit(Leader{ID: "a", Term: 3}) })
		synctest.Wait()
		assert.EqualValues(t, 1, r.sm.ticks.Load())
	})
}

// A tick that is refused is tried again, but not at once.
func TestTickIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.mustExpireAfter(t, "1s")
		r.mustDo(t, func(s *solo) { s.refuse = coterie.ErrOverloaded })
		time.Sleep(time.Minute)
		r.mustDo(t, func(s *solo) { s.refuse = nil })
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(t, 1, r.sm.ticks.Load())
	})
}

func TestEventHookSeesTheProtocolsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type own struct{ n int }
		var got []any
		r := newRig(t, Config{Event: func(_ time.Time, event any) { got = append(got, event) }})
		r.mustPropose(t, 1)
		r.mustDo(t, func(s *solo) { s.Emit(own{7}) })
		synctest.Wait()
		r.mustDo(t, func(*solo) { assert.Equal(t, []any{Leader{ID: "a", Term: 1}, own{7}}, got) })
	})
}

func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 512} {
		b.Run(fmt.Sprintf("proposers=%d", proposers), func(b *testing.B) {
			d, err := Start(&solo{id: "a"}, Config{
				Transport: transport.NewNetwork(transport.NetworkConfig{}).Join("a"),
				Journal:   discard{}, Snapshots: newMemory(), StateMachine: nothing{},
			})
			require.NoError(b, err)
			defer d.Close()
			b.ReportAllocs()
			var wg sync.WaitGroup
			command := make([]byte, 16)
			for p := range proposers {
				wg.Go(func() {
					for i := p; i < b.N; i += proposers {
						if _, err := d.Propose(context.Background(), command); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

type discard struct{}

func (discard) Replay(func([]byte) error) error { return nil }
func (discard) Append(...[]byte) error          { return nil }
func (discard) Keep(int) error                  { return nil }
func (discard) Close() error                    { return nil }

// nothing is a state machine that does nothing.
type nothing struct{ coterie.StateMachine }

func (nothing) Apply(coterie.Entry) []byte { return nil }

// A lease must hold when a read is asked, not when the host last read its clock: the process may have been paused
// between the two, for longer than the lease.
func TestReadIsAskedAtATimeAfterItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pause atomic.Bool
		r := newRig(t, Config{Clock: func() time.Time {
			if pause.CompareAndSwap(true, false) {
				time.Sleep(time.Minute)
			}
			return time.Now()
		}})
		defer r.stop(t)
		synctest.Wait()
		pause.Store(true)
		first := make(chan struct{})
		go func() {
			defer close(first)
			_, err := r.Read(t.Context(), nil)
			require.NoError(t, err)
		}()
		time.Sleep(time.Second) // within the pause
		began := time.Now()
		_, err := r.Read(t.Context(), nil)
		require.NoError(t, err)
		<-first
		r.mustDo(t, func(s *solo) { require.False(t, s.readAt.Before(began)) })
	})
}
