package main

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

// isolation is a small database of lists: how it isolates its transactions.
type isolation struct {
	name, about string
	snapshot    bool // a transaction works on what was committed when it began ...
	conflicts   bool // ... and aborts if somebody has since written what it writes
	validate    bool // ... or what it read
}

var databases = []isolation{
	{"serial", "transactions work on a snapshot, and abort if what they read or wrote has changed", true, true, true},
	{"snapshots", "transactions work on a snapshot, and abort if what they wrote has changed", true, true, false},
	{"blind-commit", "transactions work on a snapshot, and commit whatever has changed", true, false, false},
	{"live", "transactions work on the data itself, and take it back if they abort", false, false, false},
}

// runDatabase lets clients run transactions side by side and returns what they saw.
func runDatabase(rules isolation, seed uint64, txns int) consistency.TxnHistory {
	rng := rand.New(rand.NewPCG(seed, 2))
	type running struct {
		txn  int // in the history, -1 for none
		left int
		view map[string][]int64
		was  map[string]int // length of each list when it began
	}
	data := map[string][]int64{}
	var h consistency.TxnHistory
	clients := make([]running, 3)
	for i := range clients {
		clients[i].txn = -1
	}
	value := int64(0)
	for now, done := 0, 0; done < txns; now++ {
		i := rng.IntN(len(clients))
		c := &clients[i]
		at := time.Duration(now) * time.Millisecond
		switch {
		case c.txn < 0 && len(h) < txns:
			*c = running{txn: len(h), left: 2 + rng.IntN(2), view: map[string][]int64{}, was: map[string]int{}}
			for k, v := range data {
				c.view[k], c.was[k] = slices.Clip(v), len(v)
			}
			h = append(h, consistency.Operation[[]consistency.TxnOp, consistency.TxnOut]{Client: i, Call: at})
		case c.txn < 0:
		case c.left > 0:
			c.left--
			store := data
			if rules.snapshot {
				store = c.view
			}
			op := consistency.TxnOp{Key: string(rune('x' + rng.IntN(2)))}
			if rng.IntN(2) == 0 {
				value++
				op.Kind, op.Value = consistency.Append, value
				store[op.Key] = append(slices.Clip(store[op.Key]), value)
			} else {
				op.List = append([]int64{}, store[op.Key]...)
			}
			h[c.txn].In = append(h[c.txn].In, op)
		default:
			t := &h[c.txn]
			t.Return = at
			t.Out = consistency.TxnOut{Ops: t.In, Aborted: !rules.commit(data, t.In, c.was, rng)}
			c.txn = -1
			done++
		}
	}
	return h
}

// commit makes a transaction's appends last and reports whether it may; else it takes them back.
func (rules isolation) commit(data map[string][]int64, ops []consistency.TxnOp, was map[string]int, rng *rand.Rand) bool {
	for _, op := range ops {
		changed := len(data[op.Key]) != was[op.Key]
		if changed && (rules.validate || rules.conflicts && op.Kind == consistency.Append) {
			return false
		}
	}
	abort := !rules.snapshot && rng.IntN(6) == 0
	for _, op := range ops {
		switch mine := func(v int64) bool { return v == op.Value }; {
		case op.Kind == consistency.Read:
		case abort:
			data[op.Key] = slices.DeleteFunc(slices.Clone(data[op.Key]), mine)
		case rules.snapshot:
			data[op.Key] = append(slices.Clip(data[op.Key]), op.Value)
		}
	}
	return !abort
}
