package paxos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

func majority(t interface {
	Helper()
	Fatal(...any)
}, ids ...coterie.NodeID,
) quorum.ReadWrite {
	t.Helper()
	rw, err := quorum.Symmetric(quorum.Majority(ids...))
	if err != nil {
		t.Fatal(err)
	}
	return rw
}

// TestRolesAgree drives the three roles by hand, in any order, with every message lost or repeated at will: what
// learners learn never differs.
func TestRolesAgree(t *testing.T) {
	testsize.Checks(t, 300, 20000)
	rapid.Check(t, func(t *rapid.T) {
		if err := rolesDisagree(t, roleBug{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRolesFindPlantedBugs shows that TestRolesAgree has teeth.
func TestRolesFindPlantedBugs(t *testing.T) {
	for name, bug := range map[string]roleBug{
		"promises of other ballots counted": {countMessages: true},
		"accepted values not heeded":        {ownValue: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range 20000 {
				found := false
				g := rapid.Custom(func(t *rapid.T) bool { return rolesDisagree(t, bug) != nil })
				found = g.Example(seed)
				if found {
					return
				}
			}
			t.Fatal("not found")
		})
	}
}

type roleMail struct {
	to       int // acceptor, or proposer of an answer
	from     coterie.NodeID
	prepare  bool
	promise  bool
	ballot   Ballot
	proposal Proposal
}

func rolesDisagree(t *rapid.T, bug roleBug) error {
	ids := []coterie.NodeID{"a", "b", "c"}
	rw, err := quorum.Symmetric(quorum.Majority(ids...))
	if err != nil {
		return err
	}
	acceptors := make([]Acceptor, 3)
	proposers := []*Proposer{NewProposer("p", rw), NewProposer("q", rw)}
	learners := []*Learner{NewLearner(rw), NewLearner(rw)}
	for _, p := range proposers {
		p.bug = bug
	}
	var mail []roleMail
	for range rapid.IntRange(20, 80).Draw(t, "steps") {
		if len(mail) == 0 || rapid.IntRange(0, 9).Draw(t, "begin") == 0 {
			i := rapid.IntRange(0, 1).Draw(t, "proposer")
			b := proposers[i].Begin([]byte{"pq"[i]})
			for a := range acceptors {
				mail = append(mail, roleMail{to: a, prepare: true, ballot: b})
			}
			continue
		}
		i := rapid.IntRange(0, len(mail)-1).Draw(t, "message")
		m := mail[i]
		if rapid.IntRange(0, 3).Draw(t, "repeat") > 0 {
			mail = slices.Delete(mail, i, i+1)
		}
		switch {
		case m.prepare:
			if p, ok := acceptors[m.to].Prepare(m.ballot); ok {
				mail = append(mail, roleMail{to: slices.Index([]coterie.NodeID{"p", "q"}, m.ballot.Node), from: ids[m.to], promise: true, ballot: m.ballot, proposal: p})
			} else {
				promised, _ := acceptors[m.to].State()
				proposers[slices.Index([]coterie.NodeID{"p", "q"}, m.ballot.Node)].After(promised)
			}
		case m.promise:
			if p, ready := proposers[m.to].Promise(m.from, m.ballot, m.proposal); ready {
				for a := range acceptors {
					mail = append(mail, roleMail{to: a, proposal: p})
				}
			}
		case acceptors[m.to].Accept(m.proposal):
			for _, l := range learners {
				if rapid.IntRange(0, 4).Draw(t, "hears") > 0 {
					l.Accepted(ids[m.to], m.proposal)
				}
			}
		}
		v, ok0 := learners[0].Chosen()
		w, ok1 := learners[1].Chosen()
		if ok0 && ok1 && string(v) != string(w) {
			return fmt.Errorf("%q and %q are chosen", v, w)
		}
	}
	return nil
}

// synods are nodes of a Synod driven by hand.
type synods struct {
	t     *testing.T
	nodes map[coterie.NodeID]*Synod
	up    map[coterie.NodeID]bool
	said  map[coterie.NodeID][]any
	lose  func(from, to coterie.NodeID, m synodMessage) bool
	now   time.Time
}

func newSynods(t *testing.T, bug bool, ids ...coterie.NodeID) *synods {
	s := &synods{t: t, nodes: map[coterie.NodeID]*Synod{}, up: map[coterie.NodeID]bool{}, said: map[coterie.NodeID][]any{}, now: time.Unix(0, 0)}
	for _, id := range ids {
		n, err := NewSynod(SynodConfig{ID: id, Quorums: majority(t, ids...), Seed: 1})
		require.NoError(t, err)
		n.bug = bug
		s.nodes[id], s.up[id] = n, true
		n.Tick(s.now)
	}
	return s
}

// settle carries all messages among those that are up.
func (s *synods) settle() {
	s.t.Helper()
	for range 100 {
		var mail []struct {
			from coterie.NodeID
			e    coterie.Envelope
		}
		for _, id := range []coterie.NodeID{"a", "b", "c"} {
			r := s.nodes[id].Ready()
			s.said[id] = append(s.said[id], r.Events...)
			for _, e := range r.Send {
				mail = append(mail, struct {
					from coterie.NodeID
					e    coterie.Envelope
				}{id, e})
			}
		}
		if len(mail) == 0 {
			return
		}
		for _, m := range mail {
			var d synodMessage
			require.NoError(s.t, d.decode(m.e.Payload))
			if s.up[m.from] && s.up[m.e.To] && (s.lose == nil || !s.lose(m.from, m.e.To, d)) {
				require.NoError(s.t, s.nodes[m.e.To].Step(s.now, m.from, m.e.Payload))
			}
		}
	}
	s.t.Fatal("messages without end")
}

// A value that one acceptor of three has accepted may be seen by a read of one pair and not by one of another: a read
// brings it to a quorum before it tells of it (CASSANDRA-12126, scylladb/scylladb#6299).
func TestReadRepairsBeforeItTells(t *testing.T) {
	reads := func(bug bool) (first, second any) {
		s := newSynods(t, bug, "a", "b", "c")
		// c proposes; of phase 2 only a hears.
		require.NoError(t, s.nodes["c"].Propose(s.now, []byte("v")))
		s.lose = func(_, to coterie.NodeID, m synodMessage) bool {
			return m.kind == synodAccept && to != "a" || m.kind == synodAccepted
		}
		s.settle()
		_, accepted := s.nodes["a"].acceptor.State()
		require.Equal(t, "v", string(accepted.Value))
		s.lose = nil
		s.nodes["c"].want, s.nodes["c"].wants, s.nodes["c"].busy = nil, false, false
		// b reads with a, while c is cut off; then c with b, while a is.
		s.up["c"] = false
		// Its first ballot may be too low, and is told so.
		for range 3 {
			s.nodes["b"].Read(s.now)
			s.settle()
			s.now = s.now.Add(time.Second)
			s.nodes["b"].Tick(s.now)
			s.now = s.now.Add(time.Second)
		}
		s.up["a"], s.up["c"] = false, true
		for range 3 {
			s.nodes["c"].Read(s.now)
			s.settle()
			s.now = s.now.Add(time.Second)
			s.nodes["c"].Tick(s.now)
			s.now = s.now.Add(time.Second)
		}
		require.NotEmpty(t, s.said["b"])
		require.NotEmpty(t, s.said["c"])
		return s.said["b"][0], s.said["c"][0]
	}
	first, second := reads(false)
	require.Equal(t, Chosen{[]byte("v")}, first)
	require.Equal(t, Chosen{[]byte("v")}, second)
	first, second = reads(true)
	require.Equal(t, Chosen{[]byte("v")}, first)
	require.Equal(t, Unchosen{}, second, "the mutant shows the value, then none")
}

// TestSynodChoosesOne: nodes that all propose, crash and lose messages choose one of the proposed values, and once the
// faults are over everybody learns it.
func TestSynodChoosesOne(t *testing.T) {
	ids := []coterie.NodeID{"a", "b", "c", "d", "e"}
	simtest.Seeds(t, testsize.N(50, 1000), func(t *testing.T, seed uint64) {
		w, err := sim.New(sim.Config{Seed: seed, Link: sim.Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.2}})
		require.NoError(t, err)
		learned := map[coterie.NodeID]string{}
		var broken error
		for _, id := range ids {
			require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
				s, err := NewSynod(SynodConfig{ID: id, Quorums: majority(t, ids...), Seed: seed*100 + incarnation*10 + uint64(id[0])})
				require.NoError(t, err)
				return s, sim.EventFunc(func(_ time.Time, event any) {
					if e, ok := event.(Chosen); ok {
						learned[id] = string(e.Value)
						for _, v := range learned {
							if v != string(e.Value) {
								broken = fmt.Errorf("%q and %q are chosen", v, e.Value)
							}
						}
					}
				})
			}}))
		}
		w.Invariant("agreement", func(*sim.World) error { return broken })
		var again func()
		again = func() {
			for _, id := range ids {
				_ = w.Do(id, func(now time.Time, core coterie.Core) { _ = core.(*Synod).Propose(now, []byte("of "+id)) })
			}
			w.After(300*time.Millisecond, again)
		}
		w.After(0, again)
		require.NoError(t, w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: ids, Length: 2 * time.Second})))
		require.NoError(t, w.RunUntil(func() bool { return len(learned) == len(ids) }, 20*time.Second))
		require.Contains(t, []string{"of a", "of b", "of c", "of d", "of e"}, learned["a"])
	})
}

func TestSynodConfigIsChecked(t *testing.T) {
	_, err := NewSynod(SynodConfig{})
	for _, field := range []string{"ID", "Seed", "Quorums"} {
		require.ErrorContains(t, err, "SynodConfig."+field)
	}
}
