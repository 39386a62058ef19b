package host_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
)

// pulse is a core that only wakes.
type pulse struct {
	coterie.Outbox
	ticks chan struct{}
}

func (p *pulse) Replay([]byte) error                          { return nil }
func (p *pulse) Step(time.Time, coterie.NodeID, []byte) error { return nil }
func (p *pulse) Ready() coterie.Ready                         { return p.Take() }
func (p *pulse) Tick(now time.Time) {
	p.Wake(now.Add(time.Millisecond))
	select {
	case p.ticks <- struct{}{}:
	default:
	}
}

func TestIdleHostAllocatesNothing(t *testing.T) {
	core := &pulse{ticks: make(chan struct{})}
	h, err := host.Start(core, host.Config{Transport: &wire{diary: new(diary)}})
	require.NoError(t, err)
	defer h.Close()
	require.Zero(t, testing.AllocsPerRun(20, func() { <-core.ticks }))
}

// echo is a core that tells when it has been stepped.
type echo struct {
	pulse
	stepped chan struct{}
}

func (e *echo) Step(time.Time, coterie.NodeID, []byte) error { e.stepped <- struct{}{}; return nil }

func TestSteppingAllocatesNothing(t *testing.T) {
	w := &wire{diary: new(diary)}
	core := &echo{stepped: make(chan struct{})}
	h, err := host.Start(core, host.Config{Transport: w})
	require.NoError(t, err)
	defer h.Close()
	payload := []byte("x")
	require.Zero(t, testing.AllocsPerRun(1000, func() { w.handle("b", payload); <-core.stepped }))
}
