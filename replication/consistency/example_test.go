package consistency_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/replication/consistency"
)

type (
	access = consistency.Access[int]
	answer = consistency.Answer[int]
)

func Example() {
	var rec consistency.Recorder[access, answer]
	w := rec.Invoke(1, access{Kind: consistency.Write, Key: "x", Value: 1})
	rec.Return(w, answer{})
	r := rec.Invoke(2, access{Key: "x"})
	rec.Return(r, answer{Value: 0}) // what x held at first

	result, err := consistency.Linearizable(context.Background(), rec.History(), consistency.Register(0))
	fmt.Println(err, result)
	result, err = consistency.Sequential(context.Background(), rec.History(), consistency.Register(0))
	fmt.Println(err, result)
	// Output:
	// <nil> linearizable register: violated: read 1 (client 2) returned x=0 after write 0 (client 1) of x=1 had returned, and the initial value was never written again
	// <nil> sequential register: holds
}

// A model of one's own: a register that keeps the highest number written.
func ExampleModel() {
	m := consistency.Model[int, int, int]{ // a write of 0 is a read
		Name: "max register",
		Init: func() int { return 0 },
		Step: func(state, in int, out *int) (int, bool) {
			return max(state, in), out == nil || *out == max(state, in)
		},
	}
	h := consistency.History[int, int]{
		{Client: 1, In: 5, Out: 7, Call: 0, Return: 4},
		{Client: 2, In: 7, Out: 7, Call: 1, Return: 3},
		{Client: 1, In: 0, Out: 5, Call: 5, Return: 6},
	}
	fmt.Println(consistency.Linearizable(context.Background(), h, m))
	// Output:
	// linearizable max register: violated: no order of the operations explains operation 2 (client 1, 0: 5): before it the state could only be "7" <nil>
}

func ExampleShrink() {
	write := func(v int) access { return access{Kind: consistency.Write, Key: "x", Value: v} }
	h := consistency.History[access, answer]{
		{Client: 1, In: write(1), Call: 0, Return: 1},
		{Client: 1, In: write(2), Call: 2, Return: 3},
		{Client: 2, In: access{Key: "x"}, Out: answer{Value: 2}, Call: 4, Return: 5},
		{Client: 1, In: write(3), Call: 4, Return: 9},
		{Client: 2, In: access{Key: "x"}, Out: answer{Value: 1}, Call: 6, Return: 7},
	}
	result, _ := consistency.Shrink(context.Background(), h, consistency.Register(0))
	fmt.Print(consistency.Lines(h, result.Ops, consistency.Register(0)))
	// Output:
	//      0  client 1   0s to 1ns: write x=1
	//      1  client 1   2ns to 3ns: write x=2
	//      4  client 2   6ns to 7ns: read x=1
}

func ExampleDraw() {
	h := consistency.History[access, answer]{{Client: 1, In: access{Key: "x"}, Out: answer{Value: 7}, Return: 1}}
	result, _ := consistency.Linearizable(context.Background(), h, consistency.Register(0))
	file, err := os.CreateTemp("", "*.html")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(file.Name())
	defer file.Close()
	fmt.Println(consistency.Draw(h, consistency.Register(0), result).WriteHTML(file))
	// Output: <nil>
}

func ExampleListAppend() {
	txn := func(client int, ops ...consistency.TxnOp) consistency.Operation[[]consistency.TxnOp, consistency.TxnOut] {
		return consistency.Operation[[]consistency.TxnOp, consistency.TxnOut]{
			Client: client, In: ops, Out: consistency.TxnOut{Ops: ops}, Return: 10,
		}
	}
	empty := []int64{}
	result, err := consistency.ListAppend(context.Background(), consistency.TxnHistory{
		txn(1, consistency.TxnOp{Key: "x", List: empty}, consistency.TxnOp{Kind: consistency.Append, Key: "y", Value: 1}),
		txn(2, consistency.TxnOp{Key: "y", List: empty}, consistency.TxnOp{Kind: consistency.Append, Key: "x", Value: 1}),
	})
	fmt.Println(err)
	fmt.Println(result)
	// Output:
	// <nil>
	// at most snapshot isolation
	// write skew: transaction 0 did not see what transaction 1 wrote to x; transaction 1 did not see what transaction 0 wrote to y
}

func ExampleRegisterStream() {
	s := consistency.NewRegisterStream(0)
	for i := range 10_000 {
		w := s.Invoke(1, access{Kind: consistency.Write, Key: "x", Value: i + 1})
		s.Return(w, answer{})
		r := s.Invoke(2, access{Key: "x"})
		s.Return(r, answer{Value: i + 1})
	}
	fmt.Println(s.Result().Verdict, s.Live() < 10)
	r := s.Invoke(2, access{Key: "x"})
	s.Return(r, answer{Value: 500})
	fmt.Println(s.Result())
	// Output:
	// holds true
	// linearizable register: violated: read 20000 (client 2) returned x=500, which was never written or had been replaced by then
}

func ExampleReadJepsenRegisters() {
	h, err := consistency.ReadJepsenRegisters(strings.NewReader(`
		{:process 0, :type :invoke, :f :write, :value 3}
		{:process 0, :type :ok, :f :write, :value 3}
		{:process 1, :type :invoke, :f :read, :value nil}
		{:process 1, :type :ok, :f :read, :value nil}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := consistency.Linearizable(context.Background(), h, consistency.CASRegister(""))
	fmt.Println(result.Verdict, err)
	// Output: violated <nil>
}

func ExampleCausalDelivery() {
	question := clock.VectorOf(map[coterie.NodeID]uint64{"ann": 1})
	reply := clock.VectorOf(map[coterie.NodeID]uint64{"ann": 1, "bob": 1})
	trace := []consistency.Delivery{
		{At: "cid", From: "bob", Name: "yes", Time: reply},
		{At: "cid", From: "ann", Name: "lunch?", Time: question},
	}
	for _, m := range consistency.CausalDelivery(trace) {
		fmt.Println(m.Explain(trace))
	}
	// Output: cid delivered "yes" of bob before "lunch?" of ann, which had been sent before it
}
