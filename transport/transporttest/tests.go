package transporttest

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
)

// random makes bytes that end in their checksum, so that whoever gets them can tell whether they were changed.
func random(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	if n := size - 4; n >= 0 {
		sum := crc32.ChecksumIEEE(b[:n])
		b[n], b[n+1], b[n+2], b[n+3] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	}
	return b
}

func unchanged(b []byte) bool {
	n := len(b) - 4
	if n < 0 {
		return true
	}
	sum := crc32.ChecksumIEEE(b[:n])
	return bytes.Equal(b[n:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

func testDelivers(t *testing.T, c *Cluster) {
	sizes := []int{0, 1, 2, 63, 64, 511, 512, 513, 4096, 65_535, 65_536, 100_000, 1 << 20}
	if c.MaxPayload > 0 {
		sizes = append(sizes, c.MaxPayload-1, c.MaxPayload)
	}
	for i, id := range []coterie.NodeID{"a", "b", "c"} {
		require.Equal(t, id, c.Nodes[i].LocalID())
	}
	var forged atomic.Bool
	for i, from := range c.Nodes {
		to := c.Nodes[(i+1)%len(c.Nodes)]
		for _, size := range sizes {
			if c.MaxPayload > 0 && size > c.MaxPayload {
				continue
			}
			want, arrived := random(size), make(chan struct{}, 1)
			to.Receive(func(id coterie.NodeID, payload []byte) {
				if !bytes.Equal(payload, want) {
					return // one of before, that came twice
				}
				if id != from.LocalID() {
					forged.Store(true)
				}
				note(arrived)
			})
			sendUntil(t, from, to.LocalID(), want, arrived)
			require.False(t, forged.Load(), "a payload is said to be from another node than %s", from.LocalID())
		}
	}
}

// A transport may or may not carry payloads to its own node, but says so.
func testToItself(t *testing.T, c *Cluster) {
	a, arrived := c.Nodes[0], make(chan struct{}, 1)
	a.Receive(func(from coterie.NodeID, _ []byte) {
		if from == "a" {
			note(arrived)
		}
	})
	if err := a.Send("a", []byte("to myself")); err != nil {
		require.ErrorIs(t, err, transport.ErrUnknownPeer)
		return
	}
	sendUntil(t, a, "a", []byte("to myself"), arrived)
}

// Nobody changes a payload: not what was sent, which the sender may use elsewhere, nor what arrived, for ever.
func testPayloadsAreKept(t *testing.T, c *Cluster) {
	a, b := c.Nodes[0], c.Nodes[1]
	rounds := testsize.N(2000, 100_000)
	var mu sync.Mutex
	var kept [][]byte
	enough := make(chan struct{}, 1)
	b.Receive(func(_ coterie.NodeID, payload []byte) {
		mu.Lock()
		defer mu.Unlock()
		if kept = append(kept, payload); len(kept) >= rounds {
			note(enough)
		}
	})
	var sent [][]byte
	for range rounds {
		sent = append(sent, random(4+rand.IntN(300)))
	}
	for _, payload := range sent {
		require.NoError(t, a.Send("b", payload))
	}
	sendUntil(t, a, "b", sent[0], enough)
	b.Receive(nil)
	for _, payload := range append(kept, sent...) {
		require.True(t, unchanged(payload), "a payload was changed: %x", payload)
	}
}

func testSendErrors(t *testing.T, c *Cluster) {
	a, b := c.Nodes[0], c.Nodes[1]
	require.ErrorIs(t, a.Send("nobody", []byte("x")), transport.ErrUnknownPeer)
	require.ErrorIs(t, a.Send("", []byte("x")), transport.ErrUnknownPeer)
	if c.MaxPayload > 0 {
		require.ErrorIs(t, a.Send("b", make([]byte, c.MaxPayload+1)), transport.ErrTooLarge)
	}
	arrived := make(chan struct{}, 1)
	b.Receive(func(coterie.NodeID, []byte) { note(arrived) })
	sendUntil(t, a, "b", []byte("it works all the same"), arrived)
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.Send("b", []byte("x")), coterie.ErrClosed)
}

// Send to a node that is gone returns, however much is sent.
func testSendDoesNotBlock(t *testing.T, c *Cluster) {
	a, b := c.Nodes[0], c.Nodes[1]
	require.NoError(t, b.Close())
	payload := random(32 << 10)
	within(t, "Send to a closed node", func() {
		for range testsize.N(2000, 20_000) {
			_ = a.Send("b", payload) // it may say that the node is gone, if it knows
		}
	})
	arrived := make(chan struct{}, 1)
	c.Nodes[2].Receive(func(coterie.NodeID, []byte) { note(arrived) })
	sendUntil(t, a, "c", []byte("others are not disturbed"), arrived)
}

func testOneGoroutineForEachPeer(t *testing.T, c *Cluster) {
	var inside [3]atomic.Int32
	var calls atomic.Int64
	var broken atomic.Bool
	b := c.Nodes[1]
	b.Receive(func(from coterie.NodeID, _ []byte) {
		n := &inside[from[0]-'a']
		if n.Add(1) != 1 {
			broken.Store(true)
		}
		calls.Add(1)
		runtime.Gosched() // an opportunity for a second call
		n.Add(-1)
	})
	var senders sync.WaitGroup
	for i := range 8 {
		from := c.Nodes[2*(i%2)]
		senders.Go(func() {
			for range testsize.N(2000, 50_000) {
				_ = from.Send("b", []byte("x"))
			}
		})
	}
	senders.Wait()
	eventually(t, func() bool {
		_ = c.Nodes[0].Send("b", nil)
		return calls.Load() > 100
	}, func() string { return "hardly anything arrives" })
	require.False(t, broken.Load(), "the handler was called twice at a time for one peer")
}

// Handlers may send, also in answer to each other, and without end.
func testHandlerMaySend(t *testing.T, c *Cluster) {
	rounds := int64(testsize.N(2000, 100_000))
	var answers atomic.Int64
	for _, node := range c.Nodes {
		node.Receive(func(from coterie.NodeID, payload []byte) {
			answers.Add(1)
			_ = node.Send(from, payload)
		})
	}
	eventually(t, func() bool {
		_ = c.Nodes[0].Send("b", []byte("ball"))
		_ = c.Nodes[2].Send("b", []byte("ball"))
		return answers.Load() > rounds
	}, func() string { return "handlers do not answer each other" })
}

func testNoCallAfterReceive(t *testing.T, c *Cluster) {
	a, b := c.Nodes[0], c.Nodes[1]
	stop := make(chan struct{})
	pace := time.NewTicker(50 * time.Microsecond) // traffic, but no flood in which every message waits for seconds
	defer pace.Stop()
	var senders sync.WaitGroup
	for _, from := range []coterie.Transport{a, c.Nodes[2]} {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-pace.C:
					for range 20 {
						_ = from.Send("b", []byte("x"))
					}
				}
			}
		})
	}
	var late atomic.Bool
	for range testsize.N(100, 2000) {
		var retired atomic.Bool
		called := make(chan struct{}, 1)
		b.Receive(func(coterie.NodeID, []byte) {
			note(called)
			for range 10 {
				if retired.Load() {
					late.Store(true)
				}
			}
		})
		sendUntil(t, a, "b", []byte("y"), called)
		b.Receive(nil)
		retired.Store(true)
		for range 5 {
			_ = a.Send("b", []byte("too late for the handler"))
			runtime.Gosched()
		}
	}
	close(stop)
	senders.Wait()
	require.False(t, late.Load(), "a handler was called after Receive(nil) had returned")
}

func testNoCallAfterClose(t *testing.T, c *Cluster) {
	a, b := c.Nodes[0], c.Nodes[1]
	var closed, late atomic.Bool
	called := make(chan struct{}, 1)
	handler := func(coterie.NodeID, []byte) {
		note(called)
		if closed.Load() {
			late.Store(true)
		}
	}
	b.Receive(handler)
	stop := make(chan struct{})
	var senders sync.WaitGroup
	senders.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = a.Send("b", []byte("x"))
			}
		}
	})
	sendUntil(t, a, "b", []byte("x"), called)
	within(t, "Close", func() { require.NoError(t, b.Close()) })
	closed.Store(true)
	b.Receive(handler) // of no effect
	for range 1000 {
		_ = a.Send("b", []byte("x"))
	}
	close(stop)
	senders.Wait()
	within(t, "the second Close", func() { require.NoError(t, b.Close()) })
	require.False(t, late.Load(), "the handler was called after Close had returned")
}

func testCloseWhileInUse(t *testing.T, c *Cluster) {
	var users sync.WaitGroup
	started := make(chan struct{}, 1)
	for _, node := range c.Nodes {
		node.Receive(func(coterie.NodeID, []byte) { note(started) })
		for _, to := range []coterie.NodeID{"a", "b", "c", "nobody"} {
			users.Go(func() {
				for open := true; open; {
					open = node.Send(to, random(100)) == nil
				}
			})
		}
		users.Go(func() {
			for range 100 {
				node.Receive(func(coterie.NodeID, []byte) { note(started) })
			}
		})
	}
	<-started
	within(t, "Close, by many at once", func() {
		for _, node := range c.Nodes {
			for range 3 {
				users.Go(func() { _ = node.Close() })
			}
		}
		users.Wait()
	})
}

// A lock that is held while sending and taken in handlers must not stop anything: Send does not wait for handlers.
func testSendWhileLocked(t *testing.T, c *Cluster) {
	if c.Synchronous {
		t.Skip("the cluster calls handlers in Send")
	}
	var arrived atomic.Int64
	locks := make([]sync.Mutex, len(c.Nodes))
	for i, node := range c.Nodes {
		node.Receive(func(from coterie.NodeID, payload []byte) {
			locks[i].Lock()
			defer locks[i].Unlock()
			arrived.Add(1)
			if len(payload) > 0 {
				_ = node.Send(from, payload[1:])
			}
		})
	}
	within(t, "Send by a goroutine that holds a lock of its node's handler", func() {
		for arrived.Load() < 1000 {
			for i, node := range c.Nodes {
				locks[i].Lock()
				_ = node.Send(c.Nodes[(i+1)%len(c.Nodes)].LocalID(), []byte("several times"))
				locks[i].Unlock()
			}
		}
	})
}

func testMove(t *testing.T, c *Cluster) {
	if c.Move == nil {
		t.Skip("the cluster cannot move nodes")
	}
	a := c.Nodes[0]
	meet := func(b coterie.Transport) {
		arrived, back := make(chan struct{}, 1), make(chan struct{}, 1)
		b.Receive(func(coterie.NodeID, []byte) { note(arrived) })
		a.Receive(func(coterie.NodeID, []byte) { note(back) })
		sendUntil(t, a, "b", []byte("hello"), arrived)
		sendUntil(t, b, "a", []byte("hello"), back)
	}
	meet(c.Nodes[1])
	for range 3 {
		require.NoError(t, c.Nodes[1].Close())
		_ = a.Send("b", []byte("nobody is there"))
		c.Nodes[1] = c.Move(t, 1)
		require.Equal(t, coterie.NodeID("b"), c.Nodes[1].LocalID())
		meet(c.Nodes[1])
	}
}

func testGarbage(t *testing.T, c *Cluster) {
	if c.Garbage == nil {
		t.Skip("the cluster has no way in for garbage")
	}
	a, b := c.Nodes[0], c.Nodes[1]
	arrived := make(chan struct{}, 1)
	var wrong atomic.Bool
	b.Receive(func(from coterie.NodeID, payload []byte) {
		if from != "a" || string(payload) != "good" {
			wrong.Store(true)
		}
		note(arrived)
	})
	for _, data := range [][]byte{
		{}, {0}, {1}, []byte("GET / HTTP/1.1\r\nHost: b\r\n\r\n"), bytes.Repeat([]byte{0xff}, 100),
		bytes.Repeat([]byte{0}, 1000), bytes.Repeat([]byte{1}, 1000), random(10_000),
	} {
		c.Garbage(t, 1, data)
		sendUntil(t, a, "b", []byte("good"), arrived)
	}
	require.False(t, wrong.Load(), "garbage reached the handler")
}
