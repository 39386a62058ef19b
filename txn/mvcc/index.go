package mvcc

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// record is one key with its versions, newest first. Its fields after next are guarded by Store.mu.
type record struct {
	key  string
	head atomic.Pointer[version]
	next []atomic.Pointer[record] // the skip list's tower

	prepared *Tx          // a prepared transaction that will write it
	readers  []*footprint // of serializable transactions that read it and ended, while they matter
}

// version is a value as of a commit. It never changes but for next, which is cut when nobody can see what follows.
type version struct {
	time    uint64
	value   []byte
	deleted bool
	writer  *footprint // nil in a store of snapshot isolation
	next    atomic.Pointer[version]
}

// at returns the version that a snapshot sees, nil if there is none.
func (r *record) at(snapshot uint64) *version {
	for v := r.head.Load(); v != nil; v = v.next.Load() {
		if v.time <= snapshot {
			if v.deleted {
				return nil
			}
			return v
		}
	}
	return nil
}

// index finds records by key, and in order. Readers take no lock; changes are made under Store.mu.
type index struct {
	seed   maphash.Seed
	shards [shards]shard
	first  record // before all keys; its tower is the highest
	count  int
}

const (
	shards    = 256
	maxHeight = 16
)

// shard is a hash table of its own, so that growing one takes little time.
type shard struct {
	table atomic.Pointer[table]
	count int
}

type table struct{ buckets []atomic.Pointer[link] }

// link is one record in a bucket. It never changes.
type link struct {
	hash   uint64
	record *record
	next   *link
}

func (x *index) init() {
	x.seed = maphash.MakeSeed()
	for i := range x.shards {
		x.shards[i].table.Store(&table{make([]atomic.Pointer[link], 4)})
	}
	x.first.next = make([]atomic.Pointer[record], maxHeight)
}

func (t *table) bucket(hash uint64) *atomic.Pointer[link] {
	return &t.buckets[hash>>8&uint64(len(t.buckets)-1)]
}

// find returns a key's record, nil if there is none.
func (x *index) find(key string) *record {
	hash := maphash.String(x.seed, key)
	for l := x.shards[hash%shards].table.Load().bucket(hash).Load(); l != nil; l = l.next {
		if l.hash == hash && l.record.key == key {
			return l.record
		}
	}
	return nil
}

// insert returns a key's record, and makes it if there is none.
func (x *index) insert(key string) *record {
	if r := x.find(key); r != nil {
		return r
	}
	hash := maphash.String(x.seed, key)
	height := min(1+bits.TrailingZeros64(hash>>32|1<<40)/2, maxHeight) // a quarter of each level stands on the next
	r := &record{key: key, next: make([]atomic.Pointer[record], height)}
	before := x.before(key)
	for level := range height {
		r.next[level].Store(before[level].next[level].Load())
	}
	for level := range height { // the lowest first: what is on a level is on those below
		before[level].next[level].Store(r)
	}
	s := &x.shards[hash%shards]
	if s.count++; s.count > len(s.table.Load().buckets) {
		s.grow()
	}
	b := s.table.Load().bucket(hash)
	b.Store(&link{hash, r, b.Load()})
	x.count++
	return r
}

func (s *shard) grow() {
	old := s.table.Load()
	grown := &table{make([]atomic.Pointer[link], 2*len(old.buckets))}
	for i := range old.buckets {
		for l := old.buckets[i].Load(); l != nil; l = l.next {
			b := grown.bucket(l.hash)
			b.Store(&link{l.hash, l.record, b.Load()})
		}
	}
	s.table.Store(grown)
}

// remove takes a record out. Readers that stand on it go on from it.
func (x *index) remove(r *record) {
	hash := maphash.String(x.seed, r.key)
	s := &x.shards[hash%shards]
	b := s.table.Load().bucket(hash)
	var rest *link
	for l := b.Load(); l != nil; l = l.next {
		if l.record != r {
			rest = &link{l.hash, l.record, rest}
		}
	}
	b.Store(rest)
	s.count--
	x.count--
	before := x.before(r.key)
	for level := len(r.next) - 1; level >= 0; level-- {
		before[level].next[level].Store(r.next[level].Load())
	}
}

// before returns the last record below a key on each level.
func (x *index) before(key string) (last [maxHeight]*record) {
	at := &x.first
	for level := maxHeight - 1; level >= 0; level-- {
		for {
			next := at.next[level].Load()
			if next == nil || next.key >= key {
				break
			}
			at = next
		}
		last[level] = at
	}
	return last
}

// seek returns the first record at or above a key, nil if there is none.
func (x *index) seek(key string) *record {
	at := &x.first
	for level := maxHeight - 1; level >= 0; level-- {
		for {
			next := at.next[level].Load()
			if next == nil || next.key >= key {
				break
			}
			at = next
		}
	}
	return at.next[0].Load()
}
