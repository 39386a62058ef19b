package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestComparesEveryProtocol(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.html")
	var out bytes.Buffer
	require.NoError(t, run(&out, options{seed: 1, html: file, real: 20 * time.Millisecond}))
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, p := range protocols() {
		require.Contains(t, out.String(), p.name)
		require.Contains(t, string(page), p.name)
	}
	require.Equal(t, len(networks)*len(plots), strings.Count(string(page), "<svg"))
	require.NotContains(t, string(page), "http", "the page needs nothing else")
	require.NotContains(t, string(page), "NaN")
}

// What a textbook says of the protocols is what is measured.
func TestMeasuresWhatIsKnown(t *testing.T) {
	rows, err := compare(protocols(), options{seed: 3})
	require.NoError(t, err)
	for _, r := range rows {
		switch r.protocol {
		case "raft", "paxos":
			require.InDelta(t, 1, r.roundTrips, 0.05, "%+v", r)
			require.GreaterOrEqual(t, r.messages, 2*float64(r.nodes-1)*0.9, "to each and back: %+v", r)
		case "pbft":
			require.GreaterOrEqual(t, r.roundTrips, 1.5, "three phases: %+v", r)
			require.Greater(t, r.messages, float64(2*r.nodes*(r.nodes-2)), "all to all, twice: %+v", r)
		}
		require.LessOrEqual(t, r.p50, r.p99)
		require.NotZero(t, r.recovery)
		require.Zero(t, r.rate)
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	var first, second, other bytes.Buffer
	require.NoError(t, run(&first, options{seed: 1, only: "paxos"}))
	require.NoError(t, run(&second, options{seed: 1, only: "paxos"}))
	require.NoError(t, run(&other, options{seed: 2, only: "paxos"}))
	require.Equal(t, first.String(), second.String())
	require.NotEqual(t, first.String(), other.String())
}

func TestDiagramOfEveryProtocol(t *testing.T) {
	for _, p := range protocols() {
		file := filepath.Join(t.TempDir(), "out.html")
		var out bytes.Buffer
		require.NoError(t, run(&out, options{seed: 1, only: p.name, trace: file}))
		require.Contains(t, out.String(), "the leader crashes at")
		page, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Greater(t, len(page), 10_000)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	require.ErrorContains(t, run(os.Stdout, options{}), "-seed")
	require.EqualError(t, run(os.Stdout, options{seed: 1, only: "zab"}), `no protocol "zab"; there are raft, paxos, pbft`)
	require.ErrorContains(t, run(os.Stdout, options{seed: 1, trace: "x"}), "-protocol")
}
