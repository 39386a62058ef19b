package sim

import (
	"bytes"
	_ "embed" // for the page
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/coterie-go/coterie"
)

//go:embed diagram.html
var diagramPage []byte

// diagram is what the page draws. Times are nanoseconds since the start, texts are indexes into Texts; rows are arrays,
// for their number.
type diagram struct {
	Seed    uint64           `json:"seed"`
	Nodes   []coterie.NodeID `json:"nodes"`
	Texts   []string         `json:"texts"`
	End     int64            `json:"end"`
	Dropped uint64           `json:"dropped"`
	// Messages: from, to, sent, arrived or lost (-1 while under way), state, text, size, cause.
	Messages [][8]int64 `json:"messages"`
	// Marks: node, time, kind, text.
	Marks [][4]int64 `json:"marks"`
	// Spans: node, begin, end, kind, text.
	Spans [][5]int64 `json:"spans"`
	// Bands: begin, end, text, kind. They concern links or several nodes: partitions and faults.
	Bands [][4]int64 `json:"bands"`
	// Violation: time, text; none if the text is -1.
	Violation [2]int64 `json:"violation"`
}

// The states of a message, kinds of marks and kinds of spans in the page.
const (
	arrived, lost, underWay, refused = 0, 1, 2, 3

	markStart, markCrash, markEvent = 0, 1, 2

	spanDown, spanPaused, spanStalled, spanSaving = 0, 1, 2, 3

	bandCut, bandOther = 0, 1
)

// WriteHTML writes the trace as a space-time diagram: one HTML page that needs no network. Each node has a lane, time
// goes to the right, each message is an arrow; lost ones end in a cross. Spans in which a node was down, paused or
// saving are shaded, and so are partitions and faults, over all lanes. Hovering shows what a message or an event says;
// the wheel zooms, dragging moves, a search marks what matches.
func (t *Trace) WriteHTML(out io.Writer) error {
	if t.w == nil {
		return errNoWorld
	}
	data, err := json.Marshal(t.diagram()) // escapes <, > and &, so that it cannot end the script it stands in
	if err != nil {
		return fmt.Errorf("sim: write diagram: %w", err)
	}
	title := fmt.Sprintf("seed %d", t.w.cfg.Seed)
	page := bytes.Replace(diagramPage, []byte("{{title}}"), []byte(html.EscapeString(title)), 1)
	before, after, _ := bytes.Cut(page, []byte("{{data}}"))
	for _, part := range [][]byte{before, data, after} {
		if _, err := out.Write(part); err != nil {
			return fmt.Errorf("sim: write diagram: %w", err)
		}
	}
	return nil
}

// drawing is a diagram in the making.
type drawing struct {
	diagram
	t      *Trace
	index  map[string]int64    // of texts
	sends  map[uint64]*sending // by message
	open   map[spanKey]int     // spans without an end, as indexes
	cuts   map[[2]int32]int    // bands of cut links without an end
	bands  map[uint64]int      // bands of faults without an end
	parted int                 // band of the partition without an end, -1 if none
}

type sending struct {
	row  [8]int64
	used bool // an arrow was drawn
}

type spanKey struct {
	node int32
	kind int64
}

func (t *Trace) diagram() *diagram {
	d := &drawing{
		t: t, index: map[string]int64{}, sends: map[uint64]*sending{}, open: map[spanKey]int{},
		cuts: map[[2]int32]int{}, bands: map[uint64]int{}, parted: -1,
	}
	d.Seed, d.Nodes, d.Dropped, d.Violation = t.w.cfg.Seed, t.w.Nodes(), t.dropped, [2]int64{0, -1}
	d.Messages, d.Marks, d.Spans, d.Bands = [][8]int64{}, [][4]int64{}, [][5]int64{}, [][4]int64{}
	var order []uint64
	t.each(func(e *entry) {
		d.End = max(d.End, e.at)
		if e.kind == traceSend {
			order = append(order, e.id)
		}
		d.draw(e)
	})
	for _, id := range order {
		if s := d.sends[id]; !s.used {
			d.Messages = append(d.Messages, s.row)
		}
	}
	d.End = max(d.End, t.w.now)
	return &d.diagram
}

func (d *drawing) text(s string) int64 {
	i, ok := d.index[s]
	if !ok {
		i = int64(len(d.Texts))
		d.index[s] = i
		d.Texts = append(d.Texts, s)
	}
	return i
}

func (d *drawing) draw(e *entry) {
	switch e.kind {
	case traceSend:
		text := d.text(d.t.describe(e))
		d.sends[e.id] = &sending{row: [8]int64{int64(e.node), int64(e.peer), e.at, -1, underWay, text, int64(len(e.payload)), -1}}
	case traceReceive:
		d.arrow(e, arrived)
	case traceReject:
		d.arrow(e, refused)
	case traceLost:
		d.arrow(e, lost)
	case traceStart:
		d.end(spanKey{e.node, spanDown}, e.at)
		d.mark(e, markStart, fmt.Sprintf("start, incarnation %d", e.id))
	case traceCrash:
		for _, kind := range [...]int64{spanPaused, spanSaving} {
			d.end(spanKey{e.node, kind}, e.at)
		}
		d.mark(e, markCrash, "crash, "+e.text)
		d.begin(spanKey{e.node, spanDown}, e.at, "down, "+e.text)
	case traceEvent:
		d.mark(e, markEvent, e.text)
	case traceSave:
		d.begin(spanKey{e.node, spanSaving}, e.at, fmt.Sprintf("saving, records: %d", e.id))
	case traceSaved:
		d.end(spanKey{e.node, spanSaving}, e.at)
	case tracePause:
		d.begin(spanKey{e.node, spanPaused}, e.at, "paused")
	case traceResume:
		d.end(spanKey{e.node, spanPaused}, e.at)
	case traceStall:
		d.begin(spanKey{e.node, spanStalled}, e.at, "disk hangs")
	case traceUnstall:
		d.end(spanKey{e.node, spanStalled}, e.at)
	case traceViolation:
		d.Violation = [2]int64{e.at, d.text(e.text)}
	case traceCut, traceJoin, tracePartition, traceHeal, traceFault, traceFaultEnd:
		d.drawBand(e)
	}
}

// drawBand draws what concerns links rather than a node.
func (d *drawing) drawBand(e *entry) {
	link := [2]int32{e.node, e.peer}
	switch e.kind {
	case traceCut:
		if _, ok := d.cuts[link]; !ok {
			d.cuts[link] = d.band(e.at, "cut "+d.t.name(e.node)+" to "+d.t.name(e.peer), bandCut)
		}
	case traceJoin:
		if i, ok := d.cuts[link]; ok {
			d.Bands[i][1] = e.at
			delete(d.cuts, link)
		}
	case tracePartition:
		d.heal(e.at)
		d.parted = d.band(e.at, "partition "+e.text, bandCut)
	case traceHeal:
		d.heal(e.at)
		if e.text == healedAll {
			for _, i := range d.bands {
				d.Bands[i][1] = e.at
			}
			clear(d.bands)
		}
	case traceFault:
		switch kind, _, _ := strings.Cut(e.text, " "); FaultKind(kind) {
		case FaultCrash, FaultPause, FaultStall: // seen on the lanes
		case FaultPartition, FaultCut:
			d.bands[e.id] = d.band(e.at, e.text, bandCut)
		default:
			d.bands[e.id] = d.band(e.at, e.text, bandOther)
		}
	case traceFaultEnd:
		if i, ok := d.bands[e.id]; ok {
			d.Bands[i][1] = e.at
			delete(d.bands, e.id)
		}
	default:
	}
}

// band opens a band; its end is -1 until it is known.
func (d *drawing) band(at int64, text string, kind int64) int {
	d.Bands = append(d.Bands, [4]int64{at, -1, d.text(text), kind})
	return len(d.Bands) - 1
}

func (d *drawing) heal(at int64) {
	if d.parted >= 0 {
		d.Bands[d.parted][1] = at
		d.parted = -1
	}
	for _, i := range d.cuts {
		d.Bands[i][1] = at
	}
	clear(d.cuts)
}

func (d *drawing) mark(e *entry, kind int64, text string) {
	d.Marks = append(d.Marks, [4]int64{int64(e.node), e.at, kind, d.text(text)})
}

func (d *drawing) begin(k spanKey, at int64, text string) {
	d.end(k, at)
	d.open[k] = len(d.Spans)
	d.Spans = append(d.Spans, [5]int64{int64(k.node), at, -1, k.kind, d.text(text)})
}

func (d *drawing) end(k spanKey, at int64) {
	if i, ok := d.open[k]; ok {
		d.Spans[i][2] = at
		delete(d.open, k)
	}
}

// arrow ends a message. A repeated one gets an arrow for each arrival.
func (d *drawing) arrow(e *entry, state int64) {
	s := d.sends[e.id]
	if s == nil {
		return // sent before the oldest entry that was kept
	}
	s.used = true
	row := s.row
	row[3], row[4] = e.at, state
	if state != arrived {
		row[7] = d.text(e.text)
	}
	d.Messages = append(d.Messages, row)
}
