package kv

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A snapshot is: format | the log's clock | sequence | oldest revision | its keys | number of later revisions, and of
// each its events | leases. A list is its length and its elements.
const snapshotFormat = 1

// Snapshot freezes the state and its history, in time that grows with the number of revisions and leases only.
func (s *Store) Snapshot() (func(io.Writer) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frozen := s.state
	frozen.history = slices.Clone(s.history)
	if s.bug == bugForgetfulSnapshot {
		frozen.sequence, frozen.history = 0, []revision{{root: s.root}}
	}
	var leases []byte
	leases = wire.AppendUvarint(leases, uint64(len(s.leases.byID)))
	for _, id := range slices.Sorted(maps.Keys(s.leases.byID)) {
		l := s.leases.byID[id]
		leases = wire.AppendVarint(wire.AppendUvarint(leases, id), int64(l.ttl))
		leases = wire.AppendVarint(leases, l.expires.UnixNano())
	}
	frozen.leases = newLeases() // those of s go on
	return func(w io.Writer) error { return frozen.write(w, leases) }, nil
}

func (s *state) write(w io.Writer, leases []byte) error {
	out := bufio.NewWriter(w)
	var b []byte
	flush := func() {
		_, _ = out.Write(b) // the first error stays until Flush
		b = b[:0]
	}
	b = append(b, snapshotFormat)
	b = wire.AppendVarint(b, nanos(s.now))
	b = wire.AppendUvarint(b, s.sequence)
	oldest := s.history[0]
	b = wire.AppendUvarint(b, oldest.number)
	b = wire.AppendUvarint(b, uint64(oldest.root.len()))
	for k := range oldest.root.all(Span{}, false) {
		b = appendKV(b, k)
		flush()
	}
	b = wire.AppendUvarint(b, uint64(len(s.history)-1))
	for _, r := range s.history[1:] {
		b = wire.AppendUvarint(b, uint64(len(r.events)))
		for i := range r.events {
			b = appendKV(b, &r.events[i].KV)
			flush()
		}
	}
	b = append(b, leases...)
	flush()
	return out.Flush()
}

// nanos is a time as it is stored; the zero time, at which no entry was, is 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Restore replaces the state by that of a snapshot. On an error nothing has changed.
func (s *Store) Restore(from io.Reader) error {
	b, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("kv: snapshot: %w", err)
	}
	restored, err := readState(b, s.priorities)
	if err != nil {
		return fmt.Errorf("kv: snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = *restored
	s.trim() // by the bounds of this Config
	s.waiting.tellAll()
	return nil
}

func readState(b []byte, p priorities) (*state, error) {
	r := wire.NewReader(b)
	if f := r.Byte(); r.Err() == nil && f > snapshotFormat {
		return nil, &coterie.FormatError{What: "kv snapshot", Got: f, Max: snapshotFormat}
	} else if f != snapshotFormat {
		r.Fail("format %d", f)
	}
	s := emptyState()
	if n := r.Varint(); n != 0 {
		s.now = time.Unix(0, n)
	}
	s.sequence, s.revision = r.Uvarint(), r.Uvarint()
	for range r.Count(minKV) {
		k := readKV(&r)
		k.Value = slices.Clone(k.Value) // not to pin the whole snapshot
		if k.Version == 0 {
			r.Fail("key without a version")
		}
		s.root = s.root.put(p, &k)
	}
	s.history = []revision{{number: s.revision, root: s.root}}
	for range r.Count(1) {
		s.readRevision(&r, p)
	}
	for range r.Count(3) {
		l := lease{id: r.Uvarint(), ttl: time.Duration(r.Varint()), expires: time.Unix(0, r.Varint()), keys: map[string]struct{}{}}
		if l.ttl <= 0 || s.leases.has(l.id) {
			r.Fail("lease %d of %v", l.id, l.ttl)
		}
		s.leases.add(&l)
	}
	if err := r.Done(); err != nil {
		return nil, err
	}
	for k := range s.root.all(Span{}, false) {
		s.bytes += k.size()
		if k.Lease != 0 && !s.leases.has(k.Lease) {
			return nil, fmt.Errorf("%w: key %q has lease %d, which is not there", wire.ErrMalformed, k.Key, k.Lease)
		}
		s.leases.move(move{key: k.Key, to: k.Lease})
	}
	return &s, nil
}

func (s *state) readRevision(r *wire.Reader, p priorities) {
	s.revision++
	next := revision{number: s.revision}
	for range r.Count(minKV) {
		e := Event{KV: readKV(r)}
		e.KV.Value = slices.Clone(e.KV.Value)
		if e.Deleted() {
			s.root = s.root.remove(e.KV.Key)
		} else {
			s.root = s.root.put(p, &e.KV)
		}
		next.events = append(next.events, e)
		next.bytes += e.KV.size()
	}
	next.root = s.root
	s.history = append(s.history, next)
	s.past += next.bytes
}
