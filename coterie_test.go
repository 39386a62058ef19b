package coterie_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

func TestOutboxReturnsABatchOnce(t *testing.T) {
	var o coterie.Outbox
	require.True(t, o.Empty())
	o.Send("b", []byte("late"))
	o.SendEarly("c", []byte("early"))
	o.Save([]byte("r1"))
	o.Emit("event")
	require.False(t, o.Empty())
	at := time.Unix(9, 0)
	o.Wake(at)
	got := o.Take()
	require.Equal(t, coterie.Ready{
		Save:   [][]byte{[]byte("r1")},
		Send:   []coterie.Envelope{{To: "b", Payload: []byte("late")}, {To: "c", Payload: []byte("early"), Early: true}},
		Events: []any{"event"},
		Wake:   at,
	}, got)
	next := o.Take()
	require.Empty(t, next.Save)
	require.Empty(t, next.Send)
	require.Empty(t, next.Events)
	require.Zero(t, next.Wake)
	require.Zero(t, next.Keep)
}

// What Take returned stays as it is until the next Take: the host reads it while the core is stepped again.
func TestOutboxLeavesTheLastBatchAlone(t *testing.T) {
	var o coterie.Outbox
	for round := range 10 {
		o.Save([]byte{byte(round)})
		o.Send("b", []byte{byte(round)})
		o.Emit(round)
		got := o.Take()
		o.Save([]byte{99})
		o.Send("c", []byte{99})
		o.Emit(99)
		require.Equal(t, [][]byte{{byte(round)}}, got.Save)
		require.Equal(t, []coterie.Envelope{{To: "b", Payload: []byte{byte(round)}}}, got.Send)
		require.Equal(t, []any{round}, got.Events)
		o.Take()
	}
}

func TestOutboxKeepCountsWhatIsSavedAfterwards(t *testing.T) {
	var o coterie.Outbox
	o.Save([]byte("old"))
	o.Save([]byte("whole state"))
	o.Keep(1)
	o.Save([]byte("change"))
	require.Equal(t, 2, o.Take().Keep)
	require.Panics(t, func() { o.Keep(0) })
}

func TestOutboxWakesAtTheEarliest(t *testing.T) {
	var o coterie.Outbox
	o.Wake(time.Time{})
	o.Wake(time.Unix(5, 0))
	o.Wake(time.Unix(3, 0))
	o.Wake(time.Unix(4, 0))
	require.Equal(t, time.Unix(3, 0), o.Take().Wake)
}

func TestOutboxAllocatesNothingWhenSteady(t *testing.T) {
	var o coterie.Outbox
	payload, event := []byte("x"), any("event")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for range 10 {
			o.Send("b", payload)
			o.Save(payload)
			o.Emit(event)
		}
		o.Take()
	}))
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("propose: %w", &coterie.NotLeaderError{Leader: "b"})
	require.ErrorIs(t, err, coterie.ErrNotLeader)
	require.ErrorContains(t, err, "b is")
	var n *coterie.NotLeaderError
	require.True(t, errors.As(err, &n))
	require.Equal(t, coterie.NodeID("b"), n.Leader)
	require.ErrorContains(t, &coterie.NotLeaderError{}, "no leader known")
	require.NotErrorIs(t, err, coterie.ErrClosed)
	require.EqualError(t, &coterie.FormatError{What: "wal segment", Got: 3, Max: 2},
		"coterie: wal segment has format 3; this version reads up to 2")
	require.Equal(t, "alive suspect dead liveness(7)",
		fmt.Sprint(coterie.Alive, " ", coterie.Suspect, " ", coterie.Dead, " ", coterie.Liveness(7)))
}
