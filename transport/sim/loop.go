package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// node is one simulated machine: what runs on it is lost by a crash, its disk and its clock are not.
type node struct {
	w     *World
	id    coterie.NodeID
	index int32
	spec  Node
	disk  disk
	clock Clock
	links []*link // by the index of the receiver, nil until used

	pausedUntil, stalledUntil, downUntil int64

	// One incarnation.
	incarnation uint64
	up          bool
	core, inner coterie.Core // as New made it, and under its wrappers
	app         App
	ticked      bool  // the Tick after the last Replay was made
	inLoop      bool  // a batch or its effects are under way
	dying       bool  // to be crashed when they are done ...
	downFor     int64 // ... and to come back after so long; never if negative
	runQueued   bool
	inbox, self []mail
	spare       [2][]mail // what inbox and self are swapped with
	waiting     int       // messages in inbox
	busyUntil   int64
	stepTime    int64
	wake        int64 // the node's own time of Ready.Wake, never if none
	wakeAt      int64 // when the host's timer fires for it
	wakeQueued  int64 // when the earliest queued evWake is
	phase       int64 // of the host's timer grid
}

// mail is what waits at a node: a message or a typed call.
type mail struct {
	from    int32
	payload []byte
	id      uint64
	call    func(now time.Time, core coterie.Core)
}

func newNode(w *World, id coterie.NodeID, spec Node) *node {
	n := &node{w: w, id: id, index: int32(len(w.nodes)), spec: spec, stepTime: int64(w.cfg.StepTime), wake: never, wakeAt: never, wakeQueued: never}
	n.clock.open(n)
	n.disk.open(w.cfg, id)
	src := newSource(w.cfg.Seed, "node", id, "")
	n.phase = src.below(grid)
	return n
}

func (n *node) gen() uint32 { return uint32(n.incarnation) }

// start makes the next incarnation and gives it its records back.
func (n *node) start() {
	n.incarnation++
	n.up, n.ticked, n.dying, n.runQueued = true, false, false, false
	n.pausedUntil, n.busyUntil = 0, n.w.now
	n.wake, n.wakeAt, n.wakeQueued = never, never, never
	if n.w.trace != nil {
		n.w.trace.add(entry{at: n.w.now, kind: traceStart, node: n.index, peer: -1, id: n.incarnation})
	}
	defer n.caught()
	n.core, n.app = n.spec.New(n.incarnation)
	if n.core == nil {
		n.up = false
		n.w.fail("start", fmt.Errorf("Node.New of %s made no core", n.id))
		return
	}
	n.inner = unwrap(n.core)
	if n.w.trace != nil {
		n.w.trace.met(n)
	}
	for i, record := range n.disk.records[n.disk.first:] {
		if checksum(record) != n.disk.sums[n.disk.first+i] {
			n.w.fail("immutable", fmt.Errorf("a record that %s saved was changed later", n.id))
		}
		if err := n.core.Replay(record); err != nil {
			n.w.fail("replay", fmt.Errorf("%s refuses its own record: %w", n.id, err))
			return
		}
	}
	n.queueRun(n.w.now)
}

// perform does what was queued for this incarnation of the node.
func (n *node) perform(k kind) bool {
	switch k {
	case evRun:
		n.runQueued = false
		return n.kick()
	case evWake:
		return n.woken()
	case evSynced:
		n.synced()
	case evCrash:
		n.crash()
		n.comeBack(n.disk.current(n.w.now).Down.draw(&n.disk.src))
	case evMessage, evRestart, evCall: // not of one incarnation
	}
	return true
}

func unwrap(c coterie.Core) coterie.Core {
	for {
		u, ok := c.(interface{ Unwrap() coterie.Core })
		if !ok {
			return c
		}
		c = u.Unwrap()
	}
}

// now is the node's own monotonic time, which starts with the world's and drifts with the node's clock.
func (n *node) now() time.Time { return n.w.cfg.Start.Add(time.Duration(n.clock.elapsed(n.w.now))) }

// blocked reports whether the loop stands still: paused, or waiting for a disk that hangs, as a real host does.
func (n *node) blocked() bool {
	return n.w.now < n.pausedUntil || n.w.now < n.stalledUntil && n.disk.pending() > 0
}

// arrive takes a message off a link.
func (n *node) arrive(ev *event) {
	w := n.w
	l := w.nodes[ev.from].link(n.index)
	reason := ""
	switch {
	case checksum(ev.payload) != ev.sum:
		w.fail("immutable", fmt.Errorf("a payload that %s sent to %s was changed on its way", w.nodes[ev.from].id, n.id))
	case w.isCut(l, ev.from, n.index):
		reason = "cut"
	case !n.up:
		reason = "down"
	case n.waiting >= w.cfg.Inbox:
		reason = "inbox full"
	case n.spec.Check != nil && n.checkFails(ev):
		reason = "check failed"
	}
	if reason != "" {
		w.lose(l, ev.from, n.index, ev.id, reason)
		return
	}
	w.stats.Delivered++
	l.stats.deliver(w.now - ev.sent)
	n.waiting++
	n.inbox = append(n.inbox, mail{from: ev.from, payload: ev.payload, id: ev.id})
	n.kick()
}

func (n *node) checkFails(ev *event) (failed bool) {
	defer n.caught()
	return n.spec.Check(n.w.nodes[ev.from].id, ev.payload) != nil
}

// kick runs a batch now if there is work and the node is free, or sees to it that one runs when it is. It reports
// whether one ran.
func (n *node) kick() (ran bool) {
	for n.up && !n.inLoop && n.hasWork() && !n.blocked() {
		if n.w.err != nil {
			return ran
		}
		if n.w.now < n.busyUntil || ran {
			n.queueRun(n.busyUntil)
			return ran
		}
		n.batch()
		ran = true
	}
	return ran
}

func (n *node) hasWork() bool {
	return len(n.inbox) > 0 || len(n.self) > 0 || !n.ticked || n.wakeAt <= n.w.now
}

func (n *node) queueRun(at int64) {
	if n.runQueued {
		return
	}
	n.runQueued = true
	ev := n.w.queue.push(max(at, n.w.now))
	ev.kind, ev.node, ev.gen = evRun, n.index, n.gen()
}

// batch is one turn of the host's loop.
func (n *node) batch() {
	n.inLoop = true
	defer n.caught()
	now := n.now()
	if !n.ticked {
		n.ticked = true
		n.core.Tick(now)
	}
	self, inbox := n.self, n.inbox
	n.self, n.inbox, n.waiting = n.spare[0][:0], n.spare[1][:0], 0
	for i := range self {
		n.step(now, &self[i])
	}
	for i := range inbox {
		if m := &inbox[i]; m.call != nil {
			m.call(now, n.inner)
		} else {
			n.step(now, m)
		}
	}
	clear(self)
	clear(inbox)
	n.spare[0], n.spare[1] = self, inbox
	if n.clock.elapsed(n.w.now) >= n.wake {
		n.w.stats.Ticks++
		n.core.Tick(now)
	}
	if !n.ended() {
		n.effects(n.core.Ready())
		n.ended()
	}
	n.inLoop = false
	n.busyUntil = n.w.now + n.stepTime
}

// ended performs a crash that was asked for from within the loop.
func (n *node) ended() bool {
	if n.dying {
		n.crash()
		if n.downFor >= 0 {
			n.comeBack(n.downFor)
		}
	}
	return !n.up
}

func (n *node) step(now time.Time, m *mail) {
	w := n.w
	w.stats.Steps++
	from := w.nodes[m.from].id
	if w.trace != nil { // before the step, which may panic
		w.trace.add(entry{at: w.now, kind: traceReceive, node: n.index, peer: m.from, id: m.id, payload: m.payload})
	}
	if err := n.core.Step(now, from, m.payload); err != nil {
		w.stats.Rejected++
		if w.trace != nil {
			w.trace.refused(err)
		}
	}
}

// effects performs a Ready, in the host's order, or leaves what must wait to the disk.
func (n *node) effects(rd coterie.Ready) {
	for i := range rd.Send {
		if rd.Send[i].Early {
			n.send(&rd.Send[i])
		}
	}
	n.setWake(rd.Wake)
	if len(rd.Save) > 0 || n.disk.pending() > 0 {
		n.disk.add(rd)
		if !n.disk.syncing {
			n.sync()
		}
		return
	}
	if rd.Keep > 0 {
		n.disk.keep(rd.Keep)
	}
	n.leave(rd.Send, rd.Events)
}

// leave sends what is not Early and hands out the events.
func (n *node) leave(send []coterie.Envelope, events []any) {
	for i := range send {
		if !send[i].Early {
			n.send(&send[i])
		}
	}
	if len(events) == 0 {
		return
	}
	now := n.now()
	for _, event := range events {
		n.w.stats.AppEvents++
		if n.w.trace != nil {
			n.w.trace.add(entry{at: n.w.now, kind: traceEvent, node: n.index, peer: -1, text: describeEvent(event)})
		}
		if n.app != nil {
			n.app.Event(now, event)
		}
	}
}

// setWake sets the host's timer. An event that is already queued for an earlier time stays, and finds the new time.
func (n *node) setWake(at time.Time) {
	if at.IsZero() {
		n.wake, n.wakeAt = never, never
		return
	}
	n.wake = min(int64(at.Sub(n.w.cfg.Start)), never)
	n.armWake()
}

func (n *node) armWake() {
	if n.wake == never {
		return
	}
	at := max(n.clock.worldTime(n.wake), n.w.now+1) - n.phase
	n.wakeAt = (at+grid-1)/grid*grid + n.phase
	if n.wakeAt < n.wakeQueued {
		n.queueWake()
	}
}

func (n *node) queueWake() {
	n.wakeQueued = n.wakeAt
	ev := n.w.queue.push(n.wakeAt)
	ev.kind, ev.node, ev.gen = evWake, n.index, n.gen()
}

func (n *node) woken() bool {
	if n.w.now != n.wakeQueued {
		return false // another one was queued for an earlier time and has come
	}
	n.wakeQueued = never
	if n.wakeAt > n.w.now {
		if n.wakeAt != never {
			n.queueWake()
		}
		return false
	}
	return n.kick()
}

// crash loses all that was not durable.
func (n *node) crash() {
	n.up, n.dying, n.inLoop, n.runQueued = false, false, false, false
	n.core, n.inner, n.app = nil, nil, nil
	clear(n.inbox)
	clear(n.self)
	n.inbox, n.self, n.waiting = n.inbox[:0], n.self[:0], 0
	n.wake, n.wakeAt, n.wakeQueued = never, never, never
	n.downUntil = never
	lost := n.disk.crash()
	n.w.stats.Crashes++
	if n.w.trace != nil {
		n.w.trace.add(entry{at: n.w.now, kind: traceCrash, node: n.index, peer: -1, text: fmt.Sprintf("%d unsynced records lost", lost)})
	}
}

// comeBack restarts a crashed node after a while.
func (n *node) comeBack(after int64) {
	n.downUntil = n.w.now + max(after, 0)
	ev := n.w.queue.push(n.downUntil)
	ev.kind, ev.node, ev.gen = evRestart, n.index, n.gen()
}

var errCrashed = errors.New("sim: the node has crashed")
