package raft

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// handover is a leadership transfer under way (thesis §3.10).
type handover struct {
	id       uint64
	target   coterie.NodeID // "" if none is
	deadline instant
	sent     bool
}

// Errors of the administration of a cluster, beside coterie.ErrNotLeader and coterie.ErrUnknownOutcome.
var (
	// ErrTransferFailed is returned when the target did not take over within an election timeout; the leader stays.
	ErrTransferFailed = errors.New("raft: the target of the transfer did not take over")
	// ErrBusy is returned while another transfer or change of members is under way, or the leader has just been
	// elected; nothing was done. Retry.
	ErrBusy = errors.New("raft: another change is under way")
	// ErrNotCaughtUp is returned by Promote for a learner that lacks something that is committed: as a voter it would
	// only hold up the others. Retry.
	ErrNotCaughtUp = errors.New("raft: the learner has not caught up")
	// ErrTooLarge is returned for a command over Config.MaxCommandBytes; nothing was done.
	ErrTooLarge = errors.New("raft: command too large")
)

// Done is an event, the answer to Transfer, Reconfigure and UnsafeRecover.
type Done struct {
	ID  uint64
	Err error
}

func (c *Core) finish(id uint64, err error) {
	if id != 0 {
		c.out.Emit(Done{ID: id, Err: err})
	}
}

// Transfer hands leadership to a voter, or to the one that is furthest if target is empty: proposals are refused until
// it has the whole log, then it is told to campaign at once. The answer is a Done with the id.
func (c *Core) Transfer(now time.Time, id uint64, target coterie.NodeID) {
	c.enter(now)
	defer c.checkInvariants()
	l := c.lead
	if l == nil {
		c.finish(id, c.notLeader())
		return
	}
	if l.transfer.target != "" {
		c.finish(id, ErrBusy)
		return
	}
	if target == "" {
		target = c.furthest()
	}
	p := l.find(target)
	switch {
	case p == nil || !p.eligible():
		c.finish(id, fmt.Errorf("%w: %q is no voter that could lead", ErrInvalidChange, target))
	case p == l.self:
		c.finish(id, nil)
	default:
		c.stir()
		l.transfer = handover{id: id, target: target, deadline: c.now + c.cfg.ElectionTimeout}
		c.metrics.Transfers++
		c.tryTransfer()
	}
}

// eligible reports whether a peer could be the next leader: a voter of the newest configuration.
func (p *peer) eligible() bool { return p.voter && !p.witness }

// furthest returns the other voter with the longest log, "" if there is none.
func (c *Core) furthest() coterie.NodeID {
	best := coterie.NodeID("")
	match := uint64(0)
	for _, p := range c.lead.peers {
		if p != c.lead.self && p.eligible() && (best == "" || p.match > match) {
			best, match = p.id, p.match
		}
	}
	return best
}

// tryTransfer tells the target to campaign as soon as it has the whole log. From then on it may be elected at any
// time, whatever the others promised: the lease of this term is void for good, for the message may be late.
func (c *Core) tryTransfer() {
	l := c.lead
	p := l.find(l.transfer.target)
	if p == nil {
		c.endTransfer(ErrTransferFailed)
		return
	}
	if l.transfer.sent || p.match < c.log.last() {
		return
	}
	l.transfer.sent = true
	l.voidLease = !c.bugs.keepLease
	c.send(p.id, &message{kind: kindTimeoutNow, term: c.term})
}

// endTransfer takes up leading again.
func (c *Core) endTransfer(err error) {
	id := c.lead.transfer.id
	c.lead.transfer = handover{}
	c.finish(id, err)
}

// preferOther hands leadership to a voter of a higher priority that has caught up.
func (c *Core) preferOther() {
	l := c.lead
	me, ok := c.conf.Find(c.cfg.ID)
	if !ok || l.transfer.target != "" || c.committed < l.begin || c.conf.Joint() {
		return
	}
	best, priority := coterie.NodeID(""), me.Priority
	for _, p := range l.peers {
		m, ok := c.conf.Find(p.id)
		if ok && p != l.self && p.eligible() && m.Priority > priority && p.match >= c.committed &&
			c.now-p.heard < c.cfg.ElectionTimeout {
			best, priority = p.id, m.Priority
		}
	}
	if best != "" {
		l.transfer = handover{target: best, deadline: c.now + c.cfg.ElectionTimeout}
		c.metrics.Transfers++
		c.tryTransfer()
	}
}
