package sim

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// shivizParser is the regular expression that ShiViz (https://bestchai.bitbucket.io/shiviz) reads the log by: two lines
// an event, the host and its vector clock, then the text. The log begins with it and an empty line, as GoVector's does.
const shivizParser = `(?<host>\S*) (?<clock>{.*})\n(?<event>.*)`

// WriteShiViz writes the trace as a log for the ShiViz visualizer, with a vector clock for each event. A message that
// was lost has its sending only; what happened to no node in particular (partitions, faults) is left out. The first
// line is the regular expression to give to ShiViz as log parsing expression.
func (t *Trace) WriteShiViz(out io.Writer) error {
	if t.w == nil {
		return errNoWorld
	}
	buf := bufio.NewWriter(out)
	_, err := buf.WriteString(shivizParser + "\n\n")
	v := vectors{clocks: make([][]uint64, len(t.w.nodes)), sent: map[uint64][]uint64{}}
	var line []byte
	t.each(func(e *entry) {
		if err != nil || e.node < 0 || e.kind == traceLost || e.kind == traceCut || e.kind == traceJoin {
			return
		}
		line = t.appendShiViz(line[:0], e, v.next(e))
		_, err = buf.Write(line)
	})
	if err == nil {
		err = buf.Flush()
	}
	if err != nil {
		return fmt.Errorf("sim: write trace: %w", err)
	}
	return nil
}

func (t *Trace) appendShiViz(b []byte, e *entry, clock []uint64) []byte {
	b = append(b, shivizHost(t.name(e.node))...)
	before := " {"
	for i, n := range clock {
		if n > 0 {
			b = append(b, before...)
			b = strconv.AppendQuote(b, shivizHost(t.name(int32(i))))
			b = append(b, ": "...)
			b = strconv.AppendUint(b, n, 10)
			before = ", "
		}
	}
	b = append(b, "}\n"...)
	b = append(b, t.shivizText(e)...)
	return append(b, '\n')
}

// vectors are the clocks of Fidge and Mattern (1988), one count per node.
type vectors struct {
	clocks [][]uint64
	sent   map[uint64][]uint64 // the clock of each message's sending
}

// next returns the clock of an entry, which is valid until the next call.
func (v *vectors) next(e *entry) []uint64 {
	clock := v.clocks[e.node]
	if clock == nil {
		clock = make([]uint64, len(v.clocks))
		v.clocks[e.node] = clock
	}
	clock[e.node]++
	switch e.kind {
	case traceSend:
		v.sent[e.id] = slices.Clone(clock)
	case traceReceive, traceReject:
		for i, n := range v.sent[e.id] {
			clock[i] = max(clock[i], n)
		}
	default:
	}
	return clock
}

func (t *Trace) shivizText(e *entry) string {
	text := strings.ReplaceAll(t.describe(e), "\n", " ")
	switch e.kind {
	case traceSend:
		return "to " + t.name(e.peer) + ": " + text
	case traceReceive:
		return "from " + t.name(e.peer) + ": " + text
	case traceReject:
		return "from " + t.name(e.peer) + ", refused: " + text
	case traceStart:
		return fmt.Sprintf("start, incarnation %d", e.id)
	case traceSave, traceSaved:
		return fmt.Sprintf("%s, records: %d", traceNames[e.kind], e.id)
	case traceEvent:
		return "event " + text
	default:
	}
	return strings.TrimSpace(traceNames[e.kind] + " " + text)
}

// shivizHost is the id without spaces, which end a host in the log.
func shivizHost(id string) string { return strings.ReplaceAll(id, " ", "_") }
