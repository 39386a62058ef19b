// Package reign is what an elected leader does until the next election, the same for every way to elect one: it takes
// an epoch, is heard by all, and gives way to a greater one. The elections themselves are packages bully and ring.
package reign

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election"
)

const (
	maxPeers = 256 // a place is one byte of an epoch
	maxEpoch = 1 << 62
	beats    = 5 // per Timeout
)

// Algorithm elects. Its calls come from the Core that it embeds.
type Algorithm interface {
	// Start begins an election, unless one is under way.
	Start(now time.Time)
	// Announce tells the others that this node leads by a new epoch.
	Announce(now time.Time)
	// Settled ends an election: there is a leader.
	Settled()
	// Take gets a message of the algorithm's own kinds.
	Take(now time.Time, from int, m Message) error
	// Timer does what is due, and returns when to do more; zero is never.
	Timer(now time.Time)
	// Due is when Timer is wanted; zero is never.
	Due() time.Time
}

// Core is the part of a Core that all algorithms share. Invariants, held between calls:
//   - the epoch never goes back, and is saved before anybody is told of it;
//   - the leader, if there is one, is the one whose place is in the epoch;
//   - the leader is this node or a greater one.
type Core struct {
	Out   coterie.Outbox
	Me    int // place of this node
	Sent  [kinds]uint64
	Order []int // the places in the order of Config.Peers: the ring

	pkg     string
	alg     Algorithm
	ranks   []coterie.NodeID // by place
	sum     uint64
	timeout time.Duration

	epoch   uint64 // the greatest one followed or led by
	seen    uint64 // the greatest one heard of
	leader  int    // place, none if unknown
	heardAt time.Time
	beatAt  time.Time
	started bool
	forget  bool // planted bug: epochs are not saved
}

const none = -1

// Init prepares a Core. The error names the field of Config.
func (c *Core) Init(pkg string, alg Algorithm, id coterie.NodeID, peers []coterie.NodeID, timeout time.Duration) error {
	ranks := slices.Sorted(slices.Values(peers))
	switch {
	case id == "":
		return fmt.Errorf("%s: Config.ID is required", pkg)
	case len(peers) == 0:
		return fmt.Errorf("%s: Config.Peers is required", pkg)
	case len(peers) > maxPeers:
		return fmt.Errorf("%s: Config.Peers has %d, at most %d", pkg, len(peers), maxPeers)
	case slices.Contains(peers, ""):
		return fmt.Errorf("%s: Config.Peers has an empty id", pkg)
	case len(slices.Compact(slices.Clone(ranks))) < len(peers):
		return fmt.Errorf("%s: Config.Peers has one twice", pkg)
	case !slices.Contains(peers, id):
		return fmt.Errorf("%s: Config.Peers does not have Config.ID %q", pkg, id)
	case timeout <= 0:
		return fmt.Errorf("%s: Config.Timeout is negative", pkg)
	}
	c.pkg, c.alg, c.ranks, c.timeout, c.leader = pkg, alg, ranks, timeout, none
	c.Me = slices.Index(ranks, id)
	c.sum = sumOf(peers)
	for _, p := range peers {
		c.Order = append(c.Order, slices.Index(ranks, p))
	}
	return nil
}

// Replay takes back an epoch.
func (c *Core) Replay(record []byte) error {
	epoch, err := decodeRecord(record)
	if err != nil {
		return err
	}
	if epoch < c.epoch || c.epochOf(epoch) >= len(c.ranks) {
		return fmt.Errorf("%s: record of epoch %d after %d: not of this node and these Peers", c.pkg, epoch, c.epoch)
	}
	c.epoch, c.seen = epoch, epoch
	return nil
}

// Step takes one message.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	place, ok := slices.BinarySearch(c.ranks, from)
	if !ok {
		return fmt.Errorf("%s: %q is not one of the peers", c.pkg, from)
	}
	m, err := c.decode(payload)
	if err != nil {
		return err
	}
	switch m.Kind {
	case Beat:
		if len(m.Places) > 0 || place == c.Me || !c.Owns(place, m.Epoch) {
			return fmt.Errorf("%s: %s beats by an epoch that is not its own", c.pkg, from)
		}
		c.Claimed(now, place, m.Epoch)
	case Stale:
		c.See(m.Epoch)
		if c.Leads() && m.Epoch > c.epoch {
			c.Claim(now)
		}
	default:
		if err := c.alg.Take(now, place, m); err != nil {
			return err
		}
	}
	c.check()
	return nil
}

// Tick starts, beats, and finds the leader silent.
func (c *Core) Tick(now time.Time) {
	if !c.started {
		c.started = true
		c.alg.Start(now) // so that a node that is back finds out who leads, or does so itself
	}
	if c.Leads() && !now.Before(c.beatAt) {
		c.beatAt = now.Add(c.timeout / beats)
		for i := range c.ranks {
			c.Send(i, Message{Kind: Beat, Epoch: c.epoch})
		}
	}
	if c.leader != none && !c.Leads() && !now.Before(c.heardAt.Add(c.timeout)) {
		c.leader = none
		c.Out.Emit(election.Elected{Epoch: c.epoch})
		c.alg.Start(now)
	}
	c.alg.Timer(now)
	c.check()
}

// Ready returns the effects of the calls since the last one.
func (c *Core) Ready() coterie.Ready {
	switch {
	case c.Leads():
		c.Out.Wake(c.beatAt)
	case c.leader != none:
		c.Out.Wake(c.heardAt.Add(c.timeout))
	}
	c.Out.Wake(c.alg.Due())
	return c.Out.Take()
}

// Elect begins an election, as a node does by itself that finds the leader silent: for one who knows earlier.
func (c *Core) Elect(now time.Time) { c.alg.Start(now) }

// Leader returns whom this node follows, itself included, and the epoch. The id is empty if it knows of none.
func (c *Core) Leader() (coterie.NodeID, uint64) {
	if c.leader == none {
		return "", c.epoch
	}
	return c.ranks[c.leader], c.epoch
}

// Leads reports whether this node is the leader.
func (c *Core) Leads() bool { return c.leader == c.Me }

// N is how many peers there are.
func (c *Core) N() int { return len(c.ranks) }

// Epoch is the greatest one followed or led by.
func (c *Core) Epoch() uint64 { return c.epoch }

// Seen is the greatest epoch heard of, to be told to candidates.
func (c *Core) Seen() uint64 { return c.seen }

// See notes an epoch that somebody knows of, so that the next claim is above it.
func (c *Core) See(epoch uint64) { c.seen = max(c.seen, epoch) }

// epochOf is the place of an epoch's leader. Epochs of different leaders differ by it.
func (c *Core) epochOf(epoch uint64) int { return int(epoch % maxPeers) }

// Owns reports whether the epoch is one that place has taken.
func (c *Core) Owns(place int, epoch uint64) bool {
	return epoch >= maxPeers && c.epochOf(epoch) == place
}

// Claim makes this node the leader, by an epoch above all it has heard of.
func (c *Core) Claim(now time.Time) {
	c.follow(now, c.Me, (c.seen/maxPeers+1)*maxPeers+uint64(c.Me))
	c.beatAt = now.Add(c.timeout / beats)
	c.alg.Announce(now)
}

// Claimed is told that another node leads. A smaller one gives way to this one: "bullies" it, in Garcia-Molina's word.
func (c *Core) Claimed(now time.Time, place int, epoch uint64) {
	c.See(epoch)
	switch {
	case place < c.Me && c.Leads() && epoch < c.epoch:
		c.Send(place, Message{Kind: Beat, Epoch: c.epoch}) // it has not heard of this one
	case place < c.Me && c.Leads():
		c.Claim(now)
	case place < c.Me:
		c.alg.Start(now)
	case epoch < c.epoch:
		c.Send(place, Message{Kind: Stale, Epoch: c.epoch}) // perhaps an old message, perhaps it needs a greater one
	default:
		c.follow(now, place, epoch)
	}
}

func (c *Core) follow(now time.Time, place int, epoch uint64) {
	if epoch > c.epoch && !c.forget {
		c.Out.Save(encodeRecord(epoch))
		c.Out.Keep(1)
	}
	if epoch > c.epoch || c.leader != place {
		c.Out.Emit(election.Elected{Leader: c.ranks[place], Epoch: epoch})
	}
	c.epoch, c.leader, c.heardAt = epoch, place, now
	c.See(epoch)
	c.alg.Settled()
}

// Send sends a message and counts it. To oneself it does nothing.
func (c *Core) Send(to int, m Message) {
	if to != c.Me {
		c.Sent[m.Kind]++
		c.Resend(to, m)
	}
}

// Resend sends without counting.
func (c *Core) Resend(to int, m Message) { c.Out.Send(c.ranks[to], c.Encode(m)) }

// Forget plants a bug: epochs are not saved.
func (c *Core) Forget() { c.forget = true }

func (c *Core) check() {
	if c.leader != none && (c.epochOf(c.epoch) != c.leader || c.leader < c.Me) || c.seen < c.epoch {
		panic(fmt.Sprintf("%s: %d follows %d by epoch %d, has seen %d", c.pkg, c.Me, c.leader, c.epoch, c.seen))
	}
}
