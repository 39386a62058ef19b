package twophase

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/txn"
)

// recordKind says what a record of the journal is.
type recordKind byte

const (
	recordCheckpoint recordKind = iota + 1 // all that is open: replaces what came before
	recordCommit                           // coordinator: committed, to be told to the members
	recordEnd                              // coordinator: all of them know
	recordPrepared                         // participant: voted yes
	recordRefused                          // participant: will never vote yes
	recordFinished                         // participant: committed or aborted
)

// openTxn is a transaction in a record: its ID and the nodes that take part.
type openTxn struct {
	id      txn.ID
	members []coterie.NodeID
}

// record is any record; which fields count depends on the kind.
type record struct {
	kind recordKind
	openTxn

	// Of a checkpoint.
	node      coterie.NodeID // whose journal this is
	epoch     uint64
	committed []openTxn // as coordinator
	prepared  []openTxn // as participant
	refused   []txn.ID
}

func (rec *record) encode() []byte {
	b := []byte{format, byte(rec.kind)}
	switch rec.kind {
	case recordCheckpoint:
		b = wire.AppendString(b, rec.node)
		b = wire.AppendUvarint(b, rec.epoch)
		b = appendOpen(b, rec.committed)
		b = appendOpen(b, rec.prepared)
		b = wire.AppendUvarint(b, uint64(len(rec.refused)))
		for _, id := range rec.refused {
			b = wire.AppendString(b, id)
		}
	case recordCommit, recordPrepared:
		b = wire.AppendString(b, rec.id)
		b = appendNodes(b, rec.members)
	case recordEnd, recordRefused, recordFinished:
		b = wire.AppendString(b, rec.id)
	}
	return b
}

func decodeRecord(p []byte) (rec record, err error) {
	r := wire.NewReader(p)
	if f := r.Byte(); f > format {
		return rec, &coterie.FormatError{What: "twophase record", Got: f, Max: format}
	} else if f < format {
		r.Fail("format %d", f)
	}
	rec.kind = recordKind(r.Byte())
	switch rec.kind {
	case recordCheckpoint:
		rec.node = coterie.NodeID(r.String())
		rec.epoch = r.Uvarint()
		rec.committed = readOpen(&r)
		rec.prepared = readOpen(&r)
		rec.refused = make([]txn.ID, r.Count(1))
		for i := range rec.refused {
			rec.refused[i] = readID(&r)
		}
	case recordCommit, recordPrepared:
		rec.id = readID(&r)
		rec.members = readNodes(&r)
	case recordEnd, recordRefused, recordFinished:
		rec.id = readID(&r)
	default:
		r.Fail("record kind %d", byte(rec.kind))
	}
	return rec, r.Done()
}

func appendOpen(b []byte, list []openTxn) []byte {
	b = wire.AppendUvarint(b, uint64(len(list)))
	for _, o := range list {
		b = wire.AppendString(b, o.id)
		b = appendNodes(b, o.members)
	}
	return b
}

func readOpen(r *wire.Reader) []openTxn {
	list := make([]openTxn, r.Count(2))
	for i := range list {
		list[i] = openTxn{readID(r), readNodes(r)}
	}
	return list
}

// Replay takes back one record. It refuses the journal of another node.
func (c *Core) Replay(p []byte) error {
	rec, err := decodeRecord(p)
	if err != nil {
		return fmt.Errorf("twophase: record: %w", err)
	}
	if rec.kind == recordCheckpoint {
		return c.replayCheckpoint(&rec)
	}
	node, _, _ := parseID(rec.id)
	if own := rec.kind == recordCommit || rec.kind == recordEnd; own && node != c.cfg.ID {
		return fmt.Errorf("twophase: the journal holds %s as if %q had coordinated it", rec.id, c.cfg.ID)
	}
	if c.epoch == 0 {
		return nil // a journal may begin before what it was asked to keep: the checkpoint comes
	}
	switch rec.kind {
	case recordCommit:
		c.restoreCommitted(rec.openTxn)
	case recordEnd:
		delete(c.coord, rec.id)
	case recordPrepared:
		c.part[rec.id] = &part{id: rec.id, coordinator: node, members: rec.members, phase: Prepared, logged: true}
	case recordRefused:
		c.part[rec.id] = &part{id: rec.id, coordinator: node, phase: Refused, logged: true}
	case recordFinished:
		delete(c.part, rec.id)
	default: // a checkpoint is replayed above
	}
	c.records++
	return nil
}

func (c *Core) replayCheckpoint(rec *record) error {
	if rec.node != c.cfg.ID {
		return fmt.Errorf("twophase: the journal is that of %q, not of %q", rec.node, c.cfg.ID)
	}
	if rec.epoch < max(c.epoch, 1) {
		return fmt.Errorf("twophase: the journal counts its starts down, from %d to %d", c.epoch, rec.epoch)
	}
	c.epoch, c.records = rec.epoch, 0
	clear(c.coord)
	clear(c.part)
	for _, o := range rec.committed {
		c.restoreCommitted(o)
	}
	for _, o := range rec.prepared {
		node, _, _ := parseID(o.id)
		c.part[o.id] = &part{id: o.id, coordinator: node, members: o.members, phase: Prepared, logged: true}
	}
	for _, id := range rec.refused {
		node, _, _ := parseID(id)
		c.part[id] = &part{id: id, coordinator: node, phase: Refused, logged: true}
	}
	return nil
}

func (c *Core) restoreCommitted(o openTxn) {
	t := &coord{id: o.id, phase: Committing, left: len(o.members)}
	for _, n := range o.members {
		t.members = append(t.members, member{node: n, said: saidYes})
	}
	c.coord[o.id] = t
}

// checkpoint returns the record that stands for everything that is open.
func (c *Core) checkpoint() *record {
	rec := &record{kind: recordCheckpoint, node: c.cfg.ID, epoch: c.epoch}
	for _, t := range c.coord {
		if t.phase == Committing {
			rec.committed = append(rec.committed, openTxn{t.id, t.waiting(saidYes)})
		}
	}
	for _, p := range c.part {
		if !p.logged {
			continue
		}
		if p.phase == Refused {
			rec.refused = append(rec.refused, p.id)
		} else {
			rec.prepared = append(rec.prepared, openTxn{p.id, p.members})
		}
	}
	byID := func(a, b openTxn) int { return cmp.Compare(a.id, b.id) }
	slices.SortFunc(rec.committed, byID)
	slices.SortFunc(rec.prepared, byID)
	slices.Sort(rec.refused)
	return rec
}
