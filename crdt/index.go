package crdt

// index finds the live dots of a key. Almost every key has one dot, several only after concurrent operations, so the
// others are kept aside. Few keys need no map: deltas are searched through their kernel instead, and a map is built
// when more than smallIndex dots are live.
type index[K comparable] struct {
	first map[K]ref
	more  map[K][]ref // beyond the first; nil until there are any
}

// smallIndex is how many live dots are searched one by one.
const smallIndex = 8

func (x *index[K]) add(key K, r ref) {
	if _, found := x.first[key]; !found {
		x.first[key] = r
		return
	}
	if x.more == nil {
		x.more = make(map[K][]ref)
	}
	x.more[key] = append(x.more[key], r)
}

func (x *index[K]) drop(key K, r ref) {
	rest := x.more[key]
	if x.first[key] == r {
		if len(rest) == 0 {
			delete(x.first, key)
			return
		}
		x.first[key] = rest[len(rest)-1]
		r = x.first[key]
	}
	for i := range rest {
		if rest[i] == r {
			rest[i] = rest[len(rest)-1]
			rest = rest[:len(rest)-1]
			break
		}
	}
	if len(rest) == 0 {
		delete(x.more, key)
	} else {
		x.more[key] = rest
	}
}

// appendRefs appends the dots of a key.
func (x *index[K]) appendRefs(refs []ref, key K) []ref {
	if r, found := x.first[key]; found {
		refs = append(refs, r)
		if x.more != nil {
			refs = append(refs, x.more[key]...)
		}
	}
	return refs
}

// keyed is a kernel whose payloads belong to keys: the common part of sets and maps.
type keyed[K comparable, P payload[K]] struct {
	kernel[P]
	index index[K]
	small int // live dots while there is no index.first
}

// payload tells its key. It is a method and no function value, which would cost each delta an allocation.
type payload[K comparable] interface{ key() K }

// member is the payload of a set's element, and of a map's key.
type member[E comparable] struct{ e E }

func (m member[E]) key() E { return m.e }

func (s *keyed[K, P]) added(r ref, payload P) {
	if s.index.first != nil {
		s.index.add(payload.key(), r)
		return
	}
	if s.small++; s.small > smallIndex {
		s.reindex()
	}
}

func (s *keyed[K, P]) removed(r ref, payload P) {
	if s.index.first != nil {
		s.index.drop(payload.key(), r)
		return
	}
	s.small--
}

// reindex builds the map, if there are enough live dots for one.
func (s *keyed[K, P]) reindex() {
	s.index = index[K]{}
	s.small = s.count()
	if s.small <= smallIndex {
		return
	}
	s.index.first = make(map[K]ref, s.small)
	for r, payload := range s.all() {
		s.index.add(payload.key(), r)
	}
}

// refs appends the live dots of a key.
func (s *keyed[K, P]) refs(refs []ref, key K) []ref {
	if s.index.first != nil {
		return s.index.appendRefs(refs, key)
	}
	for r, payload := range s.all() {
		if payload.key() == key {
			refs = append(refs, r)
		}
	}
	return refs
}

// join merges o and keeps the index.
func (s *keyed[K, P]) join(o *keyed[K, P]) { s.merge(&o.kernel, s.added, s.removed) }

// supersede takes out the live dots refs, and adds them to the context of a delta.
func (s *keyed[K, P]) supersede(refs []ref, delta *kernel[P]) {
	for _, r := range refs {
		payload, _ := s.get(r)
		delta.seen.Add(s.dot(r))
		s.removed(r, payload)
		s.remove(r)
	}
}

// keys is the number of different keys with a live dot.
func (s *keyed[K, P]) keys() int {
	if s.index.first != nil {
		return len(s.index.first)
	}
	n := 0
	for range s.allKeys() {
		n++
	}
	return n
}

// allKeys yields each key with a live dot once, in no particular order.
func (s *keyed[K, P]) allKeys() func(yield func(K) bool) {
	return func(yield func(K) bool) {
		if s.index.first != nil {
			for key := range s.index.first {
				if !yield(key) {
					return
				}
			}
			return
		}
		var known [smallIndex]K
		n := 0
	next:
		for _, payload := range s.all() {
			key := payload.key()
			for _, k := range known[:n] {
				if k == key {
					continue next
				}
			}
			known[n] = key
			n++
			if !yield(key) {
				return
			}
		}
	}
}
