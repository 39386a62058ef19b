package bully

import (
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election/internal/reign"
	"github.com/stretchr/testify/require"
)

// A follower that remembers a greater epoch, of a leader that is gone, tells the leader to take one above it.
func TestLeaderTakesAnEpochAboveAllOthers(t *testing.T) {
	leader := newTestCore(t, "n02")
	claim := leader.Ready()
	b, err := NewCore(Config{ID: "n01", Peers: ids(3)})
	require.NoError(t, err)
	require.NoError(t, b.Replay([]byte{1, 0x80, 0x12})) // 9*256, of n00
	b.Tick(start)
	b.Ready()
	require.NoError(t, b.Step(start, "n02", claim.Send[1].Payload))
	stale := b.Ready().Send
	require.Len(t, stale, 1)
	require.Equal(t, "Stale epoch=2304", b.Describe(stale[0].Payload))
	require.NoError(t, leader.Step(start, "n01", stale[0].Payload))
	require.NoError(t, b.Step(start, "n02", leader.Ready().Send[1].Payload))
	id, epoch := b.Leader()
	require.Equal(t, coterie.NodeID("n02"), id)
	require.Equal(t, uint64(10*256+2), epoch)
}

// A greater node that has answered and then is gone is waited for one time-out, not for ever.
func TestAsksAgainWhenWhoAnsweredIsGone(t *testing.T) {
	a := newTestCore(t, "n00")
	a.Ready()
	require.NoError(t, a.Step(start, "n01", a.Encode(reign.Message{Kind: reign.Answer})))
	require.Equal(t, start.Add(time.Second), a.Ready().Wake)
	a.Tick(start.Add(time.Second))
	require.Len(t, a.Ready().Send, 2, "asks both again")
	a.Tick(start.Add(1250 * time.Millisecond))
	a.Tick(start.Add(1500 * time.Millisecond))
	require.True(t, a.Leads())
}
