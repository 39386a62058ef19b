package crdt_test

import (
	"maps"
	"slices"
	"sort"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	. "github.com/coterie-go/coterie/crdt" //nolint:revive // the laws are of its types, and read better without the name
	"github.com/coterie-go/coterie/crdt/crdttest"
)

type (
	id    = coterie.NodeID
	event = crdttest.Event
)

func op[T any](name string, do func(s *T, by id, n int) T) crdttest.Op[T] {
	return crdttest.Op[T]{Name: name, Do: do}
}

// sorted returns a set's elements as the models do: sorted, never nil.
func sorted[E ~string](all func(func(E) bool)) []E {
	s := slices.Collect(all)
	slices.Sort(s)
	return append([]E{}, s...)
}

// alive returns the events that none about the same element has overwritten.
func alive(history []event, about func(op string) string) []event {
	return crdttest.Alive(history, func(by, victim event) bool { return about(by.Op) == about(victim.Op) })
}

// Operations of sets are named by a sign and the element: "+x", "-x".
func element(op string) string { return op[1:] }

func setOf(history []event, in func(live []event) bool) any {
	byElem := map[string][]event{}
	for _, e := range alive(history, element) {
		byElem[element(e.Op)] = append(byElem[element(e.Op)], e)
	}
	got := []string{}
	for e, live := range byElem {
		if in(live) {
			got = append(got, e)
		}
	}
	sort.Strings(got)
	return got
}

func anyAdd(live []event) bool {
	return slices.ContainsFunc(live, func(e event) bool { return e.Op[0] == '+' })
}

func noRemove(live []event) bool {
	return !slices.ContainsFunc(live, func(e event) bool { return e.Op[0] == '-' })
}

func TestLawsORSet(t *testing.T) {
	type set = ORSet[string]
	crdttest.Run(t, crdttest.Suite[set]{
		Ops: []crdttest.Op[set]{
			op("+x", func(s *set, by id, _ int) set { return s.Add(by, "x") }),
			op("-x", func(s *set, _ id, _ int) set { return s.Remove("x") }),
			op("+y", func(s *set, by id, _ int) set { return s.Add(by, "y") }),
			op("-y", func(s *set, _ id, _ int) set { return s.Remove("y") }),
		},
		Value: func(s set) any { return sorted(s.All()) },
		Model: func(h []event) any { return setOf(h, anyAdd) },
	})
}

func TestLawsRWSet(t *testing.T) {
	type set = RWSet[string]
	crdttest.Run(t, crdttest.Suite[set]{
		Ops: []crdttest.Op[set]{
			op("+x", func(s *set, by id, _ int) set { return s.Add(by, "x") }),
			op("-x", func(s *set, by id, _ int) set { return s.Remove(by, "x") }),
			op("+y", func(s *set, by id, _ int) set { return s.Add(by, "y") }),
		},
		Value: func(s set) any { return sorted(s.All()) },
		Model: func(h []event) any { return setOf(h, noRemove) },
	})
}

func TestLawsEWFlag(t *testing.T) {
	crdttest.Run(t, crdttest.Suite[EWFlag]{
		Ops: []crdttest.Op[EWFlag]{
			op("+", func(s *EWFlag, by id, _ int) EWFlag { return s.Enable(by) }),
			op("-", func(s *EWFlag, _ id, _ int) EWFlag { return s.Disable() }),
		},
		Value: func(s EWFlag) any { return s.Enabled() },
		Model: func(h []event) any { return anyAdd(alive(h, element)) },
	})
}

func TestLawsDWFlag(t *testing.T) {
	crdttest.Run(t, crdttest.Suite[DWFlag]{
		Ops: []crdttest.Op[DWFlag]{
			op("+", func(s *DWFlag, by id, _ int) DWFlag { return s.Enable(by) }),
			op("-", func(s *DWFlag, by id, _ int) DWFlag { return s.Disable(by) }),
		},
		Value: func(s DWFlag) any { return s.Enabled() },
		Model: func(h []event) any {
			live := alive(h, element)
			return len(live) > 0 && noRemove(live)
		},
	})
}

func TestLawsMVRegister(t *testing.T) {
	type reg = MVRegister[string]
	set := func(v string) crdttest.Op[reg] {
		return op("="+v, func(s *reg, by id, _ int) reg { return s.Set(by, v) })
	}
	crdttest.Run(t, crdttest.Suite[reg]{
		Ops: []crdttest.Op[reg]{
			set("x"),
			op("!", func(s *reg, _ id, _ int) reg { return s.Clear() }),
			set("y"), set("z"),
		},
		Value: func(s reg) any { return sorted(s.All()) },
		Model: func(h []event) any {
			got := []string{}
			for _, e := range alive(h, func(string) string { return "" }) {
				if e.Op[0] == '=' {
					got = append(got, e.Op[1:])
				}
			}
			sort.Strings(got)
			return got
		},
	})
}

func TestLawsGCounter(t *testing.T) {
	crdttest.Run(t, crdttest.Suite[GCounter]{
		Ops: []crdttest.Op[GCounter]{
			op("1", func(s *GCounter, by id, _ int) GCounter { return s.Inc(by, 1) }),
			op("2", func(s *GCounter, by id, _ int) GCounter { return s.Inc(by, 2) }),
		},
		Value: func(s GCounter) any { return s.Value() },
		Model: func(h []event) any {
			// A replica's count comprises its earlier ones, merged or not: the latest one counts.
			counts := map[id]uint64{}
			for _, e := range h {
				counts[e.By] = uint64(e.Op[0] - '0')
				for _, p := range e.Past {
					if p.By == e.By {
						counts[e.By] += uint64(p.Op[0] - '0')
					}
				}
			}
			var sum uint64
			for _, n := range counts {
				sum += n
			}
			return sum
		},
	})
}

func TestLawsPNCounter(t *testing.T) {
	crdttest.Run(t, crdttest.Suite[PNCounter]{
		Ops: []crdttest.Op[PNCounter]{
			op("+3", func(s *PNCounter, by id, _ int) PNCounter { return s.Add(by, 3) }),
			op("-2", func(s *PNCounter, by id, _ int) PNCounter { return s.Add(by, -2) }),
			op("-1", func(s *PNCounter, by id, _ int) PNCounter { return s.Dec(by, 1) }),
			op("+1", func(s *PNCounter, by id, _ int) PNCounter { return s.Inc(by, 1) }),
		},
		Value: func(s PNCounter) any { return s.Value() },
	})
}

func TestLawsCausalCounter(t *testing.T) {
	crdttest.Run(t, crdttest.Suite[CausalCounter]{
		Ops: []crdttest.Op[CausalCounter]{
			op("+1", func(s *CausalCounter, by id, _ int) CausalCounter { return s.Add(by, 1) }),
			op("!", func(s *CausalCounter, _ id, _ int) CausalCounter { return s.Reset() }),
			op("-5", func(s *CausalCounter, by id, _ int) CausalCounter { return s.Add(by, -5) }),
		},
		Value: func(s CausalCounter) any { return s.Value() },
	})
}

func TestLawsBoundedCounter(t *testing.T) {
	type c = BoundedCounter
	crdttest.Run(t, crdttest.Suite[c]{
		Ops: []crdttest.Op[c]{
			op("inc", func(s *c, by id, _ int) c { return s.Inc(by, 3) }),
			op("dec", func(s *c, by id, _ int) c { d, _ := s.Dec(by, 2); return d }),
			op("give", func(s *c, by id, _ int) c { d, _ := s.Transfer(by, "b", 1); return d }),
		},
		Value: func(s c) any { return []uint64{s.Value(), s.Rights("a"), s.Rights("b"), s.Rights("c")} },
	})
}

func TestLawsGSet(t *testing.T) {
	type set = GSet[string]
	crdttest.Run(t, crdttest.Suite[set]{
		Ops: []crdttest.Op[set]{
			op("+x", func(s *set, _ id, _ int) set { return s.Add("x") }),
			op("+y", func(s *set, _ id, _ int) set { return s.Add("y") }),
			op("+z", func(s *set, _ id, _ int) set { return s.Add("z") }),
		},
		Value: func(s set) any { return sorted(s.All()) },
		Model: func(h []event) any {
			got := []string{}
			for _, e := range h {
				got = append(got, element(e.Op))
			}
			sort.Strings(got)
			return append([]string{}, slices.Compact(got)...)
		},
	})
}

func TestLawsTwoPhaseSet(t *testing.T) {
	type set = TwoPhaseSet[string]
	crdttest.Run(t, crdttest.Suite[set]{
		Ops: []crdttest.Op[set]{
			op("+x", func(s *set, _ id, _ int) set { return s.Add("x") }),
			op("-x", func(s *set, _ id, _ int) set { return s.Remove("x") }),
			op("+y", func(s *set, _ id, _ int) set { return s.Add("y") }),
		},
		Value: func(s set) any { return sorted(s.All()) },
	})
}

func at(n int, by id) clock.Timestamp { return clock.Timestamp{Time: uint64(n%5 + 1), Node: by} }

func TestLawsLWWSet(t *testing.T) {
	type set = LWWSet[string]
	crdttest.Run(t, crdttest.Suite[set]{
		Ops: []crdttest.Op[set]{
			op("+x", func(s *set, by id, n int) set { return s.Add(at(n, by), "x") }),
			op("-x", func(s *set, by id, n int) set { return s.Remove(at(n, by), "x") }),
			op("+y", func(s *set, by id, n int) set { return s.Add(at(n, by), "y") }),
		},
		Value: func(s set) any { return sorted(s.All()) },
	})
}

func TestLawsLWWRegister(t *testing.T) {
	type reg = LWWRegister[string]
	set := func(v string) crdttest.Op[reg] {
		return op("="+v, func(s *reg, by id, n int) reg { return s.Set(clock.Timestamp{Time: uint64(n + 1), Node: by}, v) })
	}
	crdttest.Run(t, crdttest.Suite[reg]{
		Ops:   []crdttest.Op[reg]{set("x"), set("y"), set("z")},
		Value: func(s reg) any { v, _, _ := s.Get(); return v },
		Model: func(h []event) any { // by time
			if len(h) == 0 {
				return ""
			}
			return h[len(h)-1].Op[1:]
		},
	})
}

func TestLawsLWWMap(t *testing.T) {
	type m = LWWMap[string, int]
	crdttest.Run(t, crdttest.Suite[m]{
		Ops: []crdttest.Op[m]{
			op("=x", func(s *m, by id, n int) m { return s.Put(clock.Timestamp{Time: uint64(n + 1), Node: by}, "x", n) }),
			op("-x", func(s *m, by id, n int) m { return s.Delete(clock.Timestamp{Time: uint64(n + 1), Node: by}, "x") }),
			op("=y", func(s *m, by id, n int) m { return s.Put(clock.Timestamp{Time: uint64(n + 1), Node: by}, "y", n) }),
		},
		Value: func(s m) any {
			return maps.Collect(s.All())
		},
		Model: func(h []event) any {
			got := map[string]int{}
			for _, e := range h { // by time
				if e.Op[0] == '-' {
					delete(got, element(e.Op))
				} else {
					got[element(e.Op)] = e.N
				}
			}
			return got
		},
	})
}

// underKey tells whether one operation of a map overwrites another: of the same entry, or a removal of its whole key.
func underKey(by, victim event) bool {
	return by.Op[1:] == victim.Op[1:] || by.Op == "-"+victim.Op[1:2]
}

func TestLawsORMap(t *testing.T) {
	type m = ORMap[string, ORSet[string]]
	add := func(k, e string) crdttest.Op[m] {
		return op("+"+k+e, func(s *m, by id, _ int) m {
			return s.Update(k, func(v *ORSet[string]) ORSet[string] { return v.Add(by, e) })
		})
	}
	crdttest.Run(t, crdttest.Suite[m]{
		Ops: []crdttest.Op[m]{
			add("k", "x"),
			op("-k", func(s *m, _ id, _ int) m { return s.Remove("k") }),
			add("k", "y"),
			add("l", "x"),
			op("-kx", func(s *m, _ id, _ int) m {
				return s.Update("k", func(v *ORSet[string]) ORSet[string] { return v.Remove("x") })
			}),
		},
		Value: func(s m) any {
			got := map[string][]string{}
			for k, v := range s.All() {
				got[k] = sorted(v.All())
			}
			return got
		},
		Model: func(h []event) any {
			got := map[string][]string{}
			for _, e := range crdttest.Alive(h, underKey) {
				if k, v := e.Op[1:2], e.Op[2:]; e.Op[0] == '+' && !slices.Contains(got[k], v) {
					got[k] = append(got[k], v)
					sort.Strings(got[k])
				}
			}
			return got
		},
	})
}

// A map of maps of registers, of counters and of flags: every kind of value nests.
func TestLawsNestedORMap(t *testing.T) {
	type inner = ORMap[string, MVRegister[int]]
	type m = ORMap[string, inner]
	set := func(k, l string) crdttest.Op[m] {
		return op("="+k+l, func(s *m, by id, n int) m {
			return s.Update(k, func(v *inner) inner {
				return v.Update(l, func(r *MVRegister[int]) MVRegister[int] { return r.Set(by, n) })
			})
		})
	}
	crdttest.Run(t, crdttest.Suite[m]{
		Ops: []crdttest.Op[m]{
			set("k", "x"),
			op("-k", func(s *m, _ id, _ int) m { return s.Remove("k") }),
			op("-kx", func(s *m, _ id, _ int) m {
				return s.Update("k", func(v *inner) inner { return v.Remove("x") })
			}),
			set("k", "y"),
		},
		Value: func(s m) any {
			got := map[string][]int{}
			for k, v := range s.All() {
				for l, r := range v.All() {
					values := r.Values()
					slices.Sort(values)
					got[k+l] = values
				}
			}
			return got
		},
		Model: func(h []event) any {
			got := map[string][]int{}
			for _, e := range crdttest.Alive(h, underKey) {
				if e.Op[0] == '=' {
					got[e.Op[1:]] = append(got[e.Op[1:]], e.N)
				}
			}
			return got
		},
	})
}

func TestLawsList(t *testing.T) {
	type list = List[string]
	insert := func(v string, pos int) crdttest.Op[list] {
		return op("+"+v, func(s *list, by id, _ int) list { return s.Insert(by, pos, v) })
	}
	crdttest.Run(t, crdttest.Suite[list]{
		Ops: []crdttest.Op[list]{
			insert("x", 0), insert("y", 1), insert("z", 9),
			op("-", func(s *list, _ id, _ int) list { return s.Delete(0) }),
			op("-1", func(s *list, _ id, _ int) list { return s.Delete(1) }),
		},
		Value: func(s list) any { return s.Values() },
	})
}
