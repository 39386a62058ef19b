package tcp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
)

// pipes is a network of net.Pipes, for time that passes at no cost.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	dialled   []time.Time
}

type pipeListener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
	fail    atomic.Int32 // so many times Accept fails
}

func (p *pipes) listen(address string) *pipeListener {
	l := &pipeListener{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listeners == nil {
		p.listeners = make(map[string]*pipeListener)
	}
	p.listeners[address] = l
	return l
}

func (p *pipes) dial(ctx context.Context, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.dialled = append(p.dialled, time.Now())
	p.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if l.fail.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr  { return l }
func (l *pipeListener) Network() string { return "pipe" }
func (l *pipeListener) String() string  { return l.address }

// start starts a node that listens at its id with port 1.
func (p *pipes) start(t *testing.T, cfg Config) *Transport {
	t.Helper()
	cfg.Dial = p.dial
	if cfg.Listener == nil {
		cfg.Listener = p.listen(string(cfg.ID) + ":1")
	}
	node, err := Start(cfg)
	require.NoError(t, err)
	return node
}

func peers(ids ...coterie.NodeID) map[coterie.NodeID]string {
	m := make(map[coterie.NodeID]string)
	for _, id := range ids {
		m[id] = string(id) + ":1"
	}
	return m
}

func TestHalfOpenConnectionTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		v := p.start(t, Config{ID: "v", Peers: peers("a")})
		defer v.Close()
		began := time.Now()
		silent, err := p.dial(t.Context(), "v:1")
		require.NoError(t, err)
		requireCutOff(t, silent)
		require.Equal(t, 5*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, uint64(1), v.Metrics().HandshakeTimeouts)

		began = time.Now()
		idle, err := p.dial(t.Context(), "v:1")
		require.NoError(t, err)
		require.Empty(t, enter(t, idle, "a", "v").refusal)
		requireCutOff(t, idle)
		require.Equal(t, 15*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, uint64(1), v.Metrics().IdleTimeouts)
		require.Zero(t, v.Metrics().Connected)
	})
}

// A connection over which nothing is sent stays, by pings.
func TestIdleConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		a, b := p.start(t, Config{ID: "a", Peers: peers("b")}), p.start(t, Config{ID: "b", Peers: peers("a")})
		defer a.Close()
		defer b.Close()
		require.NoError(t, a.Send("b", nil))
		time.Sleep(time.Hour)
		require.NoError(t, a.Send("b", nil))
		synctest.Wait()
		m := a.Metrics()
		require.Equal(t, uint64(1), m.Dials)
		require.Zero(t, m.Broken+m.IdleTimeouts)
		require.Equal(t, uint64(2), b.Metrics().Received)
	})
}

// A peer that is connected but gives no sign of life is given up, and tried again.
func TestPingWithoutAnswerBreaksTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		l := p.listen("b:1")
		a := p.start(t, Config{ID: "a", Peers: peers("b")})
		defer a.Close()
		require.NoError(t, a.Send("b", []byte("x")))
		dead := acceptAs(t, l)
		began := time.Now()
		r := frameReader{from: dead, limit: 100}
		for {
			if _, _, err := r.next(); err != nil {
				break
			}
		}
		// A ping after 5 s, and 15 s for its answer.
		require.Equal(t, 20*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, uint64(1), a.Metrics().IdleTimeouts)
		require.Equal(t, uint64(1), a.Metrics().Broken)
		require.NoError(t, a.Send("b", []byte("y")))
		r = frameReader{from: acceptAs(t, l), limit: 100}
		_, got, err := r.next()
		require.NoError(t, err)
		require.Equal(t, "y", string(got))
	})
}

// A peer that stops to read in the middle of a write is given up as well.
func TestWriteWithoutProgressBreaksTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		l := p.listen("b:1")
		a := p.start(t, Config{ID: "a", Peers: peers("b")})
		defer a.Close()
		require.NoError(t, a.Send("b", make([]byte, 100)))
		stuck := acceptAs(t, l)
		time.Sleep(16 * time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), a.Metrics().IdleTimeouts)
		require.Equal(t, uint64(1), a.Metrics().Lost)
		_ = stuck
	})
}

func TestRedialBacksOffWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		a := p.start(t, Config{ID: "a", Peers: peers("b")})
		defer a.Close()
		require.NoError(t, a.Send("b", []byte("first")))
		time.Sleep(time.Minute)
		synctest.Wait()
		p.mu.Lock()
		dialled := slices.Clone(p.dialled)
		p.mu.Unlock()
		distinct := make(map[time.Duration]bool)
		for i := range len(dialled) - 1 {
			gap, longest := dialled[i+1].Sub(dialled[i]), time.Second
			if i < 6 {
				longest = min(longest, 20*time.Millisecond<<i)
			}
			require.LessOrEqual(t, gap, longest)
			require.GreaterOrEqual(t, gap, longest/2)
			distinct[gap] = true
		}
		require.Greater(t, len(dialled), 60)
		require.Greater(t, len(distinct), 50, "pauses differ")

		// What was queued meanwhile arrives when the peer is there, and at once when it connects by itself.
		l := p.listen("b:1")
		b := p.start(t, Config{ID: "b", Listener: l, Peers: peers("a")})
		defer b.Close()
		arrived := time.Time{}
		b.Receive(func(coterie.NodeID, []byte) { arrived = time.Now() })
		began := time.Now()
		require.NoError(t, b.Send("a", nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, began, arrived)
	})
}

func TestAcceptErrorsArePatientlyRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		var log bytes.Buffer
		l := p.listen("b:1")
		l.fail.Store(5)
		b := p.start(t, Config{ID: "b", Listener: l, Peers: peers("a"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		a := p.start(t, Config{ID: "a", Peers: peers("b")})
		defer a.Close()
		require.NoError(t, a.Send("b", nil))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), b.Metrics().Received)
		require.NoError(t, b.Close())
		require.Equal(t, 5, strings.Count(log.String(), "too many open files"))
	})
}

func TestCloseWhileAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		l := p.listen("b:1")
		l.fail.Store(1 << 30)
		b := p.start(t, Config{ID: "b", Listener: l})
		time.Sleep(time.Minute)
		require.NoError(t, b.Close())
	})
}

func TestSetPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pipes
		a := p.start(t, Config{ID: "a"})
		defer a.Close()
		start := func(address string) (*Transport, *[]string) {
			b := p.start(t, Config{ID: "b", Listener: p.listen(address), Peers: peers("a")})
			got := new([]string)
			b.Receive(func(_ coterie.NodeID, payload []byte) { *got = append(*got, string(payload)) })
			return b, got
		}
		old, gotOld := start("old:1")
		defer old.Close()
		now, gotNow := start("now:1")
		defer now.Close()

		require.ErrorIs(t, a.Send("b", nil), transport.ErrUnknownPeer)
		require.NoError(t, a.SetPeer("b", "old:1"))
		require.NoError(t, a.Send("b", []byte("1")))
		synctest.Wait()
		require.Equal(t, []string{"1"}, *gotOld)

		require.NoError(t, a.SetPeer("b", "now:1"))
		synctest.Wait()
		require.Zero(t, old.Metrics().Connected, "the connection to the old address is closed")
		require.NoError(t, a.Send("b", []byte("2")))
		synctest.Wait()
		require.Equal(t, []string{"2"}, *gotNow)

		require.NoError(t, a.SetPeer("b", "nowhere:1"))
		synctest.Wait() // what is written to a connection as it is closed would be lost
		require.NoError(t, a.Send("b", []byte("3")))
		time.Sleep(time.Minute) // in vain
		require.NoError(t, a.SetPeer("b", "now:1"))
		synctest.Wait()
		require.Equal(t, []string{"2", "3"}, *gotNow, "what was queued goes to the new address, at once")

		require.NoError(t, now.Send("a", nil))
		synctest.Wait()
		require.Equal(t, 1, a.Metrics().Connected)
		require.NoError(t, a.SetPeer("b", ""))
		synctest.Wait()
		require.Zero(t, a.Metrics().Connected, "a peer that was removed is cut off")
		require.Zero(t, now.Metrics().Connected)
		require.ErrorIs(t, a.Send("b", nil), transport.ErrUnknownPeer)
		require.NoError(t, a.SetPeer("b", ""), "to remove it again changes nothing")

		require.ErrorContains(t, a.SetPeer("b", "no port"), "SetPeer")
		require.ErrorContains(t, a.SetPeer("", "b:1"), "SetPeer")
		require.NoError(t, a.Close())
		require.ErrorIs(t, a.SetPeer("b", "b:1"), coterie.ErrClosed)
	})
}

func TestConfigErrorsNameTheField(t *testing.T) {
	ca := mustCA(t)
	for field, cfg := range map[string]Config{
		"ID is required":      {Listen: "127.0.0.1:0"},
		"ID is longer":        {ID: coterie.NodeID(strings.Repeat("x", 2000)), Listen: "127.0.0.1:0"},
		"Listen is required":  {ID: "a"},
		"Listen: ":            {ID: "a", Listen: "256.0.0.1:0"},
		"Peers: address of b": {ID: "a", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"b": "x"}},
		"Peers: empty":        {ID: "a", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"": "b:1"}},
		"Identity: ":          {ID: "a", Listen: "127.0.0.1:0", Identity: mustIdentity(t, ca, "b")},
		"MaxPayload":          {ID: "a", Listen: "127.0.0.1:0", MaxPayload: 1 << 28, QueueBytes: 1 << 30},
		"QueueBytes":          {ID: "a", Listen: "127.0.0.1:0", MaxPayload: 1000, QueueBytes: 1000},
		"MaxConns":            {ID: "a", Listen: "127.0.0.1:0", MaxConns: -1},
		"MaxHandshakes":       {ID: "a", Listen: "127.0.0.1:0", MaxHandshakes: -1},
		"IdleTimeout":         {ID: "a", Listen: "127.0.0.1:0", IdleTimeout: -1},
		"MaxBackoff":          {ID: "a", Listen: "127.0.0.1:0", MinBackoff: time.Minute, MaxBackoff: time.Second},
	} {
		_, err := Start(cfg)
		require.ErrorContains(t, err, "tcp: Config."+field)
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	b := mustStart(t, Config{ID: "b", Peers: map[coterie.NodeID]string{"a": nobody}})
	a := mustStart(t, Config{ID: "a", Peers: map[coterie.NodeID]string{"b": b.Addr().String()}})
	const each = 200
	arrived, all := 0, make(chan struct{})
	b.Receive(func(coterie.NodeID, []byte) {
		if arrived++; arrived%each == 0 {
			all <- struct{}{} // somebody waits for it
		}
	})
	payload, head := make([]byte, 64), []byte{1, 2}
	batch := func() {
		for range each / 2 {
			_ = a.Send("b", payload)
			_ = a.SendParts("b", head, payload)
		}
		<-all
	}
	for range 20 {
		batch()
	}
	// The receiver's chunks are all that is allocated: one for many hundred messages.
	require.Less(t, testing.AllocsPerRun(100, batch), 5.0, "allocations of 200 messages, at both ends")
}
