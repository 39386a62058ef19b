package raft

import (
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// mode is how a leader sends to a peer.
type mode uint8

const (
	probing     mode = iota // it is not known where the logs part: one message, then its answer
	replicating             // entries are sent ahead of answers, within the limits
	installing              // entries that it needs are gone: a snapshot travels
)

func (m mode) String() string {
	return [...]string{"probe", "replicate", "snapshot"}[m]
}

// peer is what a leader knows of one member, itself included.
type peer struct {
	id                       coterie.NodeID
	voter, outgoing          bool // counts among the members, among the outgoing
	witness, leaving         bool
	mode                     mode
	asked                    bool      // probing: a message is on its way
	told                     bool      // a message went out in this batch
	match, next              uint64    // the log of the peer agrees through match; next to send
	committed                uint64    // the newest commit index sent
	round                    uint64    // newest of the leader's rounds that the peer has answered
	since                    uint64    // its answers to older configurations are of a former membership
	heard                    instant   // its last answer
	until                    instant   // leaving: when to give up
	inflight                 []span    // messages without an answer
	inflightBytes, inflight0 int       // bytes in flight; first of inflight in use
	transfer                 *transfer // while installing
}

// stamp is when a round began.
type stamp struct {
	round uint64
	at    instant
}

// leadership is the volatile state of a leader (figure 2).
type leadership struct {
	peers []*peer // sorted by id
	self  *peer   // nil once the leader is no member
	begin uint64  // index of the first entry of the term
	saved uint64  // the entries through it are in records

	// A round is a number that every append carries and every answer echoes: that a quorum has answered a round shows
	// that no other leader was elected before it began (§8).
	round     uint64
	confirmed uint64
	stamps    []stamp // when rounds began, oldest first
	contact   instant // the beginning of the newest confirmed round whose beginning is known
	alone     bool    // the leader is a quorum
	resignAt  instant // check-quorum: it leads no longer if no quorum has answered by then
	voidLease bool    // a transfer was begun in this term: another may be elected at any time

	beat    bool    // every peer is owed a message
	beatDue instant // heartbeat
	workAt  instant // the last time there was something to do
	calm    bool

	reads    []pendingRead // in the order of their rounds
	transfer handover
	change   pendingChange
	batches  []batch // what was encoded in this Ready
}

// batch is an encoded append.
type batch struct {
	prev, last uint64
	bytes      int
	stripped   bool
	payload    []byte
}

func newLeadership(c *Core) *leadership {
	l := &leadership{
		begin: c.log.last() + 1, saved: c.log.last(), beatDue: c.now, contact: long, workAt: c.now,
		resignAt: c.now + c.cfg.ElectionTimeout,
	}
	c.lead = l
	c.adoptNewest()
	return l
}

// find returns the peer of that id, nil if there is none.
func (l *leadership) find(id coterie.NodeID) *peer {
	for _, p := range l.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// stir notes that the group is not idle; a quiet leader speaks up at once, and has to hear from a quorum in time again.
func (c *Core) stir() {
	l := c.lead
	l.workAt = c.now
	if l.calm {
		l.calm, l.beat, l.beatDue = false, true, c.now
		l.resignAt = c.now + c.cfg.ElectionTimeout
		c.extend()
	}
}

// due returns when the leader has something to do.
func (l *leadership) due() instant {
	at := min(l.beatDue, l.resignAt)
	if l.transfer.target != "" {
		at = min(at, l.transfer.deadline)
	}
	return at
}

// levels is the value that each peer has reached, as quorumOf counts it.
type levels func(*peer) uint64

func matchOf(p *peer) uint64 { return p.match }
func roundOf(p *peer) uint64 { return p.round }

// quorumOf returns the highest value that a majority has reached, of both sides while joint. quorum.System.Committed
// is the same rule for any system; this one runs at every answer.
func (l *leadership) quorumOf(value levels, joint bool) uint64 {
	level := majorityOf(l.peers, value, false)
	if joint {
		level = min(level, majorityOf(l.peers, value, true))
	}
	return level
}

// majorityOf sorts the values of one side, highest first, and takes the one that a majority has reached.
func majorityOf(peers []*peer, value levels, outgoing bool) uint64 {
	var few [9]uint64
	sorted := few[:0]
	for _, p := range peers {
		if outgoing && !p.outgoing || !outgoing && !p.voter {
			continue
		}
		v := value(p)
		sorted = append(sorted, v)
		i := len(sorted) - 1
		for ; i > 0 && sorted[i-1] < v; i-- {
			sorted[i] = sorted[i-1]
		}
		sorted[i] = v
	}
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}

// newRound begins a round. Few rounds get a stamp, so that as many as one election timeout needs are kept.
func (c *Core) newRound() {
	l := c.lead
	l.round++
	if l.self != nil {
		l.self.round = l.round
	}
	if n := len(l.stamps); n > 0 && c.now-l.stamps[n-1].at < c.cfg.ElectionTimeout/64 {
		return
	}
	l.stamps = append(l.stamps, stamp{l.round, c.now})
}

// confirm takes notice of the newest round that a quorum has answered: the leader led when it began, so reads asked
// before it may be answered, and the lease and the right to lead run from its beginning.
func (c *Core) confirm() {
	l := c.lead
	round := l.quorumOf(roundOf, c.conf.Joint())
	if round <= l.confirmed {
		return
	}
	l.confirmed = round
	n := 0
	for n < len(l.stamps) && l.stamps[n].round <= round {
		l.contact = l.stamps[n].at
		n++
	}
	if n > 0 {
		l.stamps = append(l.stamps[:0], l.stamps[n:]...)
	}
	c.extend()
	c.answerReads()
}

// extend sets when the leader must resign, from its last contact with a quorum.
func (c *Core) extend() {
	l := c.lead
	switch {
	case l.alone:
		l.resignAt = never
	case l.calm:
		l.resignAt = l.contact + c.cfg.ElectionTimeout*calmFactor
	default:
		if l.resignAt == never {
			l.resignAt = c.now + c.cfg.ElectionTimeout
		}
		l.resignAt = max(l.resignAt, l.contact+c.cfg.ElectionTimeout)
	}
}

// leased reports whether nobody else can have been elected yet: a quorum has promised so, for one election timeout of
// its own clocks from when it heard the round, which is after the round began.
func (c *Core) leased() bool {
	l := c.lead
	if l.alone {
		return true
	}
	drift := c.cfg.ClockDrift
	length := time.Duration(float64(c.cfg.ElectionTimeout) * (1 - drift) / (1 + drift))
	return !l.voidLease && c.now < l.contact+length
}

// tickLeader does what has become due.
func (c *Core) tickLeader() {
	l := c.lead
	if l.transfer.target != "" && c.now >= l.transfer.deadline {
		c.endTransfer(ErrTransferFailed)
	}
	if c.now < l.beatDue {
		return
	}
	l.beat = true
	if c.idle() {
		if c.cfg.QuiesceAfter > 0 && c.now-l.workAt >= c.cfg.QuiesceAfter {
			l.calm = true
			c.extend()
		}
	} else {
		c.stir()
	}
	for _, p := range slices.Clone(l.peers) {
		if p.leaving && c.now >= p.until {
			c.dropPeer(p)
		}
	}
	c.preferOther()
	c.promote()
}

// idle reports whether nobody waits for anything in the group.
func (c *Core) idle() bool {
	l := c.lead
	if l.saved != c.log.last() || c.committed != c.log.last() || len(l.reads) > 0 || l.transfer.target != "" {
		return false
	}
	for _, p := range l.peers {
		if p != l.self && (p.match != c.committed || p.committed != c.committed) {
			return false
		}
	}
	return true
}
