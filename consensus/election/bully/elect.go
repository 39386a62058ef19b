package bully

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie/consensus/election/internal/reign"
)

// Start asks all greater nodes.
func (b *bully) Start(now time.Time) {
	if b.phase != settled || b.core.Leads() {
		return
	}
	if b.core.Me == b.core.N()-1 {
		b.core.Claim(now)
		return
	}
	b.phase, b.deadline, b.repeatAt = electing, now.Add(b.timeout/2), now.Add(b.timeout/4)
	for i := b.core.Me + 1; i < b.core.N(); i++ {
		b.core.Send(i, b.election())
	}
}

func (b *bully) election() reign.Message {
	return reign.Message{Kind: reign.Election, Epoch: b.core.Seen()}
}

// Announce tells everyone: the smaller ones to follow, and a greater one that is there after all to take over.
func (b *bully) Announce(time.Time) {
	for i := range b.core.N() {
		b.core.Send(i, reign.Message{Kind: reign.Coordinator, Epoch: b.core.Epoch()})
	}
}

// Settled ends the election.
func (b *bully) Settled() {
	b.phase, b.deadline, b.repeatAt = settled, time.Time{}, time.Time{}
}

// Take gets one message of an election.
func (b *bully) Take(now time.Time, from int, m reign.Message) error {
	if len(m.Places) > 0 || m.Number != 0 || m.Hops != 0 || from == b.core.Me {
		return fmt.Errorf("bully: %v from %d is not of this algorithm", m.Kind, from)
	}
	switch m.Kind {
	case reign.Election:
		if from > b.core.Me {
			return fmt.Errorf("bully: a greater node, %d, asks a smaller one", from)
		}
		b.asked(now, from, m.Epoch)
	case reign.Answer:
		if from < b.core.Me {
			return fmt.Errorf("bully: a smaller node, %d, answers a greater one", from)
		}
		b.core.See(m.Epoch)
		if b.phase == electing {
			b.phase, b.deadline, b.repeatAt = waiting, now.Add(b.timeout), time.Time{}
		}
	case reign.Coordinator:
		if !b.core.Owns(from, m.Epoch) {
			return fmt.Errorf("bully: %d claims epoch %d, which is not its own", from, m.Epoch)
		}
		b.core.Claimed(now, from, m.Epoch)
	default:
		return fmt.Errorf("bully: %v is a message of another algorithm", m.Kind)
	}
	return nil
}

// asked answers a smaller node, and holds an election of its own.
func (b *bully) asked(now time.Time, from int, epoch uint64) {
	b.core.See(epoch)
	switch {
	case b.core.Leads() && epoch > b.core.Epoch():
		b.core.Claim(now) // the smaller one could not follow by the epoch that this one has
	case b.core.Leads():
		b.core.Send(from, reign.Message{Kind: reign.Beat, Epoch: b.core.Epoch()}) // it is enough to be heard
	default:
		b.core.Send(from, reign.Message{Kind: reign.Answer, Epoch: b.core.Seen()})
		b.Start(now)
	}
}

// Timer ends a phase that has lasted long enough.
func (b *bully) Timer(now time.Time) {
	if !b.repeatAt.IsZero() && !now.Before(b.repeatAt) {
		b.repeatAt = time.Time{}
		for i := b.core.Me + 1; i < b.core.N(); i++ {
			b.core.Resend(i, b.election())
		}
	}
	if b.phase == settled || now.Before(b.deadline) {
		return
	}
	if b.phase == electing {
		b.core.Claim(now)
		return
	}
	b.Settled() // who answered has gone
	b.Start(now)
}

// Due is when Timer is wanted.
func (b *bully) Due() time.Time {
	if !b.repeatAt.IsZero() {
		return b.repeatAt
	}
	return b.deadline
}
