package sim_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// wrapped makes a world of a, whose core is wrapped, and b and c.
func wrapped(t *testing.T, wrap func(coterie.Core) coterie.Core) *bench {
	t.Helper()
	w, err := sim.New(fixedSeed())
	require.NoError(t, err)
	b := &bench{World: w, t: t}
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			var core coterie.Core = &probe{}
			if id == "a" {
				core = wrap(core)
			}
			return core, nil
		}}))
	}
	b.run(time.Millisecond)
	for _, id := range w.Nodes() {
		b.probe(id).take()
	}
	return b
}

func fixedSeed() sim.Config {
	cfg := fixed()
	cfg.Seed = 1
	return cfg
}

// speak lets a send a message to everyone, itself included.
func speak(b *bench, text string) {
	b.t.Helper()
	b.do("a", func(p *probe, _ time.Time) {
		for _, to := range b.Nodes() {
			p.Send(to, []byte(text))
		}
	})
	b.run(10 * time.Millisecond)
}

func TestSilent(t *testing.T) {
	b := wrapped(t, func(c coterie.Core) coterie.Core { return sim.Silent(c, "a") })
	speak(b, "x")
	require.Equal(t, []string{"a x"}, b.probe("a").take(), "it still counts on itself")
	require.Empty(t, b.probe("b").take())
	b = wrapped(t, func(c coterie.Core) coterie.Core { return sim.Silent(c, "a", "b") })
	speak(b, "x")
	require.Empty(t, b.probe("b").take())
	require.Equal(t, []string{"a x"}, b.probe("c").take())
}

func TestEquivocate(t *testing.T) {
	b := wrapped(t, func(c coterie.Core) coterie.Core {
		return sim.Equivocate(c, "a", func(to coterie.NodeID, payload []byte) []byte {
			if to == "c" {
				return nil
			}
			return append(slices.Clone(payload), to...)
		})
	})
	speak(b, "x")
	require.Equal(t, []string{"a x"}, b.probe("a").take())
	require.Equal(t, []string{"a xb"}, b.probe("b").take())
	require.Empty(t, b.probe("c").take())
}

func TestReplayOfOldPayloads(t *testing.T) {
	b := wrapped(t, func(c coterie.Core) coterie.Core {
		return sim.Replay(sim.Equivocate(c, "a", func(_ coterie.NodeID, payload []byte) []byte { return payload }),
			sim.ReplayConfig{Self: "a", Nodes: []coterie.NodeID{"a", "b", "c"}, Seed: 1, Rate: 2, Memory: 2})
	})
	b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("of b")) })
	b.run(10 * time.Millisecond)
	require.Equal(t, []string{"b of b"}, b.probe("a").take())
	speak(b, "1")
	heard := append(b.probe("b").take(), b.probe("c").take()...)
	require.Contains(t, heard, "a of b", "another's payload")
	for range 10 {
		speak(b, "2")
	}
	b.probe("b").take()
	b.probe("c").take()
	for range 10 {
		speak(b, "3")
	}
	heard = append(b.probe("b").take(), b.probe("c").take()...)
	require.NotContains(t, heard, "a 1", "out of its memory")
	require.Greater(t, len(heard), 30)
	for _, call := range b.probe("a").take() {
		require.NotContains(t, call, "of b")
	}
}

// With a primary that equivocates, the copies differ: the simulator shows what the protocol does not survive.
func TestEquivocationBreaksTheRegister(t *testing.T) {
	ids := []coterie.NodeID{"a", "b", "c"}
	w, err := sim.New(sim.Config{Seed: 1})
	require.NoError(t, err)
	for _, id := range ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			var core coterie.Core = newRegister(id, ids, none)
			if id == "a" {
				core = sim.Equivocate(core, id, func(to coterie.NodeID, payload []byte) []byte {
					if version, _, err := decode(payload, msgWrite); err == nil {
						return encode(msgWrite, version, uint64(to[0]))
					}
					return payload
				})
			}
			return core, nil
		}}))
	}
	require.NoError(t, w.Do("a", func(now time.Time, core coterie.Core) {
		require.NoError(t, core.(*register).Write(now, 1))
	}))
	require.NoError(t, w.Run(time.Second))
	b, c := w.Core("b").(*register), w.Core("c").(*register)
	require.Equal(t, b.version, c.version)
	require.NotEqual(t, b.value, c.value)
}
