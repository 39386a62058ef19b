package consistency

import (
	"fmt"
	"slices"
)

// register is what is known of one key's register.
type register struct {
	readers map[int64][]int32 // who read a value from outside
	follow  map[int64][]int32 // who read a value and then wrote another
	writers []int32
}

// inferRegisters finds the dependencies of transactions on registers.
func (d *dependencies) inferRegisters() error {
	writer, final := make(map[element]int32), make(map[element]bool)
	for t := range d.h {
		ops := d.ops(int32(t))
		for i, op := range ops {
			e := element{d.key(op.Key), op.Value}
			switch {
			case op.Kind == Read:
				continue
			case op.Kind != Write:
				return fmt.Errorf("%w: transaction %d has a %v on register %s", ErrHistory, t, op.Kind, op.Key)
			case op.Value == 0:
				return fmt.Errorf("%w: transaction %d writes 0 to %s, which is what it holds at first", ErrHistory, t, op.Key)
			}
			if other, ok := writer[e]; ok {
				return fmt.Errorf("%w: transactions %d and %d both write %d to %s", ErrHistory, other, t, op.Value, op.Key)
			}
			writer[e] = int32(t)
			final[e] = !slices.ContainsFunc(ops[i+1:], func(o TxnOp) bool { return o.Kind == Write && o.Key == op.Key })
		}
	}
	for t := range d.h {
		if d.h[t].Unknown || d.h[t].Out.Aborted {
			continue
		}
		for _, op := range d.h[t].Out.Ops {
			if w, ok := writer[element{d.key(op.Key), op.Value}]; op.Kind == Read && ok && d.h[w].Unknown {
				d.committed[w] = true
			}
		}
	}
	registers := make([]register, len(d.names))
	for t := range d.h {
		if d.committed[t] {
			d.readRegisters(int32(t), registers, writer, final)
		}
	}
	for k := range registers {
		d.orderRegister(int32(k), &registers[k], writer)
	}
	return nil
}

// readRegisters checks a transaction's reads, and notes them and its writes.
func (d *dependencies) readRegisters(t int32, registers []register, writer map[element]int32, final map[element]bool) {
	current := make(map[int32]int64)  // what the transaction knows a key to hold
	external := make(map[int32]int64) // what it read before it wrote
	wrote := make(map[int32]bool)
	for _, op := range d.ops(t) {
		k := d.key(op.Key)
		r := &registers[k]
		if op.Kind == Write {
			if v, ok := external[k]; ok && !wrote[k] {
				appendTo(&r.follow, v, t)
			}
			if !wrote[k] {
				r.writers = append(r.writers, t)
			}
			current[k], wrote[k] = op.Value, true
			continue
		}
		if d.h[t].Unknown {
			continue
		}
		if v, ok := current[k]; ok {
			if v != op.Value {
				d.report(Internal, SnapshotIsolation, []int32{t}, "transaction %d knew %s to be %d, then read %d", t, op.Key, v, op.Value)
			}
			continue
		}
		current[k], external[k] = op.Value, op.Value
		appendTo(&r.readers, op.Value, t)
		e := element{k, op.Value}
		w, ok := writer[e]
		switch {
		case op.Value == 0:
		case !ok:
			d.report(UnwrittenRead, ReadUncommitted, []int32{t}, "transaction %d read %s %d, which nobody wrote", t, op.Key, op.Value)
		case !d.committed[w]:
			d.report(AbortedRead, ReadCommitted, []int32{w, t}, "transaction %d read %s %d of transaction %d, which was aborted", t, op.Key, op.Value, w)
		case w == t: // it read what it was to write
			d.report(Internal, SnapshotIsolation, []int32{t}, "transaction %d read %s %d before it wrote it", t, op.Key, op.Value)
		default:
			if !final[e] {
				d.report(IntermediateRead, ReadCommitted, []int32{w, t}, "transaction %d read %s %d in the middle of transaction %d, which went on writing", t, op.Key, op.Value, w)
			}
			d.g.add(w, t, writeRead, k)
		}
	}
}

// orderRegister adds what is known of the order of a register's versions.
func (d *dependencies) orderRegister(k int32, r *register, writer map[element]int32) {
	for v, followers := range sortedMap(r.follow) {
		w, ok := writer[element{k, v}]
		if len(followers) > 1 {
			d.reportLost(followers[0], followers[1], d.names[k])
		}
		for _, t := range followers {
			if v != 0 && ok && w != t && d.committed[w] {
				d.g.add(w, t, writeWrite, k)
			}
			for _, reader := range r.readers[v] {
				if reader != t {
					d.g.add(reader, t, readWrite, k)
				}
			}
		}
	}
	// Every write replaces, at last, the initial value: whoever read that precedes all writers but itself.
	first := r.follow[0]
	if len(r.readers[0]) == 0 || len(r.writers) == 0 {
		return
	}
	all, rest := d.g.helper(), d.g.helper()
	for _, t := range r.writers {
		d.g.add(all, t, writeWrite, k)
		if !slices.Contains(first, t) {
			d.g.add(rest, t, writeWrite, k)
		}
	}
	for _, reader := range r.readers[0] {
		if slices.Contains(first, reader) {
			d.g.add(reader, rest, readWrite, k)
		} else {
			d.g.add(reader, all, readWrite, k)
		}
	}
}

func appendTo(m *map[int64][]int32, v int64, t int32) {
	if *m == nil {
		*m = make(map[int64][]int32)
	}
	(*m)[v] = append((*m)[v], t)
}
