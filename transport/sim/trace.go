package sim

import "fmt"

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
	traceViolation
)

// Trace records what happens in a World.
type Trace struct {
	w       *World
	entries []entry
}

type entry struct {
	at         int64
	id         uint64
	node, peer int32
	kind       traceKind
	payload    []byte
	text       string
}

func (t *Trace) begin(w *World) { t.w = w }

func (t *Trace) add(e entry) { t.entries = append(t.entries, e) }

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

func describeEvent(event any) string { return fmt.Sprintf("%T%+v", event, event) }
