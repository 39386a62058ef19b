// Package transporttest holds the tests that every coterie.Transport passes: those of this library, and yours.
//
// Call Run from a test of the transport's package. It checks the contract of coterie.Transport: that payloads arrive
// whole, from whom they are said to be, and are never changed; that Send does not block and its errors are the right
// ones; that the handler is called by one goroutine at a time for each peer, may send and may keep what it gets; that
// no call of a handler outlives Receive or Close; that everything may be called by everybody at once; and that no
// goroutine is left over. It takes for granted neither order nor arrival: what may be lost is sent again.
package transporttest

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/stretchr/testify/require"
)

// Cluster is a few nodes that reach each other, made for one test.
type Cluster struct {
	// Nodes are the transports, in the order of the ids asked for. Run closes them.
	Nodes []coterie.Transport
	// MaxPayload is the largest payload that arrives, in bytes; Send must refuse one more. If it is 0 that is not
	// tested.
	MaxPayload int
	// Move, if it is not nil, gives the node at an index, which has been closed, a new life at another address, and
	// tells the others. Run puts it in the place of the old one.
	Move func(t *testing.T, index int) coterie.Transport
	// Garbage, if it is not nil, sends bytes to the node at an index in place of what a peer would: for a transport
	// over a network it connects and writes them.
	Garbage func(t *testing.T, index int, data []byte)
	// Synchronous says that Send may call the receiver's handler itself, so that who sends may not hold a lock that a
	// handler takes.
	Synchronous bool
	// Close, if it is not nil, is called after the nodes are closed, with whatever else the cluster needs.
	Close func()
}

// Factory makes a cluster of nodes that know each other.
type Factory func(t *testing.T, ids ...coterie.NodeID) *Cluster

// deadline bounds what should take milliseconds, on a machine that has other things to do.
const deadline = 30 * time.Second

// Run runs every test on clusters of its own.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *Cluster)
	}{
		{"Delivers", testDelivers},
		{"ToItself", testToItself},
		{"PayloadsAreKept", testPayloadsAreKept},
		{"SendErrors", testSendErrors},
		{"SendDoesNotBlock", testSendDoesNotBlock},
		{"OneGoroutineForEachPeer", testOneGoroutineForEachPeer},
		{"HandlerMaySend", testHandlerMaySend},
		{"SendWhileLocked", testSendWhileLocked},
		{"NoCallAfterReceive", testNoCallAfterReceive},
		{"NoCallAfterClose", testNoCallAfterClose},
		{"CloseWhileInUse", testCloseWhileInUse},
		{"Move", testMove},
		{"Garbage", testGarbage},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			c := factory(t, "a", "b", "c")
			require.Len(t, c.Nodes, 3, "the factory made another number of nodes than it was asked for")
			closeAll := func() {
				for i, node := range c.Nodes {
					require.NoError(t, node.Close(), "close node %d", i)
				}
				if c.Close != nil {
					c.Close()
				}
			}
			defer func() {
				if t.Failed() || t.Skipped() {
					closeAll()
				}
			}()
			test.run(t, c)
			closeAll()
			requireNoMoreGoroutines(t, before)
		})
	}
}

// requireNoMoreGoroutines waits for goroutines that are about to end, and fails if there are more than before.
func requireNoMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before }, func() string {
		stacks := make([]byte, 1<<20)
		return fmt.Sprintf("%d goroutines, %d before:\n%s",
			runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
	})
}

// eventually polls until a condition holds.
func eventually(t *testing.T, condition func() bool, failure func() string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(failure())
		}
	}
}

// within fails the test if a call does not return in good time.
func within(t *testing.T, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-time.After(deadline):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s did not return:\n%s", what, stacks[:runtime.Stack(stacks, true)])
	}
}

// sendUntil sends a payload again and again, for each may be lost, until arrived tells that it is there.
func sendUntil(t *testing.T, from coterie.Transport, to coterie.NodeID, payload []byte, arrived <-chan struct{}) {
	t.Helper()
	again := 2 * time.Millisecond
	for end := time.Now().Add(deadline); ; {
		require.NoError(t, from.Send(to, payload), "%s to %s", from.LocalID(), to)
		select {
		case <-arrived:
			return
		case <-time.After(again):
			again = min(2*again, 200*time.Millisecond)
		}
		require.True(t, time.Now().Before(end), "what %s sends to %s does not arrive", from.LocalID(), to)
	}
}

// note makes a channel receivable, once.
func note(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
