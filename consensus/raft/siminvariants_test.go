package raft

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// invariants are those of the paper's figure 3, and that configurations agree on the committed prefix. They are kept
// up event by event: what a node's log was is remembered, so that only what has changed is looked at.
type invariants struct {
	s       *simCluster
	first   Membership
	decided []decision // by index, 0 for the beginning
	leaders map[uint64]coterie.NodeID
	prefix  map[[2]uint64]uint64 // hash of the log through an entry, by its index and term
	seen    map[coterie.NodeID]*seenLog
}

// decision is what is known of a committed index.
type decision struct {
	prefix  uint64 // hash of the log through it
	chain   uint64 // hash of what state machines have applied through it
	term    uint64 // in which it was seen to be committed
	members Membership
	config  uint64 // index of the entry that made them so
}

// seenLog is a node's log when it was last looked at.
type seenLog struct {
	core      *Core
	terms     []uint64 // by index; 0 where the node did not have it
	hashes    []uint64
	committed uint64
	leads     uint64 // the term it leads, 0 if it does not
}

func (v *invariants) init(s *simCluster) {
	v.s = s
	v.first = s.cfg.bootstrap()
	v.decided = []decision{{members: v.first}}
	v.leaders = map[uint64]coterie.NodeID{}
	v.prefix = map[[2]uint64]uint64{}
	v.seen = map[coterie.NodeID]*seenLog{}
}

func (v *invariants) restarted(id coterie.NodeID) { delete(v.seen, id) }

func (v *invariants) decidedThrough() uint64 { return uint64(len(v.decided) - 1) }

func (v *invariants) members() Membership { return v.decided[len(v.decided)-1].members }

func (v *invariants) chainAt(index uint64) (uint64, bool) {
	if index >= uint64(len(v.decided)) {
		return 0, false
	}
	return v.decided[index].chain, true
}

func (v *invariants) check() error {
	if v.s.fail != nil {
		return v.s.fail
	}
	for _, n := range v.s.order {
		if !n.core.booted || !v.s.w.Up(n.id) {
			continue
		}
		if err := v.node(n); err != nil {
			return err
		}
	}
	return nil
}

func (v *invariants) node(n *simNode) error {
	c := n.core
	l := v.seen[n.id]
	if l == nil || l.core != c {
		l = &seenLog{core: c, terms: []uint64{0}, hashes: []uint64{0}}
		v.seen[n.id] = l
	}
	last := c.log.last()
	changed := uint64(len(l.terms))-1 != last || l.terms[last] != c.log.lastTerm()
	if c.role == Leader {
		if l.leads == c.term && uint64(len(l.terms))-1 > last {
			return fmt.Errorf("leader append-only: %s's log went from %d back to %d", n.id, len(l.terms)-1, last)
		}
		if other, ok := v.leaders[c.term]; !ok {
			v.leaders[c.term] = n.id
		} else if other != n.id {
			return fmt.Errorf("election safety: %s and %s lead term %d", other, n.id, c.term)
		}
	}
	if changed {
		if err := v.log(n, l); err != nil {
			return err
		}
	}
	if c.role == Leader && l.leads != c.term {
		l.leads = c.term
		if err := v.complete(n, l); err != nil {
			return err
		}
	} else if c.role != Leader {
		l.leads = 0
	}
	if c.committed != l.committed {
		l.committed = c.committed
		return v.commit(n, l)
	}
	return nil
}

// log takes up what has changed in a node's log, and checks log matching: of two logs that have an entry of the same
// index and term, all before it is the same too.
func (v *invariants) log(n *simNode, l *seenLog) error {
	c := n.core
	last := c.log.last()
	same := min(uint64(len(l.terms))-1, last)
	for same > c.log.start {
		if term, ok := c.log.term(same); ok && term == l.terms[same] {
			break
		}
		same--
	}
	if same <= c.log.start {
		same = c.log.start
		if same >= uint64(len(v.decided)) {
			return fmt.Errorf("%s's log starts at %d, which is not committed", n.id, same)
		}
		for uint64(len(l.terms)) <= same {
			l.terms, l.hashes = append(l.terms, 0), append(l.hashes, 0)
		}
		l.terms[same], l.hashes[same] = c.log.startTerm, v.decided[same].prefix
	}
	l.terms, l.hashes = l.terms[:same+1], l.hashes[:same+1]
	for i := same + 1; i <= last; i++ {
		e := c.log.at(i)
		h := prefixOf(l.hashes[i-1], e)
		key := [2]uint64{i, e.Term}
		if known, ok := v.prefix[key]; !ok {
			v.prefix[key] = h
		} else if known != h && !c.witness && !n.stripped() {
			return fmt.Errorf("log matching: %s's log through %d of term %d is another", n.id, i, e.Term)
		}
		if e.Term < l.terms[i-1] && i-1 > c.log.start {
			return fmt.Errorf("%s: terms decrease at %d", n.id, i)
		}
		l.terms, l.hashes = append(l.terms, e.Term), append(l.hashes, v.prefix[key])
	}
	return nil
}

// stripped reports whether the node's log may lack commands, as a witness's does.
func (n *simNode) stripped() bool {
	m, ok := n.s.inv.first.Find(n.id)
	return ok && m.Role == Witness
}

func prefixOf(before uint64, e *consensus.Entry) uint64 {
	var b [17]byte
	binary.BigEndian.PutUint64(b[:], before)
	binary.BigEndian.PutUint64(b[8:], e.Term)
	if e.Internal {
		b[16] = 1
	}
	return xxhash.Sum64(b[:]) ^ xxhash.Sum64(e.Command)*31
}

// complete checks leader completeness: what was committed in an earlier term is in the log of the leader.
func (v *invariants) complete(n *simNode, l *seenLog) error {
	i := sort.Search(len(v.decided), func(i int) bool { return v.decided[i].term >= n.core.term }) - 1
	if i >= len(l.hashes) || i > int(n.core.log.start) && l.hashes[i] != v.decided[i].prefix {
		return fmt.Errorf("leader completeness: %s leads term %d, its log ends at %d and lacks what was committed through %d",
			n.id, n.core.term, n.core.log.last(), i)
	}
	return nil
}

// commit checks state machine safety on the logs themselves, and that the configuration is that of the committed
// prefix.
func (v *invariants) commit(n *simNode, l *seenLog) error {
	c := n.core
	if n.stripped() && c.committed >= uint64(len(v.decided)) {
		// A leader that crashed as it committed has told a witness first, which does not know the commands: the entries
		// are taken up from a node that does.
		l.committed = 0
		return nil
	}
	for i := uint64(len(v.decided)); i <= c.committed; i++ {
		if i <= c.log.start {
			return fmt.Errorf("%s has a snapshot through %d, committed is %d", n.id, c.log.start, len(v.decided)-1)
		}
		e := c.log.at(i)
		d := decision{prefix: l.hashes[i], chain: chainOf(v.decided[i-1].chain, *e), term: c.term}
		d.members, d.config = v.decided[i-1].members, v.decided[i-1].config
		if e.Internal && len(e.Command) > 0 {
			m, err := decodeMembership(e.Command)
			if err != nil {
				return err
			}
			d.members, d.config = m, i
		}
		v.decided = append(v.decided, d)
	}
	d := v.decided[c.committed]
	if l.hashes[c.committed] != d.prefix {
		return fmt.Errorf("state machine safety: %s has committed another log through %d", n.id, c.committed)
	}
	if got := c.membersAt(c.committed); !got.Equal(d.members) {
		return fmt.Errorf("%s: configuration at %d is %v, committed is %v", n.id, c.committed, got, d.members)
	}
	return nil
}
