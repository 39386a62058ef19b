package balance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
)

var errDown = errors.New("connection refused")

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)} }

// kinds makes each kind of balancer.
var kinds = map[string]func(Config[string], ...string) (Balancer[string], error){
	"round robin":       func(c Config[string], b ...string) (Balancer[string], error) { return NewRoundRobin(c, b...) },
	"random":            func(c Config[string], b ...string) (Balancer[string], error) { return NewRandom(c, b...) },
	"least connections": func(c Config[string], b ...string) (Balancer[string], error) { return NewLeastConnections(c, b...) },
	"power of two":      func(c Config[string], b ...string) (Balancer[string], error) { return NewPowerOfTwo(c, b...) },
	"reported load":     func(c Config[string], b ...string) (Balancer[string], error) { return NewReportedLoad(c, b...) },
	"consistent": func(c Config[string], b ...string) (Balancer[string], error) {
		return NewConsistent(c, 0.25, func(s string) string { return s }, b...)
	},
}

func forEach(t *testing.T, f func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error))) {
	t.Helper()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { f(t, kind) })
	}
}

func seeded(seed uint64) func() uint64 {
	var mu sync.Mutex
	src := rand.NewPCG(seed, 0)
	return func() uint64 { mu.Lock(); defer mu.Unlock(); return src.Uint64() }
}

func TestRoundRobinIsSmooth(t *testing.T) {
	r, err := NewRoundRobin(Config[string]{}, "a", "b", "c")
	require.NoError(t, err)
	require.NoError(t, r.SetWeight("a", 5))
	var order []string
	for range 14 {
		p, err := r.Pick("")
		require.NoError(t, err)
		order = append(order, p.Backend)
		p.Done(Result{})
	}
	require.Equal(t, "aabacaa aabacaa", strings.Join(order[:7], "")+" "+strings.Join(order[7:], ""))
}

// In the long run shares match weights where requests are alike, and nobody starves.
func TestSharesMatchWeights(t *testing.T) {
	weights := map[string]float64{"a": 1, "b": 2, "c": 3, "d": 4}
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		c := newClock()
		l, err := kind(Config[string]{Now: c.Now, Rand: seeded(1)}, "a", "b", "c", "d")
		require.NoError(t, err)
		for b, w := range weights {
			require.NoError(t, l.SetWeight(b, w))
		}
		count := map[string]int{}
		var held []Picked[string]
		const under = 200 // so many are always under way
		requests := testsize.N(50_000, 500_000)
		for i := range requests {
			p, err := l.Pick(fmt.Sprint("key-", i))
			require.NoError(t, err)
			count[p.Backend]++
			if held = append(held, p); len(held) > under {
				j := int(uint64(i)*2654435761) % len(held)
				c.move(time.Millisecond)
				held[j].Done(Result{Load: 1})
				held = slices.Delete(held, j, j+1)
			}
		}
		for b, w := range weights {
			require.InDelta(t, w/10, float64(count[b])/float64(requests), 0.15*w/10+0.02, "%s of %v", b, count)
		}
	})
}

// An ejected backend gets nothing, then one probe at a time, and comes back with the first that succeeds.
func TestEjectedGetsNothingButProbes(t *testing.T) {
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		c := newClock()
		l, err := kind(Config[string]{Now: c.Now, Rand: seeded(2), Eject: AfterFailures[string](3, time.Second)}, "good", "bad")
		require.NoError(t, err)
		send := func(badIsUp bool) (toBad int) {
			for i := range 200 {
				p, err := l.Pick(fmt.Sprint(i))
				require.NoError(t, err)
				c.move(time.Microsecond)
				if p.Backend == "bad" {
					toBad++
					if !badIsUp {
						p.Done(Result{Err: errDown})
						continue
					}
				}
				p.Done(Result{})
			}
			return toBad
		}
		require.Equal(t, 3, send(false))
		require.Zero(t, send(false), "ejected")
		s, _ := l.Stats("bad")
		require.True(t, s.Ejected)
		c.move(time.Second)
		require.Equal(t, 1, send(false), "one probe, which fails")
		c.move(time.Second)
		require.Zero(t, send(false), "ejected for twice as long")
		c.move(time.Second)
		first, err := l.Pick("x")
		require.NoError(t, err)
		require.Equal(t, "bad", first.Backend)
		for range 50 {
			p, err := l.Pick("y")
			require.NoError(t, err)
			require.Equal(t, "good", p.Backend, "one probe at a time")
			p.Done(Result{})
		}
		c.move(time.Microsecond)
		first.Done(Result{})
		require.Greater(t, send(true), 20, "back")
	})
}

func TestHealth(t *testing.T) {
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		l, err := kind(Config[string]{}, "a", "b")
		require.NoError(t, err)
		require.NoError(t, l.SetHealthy("a", false))
		for i := range 20 {
			p, err := l.Pick(fmt.Sprint(i))
			require.NoError(t, err)
			require.Equal(t, "b", p.Backend)
			p.Done(Result{})
		}
		require.NoError(t, l.SetHealthy("b", false))
		_, err = l.Pick("")
		require.ErrorIs(t, err, ErrNoBackend)
		require.NoError(t, l.SetHealthy("a", true))
		p, err := l.Pick("")
		require.NoError(t, err)
		require.NoError(t, l.Remove("a"))
		p.Done(Result{Err: errDown}) // of one that has gone
		_, err = l.Pick("")
		require.ErrorIs(t, err, ErrNoBackend)
		_, ok := l.Stats("a")
		require.False(t, ok)
	})
}

func TestImpossibleChanges(t *testing.T) {
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		l, err := kind(Config[string]{})
		require.NoError(t, err)
		_, err = l.Pick("")
		require.ErrorIs(t, err, ErrNoBackend)
		require.ErrorIs(t, l.Add("a", "a"), ErrDuplicate)
		require.ErrorIs(t, l.Remove("a"), ErrUnknown)
		require.ErrorIs(t, l.SetHealthy("a", true), ErrUnknown)
		require.ErrorIs(t, l.SetWeight("a", 1), ErrUnknown)
		require.NoError(t, l.Add("a"))
		require.ErrorIs(t, l.Remove("a", "a"), ErrUnknown)
		for _, w := range []float64{0, -1, math.NaN(), math.Inf(1)} {
			require.ErrorIs(t, l.SetWeight("a", w), ErrWeight)
		}
		_, err = kind(Config[string]{Decay: -1})
		require.ErrorContains(t, err, "Config.Decay")
	})
	_, err := NewConsistent(Config[string]{}, 0, func(s string) string { return s })
	require.ErrorContains(t, err, "epsilon")
	_, err = NewConsistent[string](Config[string]{}, 1, nil)
	require.ErrorContains(t, err, "name")
}

func TestPowerOfTwoLeavesTheSlowAndComesBack(t *testing.T) {
	c := newClock()
	l, err := NewPowerOfTwo(Config[string]{Now: c.Now, Rand: seeded(3)}, "a", "b", "slow")
	require.NoError(t, err)
	share := func(slow time.Duration) float64 {
		count := 0
		for range 2000 {
			p, err := l.Pick("")
			require.NoError(t, err)
			took := 10 * time.Millisecond
			if p.Backend == "slow" {
				took = slow
				count++
			}
			c.move(took)
			p.Done(Result{})
		}
		return float64(count) / 2000
	}
	require.Less(t, share(time.Second), 0.05)
	for range 10 { // 200 s, of a decay of 10 s
		share(10 * time.Millisecond)
	}
	require.InDelta(t, 1.0/3, share(10*time.Millisecond), 0.1)
}

func TestReportedLoadPrefersTheIdle(t *testing.T) {
	c := newClock()
	l, err := NewReportedLoad(Config[string]{Now: c.Now, Rand: seeded(4)}, "idle", "busy")
	require.NoError(t, err)
	count := map[string]int{}
	for range 1000 {
		p, err := l.Pick("")
		require.NoError(t, err)
		count[p.Backend]++
		c.move(time.Millisecond)
		p.Done(Result{Load: map[string]float64{"idle": 0.1, "busy": 0.9}[p.Backend]})
	}
	require.Greater(t, count["idle"], 900)
	require.Positive(t, count["busy"])
}

// Keys stay with their backend while there is room, no backend exceeds its bound, and one that comes or goes moves only
// its own keys.
func TestConsistentBoundsAndStays(t *testing.T) {
	testsize.Checks(t, 100, 5000)
	rapid.Check(t, func(t *rapid.T) {
		c, err := NewConsistent(Config[string]{}, 0.5, func(s string) string { return s }, "a", "b", "c", "d")
		require.NoError(t, err)
		owner := map[string]string{}
		for i := range 50 {
			p, err := c.Pick(fmt.Sprint(i))
			require.NoError(t, err)
			owner[fmt.Sprint(i)] = p.Backend
			p.Done(Result{})
		}
		gone := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "gone")
		require.NoError(t, c.Remove(gone))
		for key, was := range owner {
			p, err := c.Pick(key)
			require.NoError(t, err)
			if was != gone {
				require.Equal(t, was, p.Backend)
			}
			p.Done(Result{})
		}
		held := map[string]int{}
		for i := range rapid.IntRange(1, 60).Draw(t, "held") {
			p, err := c.Pick("hot")
			require.NoError(t, err)
			held[p.Backend]++
			require.LessOrEqual(t, held[p.Backend], int(math.Ceil(1.5*float64(i+1)/3)))
		}
	})
}

func TestSubsetIsStableAndEven(t *testing.T) {
	backends := make([]string, 100)
	for i := range backends {
		backends[i] = fmt.Sprint("backend-", i)
	}
	name := func(s string) string { return s }
	count := map[string]int{}
	for i := range 300 {
		client := fmt.Sprint("client-", i)
		got := Subset(client, 20, backends, name)
		require.Len(t, got, 20)
		for _, b := range got {
			count[b]++
		}
		shuffled := slices.Clone(backends)
		slices.Reverse(shuffled)
		require.Equal(t, got, Subset(client, 20, shuffled, name))
		without := slices.DeleteFunc(slices.Clone(backends), func(b string) bool { return b == got[3] })
		after := Subset(client, 20, without, name)
		require.Equal(t, append(append([]string{}, got[:3]...), got[4:]...), after[:19])
	}
	for _, b := range backends {
		require.InDelta(t, 60, count[b], 35, b) // five standard deviations
	}
	require.Len(t, Subset("c", 200, backends, name), 100)
	require.Empty(t, Subset("c", -1, backends, name))
}

func TestPickAllocatesNothing(t *testing.T) {
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		l, err := kind(Config[string]{Eject: AfterFailures[string](5, time.Second)}, "a", "b", "c")
		require.NoError(t, err)
		require.Zero(t, testing.AllocsPerRun(200, func() {
			p, _ := l.Pick("key")
			p.Done(Result{Load: 1})
		}))
	})
}

func TestConcurrentUse(t *testing.T) {
	forEach(t, func(t *testing.T, kind func(Config[string], ...string) (Balancer[string], error)) {
		l, err := kind(Config[string]{Eject: AfterFailures[string](2, time.Microsecond)}, "a", "b", "c")
		require.NoError(t, err)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 500 {
					p, err := l.Pick(fmt.Sprint(i))
					if err != nil {
						continue
					}
					var down error
					if (i+g)%3 == 0 {
						down = errDown
					}
					p.Done(Result{Err: down})
				}
			})
		}
		wg.Go(func() {
			for i := range 200 {
				node := fmt.Sprint("n", i)
				if l.Add(node) != nil || l.SetWeight(node, 2) != nil || l.SetHealthy("a", i%2 == 0) != nil || l.Remove(node) != nil {
					t.Error("a change failed")
				}
			}
		})
		wg.Wait()
		for _, b := range []string{"a", "b", "c"} {
			s, ok := l.Stats(b)
			require.True(t, ok)
			require.Zero(t, s.Pending)
		}
	})
}
