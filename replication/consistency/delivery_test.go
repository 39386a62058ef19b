package consistency

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/testsize"
)

func TestAnswerBeforeItsQuestion(t *testing.T) {
	question := clock.VectorOf(map[coterie.NodeID]uint64{"ann": 1})
	answer := clock.VectorOf(map[coterie.NodeID]uint64{"ann": 1, "bob": 1})
	trace := []Delivery{
		{At: "bob", From: "ann", Name: "lunch?", Time: question},
		{At: "cid", From: "bob", Name: "yes", Time: answer},
		{At: "ann", From: "bob", Name: "yes", Time: answer},
		{At: "cid", From: "ann", Name: "lunch?", Time: question},
		{At: "cid", From: "ann", Name: "lunch?", Time: question},
	}
	found := CausalDelivery(trace)
	require.Equal(t, []Misdelivery{{At: "cid", Late: 1, Early: 3}, {At: "cid", Late: 1, Early: 4}}, found)
	require.Equal(t, `cid delivered "yes" of bob before "lunch?" of ann, which had been sent before it`, found[0].Explain(trace))
	require.Empty(t, CausalDelivery(trace[:3]))
}

func TestCausalDeliveryAgreesWithItsDefinition(t *testing.T) {
	wrong := 0
	for seed := range testsize.N(3000, 30_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 13))
		ids := []coterie.NodeID{"a", "b", "c"}
		times := map[coterie.NodeID]*clock.Vector{}
		for _, id := range ids {
			times[id] = &clock.Vector{}
		}
		type message struct {
			Delivery
			to map[coterie.NodeID]bool
		}
		var sent []message
		var trace []Delivery
		for range 5 + rng.IntN(25) {
			id := ids[rng.IntN(3)]
			if rng.IntN(3) == 0 || len(sent) == 0 {
				times[id].Tick(id)
				sent = append(sent, message{Delivery{From: id, Name: fmt.Sprint(len(sent)), Time: times[id].Clone()}, map[coterie.NodeID]bool{id: true}})
				continue
			}
			m := sent[rng.IntN(len(sent))]
			if m.to[id] {
				continue
			}
			m.to[id] = true
			times[id].Merge(m.Time)
			m.At = id
			trace = append(trace, m.Delivery)
		}
		var want []Misdelivery
		for i, early := range trace {
			for j, late := range trace[:i] {
				if early.At == late.At && early.Time.Compare(late.Time) == clock.Before {
					want = append(want, Misdelivery{At: early.At, Late: j, Early: i})
				}
			}
		}
		require.Equal(t, want, CausalDelivery(trace), "seed %d", seed)
		if len(want) > 0 {
			wrong++
		}
	}
	require.Greater(t, wrong, enough(50))
}
