package mvcc

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/txn"
)

// Tx is a transaction: it reads the state as of its begin and its own writes, and what it writes is seen by others all
// at once when it commits, or never. It is a txn.Participant for its own ID. A Tx is used by one goroutine at a time.
type Tx struct {
	store    *Store
	id       txn.ID // empty for one of this store alone
	snapshot uint64
	readOnly bool
	state    state

	writes  map[string]write
	reads   map[*record]struct{} // found, in a Serializable store
	ranges  []span               // scanned, or looked for and not found
	foot    *footprint           // since it was prepared
	promise *logged              // of its preparation

	before, after *Tx // of the active ones
}

var _ txn.Participant = (*Tx)(nil)

type state uint8

const (
	stateOpen state = iota
	statePrepared
	stateEnded
)

type write struct {
	value   []byte
	deleted bool
}

// span is a range of keys, both ends included; without an end if open.
type span struct {
	from, to string
	open     bool
}

func (s span) contains(key string) bool { return s.from <= key && (s.open || key <= s.to) }

// ID is the transaction's ID, empty for one that was begun by Begin, Update or View.
func (tx *Tx) ID() txn.ID { return tx.id }

// Snapshot is the time as of which the transaction reads.
func (tx *Tx) Snapshot() clock.Timestamp { return clock.Timestamp{Time: tx.snapshot} }

// Get returns a key's value, and whether there is one. Nobody may change it. After the end of the transaction there is
// none.
func (tx *Tx) Get(key string) ([]byte, bool) {
	if tx.state != stateOpen {
		return nil, false
	}
	if w, ok := tx.writes[key]; ok {
		return w.value, !w.deleted
	}
	r := tx.store.index.find(key)
	var v *version
	if r != nil {
		v = r.at(tx.snapshot)
	}
	if tx.store.cfg.Level == Serializable {
		if v == nil {
			tx.ranges = append(tx.ranges, span{from: key, to: key}) // the record may go, and another one come
		} else {
			if tx.reads == nil {
				tx.reads = make(map[*record]struct{})
			}
			tx.reads[r] = struct{}{}
		}
	}
	if v == nil {
		return nil, false
	}
	return v.value, true
}

// Put sets a key. The value is kept, and nobody may change it any more. The error is ErrReadOnly, ErrPrepared or ErrEnded.
func (tx *Tx) Put(key string, value []byte) error { return tx.write(key, write{value: value}) }

// Delete removes a key; one that is not there is no error. The error is ErrReadOnly, ErrPrepared or ErrEnded.
func (tx *Tx) Delete(key string) error { return tx.write(key, write{deleted: true}) }

func (tx *Tx) write(key string, w write) error {
	switch {
	case tx.readOnly:
		return ErrReadOnly
	case tx.state == statePrepared:
		return ErrPrepared
	case tx.state == stateEnded:
		return ErrEnded
	}
	if tx.writes == nil {
		tx.writes = make(map[string]write)
	}
	tx.writes[key] = w
	return nil
}

// Scan yields the keys from a key up to but without another, and their values, in order; an empty to is no end. It sees
// the transaction's own writes as of the call. After the end of the transaction there are none.
func (tx *Tx) Scan(from, to string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if tx.state != stateOpen || to != "" && to <= from {
			return
		}
		seen := span{from: from, to: to, open: to == ""}
		last, whole := tx.scan(from, to, yield)
		if tx.store.cfg.Level == Serializable {
			if !whole { // nothing behind the last key was looked at
				seen.to, seen.open = last, false
			}
			tx.ranges = append(tx.ranges, seen)
		}
	}
}

// scan merges the store's keys with the transaction's own. It tells the last key yielded, and whether it came to the end.
func (tx *Tx) scan(from, to string, yield func(string, []byte) bool) (last string, whole bool) {
	own := slices.Sorted(maps.Keys(tx.writes))
	i, _ := slices.BinarySearch(own, from)
	writes := maps.Clone(tx.writes)
	below := func(key string) bool { return to == "" || key < to }
	r := tx.store.index.seek(from)
	for {
		ofStore := r != nil && below(r.key)
		ofOwn := i < len(own) && below(own[i])
		switch {
		case !ofStore && !ofOwn:
			return last, true
		case ofOwn && (!ofStore || own[i] <= r.key):
			key := own[i]
			if ofStore && r.key == key {
				r = r.next[0].Load()
			}
			i++
			if w := writes[key]; !w.deleted {
				if last = key; !yield(key, w.value) {
					return last, false
				}
			}
		default:
			if v := r.at(tx.snapshot); v != nil {
				if last = r.key; !yield(r.key, v.value) {
					return last, false
				}
			}
			r = r.next[0].Load()
		}
	}
}

// Prepare promises, durably if the store is, that the transaction can be committed: no other one can make it fail any
// more. It votes ReadOnly, and ends, if it has written nothing, and No with ErrConflict if another was first. Others that
// want to write its keys get ErrConflict until it ends.
func (tx *Tx) Prepare(ctx context.Context, id txn.ID) (txn.Vote, error) {
	if err := tx.own(id); err != nil {
		return txn.No, err
	}
	return tx.store.Prepare(ctx, id)
}

// Commit makes the transaction's writes visible, prepared or not; id is its ID. The error is ErrConflict, ErrEnded, or
// the store's. If ctx ends while the journal is written the error is coterie.ErrUnknownOutcome too.
func (tx *Tx) Commit(ctx context.Context, id txn.ID) error {
	if err := tx.own(id); err != nil {
		return err
	}
	if tx.state == statePrepared {
		return tx.store.Commit(ctx, id)
	}
	return tx.store.commit(ctx, tx)
}

// Abort ends the transaction without effect; id is its ID. One that has ended stays as it is.
func (tx *Tx) Abort(ctx context.Context, id txn.ID) error {
	if err := tx.own(id); err != nil {
		return err
	}
	if tx.id != "" {
		return tx.store.Abort(ctx, id)
	}
	tx.drop()
	return nil
}

func (tx *Tx) own(id txn.ID) error {
	if id != tx.id {
		return fmt.Errorf("mvcc: transaction %q is not %q: %w", tx.id, id, txn.ErrUnknown)
	}
	return nil
}

// drop ends a transaction that is not prepared.
func (tx *Tx) drop() {
	tx.state = stateEnded
	tx.store.active.end(tx)
}
