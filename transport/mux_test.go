package transport_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMuxKeepsChannelsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork(transport.NetworkConfig{})
		a, b := transport.NewMux(net.Join("a")), transport.NewMux(net.Join("b"))
		defer a.Close()
		defer b.Close()
		numbers := []uint64{0, 1, 127, 128, 1 << 40, 1<<64 - 1}
		got := make(map[uint64]string)
		var mu sync.Mutex
		for _, number := range numbers {
			c := b.Channel(number)
			require.Equal(t, coterie.NodeID("b"), c.LocalID())
			c.Receive(func(from coterie.NodeID, payload []byte) {
				mu.Lock()
				defer mu.Unlock()
				got[number] += fmt.Sprintf("%s:%s;", from, payload)
			})
		}
		for _, number := range numbers {
			require.NoError(t, a.Channel(number).Send("b", fmt.Append(nil, number)))
		}
		synctest.Wait()
		for _, number := range numbers {
			require.Equal(t, fmt.Sprintf("a:%d;", number), got[number])
		}
		require.Zero(t, b.Metrics())
	})
}

func TestMuxCountsWhatItCannotHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork(transport.NetworkConfig{})
		plain := net.Join("plain")
		defer plain.Close()
		m := transport.NewMux(net.Join("mux"))
		defer m.Close()
		deaf := m.Channel(3)
		defer deaf.Close()
		for _, payload := range []string{"", "\x01", "\x00\x03x", "\x02\x03x", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x01\x04x", "\x01\x03x"} {
			require.NoError(t, plain.Send("mux", []byte(payload)))
		}
		synctest.Wait()
		require.Equal(t, transport.MuxMetrics{Malformed: 5, Unknown: 1, Unhandled: 1}, m.Metrics())
	})
}

func TestMuxChannelClosesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork(transport.NetworkConfig{})
		a, b := transport.NewMux(net.Join("a")), transport.NewMux(net.Join("b"))
		defer a.Close()
		a1, a2, b1, b2 := a.Channel(1), a.Channel(2), b.Channel(1), b.Channel(2)
		got := ""
		note := func(what string) func(coterie.NodeID, []byte) {
			return func(coterie.NodeID, []byte) { got += what }
		}
		b1.Receive(note("1"))
		b2.Receive(note("2"))
		require.Panics(t, func() { b.Channel(1) })
		sendBoth := func() {
			require.NoError(t, a1.Send("b", nil))
			require.NoError(t, a2.Send("b", nil))
			synctest.Wait()
		}
		sendBoth()
		require.NoError(t, b1.Close())
		require.NoError(t, b1.Close())
		require.ErrorIs(t, b1.Send("a", nil), coterie.ErrClosed)
		sendBoth()
		require.Equal(t, "122", got)
		b.Channel(1).Receive(note("again"))
		sendBoth()
		require.Equal(t, "122again2", got)

		require.NoError(t, b.Close())
		require.ErrorIs(t, b2.Send("a", nil), coterie.ErrClosed)
		require.ErrorIs(t, b.Channel(9).Send("a", nil), coterie.ErrClosed)
		sendBoth()
		require.Equal(t, "122again2", got)
	})
}

func TestMuxOpensThousandsOfChannels(t *testing.T) {
	net := transport.NewNetwork(transport.NetworkConfig{Direct: true})
	a, b := transport.NewMux(net.Join("a")), transport.NewMux(net.Join("b"))
	defer a.Close()
	defer b.Close()
	n := testsize.N(10_000, 100_000)
	sum := 0
	for i := range n {
		b.Channel(uint64(i) << 20).Receive(func(coterie.NodeID, []byte) { sum += i })
	}
	for i := range n {
		require.NoError(t, a.Channel(uint64(i)<<20).Send("b", nil))
	}
	require.Equal(t, n*(n-1)/2, sum)
}

// parts records what a Mux asks of a Gatherer.
type parts struct {
	coterie.Transport
	head, payload []byte
}

func (p *parts) SendParts(_ coterie.NodeID, head, payload []byte) error {
	p.head, p.payload = head, payload
	return nil
}

func TestMuxDoesNotCopyForAGatherer(t *testing.T) {
	net := transport.NewNetwork(transport.NetworkConfig{})
	below := &parts{Transport: net.Join("a")}
	m := transport.NewMux(below)
	defer m.Close()
	c := m.Channel(300)
	payload := []byte("payload")
	require.NoError(t, c.Send("b", payload))
	require.Equal(t, []byte{1, 0xac, 0x02}, below.head)
	require.Same(t, &payload[0], &below.payload[0])
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = c.Send("b", payload) }))
}

// captured is a transport that hands everything that is sent to a function.
type captured struct {
	coterie.Transport
	sent func(payload []byte)
}

func (c captured) Send(_ coterie.NodeID, payload []byte) error {
	c.sent(payload)
	return nil
}

func TestMuxGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/golden/mux.hex")
	require.NoError(t, err)
	net := transport.NewNetwork(transport.NetworkConfig{})
	var lines []string
	m := transport.NewMux(captured{net.Join("a"), func(p []byte) { lines = append(lines, hex.EncodeToString(p)) }})
	defer m.Close()
	_ = m.Channel(0).Send("b", []byte("zero"))
	_ = m.Channel(300).Send("b", []byte("three hundred"))
	_ = m.Channel(1<<64-1).Send("b", nil)
	require.Equal(t, strings.TrimSpace(string(want)), strings.Join(lines, "\n"))
}

func TestMuxCarriesAnyPayload(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	net := transport.NewNetwork(transport.NetworkConfig{Direct: true})
	a, b := transport.NewMux(net.Join("a")), transport.NewMux(net.Join("b"))
	defer a.Close()
	defer b.Close()
	rapid.Check(t, func(rt *rapid.T) {
		number := rapid.Uint64().Draw(rt, "number")
		payload := rapid.SliceOf(rapid.Byte()).Draw(rt, "payload")
		from, to := a.Channel(number), b.Channel(number)
		defer from.Close()
		defer to.Close()
		var got [][]byte
		to.Receive(func(_ coterie.NodeID, p []byte) { got = append(got, append([]byte{}, p...)) })
		require.NoError(rt, from.Send("b", payload))
		require.Equal(rt, [][]byte{append([]byte{}, payload...)}, got)
	})
}
