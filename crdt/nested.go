package crdt

import (
	"github.com/coterie-go/coterie/clock"
)

// Causal is what the values of an ORMap are: types of this package whose operations are dots, so that they can share
// the causal context of the map. They are ORSet, RWSet, EWFlag, DWFlag, MVRegister, CausalCounter and ORMap itself.
type Causal[V any] interface {
	Clone() V
	// fresh returns an empty value.
	fresh() V
	// void reports whether the value was never changed; then it has no memory for the rest but fresh and Clone.
	void() bool
	// holds reports whether a dot is live.
	holds(d clock.Dot) bool
	// adopt makes a dot live that is live in from; discard makes it live no more. Neither touches the context.
	adopt(d clock.Dot, from V)
	discard(d clock.Dot)
	// exchange sets the context and returns the one before: while a value lies in a map, it has none.
	exchange(seen clock.DotSet) clock.DotSet
	// appendDot appends the payload of a live dot; takeDot makes a dot live with such a payload.
	appendDot(b []byte, d clock.Dot) ([]byte, error)
	takeDot(d clock.Dot, p []byte) error
	// collect is Stable, and reports the dots that it took out.
	collect(frontier clock.Vector, gone func(clock.Dot)) int
}

// at returns the place of a live dot.
func (k *kernel[P]) at(d clock.Dot) (r ref, payload P, found bool) {
	l := k.findLane(d.Node)
	if l < 0 {
		return r, payload, false
	}
	r = ref{uint32(l), d.Seq}
	payload, found = k.get(r)
	return r, payload, found
}

func (k *kernel[P]) holds(d clock.Dot) bool {
	_, _, found := k.at(d)
	return found
}

func (k *kernel[P]) exchange(seen clock.DotSet) (before clock.DotSet) {
	before, k.seen = k.seen, seen
	return before
}

func (s *keyed[K, P]) adopt(d clock.Dot, from *kernel[P]) {
	if _, p, found := from.at(d); found {
		s.take(d, p)
	}
}

func (s *keyed[K, P]) take(d clock.Dot, p P) { s.added(s.insert(d, p), p) }

func (s *keyed[K, P]) discard(d clock.Dot) {
	if r, p, found := s.at(d); found {
		s.removed(r, p)
		s.remove(r)
	}
}

func (s ORSet[E]) fresh() ORSet[E] { return ORSet[E]{&orset[E]{}} }

func (s ORSet[E]) adopt(d clock.Dot, from ORSet[E]) { s.s.adopt(d, &from.s.kernel) }

func (s ORSet[E]) discard(d clock.Dot) { s.s.discard(d) }

func (s ORSet[E]) exchange(seen clock.DotSet) clock.DotSet { return s.s.exchange(seen) }

func (s ORSet[E]) appendDot(b []byte, d clock.Dot) ([]byte, error) {
	_, p, _ := s.s.at(d)
	return appendMember(b, p)
}

func (s ORSet[E]) takeDot(d clock.Dot, b []byte) error {
	p, err := readMember[E](b)
	if err == nil {
		s.s.take(d, p)
	}
	return err
}

func (s RWSet[E]) fresh() RWSet[E] { return RWSet[E]{&rwset[E]{}} }

func (s RWSet[E]) adopt(d clock.Dot, from RWSet[E]) { s.s.adopt(d, &from.s.kernel) }

func (s RWSet[E]) discard(d clock.Dot) { s.s.discard(d) }

func (s RWSet[E]) exchange(seen clock.DotSet) clock.DotSet { return s.s.exchange(seen) }

func (s RWSet[E]) appendDot(b []byte, d clock.Dot) ([]byte, error) {
	_, p, _ := s.s.at(d)
	return appendRWMember(b, p)
}

func (s RWSet[E]) takeDot(d clock.Dot, b []byte) error {
	p, err := readRWMember[E](b)
	if err == nil {
		s.s.take(d, p)
	}
	return err
}

func (s ORSet[E]) collect(clock.Vector, func(clock.Dot)) int { return 0 }

func (f EWFlag) fresh() EWFlag { return EWFlag{f.s.fresh()} }

func (f EWFlag) adopt(d clock.Dot, from EWFlag) { f.s.adopt(d, from.s) }

func (f EWFlag) discard(d clock.Dot) { f.s.discard(d) }

func (f EWFlag) exchange(seen clock.DotSet) clock.DotSet { return f.s.exchange(seen) }

func (f EWFlag) appendDot(b []byte, d clock.Dot) ([]byte, error) { return f.s.appendDot(b, d) }

func (f EWFlag) takeDot(d clock.Dot, b []byte) error { return f.s.takeDot(d, b) }

func (f EWFlag) collect(frontier clock.Vector, gone func(clock.Dot)) int {
	return f.s.collect(frontier, gone)
}

func (f DWFlag) fresh() DWFlag { return DWFlag{f.s.fresh()} }

func (f DWFlag) adopt(d clock.Dot, from DWFlag) { f.s.adopt(d, from.s) }

func (f DWFlag) discard(d clock.Dot) { f.s.discard(d) }

func (f DWFlag) exchange(seen clock.DotSet) clock.DotSet { return f.s.exchange(seen) }

func (f DWFlag) appendDot(b []byte, d clock.Dot) ([]byte, error) { return f.s.appendDot(b, d) }

func (f DWFlag) takeDot(d clock.Dot, b []byte) error { return f.s.takeDot(d, b) }

func (f DWFlag) collect(frontier clock.Vector, gone func(clock.Dot)) int {
	return f.s.collect(frontier, gone)
}

func (s MVRegister[T]) fresh() MVRegister[T] { return MVRegister[T]{&kernel[T]{}} }

func (s MVRegister[T]) adopt(d clock.Dot, from MVRegister[T]) {
	if _, v, found := from.s.at(d); found {
		s.s.insert(d, v)
	}
}

func (s MVRegister[T]) discard(d clock.Dot) {
	if r, _, found := s.s.at(d); found {
		s.s.remove(r)
	}
}

func (s MVRegister[T]) exchange(seen clock.DotSet) clock.DotSet { return s.s.exchange(seen) }

func (s MVRegister[T]) appendDot(b []byte, d clock.Dot) ([]byte, error) {
	_, v, _ := s.s.at(d)
	return appendElem(b, v)
}

func (s MVRegister[T]) takeDot(d clock.Dot, b []byte) error {
	v, err := readElem[T](b)
	if err == nil {
		s.s.insert(d, v)
	}
	return err
}

func (s MVRegister[T]) collect(clock.Vector, func(clock.Dot)) int { return 0 }

func (c CausalCounter) fresh() CausalCounter { return CausalCounter{c.s.fresh()} }

func (c CausalCounter) adopt(d clock.Dot, from CausalCounter) { c.s.adopt(d, from.s) }

func (c CausalCounter) discard(d clock.Dot) { c.s.discard(d) }

func (c CausalCounter) exchange(seen clock.DotSet) clock.DotSet { return c.s.exchange(seen) }

func (c CausalCounter) appendDot(b []byte, d clock.Dot) ([]byte, error) { return c.s.appendDot(b, d) }

func (c CausalCounter) takeDot(d clock.Dot, b []byte) error { return c.s.takeDot(d, b) }

func (c CausalCounter) collect(clock.Vector, func(clock.Dot)) int { return 0 }

func (s ORSet[E]) void() bool { return s.s == nil }

func (s ORSet[E]) holds(d clock.Dot) bool { return s.s.holds(d) }

func (s RWSet[E]) void() bool { return s.s == nil }

func (s RWSet[E]) holds(d clock.Dot) bool { return s.s.holds(d) }

func (s MVRegister[T]) void() bool { return s.s == nil }

func (s MVRegister[T]) holds(d clock.Dot) bool { return s.s.holds(d) }

func (c CausalCounter) void() bool { return c.s.s == nil }

func (c CausalCounter) holds(d clock.Dot) bool { return c.s.s.holds(d) }

func (f EWFlag) void() bool { return f.s.s == nil }

func (f EWFlag) holds(d clock.Dot) bool { return f.s.s.holds(d) }

func (f DWFlag) void() bool { return f.s.s == nil }

func (f DWFlag) holds(d clock.Dot) bool { return f.s.s.holds(d) }
