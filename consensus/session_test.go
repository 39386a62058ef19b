package consensus

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
)

func (r *rig) mustOpen(t *testing.T) uint64 {
	t.Helper()
	id, err := r.OpenSession(t.Context())
	require.NoError(t, err)
	return id
}

func (r *rig) mustProposeAs(t *testing.T, tag Tag, command string) string {
	t.Helper()
	result, err := r.ProposeAs(t.Context(), tag, []byte(command))
	require.NoError(t, err)
	return string(result)
}

func TestRetriedCommandIsAppliedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		id := r.mustOpen(t)
		first := Tag{Session: id, Seq: 1, Low: 1}
		for range 3 {
			assert.Equal(t, "5", r.mustProposeAs(t, first, "5"))
		}
		second := Tag{Session: id, Seq: 2, Low: 1}
		assert.Equal(t, "7", r.mustProposeAs(t, second, "2"))

		r.stop(t) // the log is applied again
		r.start(t)
		assert.Equal(t, "5", r.mustProposeAs(t, first, "5"))

		require.NoError(t, r.Snapshot(t.Context())) // and now the snapshot
		r.stop(t)
		r.start(t)
		require.Equal(t, 1, r.sm.restored)
		assert.Equal(t, "5", r.mustProposeAs(t, first, "5"))
		assert.Equal(t, "7", r.mustProposeAs(t, second, "2"))

		// What the client has acknowledged is forgotten, and refused.
		assert.Equal(t, "8", r.mustProposeAs(t, Tag{Session: id, Seq: 3, Low: 3}, "1"))
		_, err := r.ProposeAs(t.Context(), first, []byte("5"))
		assert.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		assert.Equal(t, 8, r.mustPropose(t, 0))
	})
}

func TestSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{SessionTTL: time.Minute})
		id := r.mustOpen(t)
		r.mustProposeAs(t, Tag{id, 1, 1}, "1")
		time.Sleep(59 * time.Second)
		r.mustProposeAs(t, Tag{id, 1, 1}, "1") // a use, though it is a repetition
		time.Sleep(59 * time.Second)
		r.mustProposeAs(t, Tag{id, 2, 1}, "1")
		time.Sleep(time.Minute)
		for _, tag := range []Tag{{id, 2, 1}, {id, 3, 1}, {id + 1, 1, 1}} {
			_, err := r.ProposeAs(t.Context(), tag, []byte("1"))
			assert.ErrorIs(t, err, ErrSessionExpired)
		}
		assert.Equal(t, 2, r.mustPropose(t, 0))
		assert.Equal(t, 0, r.machine.Sessions())

		id = r.mustOpen(t)
		require.NoError(t, r.EndSession(t.Context(), id))
		_, err := r.ProposeAs(t.Context(), Tag{id, 1, 1}, []byte("1"))
		assert.ErrorIs(t, err, ErrSessionExpired)
	})
}

func TestTableOfSessionsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxSessions: 3, MaxSessionBytes: 4})
		var ids []uint64
		for range 3 {
			ids = append(ids, r.mustOpen(t))
		}
		r.mustProposeAs(t, Tag{ids[0], 1, 1}, "10")
		fourth := r.mustOpen(t) // the second was idle for longest
		_, err := r.ProposeAs(t.Context(), Tag{ids[1], 1, 1}, []byte("1"))
		assert.ErrorIs(t, err, ErrSessionExpired)
		r.mustProposeAs(t, Tag{ids[2], 1, 1}, "10")
		r.mustProposeAs(t, Tag{fourth, 1, 1}, "10") // results of six bytes are too many
		_, err = r.ProposeAs(t.Context(), Tag{ids[0], 1, 1}, []byte("10"))
		assert.ErrorIs(t, err, ErrSessionExpired)
		assert.Equal(t, "20", r.mustProposeAs(t, Tag{ids[2], 1, 1}, "10"))
		// Results below Low do not count.
		for seq := uint64(1); seq < 10; seq++ {
			r.mustProposeAs(t, Tag{fourth, seq + 1, seq + 1}, "1")
		}
		assert.Equal(t, "20", r.mustProposeAs(t, Tag{ids[2], 1, 1}, "10"))
		// A session may not run ahead of itself.
		_, err = r.ProposeAs(t.Context(), Tag{fourth, 12 + sessionWindow, 11}, []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrOverloaded)
	})
}

// flaky loses answers and refuses proposals before it lets one through.
type flaky struct {
	Replica
	mu   sync.Mutex
	errs []error // what the next calls return; a call that returns ErrUnknownOutcome is made all the same
}

func (f *flaky) ProposeAs(ctx context.Context, tag Tag, command []byte) ([]byte, error) {
	f.mu.Lock()
	var err error
	if len(f.errs) > 0 {
		err, f.errs = f.errs[0], f.errs[1:]
	}
	f.mu.Unlock()
	if err != nil && !errors.Is(err, coterie.ErrUnknownOutcome) {
		return nil, err
	}
	result, got := f.Replica.ProposeAs(ctx, tag, command)
	return result, errors.Join(err, got)
}

func TestSessionTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		f := &flaky{Replica: r}
		s, err := NewSession(t.Context(), f)
		require.NoError(t, err)
		f.errs = []error{&coterie.NotLeaderError{}, coterie.ErrUnknownOutcome, coterie.ErrOverloaded, coterie.ErrUnknownOutcome}
		result, err := s.Propose(t.Context(), []byte("5"))
		require.NoError(t, err)
		assert.Equal(t, "5", string(result))

		broken := errors.New("broken")
		f.errs = []error{coterie.ErrUnknownOutcome, broken}
		_, err = s.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, broken)
		assert.ErrorIs(t, err, coterie.ErrUnknownOutcome, "the first try was made")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.mustDo(t, func(s *solo) { s.refuse = &coterie.NotLeaderError{} })
		_, err = s.Propose(ctx, []byte("1"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, err, coterie.ErrNotLeader)
		assert.NotErrorIs(t, err, coterie.ErrUnknownOutcome)
		r.mustDo(t, func(s *solo) { s.refuse = nil })

		require.NoError(t, s.Close(t.Context()))
		_, err = s.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, ErrSessionExpired)
		require.NoError(t, r.Close())
		_, err = s.Propose(t.Context(), []byte("1"))
		assert.ErrorIs(t, err, coterie.ErrClosed)
	})
}

// Callers of one session that lose every third answer: what one still asks for is not forgotten for another.
func TestSessionOfManyCallersTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		f := &flaky{Replica: r}
		s, err := NewSession(t.Context(), f)
		require.NoError(t, err)
		for range 1000 {
			f.errs = append(f.errs, nil, nil, coterie.ErrUnknownOutcome)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 40 {
					_, err := s.Propose(t.Context(), []byte("1"))
					assert.NoError(t, err)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, 800, r.mustPropose(t, 0))
	})
}

func TestSessionWithManyCommandsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		s, err := r.NewSession(t.Context())
		require.NoError(t, err)
		assert.NotZero(t, s.ID())
		r.mustDo(t, func(s *solo) { s.hold = true })
		var wg sync.WaitGroup
		for range 3 * sessionWindow {
			wg.Go(func() {
				_, err := s.Propose(t.Context(), []byte("1"))
				assert.NoError(t, err)
			})
		}
		synctest.Wait()
		assert.Equal(t, uint64(sessionWindow+1), s.next, "more are under way than replicas remember")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Propose(ctx, []byte("1"))
		assert.Equal(t, context.DeadlineExceeded, err)
		r.mustDo(t, (*solo).release)
		wg.Wait()
		assert.Equal(t, 3*sessionWindow, r.mustPropose(t, 0))
		assert.Empty(t, s.over)
	})
}

// The oracle remembers everything for ever; the table may forget, but never applies twice and never answers wrongly.
func TestSessionsAgreeWithRememberingEverything(t *testing.T) {
	testsize.Checks(t, 300, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		table, sm := newSessions(), new(tally)
		type key struct{ session, seq uint64 }
		results := map[key]string{}
		l := limits{ttl: 100, count: rapid.IntRange(1, 4).Draw(t, "count"), bytes: rapid.IntRange(1, 20).Draw(t, "bytes")}
		var ids []uint64
		now, index := int64(0), uint64(0)
		step := func() {
			now += int64(rapid.IntRange(0, 30).Draw(t, "pause"))
			index++
			table.expire(now)
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(*rapid.T) {
				step()
				table.open(index, l, now)
				ids = append(ids, index)
			},
			"end": func(t *rapid.T) {
				step()
				if len(ids) > 0 {
					table.end(rapid.SampledFrom(ids).Draw(t, "session"))
				}
			},
			"apply": func(t *rapid.T) {
				step()
				if len(ids) == 0 {
					return
				}
				k := key{rapid.SampledFrom(ids).Draw(t, "session"), uint64(rapid.IntRange(1, 8).Draw(t, "seq"))}
				low := uint64(rapid.IntRange(1, int(k.seq)).Draw(t, "low"))
				applied := len(sm.entries)
				result, err := table.apply(Tag{k.session, k.seq, low}, now, sm, coterie.Entry{Command: []byte("1")})
				before, repeated := results[k]
				switch {
				case err != nil:
					if len(sm.entries) != applied {
						t.Fatalf("%v applied though the error is %v", k, err)
					}
				case repeated && (len(sm.entries) != applied || string(result) != before):
					t.Fatalf("%v applied again: %q after %q", k, result, before)
				default:
					results[k] = string(result)
				}
			},
			"restart": func(t *rapid.T) {
				encoded := table.append(nil)
				r := wire.NewReader(encoded)
				table = readSessions(&r)
				if err := r.Done(); err != nil {
					t.Fatal(err)
				}
				if again := table.append(nil); string(again) != string(encoded) {
					t.Fatalf("%q became %q", encoded, again)
				}
			},
			"": func(t *rapid.T) {
				bytes := 0
				for el := table.order.Front(); el != nil; el = el.Next() {
					for _, a := range el.Value.(*session).window {
						bytes += len(a.result)
					}
				}
				if n := table.order.Len(); bytes != table.bytes || n != len(table.byID) || n > 1 && (n > l.count || bytes > l.bytes) {
					t.Fatalf("%d sessions of %d bytes, counted as %d of %d", n, bytes, len(table.byID), table.bytes)
				}
			},
		})
	})
}
