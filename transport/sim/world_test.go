package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/transport/sim"
)

func TestRegisterMakesProgress(t *testing.T) {
	c, err := newCluster(sim.Config{Seed: 1}, 3, none)
	require.NoError(t, err)
	c.write(5 * time.Millisecond)
	require.NoError(t, c.Run(10*time.Second))
	require.Greater(t, c.count, 500)
}

func TestRegisterSurvivesCrashesInSaves(t *testing.T) {
	for seed := range uint64(50) {
		c, err := newCluster(sim.Config{Seed: seed + 1, Disk: sim.Disk{Crash: 0.02, Slow: 0.2}, Link: sim.Link{Loss: 0.05, Duplicate: 0.05, Reorder: 0.1}}, 3, none)
		require.NoError(t, err)
		c.write(5 * time.Millisecond)
		require.NoError(t, c.Run(10*time.Second))
		require.Greater(t, c.count, 20)
		require.NotZero(t, c.Stats().Crashes)
	}
}

func TestModelledDiskFindsAckBeforeDurable(t *testing.T) {
	c, err := newCluster(sim.Config{Seed: 1}, 3, ackEarly)
	require.NoError(t, err)
	c.write(5 * time.Millisecond)
	require.Error(t, c.Run(10*time.Second))
}
