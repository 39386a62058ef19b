package phi

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/stretchr/testify/require"
)

func newFixedMonitor(t *testing.T) *Monitor[coterie.NodeID] {
	t.Helper()
	m, err := NewMonitor[coterie.NodeID](MonitorConfig{New: func() Detector {
		f, err := NewFixed(time.Second)
		require.NoError(t, err)
		return f
	}})
	require.NoError(t, err)
	return m
}

func TestMonitorTellsEveryChange(t *testing.T) {
	m := newFixedMonitor(t)
	var told []string
	watch := func(id coterie.NodeID, l coterie.Liveness) { told = append(told, fmt.Sprintf("%s %v", id, l)) }
	took := func() []string {
		got := told
		told = nil
		return got
	}
	m.Heartbeat("b", start)
	m.Heartbeat("a", start)
	cancel := m.Watch(watch)
	require.Equal(t, []string{"a alive", "b alive"}, took())
	require.Equal(t, start.Add(time.Second), m.Check(start))
	m.Heartbeat("a", start.Add(900*time.Millisecond))
	require.Equal(t, start.Add(1100*time.Millisecond), m.Check(start.Add(time.Second)))
	require.Equal(t, []string{"b suspect"}, took())
	m.Check(start.Add(1500 * time.Millisecond))
	require.Empty(t, took())
	m.Check(start.Add(2 * time.Second))
	require.Equal(t, []string{"a suspect", "b dead"}, took())
	m.Heartbeat("b", start.Add(2*time.Second))
	m.Heartbeat("c", start.Add(2*time.Second))
	require.Equal(t, []string{"b alive", "c alive"}, took())
	require.Equal(t, []coterie.NodeID{"a", "b", "c"}, m.Peers())
	m.Remove("a")
	m.Remove("a")
	m.Check(start.Add(time.Hour))
	require.Equal(t, []string{"b dead", "c dead"}, took())
	cancel()
	m.Heartbeat("b", start.Add(2*time.Hour))
	require.Empty(t, took())
	require.Zero(t, m.Level("nobody", start))
	require.Zero(t, m.Phi("b", start.Add(3*time.Hour)), "b's detector has no phi")
	require.Positive(t, m.Level("b", start.Add(3*time.Hour)))
}

// A watcher that came later, and one that looks on from the start, end up with the same opinion of everyone.
func TestMonitorIsSafeForConcurrentUse(t *testing.T) {
	m := newFixedMonitor(t)
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 500 {
				id := coterie.NodeID(fmt.Sprint("n", (i+w)%10))
				now := start.Add(time.Duration(i) * 50 * time.Millisecond)
				m.Heartbeat(id, now)
				m.Check(now)
				_, _ = m.Level(id, now), m.Peers()
				if i%50 == 0 {
					m.Remove(id)
				}
				m.Watch(func(coterie.NodeID, coterie.Liveness) {})()
			}
		})
	}
	workers.Wait()
	end := start.Add(time.Hour)
	m.Check(end)
	m.Watch(func(id coterie.NodeID, l coterie.Liveness) { require.Equal(t, coterie.Dead, l, id) })
}
