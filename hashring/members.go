package hashring

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Errors of Add, Remove and SetWeight. They come wrapped: test with errors.Is. After an error nothing has changed.
var (
	// ErrDuplicate is returned by Add of a node that is there already, or one whose name another node has.
	ErrDuplicate = errors.New("hashring: node is there already")
	// ErrUnknown is returned for a node that is not there.
	ErrUnknown = errors.New("hashring: no such node")
	// ErrWeight is returned for a weight that is not a number within MinWeight and MaxWeight, or that a scheme
	// cannot give.
	ErrWeight = errors.New("hashring: weight out of range")
	// ErrCapacity is returned when a scheme has no place for more nodes.
	ErrCapacity = errors.New("hashring: no place for more nodes")
	// ErrNotLast is returned by Jump for the removal of a node that was not added last.
	ErrNotLast = errors.New("hashring: not the last node")
)

// The weights that a node may have; one that was never set is 1.
const (
	MinWeight = 0.001
	MaxWeight = 1000
)

// member is one node with what placement needs to know of it.
type member[N comparable] struct {
	node    N
	name    string
	hash    uint64 // of the name
	weight  float64
	domains []string // failure domains, outermost first
}

// before orders members by name hash, and by name where hashes collide: the order of insertion never counts.
func (m *member[N]) before(o *member[N]) int {
	return cmp.Or(cmp.Compare(m.hash, o.hash), cmp.Compare(m.name, o.name))
}

// naming turns nodes to names and back.
type naming[N comparable] struct {
	name    func(N) string
	parse   func(string) (N, error)
	domains func(N) []string
	hash    func(string) uint64
}

func (c Config[N]) naming() (naming[N], error) {
	n := naming[N]{name: c.Name, parse: c.Parse, domains: c.Domains, hash: c.hashName}
	if n.hash == nil {
		n.hash = xxhash.Sum64String
	}
	kind := reflect.TypeFor[N]().Kind()
	if n.name == nil {
		plain, isString := any(func(s string) string { return s }).(func(N) string)
		switch {
		case isString:
			n.name = plain // the others allocate
		case kind == reflect.String:
			n.name = func(node N) string { return reflect.ValueOf(node).String() }
		case reflect.TypeFor[N]().Implements(reflect.TypeFor[fmt.Stringer]()):
			n.name = func(node N) string { return any(node).(fmt.Stringer).String() }
		case kind >= reflect.Int && kind <= reflect.Int64:
			n.name = func(node N) string { return strconv.FormatInt(reflect.ValueOf(node).Int(), 10) }
		case kind >= reflect.Uint && kind <= reflect.Uintptr:
			n.name = func(node N) string { return strconv.FormatUint(reflect.ValueOf(node).Uint(), 10) }
		default:
			return n, fmt.Errorf("hashring: Config.Name is required for nodes of type %v", reflect.TypeFor[N]())
		}
	}
	if n.parse == nil && kind == reflect.String {
		n.parse = func(name string) (node N, err error) {
			reflect.ValueOf(&node).Elem().SetString(name)
			return node, nil
		}
	}
	return n, nil
}

func (n naming[N]) member(node N, weight float64) member[N] {
	m := member[N]{node: node, name: n.name(node), weight: weight}
	m.hash = n.hash(m.name)
	if n.domains != nil {
		m.domains = slices.Clone(n.domains(node))
	}
	return m
}

// set is the nodes of an order-free scheme, and the placement that is built of them and of nothing else. Readers load
// the placement, writers publish a new one.
type set[N comparable, P any] struct {
	naming naming[N]
	build  func(old *placed[N, P], members []member[N]) (*P, error) // old is nil the first time

	mu      sync.Mutex // guards members
	members []member[N]
	placed  atomic.Pointer[placed[N, P]]
}

// placed is one version.
type placed[N comparable, P any] struct {
	members []member[N] // sorted, never changed
	nodes   []N         // of members, in their order; one zero node if there are none
	place   *P
}

func (s *set[N, P]) init(n naming[N], nodes []N, build func(*placed[N, P], []member[N]) (*P, error)) error {
	s.naming, s.build = n, build
	if err := s.publish(nil); err != nil {
		return err
	}
	return s.Add(nodes...)
}

// publish builds and shows a new version; mu is held, or nobody else has the set yet.
func (s *set[N, P]) publish(members []member[N]) error {
	place, err := s.build(s.placed.Load(), members)
	if err != nil {
		return err
	}
	p := &placed[N, P]{members: members, nodes: make([]N, max(len(members), 1)), place: place}
	for i := range members {
		p.nodes[i] = members[i].node
	}
	s.members = members
	s.placed.Store(p)
	return nil
}

// Add adds nodes of weight 1, all or none: many at once cost little more than one. The error is ErrDuplicate or
// ErrCapacity.
func (s *set[N, P]) Add(nodes ...N) error {
	if len(nodes) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	members := make([]member[N], 0, len(s.members)+len(nodes))
	members = append(members, s.members...)
	for _, node := range nodes {
		members = append(members, s.naming.member(node, 1))
	}
	slices.SortFunc(members, func(a, b member[N]) int { return a.before(&b) })
	for i := 1; i < len(members); i++ {
		if members[i].before(&members[i-1]) == 0 {
			return fmt.Errorf("add %q: %w", members[i].name, ErrDuplicate)
		}
	}
	return s.publish(members)
}

// Remove takes nodes away, all or none. The error is ErrUnknown.
func (s *set[N, P]) Remove(nodes ...N) error {
	if len(nodes) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	members := slices.Clone(s.members)
	for _, node := range nodes {
		i, ok := s.find(members, node)
		if !ok {
			return fmt.Errorf("remove %q: %w", s.naming.name(node), ErrUnknown)
		}
		members = slices.Delete(members, i, i+1)
	}
	return s.publish(members)
}

// SetWeight gives a node a share of the keys in proportion to weight. The error is ErrUnknown or ErrWeight.
func (s *set[N, P]) SetWeight(node N, weight float64) error {
	if err := checkWeight(weight); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	members := slices.Clone(s.members)
	i, ok := s.find(members, node)
	if !ok {
		return fmt.Errorf("weight of %q: %w", s.naming.name(node), ErrUnknown)
	}
	members[i].weight = weight
	return s.publish(members)
}

func checkWeight(weight float64) error {
	if math.IsNaN(weight) || weight < MinWeight || weight > MaxWeight {
		return fmt.Errorf("weight %v is not within %v and %v: %w", weight, MinWeight, MaxWeight, ErrWeight)
	}
	return nil
}

func (s *set[N, P]) find(members []member[N], node N) (int, bool) {
	wanted := s.naming.member(node, 1)
	i, ok := slices.BinarySearchFunc(members, wanted, func(m, w member[N]) int { return m.before(&w) })
	return i, ok && members[i].node == node
}

// Nodes yields the nodes of one version, in an order that depends on their names alone.
func (s *set[N, P]) Nodes() iter.Seq[N] {
	p := s.placed.Load()
	return slices.Values(p.nodes[:len(p.members)])
}

// Len is the number of nodes.
func (s *set[N, P]) Len() int { return len(s.placed.Load().members) }

// Weight returns a node's weight, 0 if it is not there.
func (s *set[N, P]) Weight(node N) float64 {
	p := s.placed.Load()
	if i, ok := s.find(p.members, node); ok {
		return p.members[i].weight
	}
	return 0
}

// Domains returns a node's failure domains, outermost first.
func (s *set[N, P]) Domains(node N) []string {
	p := s.placed.Load()
	if i, ok := s.find(p.members, node); ok {
		return p.members[i].domains
	}
	return nil
}

// mix turns a counter or a sum into 64 well mixed bits (the finalizer of SplitMix64: Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
