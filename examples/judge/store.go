package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

type (
	access  = consistency.Access[string]
	answer  = consistency.Answer[string]
	history = consistency.History[access, answer]
	model   = consistency.Model[string, access, answer]
)

// order is how the replicas apply each other's writes.
type order uint8

const (
	total    order = iota // in the order of a leader's log
	causally              // after what their writer had seen
	fifo                  // in the order of each writer
	newest                // as they come; the newest, by its stamp, stays
)

// rules make a store of a certain kind, most of which are bugs to somebody.
type rules struct {
	name, about string
	order       order
	leaderReads bool // reads go to the leader, else to a replica near by
	roam        bool // a client asks another replica each time
	drop        bool // messages get lost, and nobody notices
}

var stores = []rules{
	{"correct", "reads and writes go to the leader", total, true, false, false},
	{"local-reads", "writes go through the leader's log, reads are answered by the nearest replica", total, false, false, false},
	{"no-order", "replicas apply writes in causal order, and concurrent ones as they come", causally, false, false, false},
	{"forgets-causes", "replicas apply each replica's writes in order, but not what these were based on", fifo, false, false, false},
	{"overtaking", "the newest write stays, and messages overtake each other", newest, false, false, false},
	{"roaming", "the newest write stays, and clients roam between replicas", newest, false, true, false},
	{"lossy", "clients roam, and messages get lost", newest, false, true, true},
}

// write is one write on its way.
type write struct {
	key, value   string
	from, number int   // its replica, and how many it had sent
	seen         []int // how many writes of each replica its replica had applied
	stamp        int   // Lamport time
	due          int   // when it arrives
}

type replica struct {
	values map[string]string
	stamps map[string][2]int // of the values: Lamport time and replica
	seen   []int
	clock  int
	inbox  []write
}

type client struct {
	op      int  // in the history, -1 for none
	at      int  // the replica it asks
	effect  int  // when its operation takes effect
	leave   int  // when its answer arrives
	waiting bool // for its write to come back
}

// store is a replicated register for each key, with its clients: everything follows from the seed.
type store struct {
	rules
	rng      *rand.Rand
	now      int
	replicas []*replica
	clients  []client
	history  history
	log      int // writes the leader has ordered
}

const (
	replicas = 3
	keys     = 2
)

// runStore lets clients work on a store and returns what they saw: some operations at random, and when all messages
// have arrived, each reads each key once more.
func runStore(r rules, seed uint64, ops int) history {
	s := &store{rules: r, rng: rand.New(rand.NewPCG(seed, 1))}
	for range replicas {
		s.replicas = append(s.replicas, &replica{values: map[string]string{}, stamps: map[string][2]int{}, seen: make([]int, replicas)})
		s.clients = append(s.clients, client{op: -1})
	}
	for len(s.history) < ops || slices.ContainsFunc(s.clients, func(c client) bool { return c.op >= 0 }) {
		s.step(len(s.history) < ops, func(i int) access {
			in := access{Key: string(rune('x' + s.rng.IntN(keys)))}
			if s.rng.IntN(5) < 2 {
				in.Kind, in.Value = consistency.Write, fmt.Sprintf("%c%d", 'a'+i, len(s.history))
			}
			return in
		})
	}
	s.now += 1000
	for i, r := range s.replicas {
		s.receive(r)
		for key := range keys {
			if s.leaderReads {
				r = s.replicas[0]
			}
			in := access{Key: string(rune('x' + key))}
			s.history = append(s.history, consistency.Operation[access, answer]{
				Client: i, In: in, Out: answer{Value: r.values[in.Key]}, Call: s.time(), Return: s.time() + time.Millisecond,
			})
			s.now += 2
		}
	}
	return s.history
}

// step lets a moment pass: messages arrive, clients begin and end operations.
func (s *store) step(more bool, next func(client int) access) {
	s.now++
	for _, r := range s.replicas {
		s.receive(r)
	}
	i := s.rng.IntN(len(s.clients))
	c := &s.clients[i]
	switch {
	case c.op < 0 && more:
		c.at = i
		if s.roam {
			c.at = s.rng.IntN(replicas)
		}
		c.op, c.effect, c.waiting = len(s.history), s.now+1+s.rng.IntN(3), false
		c.leave = c.effect + 1 + s.rng.IntN(4)
		s.history = append(s.history, consistency.Operation[access, answer]{Client: i, In: next(i), Call: s.time()})
	case c.op < 0:
	case c.effect > 0 && s.now >= c.effect:
		c.effect = 0
		s.perform(c)
	case c.effect == 0 && !c.waiting && s.now >= c.leave:
		s.history[c.op].Return = s.time()
		c.op = -1
	}
}

func (s *store) time() time.Duration { return time.Duration(s.now) * time.Millisecond }

// perform lets an operation take effect.
func (s *store) perform(c *client) {
	op := &s.history[c.op]
	r := s.replicas[c.at]
	if op.In.Kind == consistency.Read {
		if s.leaderReads {
			r = s.replicas[0]
		}
		op.Out.Value = r.values[op.In.Key]
		return
	}
	if s.order == total {
		w := write{key: op.In.Key, value: op.In.Value, number: s.log, stamp: s.log + 1}
		s.log++
		c.waiting = !s.leaderReads // until the client's replica has it
		s.send(0, w, -1)
		return
	}
	r.clock++
	w := write{key: op.In.Key, value: op.In.Value, from: c.at, number: r.seen[c.at], seen: slices.Clone(r.seen), stamp: r.clock}
	s.apply(r, w)
	s.send(c.at, w, c.at)
}

// send puts a write on its way to every replica but one; the leader has its own at once.
func (s *store) send(from int, w write, not int) {
	for i, r := range s.replicas {
		if i == not || s.drop && s.rng.IntN(3) == 0 {
			continue
		}
		w.due = s.now + 2 + s.rng.IntN(20)
		if s.rng.IntN(4) == 0 { // a slow link
			w.due += s.rng.IntN(200)
		}
		if i == from {
			w.due = s.now
		}
		r.inbox = append(r.inbox, w)
	}
	s.receive(s.replicas[from])
}

// receive applies the writes that have arrived and may be applied.
func (s *store) receive(r *replica) {
	for again := true; again; {
		again = false
		for i, w := range r.inbox {
			if w.due > s.now || !s.ready(r, w) {
				continue
			}
			r.inbox = slices.Delete(r.inbox, i, i+1)
			s.apply(r, w)
			for j := range s.clients { // a write that came back lets its client go on
				if c := &s.clients[j]; c.waiting && s.replicas[c.at] == r && s.history[c.op].In.Value == w.value {
					c.waiting = false
				}
			}
			again = true
			break
		}
	}
}

// ready reports whether the rules let a replica apply a write now.
func (s *store) ready(r *replica, w write) bool {
	switch s.order {
	case total, fifo:
		return r.seen[w.from] == w.number
	case causally:
		for i, n := range w.seen {
			if r.seen[i] < n {
				return false
			}
		}
		return true
	case newest:
	}
	return true
}

func (s *store) apply(r *replica, w write) {
	r.clock = max(r.clock, w.stamp)
	r.seen[w.from]++
	old, stamp := r.stamps[w.key], [2]int{w.stamp, w.from}
	if s.order == newest && slices.Compare(old[:], stamp[:]) > 0 {
		return
	}
	r.values[w.key], r.stamps[w.key] = w.value, stamp
}
