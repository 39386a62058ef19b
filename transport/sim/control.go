package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// Crash stops a node: what is not durable is lost, but for a random prefix of the unsynced records. From within the
// node's own batch it takes effect when the batch ends, whose effects are lost. The node stays down until Restart, also
// if it was down already and would have come back. Like every control it panics if the node is unknown.
func (w *World) Crash(id coterie.NodeID) { w.must(id).crashNow() }

func (n *node) crashNow() {
	switch {
	case !n.up:
		n.downUntil = never // also if it was to come back by itself
	case n.inLoop:
		n.dying, n.downFor = true, -1
	default:
		n.crash()
	}
}

// Restart starts the next incarnation of a node that is down; one that is up goes on. The node replays its journal now,
// its first Tick comes with the next event.
func (w *World) Restart(id coterie.NodeID) {
	if n := w.must(id); !n.up {
		n.start()
	}
}

// Wipe empties the disk of a node that is down, as if its machine were replaced. A node that comes back so under its
// old id breaks what most protocols promise. It reports false, and does nothing, if the node is up.
func (w *World) Wipe(id coterie.NodeID) bool {
	n := w.must(id)
	if n.up {
		return false
	}
	n.disk.records, n.disk.sums, n.disk.first, n.disk.durable = nil, nil, 0, 0
	clear(n.disk.files)
	return true
}

// Pause makes a node stand still until Resume: a long garbage collection, a stopped process, a migrated machine. Its
// clocks go on, and messages wait in its inbox.
func (w *World) Pause(id coterie.NodeID) { w.must(id).pause(never) }

func (n *node) pause(until int64) {
	n.pausedUntil = max(n.pausedUntil, until)
	n.w.note(tracePause, n.index)
}

// Resume lets a paused node go on.
func (w *World) Resume(id coterie.NodeID) {
	n := w.must(id)
	n.pausedUntil = 0
	n.goOn(traceResume)
}

// StallDisk makes a node's disk hang: no sync ends until ResumeDisk. The node goes on until it has something to save,
// then it stands still.
func (w *World) StallDisk(id coterie.NodeID) { w.must(id).stall(never) }

func (n *node) stall(until int64) {
	n.stalledUntil = max(n.stalledUntil, until)
	n.w.note(traceStall, n.index)
}

// ResumeDisk lets a disk that hangs go on.
func (w *World) ResumeDisk(id coterie.NodeID) {
	n := w.must(id)
	n.stalledUntil = 0
	n.goOn(traceUnstall)
}

// goOn ends a pause or a stall, if no longer one holds the node.
func (n *node) goOn(kind traceKind) {
	if kind == traceResume && n.w.now < n.pausedUntil || kind == traceUnstall && n.w.now < n.stalledUntil {
		return
	}
	n.w.note(kind, n.index)
	switch {
	case !n.up || n.inLoop || n.blocked():
	case n.disk.finished:
		n.synced()
	case n.hasWork():
		n.queueRun(n.w.now)
	}
}

// Cut makes the link from one node to another lose everything that is sent or arrives, until Heal. It is one-way.
func (w *World) Cut(from, to coterie.NodeID) {
	w.must(from).link(w.must(to).index).cutUntil = never
	w.notePeer(traceCut, w.must(from).index, w.must(to).index)
}

// Join undoes a Cut.
func (w *World) Join(from, to coterie.NodeID) {
	w.must(from).link(w.must(to).index).cutUntil = 0
	w.notePeer(traceJoin, w.must(from).index, w.must(to).index)
}

// Partition cuts every link between nodes of different groups, both ways; nodes in no group form one more. It takes the
// place of an earlier Partition, and adds to Cut.
func (w *World) Partition(groups ...[]coterie.NodeID) {
	w.splits = slices.DeleteFunc(w.splits, func(s split) bool { return s.until == never })
	w.split(never, groups)
	w.noteText(tracePartition, fmt.Sprint(groups))
}

func (w *World) split(until int64, groups [][]coterie.NodeID) {
	s := split{until: until, group: make([]int32, len(w.nodes))}
	for i, members := range groups {
		for _, id := range members {
			s.group[w.must(id).index] = int32(i) + 1
		}
	}
	w.splits = append(slices.DeleteFunc(w.splits, func(old split) bool { return old.until <= w.now }), s)
}

// Heal joins all links and ends what a schedule did to them. What SetLink set stays.
func (w *World) Heal() {
	w.heal("")
}

func (w *World) heal(text string) {
	w.splits = nil
	for _, n := range w.nodes {
		for _, l := range n.links {
			if l != nil {
				l.cutUntil, l.overrideUntil = 0, 0
			}
		}
	}
	w.noteText(traceHeal, text)
}

// HealAll ends every fault, for the phase in which a protocol must make progress: links are joined, nodes resume and
// restart, disks go on and draw no more crashes, clocks are as Config drew them. Losses, latencies and slow disks that
// Config, SetLink and SetDisk set stay. Faults that a Schedule has yet to begin will begin.
func (w *World) HealAll() {
	w.heal(healedAll)
	w.healed++
	for _, n := range w.nodes {
		n.disk.overrideUntil = 0
		n.disk.set.Crash = 0
		n.clock.reset()
		if n.w.now < n.stalledUntil {
			w.ResumeDisk(n.id)
		}
		if n.w.now < n.pausedUntil {
			w.Resume(n.id)
		}
		w.Restart(n.id)
	}
}

// SetLink sets how one direction between two nodes behaves. Zero fields mean their defaults, not those of Config.Link.
func (w *World) SetLink(from, to coterie.NodeID, l Link) error {
	l = l.withDefaults()
	if err := l.validate(); err != nil {
		return fmt.Errorf("sim: link from %s to %s: %w", from, to, err)
	}
	w.must(from).link(w.must(to).index).set = &l
	return nil
}

// SetLinks sets how all links behave, those of nodes added later too.
func (w *World) SetLinks(l Link) error {
	l = l.withDefaults()
	if err := l.validate(); err != nil {
		return fmt.Errorf("sim: links: %w", err)
	}
	w.cfg.Link = l
	for _, n := range w.nodes {
		for _, have := range n.links {
			if have != nil {
				have.set = nil
			}
		}
	}
	return nil
}

// SetDisk sets how a node's disk behaves, and draws anew whether it is slow. Zero fields mean their defaults, not those
// of Config.Disk.
func (w *World) SetDisk(id coterie.NodeID, d Disk) error {
	d = d.withDefaults()
	if err := d.validate(); err != nil {
		return fmt.Errorf("sim: disk of %s: %w", id, err)
	}
	n := w.must(id)
	n.disk.set = d
	n.disk.drawSlow()
	return nil
}

// SetStepTime sets how long a batch keeps a node busy: a node whose processor is slow or shared. Negative is no time.
func (w *World) SetStepTime(id coterie.NodeID, d time.Duration) {
	w.must(id).stepTime = int64(min(max(d, 0), longest))
}

// Records returns the records that a node would replay if it crashed now and lost all that is not durable.
func (w *World) Records(id coterie.NodeID) [][]byte {
	d := &w.must(id).disk
	return d.records[d.first:d.durable:d.durable]
}
