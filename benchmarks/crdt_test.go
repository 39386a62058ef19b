package benchmarks

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/crdt"
	"github.com/coterie-go/coterie/crdt/text"
)

// crdtEdit is [position, characters deleted, text inserted].
type crdtEdit struct {
	pos, del int
	ins      string
}

func (e *crdtEdit) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&e.pos, &e.del, &e.ins})
}

// crdtTrace returns the edits of the automerge-paper trace and the text that they end in. Without the trace, from the
// folder of COTERIE_TRACES or beside the repository, it makes up as many edits of the same kinds.
func crdtTrace(b *testing.B) (edits []crdtEdit, end string) {
	b.Helper()
	dir := os.Getenv("COTERIE_TRACES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "editing-traces")
	}
	f, err := os.Open(filepath.Join(dir, "automerge-paper.json.gz"))
	if err != nil {
		fmt.Printf("no editing trace (%v): using a generated one\n", err)
		return crdtGenerated()
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		b.Fatal(err)
	}
	var trace struct {
		EndContent string `json:"endContent"`
		Txns       []struct {
			Patches []crdtEdit `json:"patches"`
		} `json:"txns"`
	}
	if err := json.NewDecoder(z).Decode(&trace); err != nil {
		b.Fatal(err)
	}
	for _, txn := range trace.Txns {
		edits = append(edits, txn.Patches...)
	}
	return edits, trace.EndContent
}

func crdtGenerated() (edits []crdtEdit, end string) {
	rng := rand.New(rand.NewPCG(1, 2))
	cursor := 0
	var doc text.Text
	for range 259_778 {
		if rng.IntN(40) == 0 || cursor > doc.Len() {
			cursor = rng.IntN(doc.Len() + 1)
		}
		e := crdtEdit{pos: cursor, ins: string(rune('a' + rng.IntN(26)))}
		if cursor > 0 && rng.IntN(10) < 3 {
			e = crdtEdit{pos: cursor - 1, del: 1}
		}
		crdtApply(&doc, e)
		cursor = e.pos + len(e.ins)
		edits = append(edits, e)
	}
	return edits, doc.String()
}

var crdtDelta text.Delta // keeps the compiler honest

func crdtApply(doc *text.Text, e crdtEdit) {
	var err error
	if e.del > 0 {
		crdtDelta, err = doc.Delete("a", e.pos, e.del)
	}
	if e.ins != "" && err == nil {
		crdtDelta, err = doc.Insert("a", e.pos, e.ins)
	}
	if err != nil {
		panic(err)
	}
}

// crdtHeap returns the bytes of heap in use.
func crdtHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkTextReplay types a paper of 259,778 edits, one call per edit, each of which returns its delta. impl=slice is
// a slice of runes without history, which is what an editor of one user would do. yjs runs in node where COTERIE_YJS
// names a folder with node_modules/yjs in it.
func BenchmarkTextReplay(b *testing.B) {
	edits, end := crdtTrace(b)
	b.Run("trace=automerge-paper/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var doc *text.Text
		before := crdtHeap()
		for b.Loop() {
			doc = &text.Text{}
			for _, e := range edits {
				crdtApply(doc, e)
			}
		}
		if doc.String() != end {
			b.Fatal("another text")
		}
		ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N*len(edits))
		used := float64(crdtHeap() - before)
		b.ReportMetric(ns, "ns/edit")
		b.ReportMetric(used/float64(doc.Len()), "heap-B/char")
		runtime.KeepAlive(doc)
	})
	b.Run("trace=automerge-paper/impl=slice", func(b *testing.B) {
		var doc []rune
		for b.Loop() {
			doc = doc[:0]
			for _, e := range edits {
				tail := doc[e.pos+e.del:]
				ins := []rune(e.ins)
				n := e.pos + len(ins) + len(tail)
				for cap(doc) < n {
					doc = append(doc[:cap(doc)], 0)
				}
				doc = doc[:n]
				copy(doc[e.pos+len(ins):], tail)
				copy(doc[e.pos:], ins)
			}
		}
		if string(doc) != end {
			b.Fatal("another text")
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(edits)), "ns/edit")
	})
	b.Run("trace=automerge-paper/impl=yjs", func(b *testing.B) { crdtYjs(b, edits) })
}

// crdtYjs runs the trace once through yjs in node.
func crdtYjs(b *testing.B, edits []crdtEdit) {
	dir := os.Getenv("COTERIE_YJS")
	if dir == "" {
		b.Skip("COTERIE_YJS names no folder with yjs")
	}
	rows := make([][3]any, len(edits))
	for i, e := range edits {
		rows[i] = [3]any{e.pos, e.del, e.ins}
	}
	in, err := json.Marshal(rows)
	if err != nil {
		b.Fatal(err)
	}
	const script = `const Y = require('yjs'), edits = JSON.parse(require('fs').readFileSync(0));
let doc, start;
for (let i = 0; i < 2; i++) {
  doc = new Y.Doc(); const t = doc.getText(); start = process.hrtime.bigint();
  for (const [pos, del, ins] of edits) { if (del) t.delete(pos, del); if (ins) t.insert(pos, ins); }
  start = process.hrtime.bigint() - start;
}
console.log(Number(start) / edits.length, Y.encodeStateAsUpdateV2(doc).length);`
	for b.Loop() {
		cmd := exec.Command("node", "-e", script)
		cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(string(in)), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var ns, size float64
		if _, err := fmt.Sscan(string(out), &ns, &size); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(ns, "ns/edit")
		b.ReportMetric(size, "wire-B")
	}
}

// BenchmarkTextRemote applies the deltas of the same history at another replica.
func BenchmarkTextRemote(b *testing.B) {
	edits, end := crdtTrace(b)
	var doc text.Text
	var deltas []text.Delta
	for _, e := range edits {
		crdtApply(&doc, e)
		deltas = append(deltas, crdtDelta)
	}
	b.Run("trace=automerge-paper/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var remote *text.Text
		for b.Loop() {
			remote = &text.Text{}
			for i := range deltas {
				if err := remote.Merge(deltas[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		if remote.String() != end {
			b.Fatal("another text")
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(deltas)), "ns/edit")
	})
}

// BenchmarkTextEncode encodes and decodes the whole text with all that merges need.
func BenchmarkTextEncode(b *testing.B) {
	edits, end := crdtTrace(b)
	var doc text.Text
	for _, e := range edits {
		crdtApply(&doc, e)
	}
	b.Run("trace=automerge-paper/op=encode/impl=coterie", func(b *testing.B) {
		var wire []byte
		for b.Loop() {
			wire, _ = doc.AppendBinary(wire[:0])
		}
		b.ReportMetric(float64(len(wire)), "wire-B")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(edits)), "ns/edit")
	})
	b.Run("trace=automerge-paper/op=decode/impl=coterie", func(b *testing.B) {
		wire, _ := doc.MarshalBinary()
		var read text.Text
		for b.Loop() {
			if err := read.UnmarshalBinary(wire); err != nil {
				b.Fatal(err)
			}
		}
		if read.String() != end {
			b.Fatal("another text")
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(edits)), "ns/edit")
	})
}

// crdtMapCounter is the simple form: a map, copied for each delta.
type crdtMapCounter map[coterie.NodeID]uint64

func (c crdtMapCounter) inc(id coterie.NodeID) crdtMapCounter {
	c[id]++
	return crdtMapCounter{id: c[id]}
}

func (c crdtMapCounter) merge(o crdtMapCounter) {
	for id, n := range o {
		c[id] = max(c[id], n)
	}
}

func crdtReplicas(n int) []coterie.NodeID {
	ids := make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprintf("replica-%02d", i))
	}
	return ids
}

var (
	crdtCounter crdt.GCounter
	crdtMap     crdtMapCounter
)

// BenchmarkGCounterInc counts at one of a counter's replicas and takes the delta.
func BenchmarkGCounterInc(b *testing.B) {
	for _, n := range []int{1, 16} {
		ids := crdtReplicas(n)
		b.Run(fmt.Sprintf("replicas=%d/impl=coterie", n), func(b *testing.B) {
			b.ReportAllocs()
			var c crdt.GCounter
			for _, id := range ids {
				c.Inc(id, 1)
			}
			for b.Loop() {
				crdtCounter = c.Inc(ids[n/2], 1)
			}
		})
		b.Run(fmt.Sprintf("replicas=%d/impl=map", n), func(b *testing.B) {
			b.ReportAllocs()
			c := crdtMapCounter{}
			for _, id := range ids {
				c.inc(id)
			}
			for b.Loop() {
				crdtMap = c.inc(ids[n/2])
			}
		})
	}
}

// BenchmarkGCounterMerge merges the states of two counters of 16 replicas.
func BenchmarkGCounterMerge(b *testing.B) {
	ids := crdtReplicas(16)
	b.Run("replicas=16/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var x, y crdt.GCounter
		for i, id := range ids {
			x.Inc(id, uint64(i+1))
			y.Inc(id, uint64(16-i))
		}
		wire, _ := y.MarshalBinary() // ids of another memory, as from a message
		if err := y.UnmarshalBinary(wire); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			x.Merge(y)
		}
	})
	b.Run("replicas=16/impl=map", func(b *testing.B) {
		b.ReportAllocs()
		x, y := crdtMapCounter{}, crdtMapCounter{}
		for i, id := range ids {
			x[id], y[id] = uint64(i+1), uint64(16-i)
		}
		for b.Loop() {
			x.merge(y)
		}
	})
}

// crdtMapSet is the simple add-wins set: each element with its dots in a map, the context a map too. A delta is such a
// set of its own.
type crdtMapSet struct {
	elems map[string]map[clock.Dot]struct{}
	seen  map[coterie.NodeID]uint64
	dots  map[clock.Dot]struct{} // seen beyond the contiguous part
}

func newCRDTMapSet() *crdtMapSet {
	return &crdtMapSet{map[string]map[clock.Dot]struct{}{}, map[coterie.NodeID]uint64{}, map[clock.Dot]struct{}{}}
}

func (s *crdtMapSet) has(d clock.Dot) bool {
	_, cloud := s.dots[d]
	return cloud || s.seen[d.Node] >= d.Seq
}

func (s *crdtMapSet) add(id coterie.NodeID, e string) *crdtMapSet {
	s.seen[id]++
	d := clock.Dot{Node: id, Seq: s.seen[id]}
	delta := newCRDTMapSet()
	for old := range s.elems[e] {
		delta.dots[old] = struct{}{}
	}
	s.elems[e] = map[clock.Dot]struct{}{d: {}}
	delta.elems[e] = map[clock.Dot]struct{}{d: {}}
	delta.dots[d] = struct{}{}
	return delta
}

func (s *crdtMapSet) merge(o *crdtMapSet) {
	for e, dots := range s.elems { // what o has seen and has not any more
		for d := range dots {
			if _, live := o.elems[e][d]; !live && o.has(d) {
				delete(dots, d)
			}
		}
		if len(dots) == 0 {
			delete(s.elems, e)
		}
	}
	for e, dots := range o.elems {
		for d := range dots {
			if !s.has(d) {
				if s.elems[e] == nil {
					s.elems[e] = map[clock.Dot]struct{}{}
				}
				s.elems[e][d] = struct{}{}
			}
		}
	}
	for id, n := range o.seen {
		s.seen[id] = max(s.seen[id], n)
	}
	for d := range o.dots {
		s.dots[d] = struct{}{}
	}
	for d := range s.dots {
		if s.seen[d.Node]+1 == d.Seq {
			s.seen[d.Node]++
		}
		if s.seen[d.Node] >= d.Seq {
			delete(s.dots, d)
		}
	}
}

func crdtKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key:%012d", i)
	}
	return keys
}

const crdtElems = 100_000

var (
	crdtSet    crdt.ORSet[string]
	crdtSetMap *crdtMapSet
)

// BenchmarkORSetAdd adds fresh keys of 16 bytes to a set, which begins anew at 100,000, and takes the deltas.
func BenchmarkORSetAdd(b *testing.B) {
	keys := crdtKeys(crdtElems)
	b.Run("key=16/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var s crdt.ORSet[string]
		i := 0
		for b.Loop() {
			if i == len(keys) {
				s, i = crdt.ORSet[string]{}, 0
			}
			crdtSet = s.Add("a", keys[i])
			i++
		}
	})
	b.Run("key=16/impl=map", func(b *testing.B) {
		b.ReportAllocs()
		s := newCRDTMapSet()
		i := 0
		for b.Loop() {
			if i == len(keys) {
				s, i = newCRDTMapSet(), 0
			}
			crdtSetMap = s.add("a", keys[i])
			i++
		}
	})
}

// BenchmarkORSetMergeDelta merges deltas of one element each, an add or a remove, into a set of 100,000.
func BenchmarkORSetMergeDelta(b *testing.B) {
	keys := crdtKeys(crdtElems)
	b.Run("n=100000/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var s, o crdt.ORSet[string]
		for _, k := range keys {
			s.Merge(o.Add("a", k))
		}
		var deltas []crdt.ORSet[string]
		for i := range 1 << 16 {
			if k := keys[(i/2)*7919%len(keys)]; i%2 == 0 {
				deltas = append(deltas, o.Remove(k))
			} else {
				deltas = append(deltas, o.Add("a", k))
			}
		}
		i := 0
		for b.Loop() {
			s.Merge(deltas[i%len(deltas)])
			i++
		}
		if i >= len(deltas) && s.Len() != len(keys) {
			b.Fatal("elements were lost")
		}
	})
	b.Run("n=100000/impl=map", func(b *testing.B) {
		s, o := newCRDTMapSet(), newCRDTMapSet()
		for _, k := range keys {
			s.add("a", k)
		}
		i := 0
		for b.Loop() {
			s.merge(o.add("b", keys[i%len(keys)]))
			i++
		}
	})
}

// BenchmarkORSetMergeFull merges the full state of an equal set of 100,000 elements.
func BenchmarkORSetMergeFull(b *testing.B) {
	keys := crdtKeys(crdtElems)
	b.Run("n=100000/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		var s, o crdt.ORSet[string]
		for i, k := range keys {
			s.Add(crdtReplicas(3)[i%3], k)
		}
		o.Merge(s)
		for b.Loop() {
			s.Merge(o)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*crdtElems), "ns/elem")
	})
	b.Run("n=100000/impl=map", func(b *testing.B) {
		b.ReportAllocs()
		s, o := newCRDTMapSet(), newCRDTMapSet()
		for i, k := range keys {
			s.add(crdtReplicas(3)[i%3], k)
		}
		o.merge(s)
		for b.Loop() {
			s.merge(o)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*crdtElems), "ns/elem")
	})
}

// BenchmarkORSetEncode encodes a set of 100,000 keys of 16 bytes, and tells what it takes on the wire and in memory, keys
// included.
func BenchmarkORSetEncode(b *testing.B) {
	b.Run("n=100000/impl=coterie", func(b *testing.B) {
		before := crdtHeap()
		var s crdt.ORSet[string]
		for _, k := range crdtKeys(crdtElems) {
			s.Add("a", k)
		}
		heap := float64(crdtHeap() - before)
		var wire []byte
		for b.Loop() {
			wire, _ = s.AppendBinary(wire[:0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*crdtElems), "ns/elem")
		b.ReportMetric(float64(len(wire))/crdtElems, "B/elem")
		b.ReportMetric(heap/crdtElems, "heap-B/elem")
		runtime.KeepAlive(s)
	})
	b.Run("n=100000/impl=map", func(b *testing.B) {
		before := crdtHeap()
		s := newCRDTMapSet()
		for _, k := range crdtKeys(crdtElems) {
			s.add("a", k)
		}
		heap := float64(crdtHeap() - before)
		n := 0
		for b.Loop() {
			wire, err := json.Marshal(crdtPlain(s))
			if err != nil {
				b.Fatal(err)
			}
			n = len(wire)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*crdtElems), "ns/elem")
		b.ReportMetric(float64(n)/crdtElems, "B/elem")
		b.ReportMetric(heap/crdtElems, "heap-B/elem")
	})
}

// crdtPlain is the set in a form that encoding/json takes.
func crdtPlain(s *crdtMapSet) map[string][]string {
	out := make(map[string][]string, len(s.elems))
	for e, dots := range s.elems {
		for d := range dots {
			out[e] = append(out[e], d.String())
		}
	}
	return out
}
