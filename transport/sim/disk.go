package sim

import (
	"slices"

	"github.com/coterie-go/coterie"
)

// disk is what of a node survives a crash: its journal and its snapshots.
//
// records[:durable] would be read back after a crash; the others are written but not yet synced. records[first:] is
// what a Replay gives: it may start before what Keep asked for, as it does in a log that forgets whole segments.
type disk struct {
	set           Disk
	override      Disk
	overrideUntil int64
	src           source
	slow          float64 // how many times longer this disk takes than one that is not slow; 1 if it is not

	records [][]byte
	sums    []uint64
	first   int
	durable int

	batches  []batch // whose effects wait, oldest first
	head     int     // the oldest of them
	covered  int     // how many of them the sync under way makes durable
	syncing  bool
	finished bool // the sync is done, but the node stands still

	files map[string][]byte // snapshots
}

// batch is what of a Ready waits for the disk, copied, for the slices of a Ready are soon the core's again.
type batch struct {
	saves  int
	bytes  int
	keep   int
	send   []coterie.Envelope
	events []any
}

func (d *disk) open(cfg Config, id coterie.NodeID) {
	d.set = cfg.Disk
	d.src = newSource(cfg.Seed, "disk", id, "")
	d.files = map[string][]byte{}
	d.drawSlow()
}

func (d *disk) drawSlow() {
	d.slow = 1
	if d.src.chance(d.set.Slow) {
		d.slow = d.set.SlowFactor
	}
}

func (d *disk) current(now int64) *Disk {
	if now < d.overrideUntil {
		return &d.override
	}
	return &d.set
}

// pending is how many batches wait.
func (d *disk) pending() int { return len(d.batches) - d.head }

// add takes a Ready: its records are written, and durable with the next sync that begins.
func (d *disk) add(rd coterie.Ready) {
	b := d.nextBatch()
	b.saves, b.bytes, b.keep = len(rd.Save), 0, rd.Keep
	b.send = append(b.send[:0], rd.Send...)
	b.events = append(b.events[:0], rd.Events...)
	for _, record := range rd.Save {
		d.records = append(d.records, record)
		d.sums = append(d.sums, checksum(record))
		b.bytes += len(record)
	}
}

// nextBatch returns a batch at the end of the queue, whose slices have been used before if they can be.
func (d *disk) nextBatch() *batch {
	if done := d.head; done > 0 && done >= len(d.batches)/2 {
		for i := range d.batches[done:] {
			d.batches[i], d.batches[done+i] = d.batches[done+i], d.batches[i]
		}
		d.batches, d.head = d.batches[:len(d.batches)-done], 0
	}
	if len(d.batches) < cap(d.batches) {
		d.batches = d.batches[:len(d.batches)+1]
	} else {
		d.batches = append(d.batches, batch{})
	}
	return &d.batches[len(d.batches)-1]
}

// keep forgets what it may of the durable records, or a part of it, or nothing.
func (d *disk) keep(newest int) {
	floor := d.durable - newest
	if floor <= d.first {
		return
	}
	switch d.src.below(4) {
	case 0: // not yet
	case 1:
		d.first += int(d.src.below(int64(floor-d.first) + 1))
	default:
		d.first = floor
	}
	if d.first > 32 && d.first > len(d.records)/2 {
		d.records = slices.Delete(d.records, 0, d.first)
		d.sums = slices.Delete(d.sums, 0, d.first)
		d.durable -= d.first
		d.first = 0
	}
}

// crash keeps a random prefix of what was not durable, and returns how many records are lost.
func (d *disk) crash() (lost int) {
	if unsynced := len(d.records) - d.durable; unsynced > 0 {
		d.durable += int(d.src.below(int64(unsynced) + 1))
		lost = len(d.records) - d.durable
		clear(d.records[d.durable:])
		d.records, d.sums = d.records[:d.durable], d.sums[:d.durable]
	}
	for i := range d.batches {
		d.batches[i].release()
	}
	d.batches, d.head, d.covered, d.syncing, d.finished = d.batches[:0], 0, 0, false, false
	return lost
}

func (b *batch) release() {
	clear(b.send)
	clear(b.events)
}

// sync begins to make durable what is written: all of it at once, as group commit does. What takes no time is done when
// it returns.
func (n *node) sync() {
	d, w := &n.disk, n.w
	cfg := d.current(w.now)
	saves, bytes := 0, 0
	for i := range d.batches[d.head:] {
		saves += d.batches[d.head+i].saves
		bytes += d.batches[d.head+i].bytes
	}
	d.covered = d.pending()
	d.syncing = true
	takes := int64(0)
	if saves > 0 {
		w.stats.Syncs++
		w.stats.Records += uint64(saves)
		w.stats.DiskBytes += uint64(bytes)
		takes = cfg.Sync.draw(&d.src)
		if cfg.Bandwidth > 0 {
			takes += int64(float64(bytes) / float64(cfg.Bandwidth) * 1e9)
		}
		takes = int64(min(float64(takes)*d.slow, float64(longest)))
		if w.trace != nil {
			w.trace.add(entry{at: w.now, kind: traceSave, node: n.index, peer: -1, id: uint64(saves)})
		}
		if d.src.chance(cfg.Crash) {
			ev := w.queue.push(w.now + d.src.below(takes+1))
			ev.kind, ev.node, ev.gen = evCrash, n.index, n.gen()
		}
	}
	if takes == 0 && !n.blocked() {
		n.complete()
		return
	}
	ev := w.queue.push(w.now + takes)
	ev.kind, ev.node, ev.gen = evSynced, n.index, n.gen()
}

// synced comes when the disk has done its work. A node that stands still learns of it when it goes on.
func (n *node) synced() {
	if n.blocked() {
		n.disk.finished = true
		return
	}
	defer n.caught()
	n.inLoop = true
	n.complete()
	n.ended()
	n.inLoop = false
	n.kick()
}

// complete performs the effects of all batches that the sync covered, then begins the next sync if more was written.
func (n *node) complete() {
	d := &n.disk
	d.finished = false
	for ; d.covered > 0; d.covered-- {
		b := &d.batches[d.head]
		d.head++
		d.durable += b.saves
		if n.w.trace != nil && b.saves > 0 {
			n.w.trace.add(entry{at: n.w.now, kind: traceSaved, node: n.index, peer: -1, id: uint64(b.saves)})
		}
		if b.keep > 0 {
			d.keep(b.keep)
		}
		n.leave(b.send, b.events)
		if n.dying {
			return
		}
		b.release()
	}
	d.syncing = false
	if d.pending() > 0 {
		n.sync()
	}
}
