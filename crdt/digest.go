package crdt

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// A digest says what a causal state comprises, in much less space: the causal context, and for each range of numbers of
// a replica a hash of the dots live in it. The context alone tells which events another state lacks, but not which of
// those it knows have been overwritten or removed since, for these leave nothing behind; the hashes tell where to look.

// digestRange is how many numbers of a replica share a hash.
const digestRange = 256

// mix spreads a number over 64 bits (the finalizer of SplitMix64), so that sums of them tell sets apart. It is no
// defence against a peer that lies.
func mix(n uint64) uint64 {
	n ^= n >> 30
	n *= 0xbf58476d1ce4e5b9
	n ^= n >> 27
	n *= 0x94d049bb133111eb
	return n ^ n>>31
}

// hash returns the hash of the dots live in a range.
func (l *lane[P]) hash(index uint64) (h uint64) {
	for at, _ := l.find(index * digestRange); at.chunk < len(l.chunks); at = l.next(at) {
		seq := l.chunks[at.chunk][at.i].seq
		if seq/digestRange != index {
			break
		}
		h += mix(seq)
	}
	return h
}

// appendDigest appends the digest of a kernel.
func (k *kernel[P]) appendDigest(b []byte) ([]byte, error) {
	b, err := appendSized(append(b, format), k.seen.AppendBinary)
	if err != nil {
		return b, err
	}
	lanes := k.lanes()
	for _, l := range lanes {
		b = l.appendHashes(b)
	}
	return b, nil
}

// appendHashes appends the replica's id and the hash of each range with live dots.
func (l *lane[P]) appendHashes(b []byte) []byte {
	type ranged struct{ index, hash uint64 }
	var hashes []ranged
	for _, chunk := range l.chunks {
		for i := range chunk {
			index := chunk[i].seq / digestRange
			if n := len(hashes); n == 0 || hashes[n-1].index != index {
				hashes = append(hashes, ranged{index: index})
			}
			hashes[len(hashes)-1].hash += mix(chunk[i].seq)
		}
	}
	b = wire.AppendUvarint(wire.AppendString(b, l.id), uint64(len(hashes)))
	last := uint64(0)
	for _, h := range hashes {
		b = wire.AppendUint64(wire.AppendUvarint(b, h.index-last), h.hash)
		last = h.index
	}
	return b
}

// diff returns what a state with the given digest lacks: dots it has not seen, and of those it may still have live the
// ones that are so no more here.
func (k *kernel[P]) diff(digest []byte) (d kernel[P], err error) {
	r := wire.NewReader(digest)
	if got := r.Byte(); r.Err() == nil && got != format {
		return d, &coterie.FormatError{What: "crdt digest", Got: got, Max: format}
	}
	var theirs clock.DotSet
	if p := r.Bytes(); r.Err() == nil {
		if err := theirs.UnmarshalBinary(p); err != nil {
			return d, err
		}
	}
	for r.Len() > 0 {
		id := coterie.NodeID(r.String())
		index := uint64(0)
		for range r.Count(9) {
			gap, hash := r.Uvarint(), r.Uint64()
			index += gap
			if r.Err() != nil || gap > clock.MaxTime || index > clock.MaxTime/digestRange {
				r.Fail("range %d of %q", index, id)
				return d, decoded(kindORSet, r.Err())
			}
			k.overwritten(id, index, hash, &theirs, &d.seen)
		}
	}
	if err := r.Done(); err != nil {
		return kernel[P]{}, err
	}
	news := k.seen.Clone()
	news.Subtract(theirs)
	d.seen.Merge(news)
	for r, p := range k.all() {
		if dot := k.dot(r); !theirs.Contains(dot) {
			d.insert(dot, p)
		}
	}
	return d, nil
}

// overwritten adds to gone the dots of a range that both know and that are not live here, if the hashes differ.
func (k *kernel[P]) overwritten(id coterie.NodeID, index, hash uint64, theirs, gone *clock.DotSet) {
	l := k.findLane(id)
	if (l < 0 && hash == 0) || (l >= 0 && k.live[l].hash(index) == hash) {
		return
	}
	first, last := max(index*digestRange, 1), index*digestRange+digestRange-1
	for seq := first; seq <= last; seq++ {
		dot := clock.Dot{Node: id, Seq: seq}
		if k.seen.Contains(dot) && theirs.Contains(dot) && !k.holds(dot) {
			gone.Add(dot)
		}
	}
}

// AppendDigest appends a digest of s, for another replica's Diff.
func (s ORSet[E]) AppendDigest(b []byte) ([]byte, error) { return s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of s: only what differs, or little more.
func (s ORSet[E]) Diff(digest []byte) (delta ORSet[E], err error) {
	k, err := s.kernel().diff(digest)
	if err != nil {
		return delta, err
	}
	delta.init().kernel = k
	delta.s.reindex()
	return delta, nil
}

// AppendDigest appends a digest of s, for another replica's Diff.
func (s RWSet[E]) AppendDigest(b []byte) ([]byte, error) { return s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of s: only what differs, or little more.
func (s RWSet[E]) Diff(digest []byte) (delta RWSet[E], err error) {
	k, err := s.kernel().diff(digest)
	if err != nil {
		return delta, err
	}
	delta.init().kernel = k
	delta.s.reindex()
	return delta, nil
}

// AppendDigest appends a digest of f, for another replica's Diff.
func (f EWFlag) AppendDigest(b []byte) ([]byte, error) { return f.s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of f: only what differs, or little more.
func (f EWFlag) Diff(digest []byte) (delta EWFlag, err error) {
	delta.s, err = f.s.Diff(digest)
	return delta, err
}

// AppendDigest appends a digest of f, for another replica's Diff.
func (f DWFlag) AppendDigest(b []byte) ([]byte, error) { return f.s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of f: only what differs, or little more.
func (f DWFlag) Diff(digest []byte) (delta DWFlag, err error) {
	delta.s, err = f.s.Diff(digest)
	return delta, err
}

// AppendDigest appends a digest of s, for another replica's Diff.
func (s MVRegister[T]) AppendDigest(b []byte) ([]byte, error) { return s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of s: only what differs, or little more.
func (s MVRegister[T]) Diff(digest []byte) (delta MVRegister[T], err error) {
	k, err := s.kernel().diff(digest)
	if err != nil {
		return delta, err
	}
	*delta.init() = k
	return delta, nil
}

func (s MVRegister[T]) kernel() *kernel[T] {
	if s.s == nil {
		return &kernel[T]{}
	}
	return s.s
}

// AppendDigest appends a digest of c, for another replica's Diff.
func (c CausalCounter) AppendDigest(b []byte) ([]byte, error) { return c.s.kernel().appendDigest(b) }

// Diff returns the delta that a state with the given digest lacks of c: only what differs, or little more.
func (c CausalCounter) Diff(digest []byte) (delta CausalCounter, err error) {
	delta.s, err = c.s.Diff(digest)
	return delta, err
}

// AppendDigest appends a digest of m, for another replica's Diff.
func (m ORMap[K, V]) AppendDigest(b []byte) ([]byte, error) {
	return m.fresh().or(m).s.appendDigest(b)
}

// Diff returns the delta that a state with the given digest lacks of m: only what differs, or little more.
func (m ORMap[K, V]) Diff(digest []byte) (delta ORMap[K, V], err error) {
	m = m.fresh().or(m)
	k, err := m.s.diff(digest)
	if err != nil {
		return delta, err
	}
	d := delta.init()
	d.seen = k.seen
	for r, p := range k.all() {
		dot := k.dot(r)
		delta.value(p.e).adopt(dot, m.s.values[p.e])
		d.take(dot, p)
	}
	return delta, nil
}

// or returns o if it has memory, else m.
func (m ORMap[K, V]) or(o ORMap[K, V]) ORMap[K, V] {
	if o.s != nil {
		return o
	}
	return m
}
