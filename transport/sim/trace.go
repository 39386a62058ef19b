package sim

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/coterie-go/coterie"
)

// Trace records what happens in the World whose Config names it: each message sent, received and lost, each save,
// event, crash and fault. It can be written as JSON lines, as a ShiViz log and as an HTML space-time diagram. The zero
// value is ready to use, for one World. Recording costs time and memory; a World without a Trace pays nothing.
type Trace struct {
	Limit int // how many of the newest entries are kept; default 200,000, negative keeps all

	w       *World
	entries []entry // a ring once it is full
	next    int     // where the ring's oldest entry is
	dropped uint64
	tellers []coterie.Describer // the latest core of each node, if it can describe payloads
}

const defaultTraceLimit = 200_000

// traceFormat is in the first line of a trace in JSON.
const traceFormat = 1

// healedAll is the text of a traceHeal that ends every fault.
const healedAll = "all"

type traceKind uint8

const (
	traceStart traceKind = iota
	traceSend
	traceReceive
	traceReject
	traceLost
	traceSave
	traceSaved
	traceEvent
	traceCrash
	tracePause
	traceResume
	traceStall
	traceUnstall
	traceCut
	traceJoin
	tracePartition
	traceHeal
	traceFault
	traceFaultEnd
	traceViolation
)

var traceNames = [...]string{
	traceStart: "start", traceSend: "send", traceReceive: "receive", traceReject: "reject", traceLost: "lost",
	traceSave: "save", traceSaved: "saved", traceEvent: "event", traceCrash: "crash", tracePause: "pause",
	traceResume: "resume", traceStall: "stall", traceUnstall: "unstall", traceCut: "cut", traceJoin: "join",
	tracePartition: "partition", traceHeal: "heal", traceFault: "fault", traceFaultEnd: "fault-end",
	traceViolation: "violation",
}

// entry is one line of a trace, 80 bytes or so. What a payload says is asked for when the trace is written.
type entry struct {
	at         int64
	id         uint64 // of a message or a fault, the incarnation of a start, the number of records of a save
	node, peer int32  // -1 is none; of traceLost the sender and the receiver
	kind       traceKind
	payload    []byte
	text       string
}

func (t *Trace) begin(w *World) {
	if t.w != nil {
		panic("sim: a Trace serves one World")
	}
	t.w = w
	if t.Limit == 0 {
		t.Limit = defaultTraceLimit
	}
}

func (t *Trace) add(e entry) {
	if t.Limit < 0 || len(t.entries) < t.Limit {
		t.entries = append(t.entries, e)
		return
	}
	t.entries[t.next] = e
	t.next = (t.next + 1) % len(t.entries)
	t.dropped++
}

// refused says of the newest entry, a message received, that the core refused it.
func (t *Trace) refused(err error) {
	e := &t.entries[(t.next+len(t.entries)-1)%len(t.entries)]
	e.kind, e.text = traceReject, err.Error()
}

// met remembers who can describe a node's payloads.
func (t *Trace) met(n *node) {
	for len(t.tellers) <= int(n.index) {
		t.tellers = append(t.tellers, nil)
	}
	if d, ok := n.inner.(coterie.Describer); ok {
		t.tellers[n.index] = d
	}
}

// Len is how many entries are kept.
func (t *Trace) Len() int { return len(t.entries) }

// Dropped is how many older entries were not kept, because of Limit.
func (t *Trace) Dropped() uint64 { return t.dropped }

// each calls f with the entries, oldest first.
func (t *Trace) each(f func(e *entry)) {
	for i := range t.entries {
		f(&t.entries[(t.next+i)%len(t.entries)])
	}
}

func (t *Trace) name(node int32) string {
	if node < 0 {
		return ""
	}
	return string(t.w.nodes[node].id)
}

// describe says in one line what an entry is about.
func (t *Trace) describe(e *entry) string {
	switch {
	case e.payload == nil:
		return e.text
	case e.text != "":
		return t.payload(e) + ": " + e.text
	}
	return t.payload(e)
}

// undescribedBytes is how much of a payload is shown when the core cannot describe it.
const undescribedBytes = 24

func (t *Trace) payload(e *entry) string {
	if teller := t.teller(e); teller != nil {
		return teller.Describe(e.payload)
	}
	shown, rest := e.payload, ""
	if len(shown) > undescribedBytes {
		shown, rest = shown[:undescribedBytes], "..."
	}
	if isText(shown) {
		return string(shown) + rest
	}
	return hex.EncodeToString(shown) + rest
}

func isText(p []byte) bool {
	for _, c := range p {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// teller is the sender's core, or else the receiver's.
func (t *Trace) teller(e *entry) coterie.Describer {
	from, to := e.node, e.peer
	if e.kind == traceReceive || e.kind == traceReject {
		from, to = to, from
	}
	for _, node := range [...]int32{from, to} {
		if node >= 0 && int(node) < len(t.tellers) && t.tellers[node] != nil {
			return t.tellers[node]
		}
	}
	return nil
}

// traceHead is the first line in JSON.
type traceHead struct {
	Format  int              `json:"format"`
	Seed    uint64           `json:"seed"`
	Start   time.Time        `json:"start"`
	Nodes   []coterie.NodeID `json:"nodes"`
	Dropped uint64           `json:"dropped,omitempty"`
}

// traceLine is every other line. At is nanoseconds since the start.
type traceLine struct {
	At   int64  `json:"at"`
	Kind string `json:"kind"`
	Node string `json:"node,omitempty"`
	Peer string `json:"peer,omitempty"`
	ID   uint64 `json:"id,omitempty"`
	Size int    `json:"size,omitempty"`
	Text string `json:"text,omitempty"`
}

// WriteJSON writes the trace as JSON lines: first a head with the format, the seed and the nodes, then one object per
// entry with at (nanoseconds since the start), kind, node, peer, id (of the message or fault), size (bytes of the
// payload) and text.
func (t *Trace) WriteJSON(out io.Writer) error {
	if t.w == nil {
		return errNoWorld
	}
	buf := bufio.NewWriter(out)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(traceHead{Format: traceFormat, Seed: t.w.cfg.Seed, Start: t.w.cfg.Start, Nodes: t.w.Nodes(), Dropped: t.dropped})
	t.each(func(e *entry) {
		if err == nil {
			err = enc.Encode(traceLine{
				At: e.at, Kind: traceNames[e.kind], Node: t.name(e.node), Peer: t.name(e.peer), ID: e.id,
				Size: len(e.payload), Text: t.describe(e),
			})
		}
	})
	if err != nil {
		return fmt.Errorf("sim: write trace: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("sim: write trace: %w", err)
	}
	return nil
}

func (w *World) note(kind traceKind, node int32) { w.notePeer(kind, node, -1) }

func (w *World) notePeer(kind traceKind, node, peer int32) {
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: kind, node: node, peer: peer})
	}
}

func (w *World) noteText(kind traceKind, text string) {
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: kind, node: -1, peer: -1, text: text})
	}
}

// describeEvent names the type and shows the fields. Addresses would differ from run to run, so a pointer is followed.
func describeEvent(event any) string {
	if s, ok := event.(fmt.Stringer); ok {
		return fmt.Sprintf("%T %s", event, s)
	}
	return fmt.Sprintf("%T%+v", event, event)
}
