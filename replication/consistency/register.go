package consistency

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// never is the return of an operation that did not return, always the call of the write of the initial value.
const (
	never  = time.Duration(math.MaxInt64)
	always = time.Duration(math.MinInt64)
)

// cluster is a write and the reads that returned its value. In any linearization they stand together, the write
// first; so some operation of the cluster has taken effect once finish is over, and some has not before start.
type cluster struct {
	write  int32         // the write, or -1 for the initial value
	finish time.Duration // the earliest return in the cluster ...
	first  int32         // ... and whose it is
	start  time.Duration // the latest call in the cluster ...
	last   int32         // ... and whose it is
}

// forward reports whether the cluster must hold the register for a while: from finish to start.
func (c *cluster) forward() bool { return c.finish < c.start }

// precedes reports whether some operation of c returned before some operation of d was called.
func (c *cluster) precedes(d *cluster) bool { return c.finish < d.start }

// decideRegister judges one register on which every value is written once, in O(n log n): Gibbons and Korach,
// Testing Shared Memories (1997), Theorem 4.13. Two clusters of which each must precede the other are a violation,
// and there is no other, but for a read that returned before its write was called, or of what nobody wrote.
//
// It returns false if a value is written twice, on compare-and-set, and where a client's operations touch, whose
// order the clusters' intervals do not show.
func decideRegister[V comparable](h History[Access[V], Answer[V]], ops []int32, initial V) (finding, bool) {
	clusters := []cluster{{write: -1, first: -1, last: -1, finish: always, start: always}}
	index := make(map[V]int32, len(ops)/2)
	index[initial] = 0
	for _, i := range ops {
		op := &h[i]
		switch {
		case op.In.Kind != Read && op.In.Kind != Write:
			return finding{}, false
		case op.In.Kind == Read:
			continue
		}
		if _, ok := index[op.In.Value]; ok {
			return finding{}, false
		}
		index[op.In.Value] = int32(len(clusters))
		c := cluster{write: i, first: i, last: i, finish: op.Return, start: op.Call}
		if op.Unknown {
			c.finish = never // if nobody read it, it need not have happened, and precedes nothing
		}
		clusters = append(clusters, c)
	}
	if touches(h, ops) {
		return finding{}, false
	}
	for _, i := range ops {
		op := &h[i]
		if op.In.Kind != Read || op.Unknown {
			continue
		}
		at, ok := index[op.Out.Value]
		if !ok {
			return violated(fmt.Sprintf("%s, which was never written", opName(h, i)), i), true
		}
		c := &clusters[at]
		if c.write >= 0 && op.Return < h[c.write].Call {
			return violated(fmt.Sprintf("%s before %s was called", opName(h, i), opName(h, c.write)), i, c.write), true
		}
		if op.Return < c.finish {
			c.finish, c.first = op.Return, i
		}
		if op.Call > c.start {
			c.start, c.last = op.Call, i
		}
	}
	if a, b := findConflict(clusters); a != nil {
		return conflict(h, a, b), true
	}
	return finding{verdict: Holds}, true
}

// findConflict returns two clusters of which each must precede the other, the first of them forward.
func findConflict(clusters []cluster) (a, b *cluster) {
	var forward []*cluster
	for i := range clusters {
		if clusters[i].forward() {
			forward = append(forward, &clusters[i])
		}
	}
	slices.SortFunc(forward, func(a, b *cluster) int { return cmp.Compare(a.finish, b.finish) })
	for i := 1; i < len(forward); i++ {
		if a, b := forward[i-1], forward[i]; a.precedes(b) && b.precedes(a) {
			return a, b
		}
	}
	for i := range clusters {
		b := &clusters[i]
		if b.forward() {
			continue
		}
		// The forward clusters do not overlap: of those that precede b, the last one is the last to let go.
		n, _ := slices.BinarySearchFunc(forward, b.start, func(a *cluster, start time.Duration) int {
			return cmp.Compare(a.finish, start)
		})
		if n > 0 && b.precedes(forward[n-1]) {
			return forward[n-1], b
		}
	}
	return nil, nil
}

// touches reports whether a client called at the moment at which its operation before returned.
func touches[In, Out any](h History[In, Out], ops []int32) bool {
	newest := make(map[int]time.Duration)
	for _, i := range ops {
		op := &h[i]
		if t, ok := newest[op.Client]; ok && t == op.Call {
			return true
		}
		if !op.Unknown {
			newest[op.Client] = op.Return
		}
	}
	return false
}

// conflict explains two clusters of which each must precede the other.
func conflict[V comparable](h History[Access[V], Answer[V]], a, b *cluster) finding {
	// The last of a is a read, for a is forward and its write was called before its reads returned.
	reason := fmt.Sprintf("%s after %s", opName(h, a.last), opDone(h, b.first))
	switch {
	case a.write < 0:
		reason += ", and the initial value was never written again"
	case b.write == b.first && h[a.write].Return < h[b.write].Call && !h[a.write].Unknown:
		reason += fmt.Sprintf(", which began after %s", opDone(h, a.write))
	case b.first == b.last:
		reason += ", and no write lies between"
	default:
		reason += fmt.Sprintf(", though %s began after %s", opShort(h, b.last), opDone(h, a.first))
	}
	return violated(reason, a.write, a.first, a.last, b.write, b.first, b.last)
}

// violated is a finding about some operations; negative ones are left out.
func violated(reason string, ops ...int32) finding {
	slices.Sort(ops)
	ops = slices.DeleteFunc(slices.Compact(ops), func(i int32) bool { return i < 0 })
	return finding{verdict: Violated, ops: ops, reason: reason}
}

// opName says what an operation did, to start a sentence: "read 3 (client 1) returned x=2".
func opName[V comparable](h History[Access[V], Answer[V]], i int32) string {
	op := &h[i]
	if op.In.Kind == Read {
		return fmt.Sprintf("read %d (client %d) returned %s", i, op.Client, assign(op.In.Key, op.Out.Value))
	}
	return opShort(h, i)
}

// opDone says that an operation had ended: "read 2 (client 0) had returned x=1".
func opDone[V comparable](h History[Access[V], Answer[V]], i int32) string {
	if i < 0 {
		return "the start"
	}
	op := &h[i]
	if op.In.Kind == Read {
		return fmt.Sprintf("read %d (client %d) had returned %s", i, op.Client, assign(op.In.Key, op.Out.Value))
	}
	return opShort(h, i) + " had returned"
}

// opShort names an operation: "read 3 of x=2".
func opShort[V comparable](h History[Access[V], Answer[V]], i int32) string {
	op := &h[i]
	if op.In.Kind == Read {
		return fmt.Sprintf("read %d (client %d) of %s", i, op.Client, assign(op.In.Key, op.Out.Value))
	}
	return fmt.Sprintf("write %d (client %d) of %s", i, op.Client, assign(op.In.Key, op.In.Value))
}

func assign[V comparable](key string, value V) string {
	text := fmt.Sprint(value)
	if text == "" {
		text = `""`
	}
	if key == "" {
		return text
	}
	return key + "=" + text
}
