package twophase

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// world runs cores step by step, in one order, and passes a numbered point before and after everything that a crash may
// fall between: each record saved, each message sent, each message taken, each call of a resource. A fault is told by
// its point, so that all of them can be tried.
type world struct {
	now      time.Time
	nodes    map[coterie.NodeID]*testNode
	order    []coterie.NodeID
	queue    []func()
	points   int
	messages int
	crashes  []crash
	lose     int           // number of a message that is lost, from 1
	repeat   int           // and of one that comes twice
	later    time.Duration // how much later it comes again
	alarms   []alarm
	ended    []Decided // told to the application
	ids      []txn.ID
	broken   error
	bug      bug
	log      []string
}

// bug is planted in the world, not in the core.
type bug int

const (
	noBug           bug = iota
	sendBeforeSave      // messages leave before the batch is durable
	commitForgotten     // a restart does not see that a commit was logged
)

type crash struct {
	point  int
	victim coterie.NodeID
	down   time.Duration
}

type alarm struct {
	at time.Time
	f  func()
}

type testNode struct {
	w       *world
	id      coterie.NodeID
	core    *Core
	journal [][]byte
	life    int
	wake    time.Time
	res     *testResource
	saved   map[recordKind]int // records, by kind
	syncs   int
	sent    map[kind]int
}

// testResource holds what a database would: prepared and committed survive a crash, work does not.
type testResource struct {
	vote                         txn.Vote
	working, prepared, committed map[txn.ID]bool
	aborted                      map[txn.ID]bool
}

func (r *testResource) prepare(id txn.ID) txn.Vote {
	if r.prepared[id] {
		return txn.Yes
	}
	if !r.working[id] {
		return txn.No
	}
	switch r.vote {
	case txn.Yes:
		r.prepared[id] = true
		delete(r.working, id)
	case txn.ReadOnly:
		delete(r.working, id)
	default:
	}
	return r.vote
}

func newWorld(votes ...txn.Vote) *world {
	w := &world{now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), nodes: map[coterie.NodeID]*testNode{}}
	names := []coterie.NodeID{"c"}
	for i := range votes {
		names = append(names, coterie.NodeID(fmt.Sprintf("p%d", i+1)))
	}
	for i, id := range names {
		n := &testNode{w: w, id: id, saved: map[recordKind]int{}, sent: map[kind]int{}}
		n.res = &testResource{working: map[txn.ID]bool{}, prepared: map[txn.ID]bool{}, committed: map[txn.ID]bool{}, aborted: map[txn.ID]bool{}}
		if i > 0 {
			n.res.vote = votes[i-1]
		}
		w.nodes[id], w.order = n, append(w.order, id)
		n.start()
	}
	w.drain()
	return w
}

func (w *world) failf(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

// point is passed by node n, which may not live on; false if it does not.
func (n *testNode) point(what string) bool {
	w, life := n.w, n.life
	w.points++
	if len(w.log) < cap(w.log) {
		w.log = append(w.log, fmt.Sprintf("%d %s %s", w.points, n.id, what))
	}
	for _, c := range w.crashes {
		if c.point == w.points && w.nodes[c.victim].core != nil {
			v := w.nodes[c.victim]
			v.core, v.wake = nil, time.Time{}
			v.life++
			clear(v.res.working)
			w.alarms = append(w.alarms, alarm{w.now.Add(c.down), v.start})
		}
	}
	return n.life == life
}

func (n *testNode) start() {
	core, err := NewCore(Config{ID: n.id, PrepareTimeout: 2 * time.Second})
	for _, rec := range n.journal {
		if r, _ := decodeRecord(rec); n.w.bug == commitForgotten && r.kind == recordCommit {
			continue
		}
		if err == nil {
			err = core.Replay(rec)
		}
	}
	if err != nil {
		n.w.failf("start of %s: %w", n.id, err)
		return
	}
	n.core = core
	n.run(func() { core.Tick(n.w.now) })
	n.do(func() { core.Recover(n.w.now, slices.Sorted(maps.Keys(n.res.prepared))) })
}

// do queues a call of the node's core, which is lost if the node crashes first.
func (n *testNode) do(f func()) {
	life := n.life
	n.w.queue = append(n.w.queue, func() {
		if n.life == life && n.core != nil {
			n.run(f)
		}
	})
}

// run makes a call of the core and performs what follows.
func (n *testNode) run(f func()) {
	life := n.life
	f()
	if n.life != life || n.core == nil {
		return
	}
	ready := n.core.Ready()
	n.wake = ready.Wake
	for _, e := range ready.Send {
		if (e.Early || n.w.bug == sendBeforeSave) && !n.transmit(e) {
			return
		}
	}
	for _, rec := range ready.Save {
		if !n.point("save") {
			return
		}
		n.journal = append(n.journal, rec)
		if r, err := decodeRecord(rec); err == nil {
			n.saved[r.kind]++
		}
		if !n.point("saved") {
			return
		}
	}
	if len(ready.Save) > 0 {
		n.syncs++
	}
	if ready.Keep > 0 {
		n.journal = n.journal[len(n.journal)-min(ready.Keep, len(n.journal)):]
	}
	for _, e := range ready.Send {
		if !e.Early && n.w.bug != sendBeforeSave && !n.transmit(e) {
			return
		}
	}
	for _, e := range ready.Events {
		n.event(e)
	}
}

// transmit passes the points before and after a message is sent.
func (n *testNode) transmit(e coterie.Envelope) bool {
	w := n.w
	if !n.point("send " + n.core.Describe(e.Payload)) {
		return false
	}
	if e.To == n.id {
		n.do(func() { n.step(n.id, e.Payload) })
		return n.point("sent")
	}
	if m, err := decodeMessage(e.Payload); err == nil {
		n.sent[m.kind]++
	}
	w.messages++
	to := w.nodes[e.To]
	deliver := func() {
		if to.core == nil {
			return
		}
		if !to.point("take "+to.core.Describe(e.Payload)) || to.core == nil {
			return
		}
		to.run(func() { to.step(n.id, e.Payload) })
		to.point("taken")
	}
	if w.messages != w.lose {
		w.queue = append(w.queue, deliver)
	}
	if w.messages == w.repeat {
		w.alarms = append(w.alarms, alarm{w.now.Add(w.later), func() { w.queue = append(w.queue, deliver) }})
	}
	return n.point("sent")
}

func (n *testNode) step(from coterie.NodeID, payload []byte) {
	if err := n.core.Step(n.w.now, from, payload); err != nil {
		n.w.failf("step of %s: %w", n.id, err)
	}
}

// event calls the resource as Node does, with points before, between and after.
func (n *testNode) event(e any) {
	core, r := n.core, n.res
	call := func(f func()) {
		n.do(func() {
			if !n.point("call") {
				return
			}
			f()
			n.point("called")
		})
	}
	settled := func(id txn.ID) { n.do(func() { _ = core.Settled(n.w.now, id) }) }
	switch e := e.(type) {
	case PrepareAsked:
		call(func() {
			v := r.prepare(e.ID)
			n.do(func() { _ = core.Voted(n.w.now, e.ID, v, "") })
		})
	case CommitAsked:
		call(func() {
			if !r.prepared[e.ID] && !r.committed[e.ID] {
				n.w.failf("%s commits %s, which is not prepared", n.id, e.ID)
			}
			delete(r.prepared, e.ID)
			r.committed[e.ID] = true
			n.w.agree(e.ID)
			settled(e.ID)
		})
	case AbortAsked:
		call(func() {
			if r.committed[e.ID] {
				n.w.failf("%s aborts %s, which is committed", n.id, e.ID)
			}
			r.aborted[e.ID] = r.aborted[e.ID] || r.working[e.ID] || r.prepared[e.ID]
			delete(r.working, e.ID)
			delete(r.prepared, e.ID)
			n.w.agree(e.ID)
			settled(e.ID)
		})
	case Decided:
		n.w.ended = append(n.w.ended, e)
	}
}

// agree checks that nobody has committed what another aborted.
func (w *world) agree(id txn.ID) {
	var committed, aborted []coterie.NodeID
	for _, n := range w.order {
		if w.nodes[n].res.committed[id] {
			committed = append(committed, n)
		}
		if w.nodes[n].res.aborted[id] {
			aborted = append(aborted, n)
		}
	}
	if len(committed) > 0 && len(aborted) > 0 {
		w.failf("%s: committed at %v, aborted at %v", id, committed, aborted)
	}
}

// drain performs what is queued, without letting time pass.
func (w *world) drain() {
	for len(w.queue) > 0 && w.broken == nil {
		f := w.queue[0]
		w.queue = w.queue[1:]
		f()
	}
}

// advance goes on until nothing is left to happen, or until the time is over.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for w.drain(); w.broken == nil; w.drain() {
		at := end
		for _, n := range w.nodes {
			if n.core != nil && !n.wake.IsZero() && n.wake.Before(at) {
				at = n.wake
			}
		}
		for _, a := range w.alarms {
			if a.at.Before(at) {
				at = a.at
			}
		}
		if !at.Before(end) {
			return
		}
		if at.After(w.now) {
			w.now = at
		}
		due := slices.DeleteFunc(slices.Clone(w.alarms), func(a alarm) bool { return a.at.After(w.now) })
		w.alarms = slices.DeleteFunc(w.alarms, func(a alarm) bool { return !a.at.After(w.now) })
		for _, a := range due {
			a.f()
		}
		for _, id := range w.order {
			if n := w.nodes[id]; n.core != nil && !n.wake.IsZero() && !n.wake.After(w.now) {
				n.wake = time.Time{}
				n.run(func() { n.core.Tick(w.now) })
			}
		}
	}
}

// transact begins a transaction at c over the participants, does its work and asks for votes.
func (w *world) transact(participants ...coterie.NodeID) {
	c := w.nodes["c"]
	c.do(func() {
		id, err := c.core.Begin(w.now, participants)
		if err != nil {
			w.failf("begin: %w", err)
			return
		}
		w.ids = append(w.ids, id)
		for _, p := range participants {
			n := w.nodes[p]
			if n.core == nil {
				continue
			}
			n.res.working[id] = true
			n.do(func() { _ = n.core.Enlist(w.now, id) })
		}
		c.do(func() { _ = c.core.Prepare(w.now, id) })
	})
}

// check says what must hold when every node is up and nothing is left to happen.
func (w *world) check() error {
	if w.broken != nil {
		return w.broken
	}
	for _, id := range w.order {
		n := w.nodes[id]
		if n.core == nil {
			return fmt.Errorf("%s is down", id)
		}
		if s := n.core.Status(); len(s.Coordinating)+len(s.Taking) > 0 {
			return fmt.Errorf("unfinished at %s: %+v", id, s)
		}
		if len(n.res.working)+len(n.res.prepared) > 0 {
			return fmt.Errorf("%s still holds %v and %v", id, n.res.working, n.res.prepared)
		}
	}
	for _, d := range w.ended {
		for _, id := range w.order {
			n := w.nodes[id]
			if !d.Committed && n.res.committed[d.ID] || d.Committed && n.res.aborted[d.ID] {
				return fmt.Errorf("the application heard %+v, and %s did not do so", d, id)
			}
		}
	}
	return nil
}
