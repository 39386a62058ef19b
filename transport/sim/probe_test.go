package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// probe is a core that tells what is done to it, and does what the test says.
type probe struct {
	coterie.Outbox
	calls   []string // what was done to it, oldest first
	times   []time.Time
	readies int
	onStep  func(p *probe, now time.Time, from coterie.NodeID, payload []byte) error
	onTick  func(p *probe, now time.Time)
}

func (p *probe) call(now time.Time, what string) {
	p.calls = append(p.calls, what)
	p.times = append(p.times, now)
}

func (p *probe) Replay(record []byte) error {
	p.call(time.Time{}, "replay "+string(record))
	return nil
}

func (p *probe) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	p.call(now, string(from)+" "+string(payload))
	if p.onStep != nil {
		return p.onStep(p, now, from, payload)
	}
	return nil
}

func (p *probe) Tick(now time.Time) {
	p.call(now, "tick")
	if p.onTick != nil {
		p.onTick(p, now)
	}
}

func (p *probe) Ready() coterie.Ready {
	p.readies++
	return p.Take()
}

// take returns what was done to it since the last take.
func (p *probe) take() []string {
	calls := p.calls
	p.calls, p.times, p.readies = nil, nil, 0
	return calls
}

// bench is a world of probes.
type bench struct {
	*sim.World
	t      *testing.T
	events []any
	setup  func(id coterie.NodeID, p *probe)
}

// newBench makes a world of probes whose first ticks are over.
func newBench(t *testing.T, cfg sim.Config, setup func(id coterie.NodeID, p *probe), ids ...coterie.NodeID) *bench {
	t.Helper()
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	w, err := sim.New(cfg)
	require.NoError(t, err)
	b := &bench{World: w, t: t, setup: setup}
	for _, id := range ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			p := &probe{}
			if setup != nil {
				setup(id, p)
			}
			return p, sim.EventFunc(func(_ time.Time, event any) { b.events = append(b.events, event) })
		}}))
	}
	b.run(time.Millisecond)
	for _, id := range ids {
		require.Equal(t, []string{"tick"}, b.probe(id).take())
	}
	return b
}

func (b *bench) probe(id coterie.NodeID) *probe {
	b.t.Helper()
	p, ok := b.Core(id).(*probe)
	require.True(b.t, ok, "%s is down", id)
	return p
}

func (b *bench) run(d time.Duration) {
	b.t.Helper()
	require.NoError(b.t, b.Run(d))
}

// do makes a typed call.
func (b *bench) do(id coterie.NodeID, f func(p *probe, now time.Time)) {
	b.t.Helper()
	require.NoError(b.t, b.Do(id, func(now time.Time, core coterie.Core) { f(core.(*probe), now) }))
}
