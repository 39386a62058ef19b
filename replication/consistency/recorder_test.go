package consistency

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRecorderKeepsOrderWhenTheClockStands(t *testing.T) {
	at := time.Unix(1_000, 0)
	rec := Recorder[Access[int], Answer[int]]{Now: func() time.Time { return at }}
	a := rec.Invoke(1, Access[int]{Kind: Write, Value: 1})
	b := rec.Invoke(2, Access[int]{Kind: Write, Value: 2})
	rec.Return(a, Answer[int]{})
	c := rec.Invoke(1, Access[int]{Kind: Read})
	rec.Fail(b)
	d := rec.Invoke(3, Access[int]{Kind: Write, Value: 3})
	rec.Unknown(d)
	at = at.Add(time.Second)
	rec.Return(c, Answer[int]{Value: 1})
	e := rec.Invoke(2, Access[int]{Kind: Write, Value: 5})

	h := rec.History()
	require.NoError(t, h.Validate())
	require.Len(t, h, 4, "the failed one left no trace")
	require.Equal(t, regOp{Client: 1, In: Access[int]{Kind: Write, Value: 1}, Call: 0, Return: 2}, h[0])
	require.Equal(t, regOp{Client: 1, In: Access[int]{}, Out: Answer[int]{Value: 1}, Call: 3, Return: time.Second}, h[1])
	require.True(t, h[2].Unknown)
	require.True(t, h[3].Unknown, "still under way")
	rec.Return(e, Answer[int]{})
	require.False(t, rec.History()[3].Unknown)
	require.True(t, h[3].Unknown, "a history is a copy")

	require.PanicsWithValue(t, "consistency: Recorder: operation 3 ended twice", func() { rec.Unknown(d) })
	require.PanicsWithValue(t, "consistency: Recorder has no operation 9", func() { rec.Fail(9) })
}

func TestMalformedHistoriesAreErrors(t *testing.T) {
	for name, h := range map[string]regHistory{
		"client 1 called operation 1 at 5ns, before its operation 0 returned at 7ns": {
			{Client: 1, Call: 1, Return: 7}, {Client: 1, Call: 5, Return: 9},
		},
		"operation 0 returned at 1ns, before its call at 2ns": {{Client: 1, Call: 2, Return: 1}},
	} {
		_, err := Linearizable(t.Context(), h, Register(0))
		require.ErrorIs(t, err, ErrHistory)
		require.ErrorContains(t, err, name)
	}
	_, err := Linearizable(t.Context(), regHistory{}, Model[[]int, Access[int], Answer[int]]{
		Name: "odd", Init: func() []int { return nil },
		Step: func(s []int, _ Access[int], _ *Answer[int]) ([]int, bool) { return s, true },
	})
	require.EqualError(t, err, `consistency: model "odd": states of type []int need Equal`)
	_, err = Linearizable(t.Context(), regHistory{}, Model[int, Access[int], Answer[int]]{Name: "odd"})
	require.EqualError(t, err, `consistency: model "odd" has no Init`)
	_, err = Linearizable(t.Context(), regHistory{}, Model[int, Access[int], Answer[int]]{Init: func() int { return 0 }})
	require.EqualError(t, err, `consistency: model "" needs one of Step and Choices`)
}
