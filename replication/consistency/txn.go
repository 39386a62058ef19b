package consistency

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TxnOp is one step of a transaction on one key, which holds either a list that grows by Append, or a register that
// is set by Write. Nobody appends one value to a list twice or writes one value to a register twice, and nobody
// writes 0, which is what a register holds at first: so every read tells whom it read.
type TxnOp struct {
	Kind  AccessKind `json:"kind"` // Read, Write or Append
	Key   string     `json:"key,omitempty"`
	Value int64      `json:"value,omitempty"` // appended or written; of a register's read, what was read
	List  []int64    `json:"list,omitempty"`  // of a list's read, what was read
}

// String returns "append x 3", "read x [1 2]", "write x 3" or "read x 3".
func (op TxnOp) String() string {
	if op.Kind == Read && op.List != nil {
		return fmt.Sprintf("read %s %v", op.Key, op.List)
	}
	return fmt.Sprintf("%v %s %d", op.Kind, op.Key, op.Value)
}

// TxnOut is what came of a transaction.
type TxnOut struct {
	Ops     []TxnOp `json:"ops,omitempty"`     // what was done, in order, with what was read
	Aborted bool    `json:"aborted,omitempty"` // it was undone: it must leave no trace
}

// TxnHistory is a history of transactions: In is what a client asked for, and counts if the outcome is unknown or the
// transaction was aborted. A Recorder[[]TxnOp, TxnOut] writes one down.
type TxnHistory = History[[]TxnOp, TxnOut]

// Level is a degree of isolation, in the order of strength.
type Level uint8

// The levels, weakest first, with what each adds to what the one before forbids (Adya 1999, §3-4; Kingsbury and
// Alvaro 2020). Keys are all that histories hold, no predicates: repeatable reads and serializability are then one.
const (
	NoLevel                   Level = iota // even dirty writes were seen
	ReadUncommitted                        // no dirty write (G0)
	ReadCommitted                          // no aborted, intermediate or circular read (G1a, G1b, G1c)
	SnapshotIsolation                      // no cycle without two anti-dependencies in a row (G-single: lost update, read skew)
	Serializable                           // no cycle at all (G2-item: write skew)
	StrongSessionSerializable              // ... nor with the order of each client's transactions
	StrictSerializable                     // ... nor with the order of real time
)

// String returns the level's usual name.
func (l Level) String() string {
	names := [...]string{
		"no level", "read uncommitted", "read committed", "snapshot isolation", "serializable",
		"strong session serializable", "strict serializable",
	}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// AnomalyKind names an anomaly, by Adya's name where there is one.
type AnomalyKind string

// The anomalies. A cycle that needs the order of a session or of real time has "-session" or "-realtime" appended.
const (
	DirtyWrite        AnomalyKind = "G0"                 // transactions overwrote each other in both directions
	AbortedRead       AnomalyKind = "G1a"                // what an aborted transaction wrote was read
	IntermediateRead  AnomalyKind = "G1b"                // what a transaction overwrote itself was read by another
	CircularFlow      AnomalyKind = "G1c"                // transactions saw each other's writes in a circle
	SingleAnti        AnomalyKind = "G-single"           // a cycle with one anti-dependency: read skew
	LostUpdate        AnomalyKind = "lost update"        // two read one version and both replaced it
	NonadjacentAnti   AnomalyKind = "G-nonadjacent"      // several anti-dependencies, never two in a row
	AntiCycle         AnomalyKind = "G2-item"            // two anti-dependencies in a row
	WriteSkew         AnomalyKind = "write skew"         // two transactions, each missed the other's write of another key
	Internal          AnomalyKind = "internal"           // a transaction did not see what it had itself done or seen
	IncompatibleOrder AnomalyKind = "incompatible order" // two reads of one list, neither the start of the other
	DuplicateElement  AnomalyKind = "duplicate element"  // one append, seen twice in a list
	UnwrittenRead     AnomalyKind = "unwritten read"     // a value that nobody wrote was read
)

// Anomaly is one example of what went wrong.
type Anomaly struct {
	Kind    AnomalyKind
	Forbids Level  // the weakest level that does not allow it
	Txns    []int  // the transactions, as indices into the history; of a cycle in its order
	Reason  string // one sentence
}

// TxnResult is the verdict on a history of transactions.
type TxnResult struct {
	Verdict   Verdict   // Unknown if ctx ended first; Holds if Strongest is StrictSerializable, else Violated
	Strongest Level     // the strongest level that the history shows nothing against
	Anomalies []Anomaly // an example of each kind, those that weak levels forbid first
}

// Allows reports whether the history shows nothing against a level.
func (r TxnResult) Allows(l Level) bool { return r.Verdict != Unknown && l <= r.Strongest }

// String returns the strongest level and what rules out the next.
func (r TxnResult) String() string {
	if r.Verdict == Unknown {
		return "unknown: not decided in time"
	}
	lines := []string{"at most " + r.Strongest.String()}
	for _, a := range r.Anomalies {
		lines = append(lines, fmt.Sprintf("%s: %s", a.Kind, a.Reason))
	}
	return strings.Join(lines, "\n")
}

// ListAppend judges transactions that read lists and append to them. A list that was read shows the order in which
// it was written, so that the judgement of Serializable and above is exact: no false alarm and none missed. It takes
// time linear in the size of the history (Kingsbury and Alvaro 2020, Elle, §4).
//
// The error is about a malformed history, such as one value appended twice.
func ListAppend(ctx context.Context, h TxnHistory) (TxnResult, error) {
	return judgeTxns(ctx, h, (*dependencies).inferLists)
}

// ReadWrite judges transactions that read and write registers. The order of versions is inferred from transactions
// that read a register before they write it, and from reads of the initial 0: every anomaly reported is one, but blind
// writes can hide some (Kingsbury and Alvaro 2020, §5.2). Prefer ListAppend where the workload may be chosen.
func ReadWrite(ctx context.Context, h TxnHistory) (TxnResult, error) {
	return judgeTxns(ctx, h, (*dependencies).inferRegisters)
}

func judgeTxns(ctx context.Context, h TxnHistory, infer func(*dependencies) error) (TxnResult, error) {
	if err := h.Validate(); err != nil {
		return TxnResult{}, err
	}
	d := newDependencies(h)
	if err := infer(d); err != nil {
		return TxnResult{}, err
	}
	d.orderSessions()
	d.orderTime()
	if ctx.Err() != nil {
		return TxnResult{}, nil
	}
	d.g.build()
	return d.judge(ctx), nil
}

// dependencies is a history of transactions on its way to a graph. The nodes of the graph are the transactions by
// their indices, then helpers.
type dependencies struct {
	h         TxnHistory
	committed []bool // whether it took effect, as far as is known
	keys      map[string]int32
	names     []string
	g         graph
	anomalies []Anomaly
	kinds     map[AnomalyKind]bool // those that have an example
}

func newDependencies(h TxnHistory) *dependencies {
	d := &dependencies{h: h, committed: make([]bool, len(h)), keys: make(map[string]int32), kinds: make(map[AnomalyKind]bool)}
	for i := range h {
		d.committed[i] = !h[i].Unknown && !h[i].Out.Aborted
	}
	d.g.nodes = int32(len(h))
	d.g.real = int32(len(h))
	return d
}

// ops returns what a transaction did or, if nobody knows or it is undone, was asked to do.
func (d *dependencies) ops(t int32) []TxnOp {
	if op := &d.h[t]; !op.Unknown && !op.Out.Aborted {
		return op.Out.Ops
	}
	return d.h[t].In
}

func (d *dependencies) key(name string) int32 {
	k, ok := d.keys[name]
	if !ok {
		k = int32(len(d.names))
		d.keys[name] = k
		d.names = append(d.names, name)
	}
	return k
}

// report adds an anomaly unless there is one of its kind.
func (d *dependencies) report(kind AnomalyKind, forbids Level, txns []int32, format string, args ...any) {
	if d.kinds[kind] {
		return
	}
	d.kinds[kind] = true
	a := Anomaly{Kind: kind, Forbids: forbids, Reason: fmt.Sprintf(format, args...)}
	for _, t := range txns {
		a.Txns = append(a.Txns, int(t))
	}
	d.anomalies = append(d.anomalies, a)
}

// orderSessions puts each client's transactions in order; one of unknown outcome precedes none.
func (d *dependencies) orderSessions() {
	sessions := d.h.sessions()
	for _, client := range sortedKeys(sessions) {
		last := none
		for _, t := range sessions[client] {
			if !d.committed[t] {
				continue
			}
			if last != none {
				d.g.add(last, t, session, none)
			}
			if !d.h[t].Unknown {
				last = t
			}
		}
	}
}

// orderTime puts each transaction before those that were called after it returned. A line of helpers stands for the
// moments at which transactions returned: three edges for each, where all pairs would be too many.
func (d *dependencies) orderTime() {
	var calls, returns []int32
	for t := range d.h {
		if !d.committed[t] {
			continue
		}
		calls = append(calls, int32(t))
		if !d.h[t].Unknown {
			returns = append(returns, int32(t))
		}
	}
	sortBy(calls, func(t int32) time.Duration { return d.h[t].Call })
	sortBy(returns, func(t int32) time.Duration { return d.h[t].Return })
	moment, next := none, 0
	for _, t := range calls {
		for ; next < len(returns) && d.h[returns[next]].Return < d.h[t].Call; next++ {
			later := d.g.helper()
			if moment != none {
				d.g.add(moment, later, realTimeOrder, none)
			}
			d.g.add(returns[next], later, realTimeOrder, none)
			moment = later
		}
		if moment != none {
			d.g.add(moment, t, realTimeOrder, none)
		}
	}
}

// sortBy sorts by a time.
func sortBy(txns []int32, at func(int32) time.Duration) {
	slices.SortStableFunc(txns, func(a, b int32) int { return cmp.Compare(at(a), at(b)) })
}
