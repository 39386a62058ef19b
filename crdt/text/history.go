package text

import (
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// History makes edits of one replica that can be undone and redone, its own and nobody else's: undoing an insertion
// deletes those of its characters that are still there, undoing a deletion inserts the text again where it was. To the
// other replicas both are edits as any other. Edits join a group, which is undone as one, until Commit ends it.
//
// It keeps the last MaxGroups groups. It is not safe for concurrent use, as its Text is not.
type History struct {
	MaxGroups int // default 1000

	text       *Text
	id         coterie.NodeID
	undo, redo [][]change
	open       bool // the last group of undo takes further changes
}

// change is one edit: the characters it inserted, or the text that it deleted and the place where that was.
type change struct {
	inserted []span
	deleted  string
	at       Anchor
}

// NewHistory returns a History of edits at replica id. Only that replica itself may use its id.
func NewHistory(t *Text, id coterie.NodeID) *History { return &History{text: t, id: id} }

// Insert is Text.Insert.
func (h *History) Insert(pos int, s string) (Delta, error) {
	d, err := h.text.Insert(h.id, pos, s)
	if err == nil && !d.IsEmpty() {
		h.record(insertionOf(&d))
	}
	return d, err
}

// Delete is Text.Delete.
func (h *History) Delete(pos, n int) (Delta, error) {
	gone := h.text.Slice(pos, n)
	at := h.text.Anchor(pos, true)
	d, err := h.text.Delete(h.id, pos, n)
	if err == nil && !d.IsEmpty() {
		h.record(change{deleted: gone, at: at})
	}
	return d, err
}

func insertionOf(d *Delta) change {
	return change{inserted: []span{{d.op.id, d.op.seq, d.op.n}}}
}

// record adds an edit to the open group; what was undone cannot be redone any more.
func (h *History) record(c change) {
	h.redo = nil
	if !h.open {
		h.undo = append(h.undo, nil)
		h.open = true
	}
	last := &h.undo[len(h.undo)-1]
	*last = append(*last, c)
	limit := h.MaxGroups
	if limit <= 0 {
		limit = 1000
	}
	if len(h.undo) > limit {
		h.undo = slices.Delete(h.undo, 0, len(h.undo)-limit)
	}
}

// Commit ends the group of edits: what follows is undone apart from it.
func (h *History) Commit() { h.open = false }

// Undo takes the last group back and returns the delta; ok is false if there is none.
func (h *History) Undo() (d Delta, ok bool, err error) { return h.revert(&h.undo, &h.redo) }

// Redo does again what was undone last and returns the delta; ok is false if there is none.
func (h *History) Redo() (d Delta, ok bool, err error) { return h.revert(&h.redo, &h.undo) }

// revert takes the last group of one stack back, last edit first, and puts what takes that back on the other.
func (h *History) revert(from, to *[][]change) (d Delta, ok bool, err error) {
	if len(*from) == 0 {
		return d, false, nil
	}
	h.open = false
	group := (*from)[len(*from)-1]
	*from = (*from)[:len(*from)-1]
	var back []change
	for _, c := range slices.Backward(group) {
		done, inverse, err := h.invert(c)
		d = d.Join(done)
		back = append(back, inverse...)
		if err != nil {
			return d, true, err
		}
	}
	*to = append(*to, back)
	return d, true, nil
}

// invert makes the opposite of an edit, and returns what takes that back in its turn.
func (h *History) invert(c change) (d Delta, back []change, err error) {
	if c.deleted != "" {
		pos, err := h.text.Position(c.at)
		if err != nil { // its place was collected: nothing of it can be told
			return d, nil, nil //nolint:nilerr // an undo of long ago has lost its place, which is no fault
		}
		d, err := h.text.Insert(h.id, pos, c.deleted)
		if err != nil {
			return d, nil, err
		}
		return d, []change{insertionOf(&d)}, nil
	}
	for _, s := range c.inserted {
		for i := s.n; i > 0; i-- { // from the end, so that runs of what is left go as one
			pos, visible := h.text.visiblePosition(s.id, s.seq+i-1)
			if !visible {
				continue
			}
			n := 1
			for i > 1 {
				if before, visible := h.text.visiblePosition(s.id, s.seq+i-2); !visible || before != pos-1 {
					break
				}
				pos, n, i = pos-1, n+1, i-1
			}
			inverse := change{deleted: h.text.Slice(pos, n), at: h.text.Anchor(pos, true)}
			del, err := h.text.Delete(h.id, pos, n)
			if err != nil {
				return d, back, err
			}
			d = d.Join(del)
			back = append(back, inverse)
		}
	}
	return d, back, nil
}

// visiblePosition returns where a character is, if it is not deleted.
func (t *Text) visiblePosition(id coterie.NodeID, seq uint32) (pos int, visible bool) {
	h := t.known(id)
	at, _ := t.lookup(charID{h, seq})
	if at == 0 || t.blocks[at].dead {
		return 0, false
	}
	pos, err := t.Position(Anchor{Char: clock.Dot{Node: id, Seq: uint64(seq)}, Before: true})
	return pos, err == nil
}
