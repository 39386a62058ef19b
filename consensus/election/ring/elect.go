package ring

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie/consensus/election/internal/reign"
)

// Start sends this node's id on its way.
func (r *ring) Start(now time.Time) {
	if r.participant || r.core.Leads() {
		return
	}
	r.join(now)
	r.pass(now, reign.Message{Kind: reign.Election, Epoch: r.core.Seen(), Places: []int{r.core.Me}})
}

// join notes that an election is under way, and sets when it has taken too long: a round of hops, each to a node that
// must be skipped first at worst, would take longer, but the nodes skipped are known at the next attempt.
func (r *ring) join(now time.Time) {
	r.participant, r.deadline = true, now.Add(r.timeout)
}

// Announce sends round that this node leads.
func (r *ring) Announce(now time.Time) {
	r.pass(now, reign.Message{Kind: reign.Coordinator, Epoch: r.core.Epoch(), Places: []int{r.core.Me}})
}

// Settled ends the election.
func (r *ring) Settled() { r.participant, r.deadline = false, time.Time{} }

// Take gets one message of an election.
func (r *ring) Take(now time.Time, from int, m reign.Message) error {
	if err := r.validate(m); err != nil {
		return err
	}
	delete(r.skip, from) // it is there
	if m.Kind == reign.Ack {
		r.hops = slices.DeleteFunc(r.hops, func(h hop) bool { return h.to == from && h.message.Number == m.Number })
		return nil
	}
	if from != r.core.Me {
		r.core.Send(from, reign.Message{Kind: reign.Ack, Number: m.Number})
	}
	m.Places = slices.Clone(m.Places)
	switch m.Kind {
	case reign.Coordinator:
		r.announced(now, m)
	case reign.Chosen:
		r.core.See(m.Epoch)
		if !r.core.Leads() || m.Epoch > r.core.Epoch() {
			r.core.Claim(now)
		}
	default:
		r.core.See(m.Epoch)
		m.Epoch = r.core.Seen()
		if r.collect {
			r.collected(now, m)
		} else {
			r.candidate(now, m)
		}
	}
	return nil
}

func (r *ring) validate(m reign.Message) error {
	places := 0
	switch m.Kind {
	case reign.Ack, reign.Chosen:
	case reign.Coordinator:
		places = 1
		if len(m.Places) == 1 && !r.core.Owns(m.Places[0], m.Epoch) {
			return fmt.Errorf("ring: %d does not lead by epoch %d", m.Places[0], m.Epoch)
		}
	case reign.Election:
		places = 1
		if r.collect {
			places = max(len(m.Places), 1)
		}
	default:
		return fmt.Errorf("ring: %v is a message of another algorithm", m.Kind)
	}
	if len(m.Places) != places {
		return fmt.Errorf("ring: %v of %d ids", m.Kind, len(m.Places))
	}
	return nil
}

// candidate is Chang and Roberts' step.
func (r *ring) candidate(now time.Time, m reign.Message) {
	switch place := m.Places[0]; {
	case place == r.core.Me:
		if r.participant { // else it has been decided since
			r.core.Claim(now)
		}
	case place > r.core.Me:
		if !r.participant {
			r.join(now)
		}
		r.pass(now, m)
	case r.core.Leads():
		// Whoever starts has not heard this leader, or has just begun. A beat is enough for it.
		r.core.Send(place, reign.Message{Kind: reign.Beat, Epoch: r.leads(now)})
	default:
		r.Start(now) // unless its own id is on its way already: the smaller one ends at this node
	}
}

// leads is the epoch to lead by, a new one if a greater one is about.
func (r *ring) leads(now time.Time) uint64 {
	if r.core.Seen() > r.core.Epoch() {
		r.core.Claim(now)
	}
	return r.core.Epoch()
}

// collected is the step of the form that collects ids.
func (r *ring) collected(now time.Time, m reign.Message) {
	switch {
	case m.Places[0] == r.core.Me:
		if !r.participant {
			return
		}
		greatest := slices.Max(m.Places)
		if greatest == r.core.Me {
			r.core.Claim(now)
			return
		}
		// An epoch is its leader's to take, so that one is told, and announces itself.
		r.add(now, hop{message: reign.Message{Kind: reign.Chosen, Epoch: m.Epoch}, to: greatest, direct: true})
	case !slices.Contains(m.Places, r.core.Me):
		m.Places = append(m.Places, r.core.Me)
		r.pass(now, m)
	}
}

// announced follows the new leader and tells the next one. It ends where it began.
func (r *ring) announced(now time.Time, m reign.Message) {
	if m.Places[0] == r.core.Me {
		return
	}
	r.core.Claimed(now, m.Places[0], m.Epoch)
	r.pass(now, m)
}

// pass sends a message to the next node that is not skipped, unless it has gone round already: the id of a node that
// is down by now would go round for ever.
func (r *ring) pass(now time.Time, m reign.Message) {
	if m.Hops >= r.core.N() {
		return
	}
	m.Hops++
	r.add(now, hop{message: m, to: r.next(now, r.core.Me)})
}

// next is the first node behind a place that is not skipped; this one if all are.
func (r *ring) next(now time.Time, place int) int {
	order := r.core.Order
	at := slices.Index(order, place)
	for range order {
		at = (at + 1) % len(order)
		until, down := r.skip[order[at]]
		if order[at] == r.core.Me || !down || !now.Before(until) && !r.stubborn {
			return order[at]
		}
	}
	return r.core.Me
}

// add sends a hop for the first time.
func (r *ring) add(now time.Time, h hop) {
	r.number++
	h.message.Number, h.sent, h.at = r.number, 1, now.Add(r.resend)
	if h.to == r.core.Me {
		r.core.Resend(h.to, h.message) // comes back to Step; there is nothing to acknowledge
		return
	}
	r.core.Send(h.to, h.message)
	if len(r.hops) == maxHops {
		r.hops = slices.Delete(r.hops, 0, 1)
	}
	r.hops = append(r.hops, h)
}

// Timer repeats hops, skips nodes that do not answer, and begins anew an election that has led to nothing.
func (r *ring) Timer(now time.Time) {
	var failed []hop
	kept := r.hops[:0]
	for _, h := range r.hops {
		switch {
		case now.Before(h.at):
			kept = append(kept, h)
		case h.sent < tries:
			h.sent, h.at = h.sent+1, now.Add(r.resend)
			r.core.Resend(h.to, h.message)
			kept = append(kept, h)
		default:
			failed = append(failed, h)
		}
	}
	r.hops = kept
	for _, h := range failed {
		r.skip[h.to] = now.Add(2 * r.timeout)
	}
	for _, h := range failed {
		if !h.direct {
			h.to = r.next(now, h.to)
			r.add(now, h)
		}
	}
	if r.participant && !now.Before(r.deadline) {
		r.Settled()
		r.Start(now)
	}
}

// Due is when Timer is wanted.
func (r *ring) Due() time.Time {
	due := r.deadline
	for _, h := range r.hops {
		if due.IsZero() || h.at.Before(due) {
			due = h.at
		}
	}
	return due
}
