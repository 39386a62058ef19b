package clock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

// stamped is an event of a generated history, with what every clock said of it.
type stamped struct {
	causes map[int]bool // all events before it, by the definition
	scalar uint64
	vector Vector
	hybrid Timestamp
	wide   WideTimestamp
}

// process is a node that stamps its events.
type process struct {
	id     coterie.NodeID
	wall   *fakeWall
	last   int // its newest event, -1 if none
	scalar Lamport
	vector Vector
	hybrid *HLC
	wide   *WideHLC
}

// Histories of local events, sends and receipts, by nodes whose wall clocks run and jump as they like within the
// offset: the exact clocks agree with the definition of happened-before, by brute force over all pairs.
func TestClocksOnMessageHistories(t *testing.T) {
	const offset = 50 * time.Millisecond
	check(t, func(t *rapid.T) {
		procs := make([]*process, rapid.IntRange(1, 4).Draw(t, "nodes"))
		for i := range procs {
			w := newFakeWall()
			cfg := HLCConfig{Node: coterie.NodeID(rune('a' + i)), Now: w.now, MaxOffset: 2*offset + step}
			procs[i] = &process{id: cfg.Node, wall: w, last: -1, hybrid: mustHLC(t, cfg), wide: mustWide(t, cfg)}
		}
		var events []stamped
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			p := procs[rapid.IntRange(0, len(procs)-1).Draw(t, "node")]
			p.wall.ns.Store(epoch.Add(time.Duration(rapid.Int64Range(-int64(offset), int64(offset)).Draw(t, "wall"))).UnixNano())
			from := -1
			if len(events) > 0 && rapid.Bool().Draw(t, "receipt") {
				from = rapid.IntRange(0, len(events)-1).Draw(t, "of") // late, repeated and from itself, too
			}
			events = append(events, p.happen(t, events, from))
			p.last = len(events) - 1
		}
		for i, a := range events {
			require.LessOrEqual(t, a.hybrid.Time, uint64(epoch.Add(offset).UnixNano())+uint64(len(events)), "further ahead than any wall clock")
			for j, b := range events {
				want := Concurrent
				switch {
				case i == j:
					want = Equal
				case b.causes[i]:
					want = Before
				case a.causes[j]:
					want = After
				}
				if got := a.vector.Compare(b.vector); got != want {
					t.Fatalf("%v to %v: %v, want %v", a.vector, b.vector, got, want)
				}
				if want != Before {
					continue
				}
				if a.scalar >= b.scalar || a.hybrid.Time >= b.hybrid.Time || !a.wide.Before(b.wide) {
					t.Fatalf("%+v is not before %+v", a, b)
				}
			}
		}
	})
}

// happen makes an event of p: the receipt of what event from sent, or a local one if from is -1.
func (p *process) happen(t *rapid.T, events []stamped, from int) stamped {
	e := stamped{causes: map[int]bool{}}
	for _, cause := range []int{p.last, from} {
		if cause >= 0 {
			e.causes[cause] = true
			for c := range events[cause].causes {
				e.causes[c] = true
			}
		}
	}
	if from < 0 {
		e.scalar, e.hybrid, e.wide = p.scalar.Tick(), p.hybrid.Now(), p.wide.Now()
	} else {
		var err error
		e.scalar, err = p.scalar.Witness(events[from].scalar)
		require.NoError(t, err)
		e.hybrid, err = p.hybrid.Update(events[from].hybrid)
		require.NoError(t, err)
		e.wide, err = p.wide.Update(events[from].wide)
		require.NoError(t, err)
		p.vector.Merge(events[from].vector)
	}
	p.vector.Tick(p.id)
	e.vector = p.vector.Clone()
	// Never behind the node's own wall clock, by more than the rounding.
	require.GreaterOrEqual(t, e.hybrid.Time, p.wall.packed())
	require.GreaterOrEqual(t, e.wide.Wall, p.wall.ns.Load())
	return e
}
