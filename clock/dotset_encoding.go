package clock

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// AppendBinary appends the encoding of s: a format byte, the number of nodes, and for each, in the order of ids, the
// id, the contiguous part's end, the number of further runs, and for each the gap before it less 1 and its length less
// 1, numbers as varints. It never fails. Equal sets have equal encodings.
func (s DotSet) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, format)
	b = wire.AppendUvarint(b, uint64(len(s.nodes)))
	for i := range s.nodes {
		d := &s.nodes[i]
		b = wire.AppendString(b, d.id)
		b = wire.AppendUvarint(b, d.upto)
		b = wire.AppendUvarint(b, uint64(len(d.runs)))
		end := d.upto
		for _, r := range d.runs {
			b = wire.AppendUvarint(b, r.from-end-2)
			b = wire.AppendUvarint(b, r.to-r.from)
			end = r.to
		}
	}
	return b, nil
}

// MarshalBinary returns the encoding of s; see AppendBinary.
func (s DotSet) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from its encoding. Malformed bytes give an error and leave s as it was: ids out of order or
// repeated, a node without events, numbers of MaxTime and more. A newer format gives a *coterie.FormatError.
func (s *DotSet) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "dot set"); err != nil {
		return err
	}
	count := r.Count(3)
	nodes := make([]dots, 0, min(count, 1024)) // 48 bytes each: a count that is a lie costs little
	for range count {
		d := dots{id: coterie.NodeID(r.String()), upto: r.Uvarint()}
		if r.Err() == nil && len(nodes) > 0 && d.id <= nodes[len(nodes)-1].id {
			r.Fail("id %q after %q", d.id, nodes[len(nodes)-1].id)
		}
		d.runs = readRuns(&r, d.upto)
		if r.Err() == nil && d.last() == 0 {
			r.Fail("no event of %q", d.id)
		}
		if r.Err() != nil {
			break
		}
		nodes = append(nodes, d)
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("clock: dot set: %w", err)
	}
	s.nodes = nodes
	return nil
}

// readRuns takes the runs beyond upto.
func readRuns(r *wire.Reader, upto uint64) (runs []run) {
	if upto >= MaxTime {
		r.Fail("event %d", upto)
	}
	n := r.Count(2)
	if n > 0 {
		runs = make([]run, 0, n)
	}
	end := upto
	for range n {
		gap, length := r.Uvarint(), r.Uvarint()
		// Each below 2^62, the sums do not overflow.
		if gap > math.MaxInt64/2 || length > math.MaxInt64/2 || end+gap+length+2 >= MaxTime {
			r.Fail("run of %d after a gap of %d at %d", length, gap, end)
		}
		if r.Err() != nil {
			return nil
		}
		from := end + gap + 2
		end = from + length
		runs = append(runs, run{from, end})
	}
	return runs
}

// MarshalJSON returns an object of node ids and runs, {"a":[[1,5],[7,7]]}.
func (s DotSet) MarshalJSON() ([]byte, error) {
	m := make(map[coterie.NodeID][][2]uint64, len(s.nodes))
	for first, last := range s.Runs() {
		m[first.Node] = append(m[first.Node], [2]uint64{first.Seq, last})
	}
	return json.Marshal(m)
}

// UnmarshalJSON sets s from an object of node ids and runs, in any order. An error leaves s as it was.
func (s *DotSet) UnmarshalJSON(b []byte) error {
	var m map[coterie.NodeID][][2]uint64
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("clock: dot set: %w", err)
	}
	var read DotSet
	for id, runs := range m {
		slices.SortFunc(runs, func(a, b [2]uint64) int {
			return Dot{Seq: a[0]}.Compare(Dot{Seq: b[0]})
		})
		for _, r := range runs {
			if r[0] == 0 || r[0] > r[1] || r[1] >= MaxTime {
				return fmt.Errorf("clock: dot set: %w: run %d of %q", wire.ErrMalformed, r, id)
			}
			read.AddRun(Dot{id, r[0]}, r[1])
		}
	}
	*s = read
	return nil
}
