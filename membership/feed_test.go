package membership_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type (
	event  = membership.Event[int]
	member = membership.Member[int]
)

func nobody() []member { return nil }

func is(id string, s membership.State, incarnation uint64) event {
	kind := map[membership.State]membership.Kind{
		membership.Alive: membership.EventJoin, membership.Suspect: membership.EventSuspect,
		membership.Unreachable: membership.EventFail, membership.Dead: membership.EventDead, membership.Left: membership.EventLeave,
	}[s]
	return event{Kind: kind, Member: member{ID: coterie.NodeID(id), State: s, Incarnation: incarnation}}
}

// read takes all that waits, by closing the feed.
func read(f *membership.Feed[int], events iter.Seq[event], between func()) (got []string) {
	next, stop := iter.Pull(events)
	defer stop()
	first := true
	for {
		e, ok := next() // subscribes, at first
		if !ok {
			return got
		}
		if first {
			first = false
			between()
			f.Close()
			continue
		}
		got = append(got, e.String())
	}
}

func start() []member { return []member{{ID: "first"}} }

// Changes of one member that wait are one; the last is never lost; what comes to nothing is not told.
func TestEventsThatWaitAreJoined(t *testing.T) {
	var f membership.Feed[int]
	got := read(&f, f.Events(start), func() {
		f.Publish(is("a", membership.Alive, 1), is("b", membership.Alive, 1))
		f.Publish(is("a", membership.Suspect, 1), is("a", membership.Unreachable, 1))
		f.Publish(event{Kind: membership.EventForget, Member: member{ID: "b"}})
		f.Publish(is("first", membership.Suspect, 0), is("first", membership.Alive, 0))
		f.Publish(is("c", membership.Alive, 4))
	})
	require.Equal(t, []string{"fail a@1", "join c@4"}, got)
}

// Whoever applies the events to what it had ends up with what is.
func TestEventsLeadToTheSameView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f membership.Feed[int]
		is := map[coterie.NodeID]member{}
		seen := map[coterie.NodeID]member{}
		next, stop := iter.Pull(f.Events(start))
		defer stop()
		e, ok := next()
		require.True(t, ok)
		seen[e.Member.ID], is[e.Member.ID] = e.Member, e.Member
		take := func() {
			switch e, ok := next(); {
			case !ok:
			case e.Kind == membership.EventForget:
				delete(seen, e.Member.ID)
			default:
				seen[e.Member.ID] = e.Member
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			m := member{
				ID: rapid.SampledFrom([]coterie.NodeID{"a", "b", "first"}).Draw(t, "id"), State: membership.State(rapid.IntRange(0, 4).Draw(t, "state")),
				Incarnation: rapid.Uint64Range(0, 2).Draw(t, "incarnation"),
			}
			if rapid.IntRange(0, 9).Draw(t, "forget") == 0 {
				f.Publish(event{Kind: membership.EventForget, Member: m})
				delete(is, m.ID)
			} else {
				f.Publish(event{Kind: membership.EventUpdate, Member: m})
				is[m.ID] = m
			}
			if rapid.Bool().Draw(t, "read") {
				same := len(is) == len(seen)
				for id, m := range is {
					same = same && seen[id] == m
				}
				if !same { // else there is nothing to wait for
					take()
				}
			}
		}
		f.Close()
		for range 10 {
			take()
		}
		require.Equal(t, is, seen)
	})
}

func TestWatchTellsChangesOnly(t *testing.T) {
	var f membership.Feed[int]
	var told []string
	cancel := f.Watch(start, func(id coterie.NodeID, l coterie.Liveness) { told = append(told, string(id)+" "+l.String()) })
	f.Publish(is("a", membership.Alive, 1), is("a", membership.Alive, 2), is("a", membership.Suspect, 2))
	f.Publish(is("a", membership.Unreachable, 2), is("a", membership.Dead, 2), is("a", membership.Left, 2))
	f.Publish(event{Kind: membership.EventForget, Member: member{ID: "a"}}, is("a", membership.Left, 2))
	require.Equal(t, []string{"first alive", "a alive", "a suspect", "a dead", "a dead"}, told)
	cancel()
	cancel()
	f.Publish(is("b", membership.Alive, 1))
	require.Len(t, told, 5)
	f.Close()
	f.Watch(nobody, func(coterie.NodeID, coterie.Liveness) { t.Error("after Close") })
	f.Publish(is("b", membership.Alive, 1))
}

func TestFeedIsSafeForConcurrentUse(*testing.T) {
	var f membership.Feed[int]
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range f.Events(start) {
			}
		})
		all.Go(func() {
			for i := range uint64(300) {
				f.Publish(is("a", membership.State(i%5), i))
				f.Watch(start, func(coterie.NodeID, coterie.Liveness) {})()
				for range f.Events(start) {
					break
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); all.Wait() }()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-ticker.C:
			if i == 20 {
				f.Close()
			}
		}
	}
}

type fakeGroup struct{ meta []byte }

func (g *fakeGroup) Members() []membership.Member[[]byte] {
	return []membership.Member[[]byte]{{ID: "a", Meta: g.meta}, {ID: "b", Meta: []byte("not JSON")}, {ID: "c", Err: membership.ErrPending}}
}

func (g *fakeGroup) Events() iter.Seq[membership.Event[[]byte]] {
	return func(yield func(membership.Event[[]byte]) bool) {
		for _, m := range g.Members() {
			if !yield(membership.Event[[]byte]{Kind: membership.EventJoin, Member: m}) {
				return
			}
		}
	}
}

func (g *fakeGroup) Update(_ context.Context, meta []byte) error {
	g.meta = meta
	return nil
}

func TestTyped(t *testing.T) {
	group := &fakeGroup{meta: []byte("1")}
	typed := membership.As(group, membership.JSON[int]())
	require.NoError(t, typed.Update(t.Context(), 42))
	members := typed.Members()
	require.Equal(t, 42, members[0].Meta)
	require.NoError(t, members[0].Err)
	require.ErrorContains(t, members[1].Err, "metadata of b")
	require.ErrorIs(t, members[2].Err, membership.ErrPending)
	for e := range typed.Events() {
		require.Equal(t, 42, e.Member.Meta)
		break
	}
	boom := errors.New("boom")
	broken := membership.As(group, membership.Codec[int]{Encode: func(int) ([]byte, error) { return nil, boom }})
	require.ErrorIs(t, broken.Update(t.Context(), 1), boom)
}

func TestNames(t *testing.T) {
	require.Equal(t, []string{"alive", "suspect", "unreachable", "dead", "left", "state(5)"}, []string{
		membership.Alive.String(), membership.Suspect.String(), membership.Unreachable.String(), membership.Dead.String(),
		membership.Left.String(), membership.State(5).String(),
	})
	require.Equal(t, "kind(0)", membership.Kind(0).String())
	require.Equal(t, "forget", membership.EventForget.String())
	require.Equal(t, "kind(9)", membership.Kind(9).String())
	for s, want := range map[membership.State]coterie.Liveness{
		membership.Alive: coterie.Alive, membership.Suspect: coterie.Suspect, membership.Unreachable: coterie.Dead,
		membership.Dead: coterie.Dead, membership.Left: coterie.Dead,
	} {
		require.Equal(t, want, s.Liveness())
	}
}
