package clocksync

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// BerkeleyConfig configures a Berkeley core.
type BerkeleyConfig struct {
	ID      coterie.NodeID   // required
	Master  coterie.NodeID   // required: who polls; consensus/election can choose one
	Members []coterie.NodeID // the master's: all nodes, itself included or not
	Clock   func() time.Time // required: the wall clock, corrected by what Adjust events said
	Seed    uint64           // required, another one for each incarnation: numbers rounds, so that old messages do not count

	Interval time.Duration // between polls; default 10 s
	Timeout  time.Duration // how long a poll waits for answers; default 1 s, at most Interval
	MaxDelay time.Duration // answers that took longer are not used; default 100 ms
	MaxSkew  time.Duration // clocks further from each other than this are not averaged; default 500 ms
}

// Adjust is the event of a Berkeley core: add By to the clock, gradually as Slew does. It should be done, or counted
// by the clock as done, before the next poll.
type Adjust struct {
	Round uint64
	By    time.Duration
}

// Berkeley brings the clocks of a group together (Gusella and Zatti, "The Accuracy of the Clock Synchronization
// Achieved by TEMPO in Berkeley UNIX 4.3BSD", 1989). The master polls every node for its time and estimates its offset
// by half the round trip; averages the largest set of clocks that are within MaxSkew of each other; and tells each node
// by how much to turn, also those that were left out of the average. Each emits Adjust.
//
// Fault model: the network may lose, delay, repeat and reorder; nodes may crash; a clock that is wrong by more than
// MaxSkew does not count, if the right ones are more. The master is trusted. Nothing is saved.
type Berkeley struct {
	cfg   BerkeleyConfig
	out   coterie.Outbox
	round uint64 // the master's: of the poll under way or the last one; a member's: the last one answered

	next    time.Time // the master's: of the next poll
	sent    time.Time
	offsets map[coterie.NodeID]time.Duration // answers of the poll under way; nil if there is none
	open    bool                             // a member's: round was answered and has not been adjusted for
}

// NewBerkeley returns a core. Errors name the field.
func NewBerkeley(cfg BerkeleyConfig) (*Berkeley, error) {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&cfg.Interval, 10*time.Second)
	def(&cfg.Timeout, min(time.Second, cfg.Interval))
	def(&cfg.MaxDelay, 100*time.Millisecond)
	def(&cfg.MaxSkew, 500*time.Millisecond)
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("field "+what))
		}
	}
	require(cfg.ID != "", "ID is required")
	require(cfg.Master != "", "Master is required")
	require(cfg.Clock != nil, "Clock is required")
	require(cfg.Seed != 0, "Seed is required")
	require(cfg.Interval > 0, "Interval must be positive")
	require(cfg.Timeout > 0 && cfg.Timeout <= cfg.Interval, "Timeout must be positive and at most Interval")
	require(cfg.MaxDelay > 0, "MaxDelay must be positive")
	require(cfg.MaxSkew > 0, "MaxSkew must be positive")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("clocksync: BerkeleyConfig: %w", err)
	}
	members := slices.DeleteFunc(slices.Clone(cfg.Members), func(id coterie.NodeID) bool { return id == cfg.ID })
	slices.Sort(members)
	cfg.Members = slices.Compact(members)
	return &Berkeley{cfg: cfg, round: mix(cfg.Seed)}, nil
}

// Replay refuses: the core saves nothing.
func (*Berkeley) Replay([]byte) error { return errors.New("clocksync: a record that was never saved") }

// Step takes a poll, an answer or an adjustment.
func (c *Berkeley) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	m, err := decode(payload)
	if err != nil {
		return err
	}
	switch {
	case m.kind == kindTime && c.cfg.ID == c.cfg.Master:
		c.answer(now, from, m)
	case from != c.cfg.Master || c.cfg.ID == c.cfg.Master:
		// From a former master, or by a mistake in somebody's configuration.
	case m.kind == kindAsk:
		c.round, c.open = m.round, true
		c.out.Send(from, message{kindTime, m.round, c.cfg.Clock().UnixNano()}.encode())
	case m.kind == kindAdjust && c.open && m.round == c.round:
		c.open = false // a repeated Adjust must not turn the clock twice
		c.out.Emit(Adjust{m.round, time.Duration(m.value)})
	}
	return nil
}

// answer takes a member's time.
func (c *Berkeley) answer(now time.Time, from coterie.NodeID, m message) {
	_, known := slices.BinarySearch(c.cfg.Members, from)
	if _, twice := c.offsets[from]; c.offsets == nil || twice || !known || m.round != c.round {
		return
	}
	delay := now.Sub(c.sent)
	if delay < 0 || delay > c.cfg.MaxDelay {
		return
	}
	offset := time.Unix(0, m.value).Sub(c.cfg.Clock()) + delay/2
	if offset.Abs() > maxOffset {
		return
	}
	c.offsets[from] = offset
	if len(c.offsets) == len(c.cfg.Members) {
		c.finish()
	}
}

// Tick polls, or ends a poll that some did not answer.
func (c *Berkeley) Tick(now time.Time) {
	if c.cfg.ID != c.cfg.Master {
		return
	}
	if c.offsets != nil && !now.Before(c.sent.Add(c.cfg.Timeout)) {
		c.finish()
	}
	if now.Before(c.next) {
		return
	}
	c.round++
	c.sent, c.next = now, now.Add(c.cfg.Interval)
	c.offsets = make(map[coterie.NodeID]time.Duration, len(c.cfg.Members))
	ask := message{kind: kindAsk, round: c.round}.encode()
	for _, id := range c.cfg.Members {
		c.out.SendEarly(id, ask)
	}
}

// finish averages and tells everybody who answered.
func (c *Berkeley) finish() {
	all := []time.Duration{0} // the master's own offset from itself
	for _, id := range c.cfg.Members {
		if o, ok := c.offsets[id]; ok {
			all = append(all, o)
		}
	}
	mean := averageNear(all, c.cfg.MaxSkew)
	for _, id := range c.cfg.Members {
		if o, ok := c.offsets[id]; ok {
			c.out.Send(id, message{kindAdjust, c.round, int64(mean - o)}.encode())
		}
	}
	if c.offsets = nil; len(all) > 1 {
		c.out.Emit(Adjust{c.round, mean})
	}
}

// maxOffset is 36 years: differences of what is less do not overflow, and no clock is turned by so much.
const maxOffset = time.Duration(math.MaxInt64 / 8)

// averageNear returns the mean of the largest set of offsets that are within skew of each other; of several as large,
// the one nearest to 0, so that a group in which nobody agrees leaves the master alone.
func averageNear(offsets []time.Duration, skew time.Duration) time.Duration {
	slices.Sort(offsets)
	best, mean := 0, time.Duration(0)
	to := 0
	for from := range offsets {
		for to < len(offsets) && offsets[to]-offsets[from] <= skew {
			to++
		}
		n := to - from
		m := meanOf(offsets[from:to])
		if n > best || n == best && m.Abs() < mean.Abs() {
			best, mean = n, m
		}
	}
	return mean
}

// meanOf sums differences from the first, which are small where the offsets need not be.
func meanOf(offsets []time.Duration) time.Duration {
	var sum time.Duration
	for _, o := range offsets {
		sum += o - offsets[0]
	}
	return offsets[0] + sum/time.Duration(len(offsets))
}

// Ready ends a batch.
func (c *Berkeley) Ready() coterie.Ready {
	if c.cfg.ID == c.cfg.Master {
		c.out.Wake(c.next)
		if c.offsets != nil {
			c.out.Wake(c.sent.Add(c.cfg.Timeout))
		}
	}
	return c.out.Take()
}

// Describe tells what a payload says.
func (*Berkeley) Describe(payload []byte) string { return describe(payload) }
