package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/clock/clocksync"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
)

func TestClocksTellWhatTheyPromise(t *testing.T) {
	wrong := 0
	for seed := range uint64(testsize.N(20, 500)) {
		events, err := simulate(seed+1, &sim.Trace{})
		require.NoError(t, err)
		verdicts := judge(events)
		require.NoError(t, verify(verdicts))
		wrong += verdicts[0].causeWrong
		require.Positive(t, verdicts[2].concurrent)
		require.Zero(t, verdicts[1].concurrent)
		require.LessOrEqual(t, verdicts[3].realWrong, verdicts[1].realWrong+verdicts[0].realWrong)
	}
	require.Positive(t, wrong, "skewed wall clocks never put an effect before its cause: the test shows nothing")
}

func TestRunWritesDiagrams(t *testing.T) {
	var out strings.Builder
	dir := t.TempDir()
	require.NoError(t, run(&out, 1, dir))
	require.Contains(t, out.String(), "cause and effect")
	for _, name := range []string{"causality.shiviz.log", "causality.html"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, string(b), "lamport=")
	}
}

// A server on loopback, half an hour ahead, answers by the same codec; a packet that is no answer comes first.
func TestAskNTP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1024)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var p clocksync.Packet
			if p.UnmarshalBinary(b[:n]) != nil {
				return
			}
			now := time.Now().Add(30 * time.Minute)
			p = p.Answer(now, now)
			p.Stratum, p.Precision, p.Origin = 1, -20, p.Origin+1
			bogus, _ := p.MarshalBinary()
			p.Origin--
			good, _ := p.MarshalBinary()
			_, _ = conn.WriteTo(bogus, from)
			_, _ = conn.WriteTo(good, from)
		}
	}()
	var out strings.Builder
	require.NoError(t, askNTP(&out, conn.LocalAddr().String()))
	require.Regexp(t, `the local clock is off by (30m0\.|29m59\.9)`, out.String())
	require.NoError(t, conn.Close())
	<-done
}
