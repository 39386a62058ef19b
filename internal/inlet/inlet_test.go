package inlet

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/coterie-go/coterie"
	"github.com/stretchr/testify/require"
)

func TestSetWaitsForCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in Inlet
		require.False(t, in.Deliver("a", nil), "there is no handler")
		release := make(chan struct{})
		in.Set(func(coterie.NodeID, []byte) { <-release })
		for range 3 {
			go in.Deliver("a", nil)
		}
		synctest.Wait()
		var returned atomic.Bool
		got := ""
		go func() {
			in.Set(func(_ coterie.NodeID, payload []byte) { got += string(payload) })
			returned.Store(true)
		}()
		synctest.Wait()
		require.False(t, returned.Load())
		require.True(t, in.Deliver("a", []byte("new")), "the new handler does not wait for the old one")
		require.Equal(t, "new", got)
		for range 2 {
			release <- struct{}{}
			synctest.Wait()
			require.False(t, returned.Load())
		}
		release <- struct{}{}
		synctest.Wait()
		require.True(t, returned.Load())
	})
}

// A goroutine that looked the handler up before it was replaced, and comes to call it after, does not.
func TestReplacedHandlerIsNotCalled(t *testing.T) {
	var in Inlet
	in.Set(func(coterie.NodeID, []byte) { t.Error("called") })
	r := in.current.Load()
	in.Set(nil)
	for range 3 {
		require.False(t, r.call("a", nil))
	}
	require.False(t, in.Deliver("a", nil))
}

func TestDeliverAllocatesNothing(t *testing.T) {
	var in Inlet
	in.Set(func(coterie.NodeID, []byte) {})
	require.Zero(t, testing.AllocsPerRun(100, func() { in.Deliver("a", nil) }))
}
