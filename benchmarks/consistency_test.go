package benchmarks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/coterie-go/coterie/replication/consistency"
)

type (
	consistencyAccess  = consistency.Access[string]
	consistencyAnswer  = consistency.Answer[string]
	consistencyHistory = consistency.History[consistencyAccess, consistencyAnswer]
)

// consistencyWorkload is how clients behave that are always busy on a store that is linearizable.
type consistencyWorkload struct {
	name          string
	clients, keys int
	kinds         []consistency.AccessKind // drawn at random
	values        int                      // how many values are written, 0 for unique ones
	ops           []int
	model         func() consistency.Model[string, consistencyAccess, consistencyAnswer]
}

var consistencyWorkloads = []consistencyWorkload{
	{
		name: "register", clients: 10, keys: 1, kinds: []consistency.AccessKind{consistency.Read, consistency.Write},
		ops: []int{1000, 10_000, 1_000_000},
		model: func() consistency.Model[string, consistencyAccess, consistencyAnswer] {
			return consistency.Register("")
		},
	},
	{
		name: "register50", clients: 50, keys: 1, kinds: []consistency.AccessKind{consistency.Read, consistency.Write},
		ops: []int{1000},
		model: func() consistency.Model[string, consistencyAccess, consistencyAnswer] {
			return consistency.Register("")
		},
	},
	{
		name: "kv", clients: 10, keys: 10, ops: []int{10_000},
		kinds: []consistency.AccessKind{consistency.Read, consistency.Write, consistency.Append},
		model: consistency.KV,
	},
	{
		name: "cas", clients: 10, keys: 10, values: 5, ops: []int{10_000},
		kinds: []consistency.AccessKind{consistency.Read, consistency.Write, consistency.CompareAndSet},
		model: func() consistency.Model[string, consistencyAccess, consistencyAnswer] {
			return consistency.CASRegister("")
		},
	},
}

// consistencyRecord draws a history: each client's operation takes effect at a random moment between its call and
// its return, and the next follows at once.
func consistencyRecord(w consistencyWorkload, ops int) consistencyHistory {
	rng := rand.New(rand.NewPCG(1, 2))
	type client struct {
		op      int
		applied bool
	}
	h := make(consistencyHistory, 0, ops)
	clients := make([]client, w.clients)
	for i := range clients {
		clients[i].op = -1
	}
	store := map[string]string{}
	value := 0
	for now, done := time.Duration(0), 0; done < ops; now++ {
		n := rng.IntN(w.clients)
		c := &clients[n]
		switch {
		case c.op < 0 && len(h) < ops:
			in := consistencyAccess{Kind: w.kinds[rng.IntN(len(w.kinds))], Key: fmt.Sprint(rng.IntN(w.keys))}
			value++
			next := value
			if w.values > 0 {
				next = 1 + rng.IntN(w.values)
				in.Old = fmt.Sprint(1 + rng.IntN(w.values))
			}
			if in.Kind != consistency.Read {
				in.Value = fmt.Sprint(next, ".")
			}
			if in.Kind == consistency.CompareAndSet {
				in.Old += "."
			} else {
				in.Old = ""
			}
			*c = client{op: len(h)}
			h = append(h, consistency.Operation[consistencyAccess, consistencyAnswer]{Client: n, In: in, Call: now})
		case c.op < 0:
		case !c.applied:
			c.applied = true
			switch op := &h[c.op]; op.In.Kind {
			case consistency.Read:
				op.Out.Value = store[op.In.Key]
			case consistency.Write:
				store[op.In.Key] = op.In.Value
			case consistency.Append:
				store[op.In.Key] += op.In.Value
			case consistency.CompareAndSet:
				if op.Out.OK = store[op.In.Key] == op.In.Old; op.Out.OK {
					store[op.In.Key] = op.In.Value
				}
			}
		default:
			h[c.op].Return = now
			c.op = -1
			done++
		}
	}
	return h
}

// consistencyPorcupine is the same models for porcupine.
func consistencyPorcupine() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range history {
				key := op.Input.(consistencyAccess).Key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			s, in, out := state.(string), input.(consistencyAccess), output.(consistencyAnswer)
			switch in.Kind {
			case consistency.Read:
				return out.Value == s, state
			case consistency.Write:
				return true, in.Value
			case consistency.Append:
				return true, s + in.Value
			case consistency.CompareAndSet:
				if swap := s == in.Old; swap != out.OK {
					return false, state
				} else if swap {
					return true, in.Value
				}
			}
			return true, state
		},
	}
}

// consistencyPeak samples the heap while run works, and returns by how many megabytes it grew at most.
func consistencyPeak(run func()) float64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	base := sample[0].Value.Uint64()
	var peak atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	look := func(s []metrics.Sample) {
		metrics.Read(s)
		peak.Store(max(peak.Load(), s[0].Value.Uint64()))
	}
	go func() {
		defer close(done)
		mine := []metrics.Sample{{Name: sample[0].Name}}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				look(mine)
			}
		}
	}()
	run()
	close(stop)
	<-done
	look(sample)
	return max(float64(peak.Load())-float64(base), 1) / 1e6
}

// consistencyLoop times check, and reports how far its first run makes the heap grow.
func consistencyLoop(b *testing.B, check func()) {
	first := 0.0
	for b.Loop() {
		if first == 0 {
			first = consistencyPeak(check)
			continue
		}
		check()
	}
	b.ReportMetric(first, "heap-MB")
}

// BenchmarkLinearizable judges histories of clients that are always busy.
func BenchmarkLinearizable(b *testing.B) {
	for _, w := range consistencyWorkloads {
		for _, ops := range w.ops {
			h := consistencyRecord(w, ops)
			path := fmt.Sprintf("history=%s/ops=%d/impl=", w.name, ops)
			b.Run(path+"coterie", func(b *testing.B) {
				b.ReportAllocs()
				consistencyLoop(b, func() {
					r, err := consistency.Linearizable(context.Background(), h, w.model())
					if err != nil || r.Verdict != consistency.Holds {
						b.Fatal(r, err)
					}
				})
			})
			b.Run(path+"porcupine", func(b *testing.B) {
				long := w.name == "register50" || w.name == "register" && ops > 1000
				if ops > 10_000 || testing.Short() && long {
					b.Skip("over 2 s")
				}
				var events []porcupine.Operation
				for _, op := range h {
					events = append(events, porcupine.Operation{
						ClientId: op.Client, Input: op.In, Call: int64(op.Call), Output: op.Out, Return: int64(op.Return),
					})
				}
				b.ReportAllocs()
				unknown := 0.0
				consistencyLoop(b, func() {
					switch porcupine.CheckOperationsTimeout(consistencyPorcupine(), events, 10*time.Second) {
					case porcupine.Illegal:
						b.Fatal("illegal")
					case porcupine.Unknown:
						unknown = 1
					}
				})
				b.ReportMetric(unknown, "unknown")
			})
		}
	}
}

// consistencyTxns draws list-append transactions of 20 clients on a serializable store: one to four operations each
// on ten keys, a key giving way to a new one after 32 appends.
func consistencyTxns(n int) consistency.TxnHistory {
	rng := rand.New(rand.NewPCG(3, 4))
	type list struct {
		name   string
		values []int64
	}
	lists := make([]list, 10)
	next := 0
	renew := func(i int) {
		lists[i] = list{name: fmt.Sprint(next)}
		next++
	}
	for i := range lists {
		renew(i)
	}
	value := int64(0)
	h := make(consistency.TxnHistory, n)
	for t := range h {
		ops := make([]consistency.TxnOp, 1+rng.IntN(4))
		for j := range ops {
			i := rng.IntN(len(lists))
			l := &lists[i]
			if rng.IntN(2) == 0 {
				ops[j] = consistency.TxnOp{Key: l.name, List: slices.Clip(l.values)}
				continue
			}
			value++
			l.values = append(l.values, value)
			ops[j] = consistency.TxnOp{Kind: consistency.Append, Key: l.name, Value: value}
			if len(l.values) == 32 {
				renew(i)
			}
		}
		at := time.Duration(t)
		h[t] = consistency.Operation[[]consistency.TxnOp, consistency.TxnOut]{
			Client: t % 20, In: ops, Out: consistency.TxnOut{Ops: ops},
			Call: 10*at - time.Duration(rng.IntN(90)), Return: 10*at + time.Duration(rng.IntN(90)),
		}
	}
	return h
}

// BenchmarkSerializable judges list-append transactions: all levels up to strict serializability.
func BenchmarkSerializable(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("txns=%d/impl=coterie", n), func(b *testing.B) {
			if testing.Short() && n == 1_000_000 {
				b.Skip("over 2 s")
			}
			h := consistencyTxns(n)
			b.ReportAllocs()
			consistencyLoop(b, func() {
				r, err := consistency.ListAppend(context.Background(), h)
				if err != nil || r.Verdict != consistency.Holds {
					b.Fatal(r, err)
				}
			})
		})
	}
}
