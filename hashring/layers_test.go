package hashring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
)

// The plan agrees with asking both placements, for every sampled hash, and its shares add up.
func TestDiffAgreesWithAsking(t *testing.T) {
	forEach(t, func(t *testing.T, s scheme) {
		t.Helper()
		testsize.Checks(t, 10, 500)
		if s.name != "table" && s.name != "ring" && s.name != "maglev" {
			testsize.Checks(t, 2, 50) // measured on a million hashes each
		}
		rapid.Check(t, func(t *rapid.T) {
			build := func(label string) locator {
				n := rapid.IntRange(0, 8).Draw(t, label)
				l, err := s.make(small(Config[string]{}), names(n)...)
				require.NoError(t, err)
				if s.weights && n > 0 {
					require.NoError(t, l.SetWeight("node-0", rapid.SampledFrom([]float64{0.5, 1, 2}).Draw(t, label+" weight")))
				}
				return l
			}
			before, after := build("before"), build("after")
			plan := Diff[string](before, after)
			const samples = 20_000
			moved := map[[2]string]int{}
			for i := range samples {
				h := mix(uint64(i))
				if from, to := before.LocateHash(h), after.LocateHash(h); from != to {
					moved[[2]string{from, to}]++
				}
			}
			total := 0.0
			for _, m := range plan.Moves {
				total += m.Share
				got := float64(moved[[2]string{m.From, m.To}]) / samples
				require.InDelta(t, got, m.Share, 5*math.Sqrt(m.Share/samples)+2e-3, "%s to %s", m.From, m.To)
				delete(moved, [2]string{m.From, m.To})
				checkRanges(t, plan.Exact, m, before, after)
			}
			require.InDelta(t, plan.Share(), total, 1e-9)
			for pair, n := range moved {
				require.Less(t, n, 40, "%v is not in the plan", pair)
			}
		})
	})
}

func checkRanges(t require.TestingT, exact bool, m Move[string], before, after Locator[string]) {
	share := 0.0
	for i, r := range m.Ranges {
		share += (float64(r.Last-r.First) + 1) / (1 << 63) / 2
		for _, h := range []uint64{r.First, r.Last, r.First + (r.Last-r.First)/2} {
			require.Equal(t, m.From, before.LocateHash(h))
			require.Equal(t, m.To, after.LocateHash(h))
		}
		if i > 0 {
			require.Greater(t, r.First, m.Ranges[i-1].Last)
		}
		if r.Last < math.MaxUint64 {
			h := r.Last + 1
			require.False(t, before.LocateHash(h) == m.From && after.LocateHash(h) == m.To, "a range ends where it need not")
		}
	}
	if exact {
		require.InDelta(t, m.Share, share, 1e-9)
	}
}

func TestDiffNamesPartitions(t *testing.T) {
	before, err := NewTable(Config[string]{Partitions: 256}, names(3)...)
	require.NoError(t, err)
	after, err := NewTable(Config[string]{Partitions: 256}, names(4)...)
	require.NoError(t, err)
	total := 0
	for _, m := range Diff[string](before, after).Moves {
		require.Equal(t, "node-3", m.To)
		require.True(t, slices.IsSorted(m.Partitions))
		for _, p := range m.Partitions {
			require.Equal(t, m.From, before.Owner(p))
			require.Equal(t, m.To, after.Owner(p))
		}
		total += len(m.Partitions)
	}
	want := 0
	for p := range 256 {
		if before.Owner(p) != after.Owner(p) {
			want++
		}
	}
	require.Equal(t, want, total)
	require.Equal(t, "", before.Owner(256))
	require.Equal(t, "", before.Owner(-1))
}

// No node ever holds more than its bound, and while there are nodes there is room: adding nodes to a ring at its
// bounds makes buraksezer/consistent v0.10.0 panic with "not enough room".
func TestBoundedNeverExceedsNorFails(t *testing.T) {
	forEach(t, func(t *testing.T, s scheme) {
		t.Helper()
		testsize.Checks(t, 20, 1000)
		rapid.Check(t, func(t *rapid.T) {
			l, err := s.make(small(Config[string]{}), "first")
			require.NoError(t, err)
			epsilon := rapid.SampledFrom([]float64{0.01, 0.25, 1}).Draw(t, "epsilon")
			b, err := NewBounded[string](l, epsilon)
			require.NoError(t, err)
			held := []string{}
			weights := map[string]float64{"first": 1}
			for i := range rapid.IntRange(10, 120).Draw(t, "steps") {
				switch rapid.IntRange(0, 9).Draw(t, "step") {
				case 0:
					node := fmt.Sprint("n", i)
					require.NoError(t, b.Add(node))
					weights[node] = 1
				case 1:
					nodes := collect(b)
					if len(nodes) < 2 {
						continue
					}
					node := nodes[len(nodes)-1]
					require.NoError(t, b.Remove(node))
					delete(weights, node)
					held = slices.DeleteFunc(held, func(h string) bool { return h == node })
				case 2:
					if s.weights {
						node := rapid.SampledFrom(collect(b)).Draw(t, "weighted")
						weights[node] = rapid.SampledFrom([]float64{0.5, 1, 2}).Draw(t, "weight")
						require.NoError(t, b.SetWeight(node, weights[node]))
					}
				case 3:
					if len(held) > 0 {
						b.Done(held[0])
						held = held[1:]
					}
				default:
					node, err := b.Acquire(fmt.Sprint("key-", rapid.IntRange(0, 5).Draw(t, "key")))
					require.NoError(t, err)
					held = append(held, node)
					sum := 0.0
					for _, w := range weights {
						sum += w
					}
					count := 0
					for _, h := range held {
						if h == node {
							count++
						}
					}
					require.LessOrEqual(t, count, int(math.Ceil((1+epsilon)*float64(len(held))*weights[node]/sum)))
					require.Equal(t, count, b.Load(node))
				}
			}
		})
	})
}

func TestBoundedWithoutNodes(t *testing.T) {
	l, err := New[string](Config[string]{Partitions: 16})
	require.NoError(t, err)
	b, err := NewBounded[string](l, 0.1)
	require.NoError(t, err)
	_, err = b.Acquire("key")
	require.ErrorIs(t, err, ErrEmpty)
	b.Done("nobody")
	for _, e := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		_, err = NewBounded[string](l, e)
		require.Error(t, err)
	}
}

func TestBoundedKeepsTheOwnerWhileThereIsRoom(t *testing.T) {
	l, err := New(Config[string]{Partitions: 1 << 12}, names(10)...)
	require.NoError(t, err)
	b, err := NewBounded[string](l, 5)
	require.NoError(t, err)
	for i := range 100 {
		_, err := b.Acquire(fmt.Sprint("warm-", i))
		require.NoError(t, err)
	}
	node, err := b.Acquire("key")
	require.NoError(t, err)
	require.Equal(t, l.Locate("key"), node)
	b.Done(node)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		node, _ := b.Acquire("key")
		b.Done(node)
	}))
}

// Readers beside a writer see some version: never an empty owner, never a node that was not there before or after.
func TestReadersBesideAWriter(t *testing.T) {
	forEach(t, func(t *testing.T, s scheme) {
		t.Helper()
		l, err := s.make(small(Config[string]{}), names(8)...)
		require.NoError(t, err)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for seed := range uint64(3) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 1))
				for {
					select {
					case <-stop:
						return
					default:
					}
					if l.LocateHash(rng.Uint64()) == "" {
						t.Error("no owner")
						return
					}
				}
			})
		}
		for i := range testsize.N(300, 3000) {
			node := fmt.Sprint("n", i)
			require.NoError(t, l.Add(node))
			if got := l.LocateN("key", 3); len(got) != 3 {
				t.Error("not three")
			}
			require.NoError(t, l.Remove(node))
		}
		close(stop)
		wg.Wait()
	})
}

func TestNodesOfOtherTypes(t *testing.T) {
	type id string
	ids, err := New(Config[id]{Partitions: 64}, "a", "b")
	require.NoError(t, err)
	texts, err := New(Config[string]{Partitions: 64}, "a", "b")
	require.NoError(t, err)
	require.Equal(t, texts.Locate("key"), string(ids.Locate("key")))
	numbers, err := NewRing(Config[int]{}, 1, 2, 3)
	require.NoError(t, err)
	require.Contains(t, []int{1, 2, 3}, numbers.Locate("key"))
	type server struct{ host string }
	servers, err := NewRendezvous(Config[server]{Name: func(s server) string { return s.host }}, server{"a"}, server{"b"})
	require.NoError(t, err)
	data, err := servers.AppendBinary(nil)
	require.NoError(t, err)
	require.ErrorContains(t, servers.UnmarshalBinary(data), "Config.Parse")
}
