package kv

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie/internal/wire"
)

// change is a revision in the making. It is thrown away if anything in it is refused.
type change struct {
	s        *Store
	number   uint64 // of the revision
	root     *node
	bytes    int64
	sequence uint64
	events   []Event
	moves    []move
}

// move is a key that goes from one lease to another; 0 is none.
type move struct {
	key      string
	from, to uint64
}

func (s *Store) begin() *change {
	return &change{s: s, number: s.revision + 1, root: s.root, bytes: s.bytes, sequence: s.sequence}
}

// commit makes the change the newest revision, if it changed anything.
func (c *change) commit() {
	s := c.s
	if len(c.events) == 0 {
		return
	}
	s.root, s.bytes, s.sequence, s.revision = c.root, c.bytes, c.sequence, c.number
	r := revision{number: c.number, root: c.root, events: c.events}
	for i := range c.events {
		r.bytes += c.events[i].KV.size()
	}
	s.history = append(s.history, r)
	s.past += r.bytes
	for _, m := range c.moves {
		s.leases.move(m)
	}
	s.trim()
	s.waiting.tell(c.events)
}

func (c *change) put(key string, value []byte, lease uint64) {
	k := &KV{Key: key, Value: bytes.Clone(value), Create: c.number, Mod: c.number, Version: 1, Lease: lease}
	var from uint64
	if old := c.root.get(key); old != nil {
		k.Create, k.Version = old.Create, old.Version+1
		from = old.Lease
		c.bytes -= old.size()
	}
	c.bytes += k.size()
	c.root = c.root.put(c.s.priorities, k)
	c.events = append(c.events, Event{KV: *k})
	c.moved(key, from, lease)
}

func (c *change) delete(k *KV) {
	c.root = c.root.remove(k.Key)
	c.bytes -= k.size()
	c.events = append(c.events, Event{KV: KV{Key: k.Key, Mod: c.number}})
	c.moved(k.Key, k.Lease, 0)
}

func (c *change) moved(key string, from, to uint64) {
	if from != to {
		c.moves = append(c.moves, move{key, from, to})
	}
}

// transact executes a Txn.
func (s *Store) transact(t *Txn) ([]byte, error) {
	c := s.begin()
	res := TxnResult{Succeeded: true}
	for i := range t.If {
		if !t.If[i].holds(s.root) {
			res.Succeeded = false
			break
		}
	}
	acts := t.Then
	if !res.Succeeded {
		acts = t.Else
	}
	budget := maxAnswer
	for _, a := range acts {
		r, err := c.act(a, &budget)
		if err != nil {
			return nil, err
		}
		res.Results = append(res.Results, r)
	}
	if c.bytes > s.cfg.MaxBytes && c.bytes > s.bytes {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrFull, c.bytes, s.cfg.MaxBytes)
	}
	if s.cfg.Validate != nil && len(c.events) > 0 {
		if err := s.cfg.Validate(s.view(), View{c.number, c.root}, c.events); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	c.commit()
	return appendTxnResult(answer(s.revision), &res), nil
}

// act does one Op; budget is how many bytes of KVs the answer may still have.
func (c *change) act(o Op, budget *int) (res Result, err error) {
	switch o := o.(type) {
	case Put:
		res.Key = o.Key
		if o.Lease != 0 && !c.s.leases.has(o.Lease) {
			return res, fmt.Errorf("%w: %d", ErrNoLease, o.Lease)
		}
		if o.Sequential {
			c.sequence++
			res.Key = sequential(o.Key, c.sequence)
		}
		c.put(res.Key, o.Value, o.Lease)
	case Delete:
		for k := range c.root.all(o.Span, false) { // of the tree as it is now, which stays
			c.delete(k)
			res.Count++
		}
	case Get:
		v := View{c.number, c.root}
		if o.Revision != 0 {
			if v, err = c.s.at(o.Revision); err != nil {
				return res, err
			}
		}
		res = v.read(&o, budget)
	case Rollback:
		v, err := c.s.at(o.Revision)
		if err != nil {
			return res, err
		}
		res.Count = c.rollback(o.Span, v.root)
	}
	return res, nil
}

// rollback makes the keys of a span what they were.
func (c *change) rollback(s Span, was *node) (changed int) {
	for k := range c.root.all(s, false) {
		if was.get(k.Key) == nil {
			c.delete(k)
			changed++
		}
	}
	for k := range was.all(s, false) {
		is := c.root.get(k.Key)
		if is != nil && bytes.Equal(is.Value, k.Value) && is.Lease == k.Lease {
			continue
		}
		switch {
		case k.Lease == 0 || c.s.leases.has(k.Lease):
			c.put(k.Key, k.Value, k.Lease)
		case is != nil: // it would be gone with its lease by now
			c.delete(is)
		default:
			continue
		}
		changed++
	}
	return changed
}

// read answers a Get from a state.
func (v View) read(g *Get, budget *int) (res Result) {
	res.Count = v.root.count(g.Span)
	if g.CountOnly {
		return res
	}
	for k := range v.root.all(g.Span, g.Descending) {
		kv := *k
		if g.KeysOnly {
			kv.Value = nil
		}
		*budget -= len(kv.Key) + len(kv.Value) + 32
		// One KV fits always, so that a reader who goes on from the last key gets on.
		if g.Limit > 0 && len(res.KVs) == g.Limit || *budget < 0 && len(res.KVs) > 0 {
			res.More = true
			break
		}
		res.KVs = append(res.KVs, kv)
	}
	return res
}

// holds reports whether the condition holds.
func (c *Compare) holds(root *node) bool {
	var k KV
	if c.Field != FieldCount {
		if found := root.get(c.Key); found != nil {
			k = *found
		}
	}
	var order int
	switch c.Field {
	case FieldValue:
		if k.Version == 0 {
			return c.Is == NotEqual // there is no value to compare
		}
		order = bytes.Compare(k.Value, c.Bytes)
	case FieldCount:
		order = cmp.Compare(uint64(root.count(c.Span)), c.Number)
	default:
		order = cmp.Compare(k.field(c.Field), c.Number)
	}
	switch c.Is {
	case Equal:
		return order == 0
	case NotEqual:
		return order != 0
	case Less:
		return order < 0
	case Greater:
		return order > 0
	}
	return false
}

func (k *KV) field(f Field) uint64 {
	switch f {
	case FieldCreate:
		return k.Create
	case FieldMod:
		return k.Mod
	case FieldVersion:
		return k.Version
	case FieldLease:
		return k.Lease
	case FieldValue, FieldCount: // are no numbers of a key
	}
	return 0
}

// trim forgets the oldest revisions beyond the bounds.
func (s *Store) trim() {
	first := s.oldest()
	past := s.past
	for i := 1; s.revision-first > uint64(s.cfg.HistorySize) || past > s.cfg.HistoryBytes && first < s.revision; i++ {
		first++
		past -= s.history[i].bytes
	}
	if first > s.oldest() {
		s.compact(first)
	}
}

// compact forgets all revisions before one, which is in the history.
func (s *Store) compact(first uint64) {
	gone := int(first - s.oldest())
	for i := range gone {
		s.past -= s.history[i].bytes
		s.history[i] = revision{} // append copies what is left sooner or later, but till then nothing may be pinned
	}
	s.history = s.history[gone:]
	oldest := &s.history[0]
	s.past -= oldest.bytes
	oldest.events, oldest.bytes = nil, 0
}

// appendWatch answers a watch: the events of the span from a revision on, whole revisions only, and the revision to go
// on from. It reports whether there are any.
func (s *state) appendWatch(b []byte, span Span, from uint64) (_ []byte, some bool, err error) {
	if from == 0 {
		from = s.revision + 1
	}
	if from <= s.oldest() {
		return nil, false, &CompactedError{Asked: from, Oldest: s.oldest()}
	}
	var events []Event
	next, size := from, 0
	for ; next <= s.revision && size < maxAnswer; next++ {
		for _, e := range s.history[next-s.oldest()].events {
			if span.Contains(e.KV.Key) {
				events = append(events, e)
				size += len(e.KV.Key) + len(e.KV.Value) + 32
			}
		}
	}
	b = wire.AppendUvarint(b, next)
	b = wire.AppendUvarint(b, uint64(len(events)))
	for i := range events {
		b = appendKV(b, &events[i].KV)
	}
	return b, len(events) > 0, nil
}

func readWatch(r *wire.Reader) (events []Event, next uint64, err error) {
	next = r.Uvarint()
	n := r.Count(minKV)
	for range n {
		events = append(events, Event{KV: readKV(r)})
	}
	return events, next, wrong(r.Done())
}

// ahead answers a Turn: whether the key is there and, if it is not its turn yet, the keys of which one must go first.
func (s *state) ahead(t *Turn) (there bool, blockers []string) {
	if s.root.get(t.Key) == nil {
		return false, nil
	}
	n := 0
	for _, span := range t.Spans {
		n += s.root.count(span)
	}
	below := max(t.Below, 1)
	if n < below {
		return true, nil
	}
	// As long as any Below of those ahead are there, it is not its turn. The last ones are shared with the fewest.
	for _, span := range slices.Backward(t.Spans) {
		for k := range s.root.all(span, true) {
			if len(blockers) == below {
				return true, blockers
			}
			blockers = append(blockers, k.Key)
		}
	}
	return true, blockers
}
