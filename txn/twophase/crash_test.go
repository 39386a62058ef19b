package twophase

import (
	"fmt"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/txn"
)

// settings are the transactions whose every crash is tried.
var settings = []struct {
	name  string
	votes []txn.Vote
	self  bool // the coordinator takes part too
}{
	{"all yes", []txn.Vote{txn.Yes, txn.Yes, txn.Yes}, false},
	{"one no", []txn.Vote{txn.Yes, txn.No, txn.Yes}, false},
	{"one read-only", []txn.Vote{txn.Yes, txn.ReadOnly, txn.Yes}, false},
	{"all read-only", []txn.Vote{txn.ReadOnly, txn.ReadOnly}, false},
	{"with oneself", []txn.Vote{txn.Yes, txn.Yes}, true},
}

// runWith lets one transaction happen with the faults given.
func runWith(votes []txn.Vote, self bool, prepare func(*world)) *world {
	w := newWorld(votes...)
	w.points, w.messages = 0, 0
	prepare(w)
	members := w.order[1:]
	if self {
		w.nodes["c"].res.vote = txn.Yes
		members = w.order
	}
	w.transact(members...)
	w.advance(3 * time.Minute)
	return w
}

// outages are how long a crashed node stays away: messages under way reach it, or are lost and its peers give up first.
var outages = []time.Duration{0, 100 * time.Millisecond, 20 * time.Second}

// eachCrash tries a crash of each node at each point, after the faults of base.
func eachCrash(votes []txn.Vote, self bool, base func(*world), first int, try func(crash, *world) bool) bool {
	whole := runWith(votes, self, base)
	for point := first; point <= whole.points; point++ {
		for _, victim := range whole.order {
			for _, down := range outages {
				c := crash{point, victim, down}
				w := runWith(votes, self, func(w *world) { base(w); w.crashes = append(w.crashes, c) })
				if !try(c, w) {
					return false
				}
			}
		}
	}
	return true
}

// A crash of any node before and after every message, every save and every call of a resource.
func TestEveryCrash(t *testing.T) {
	tried := 0
	for _, s := range settings {
		before := tried
		eachCrash(s.votes, s.self, func(*world) {}, 1, func(c crash, w *world) bool {
			tried++
			if err := w.check(); err != nil {
				t.Errorf("%s, crash %+v: %v", s.name, c, err)
			}
			return !t.Failed()
		})
		t.Logf("%s: %d crashes tried", s.name, tried-before)
	}
	t.Logf("%d crashes tried", tried)
	if tried < 1000 {
		t.Errorf("only %d crashes tried", tried)
	}
}

// Every message lost, and every message repeated, at once and late.
func TestEveryMessageLostOrRepeated(t *testing.T) {
	tried := 0
	for _, s := range settings {
		whole := runWith(s.votes, s.self, func(*world) {})
		for k := 1; k <= whole.messages; k++ {
			for _, fault := range []func(*world){
				func(w *world) { w.lose = k },
				func(w *world) { w.repeat = k },
				func(w *world) { w.repeat, w.later = k, 10*time.Millisecond },
				func(w *world) { w.repeat, w.later = k, time.Minute },
			} {
				tried++
				if err := runWith(s.votes, s.self, fault).check(); err != nil {
					t.Fatalf("%s, message %d: %v", s.name, k, err)
				}
			}
		}
	}
	t.Logf("%d losses and repetitions tried", tried)
}

// Every message lost or repeated, with every crash; and every two crashes.
func TestEveryTwoFaults(t *testing.T) {
	votes := []txn.Vote{txn.Yes, txn.Yes}
	tried := 0
	try := func(_ crash, w *world) bool {
		tried++
		if err := w.check(); err != nil {
			t.Errorf("crashes %+v, lost %d, repeated %d: %v", w.crashes, w.lose, w.repeat, err)
		}
		return !t.Failed()
	}
	whole := runWith(votes, false, func(*world) {})
	step := 1
	if testsize.Race() {
		step = 10
	}
	for k := 1; k <= whole.messages && !t.Failed(); k += step {
		eachCrash(votes, false, func(w *world) { w.lose = k }, 1, try)
		eachCrash(votes, false, func(w *world) { w.repeat = k }, 1, try)
	}
	t.Logf("%d pairs of a message and a crash tried", tried)
	stride := 1
	if !testsize.Soak() {
		stride = 7
	}
	if testsize.Race() {
		stride = 70
	}
	count := 0
	eachCrash(votes, false, func(*world) {}, 1, func(c crash, _ *world) bool {
		if count++; count%stride != 0 {
			return true
		}
		return eachCrash(votes, false, func(w *world) { w.crashes = []crash{c} }, c.point, try)
	})
	t.Logf("%d pairs tried", tried)
}

// What the tests above would say of known mistakes.
func TestEveryCrashFindsPlantedBugs(t *testing.T) {
	for name, b := range map[string]bug{
		"commit sent before the decision is durable": sendBeforeSave,
		"abort presumed after a logged commit":       commitForgotten,
	} {
		var found error
		eachCrash(settings[0].votes, false, func(w *world) { w.bug = b }, 1, func(c crash, w *world) bool {
			if err := w.check(); err != nil {
				found = fmt.Errorf("crash %+v: %w", c, err)
			}
			return found == nil
		})
		if found == nil {
			t.Errorf("%s: not found", name)
		}
		t.Logf("%s: %v", name, found)
	}
}

// Presumed abort: what is written and sent for one transaction, exactly (Mohan, Lindsay and Obermarck, table 1).
func TestForcedWritesAndMessages(t *testing.T) {
	type count struct{ syncs, records, messages int }
	for _, tt := range []struct {
		name  string
		votes []txn.Vote
		c     count            // coordinator
		p     map[string]count // participants
	}{
		{"commit", []txn.Vote{txn.Yes, txn.Yes, txn.Yes, txn.Yes}, count{1, 1, 8}, map[string]count{
			"p1": {2, 2, 2}, "p4": {2, 2, 2}}},
		{"read-only voter", []txn.Vote{txn.Yes, txn.ReadOnly}, count{1, 1, 3}, map[string]count{
			"p1": {2, 2, 2}, "p2": {0, 0, 1}}},
		{"all read-only", []txn.Vote{txn.ReadOnly, txn.ReadOnly}, count{0, 0, 2}, map[string]count{
			"p1": {0, 0, 1}}},
		{"abort", []txn.Vote{txn.Yes, txn.No}, count{0, 0, 3}, map[string]count{
			"p1": {1, 1, 1}, "p2": {0, 0, 1}}},
	} {
		w := newWorld(tt.votes...)
		for _, n := range w.nodes {
			n.syncs = 0
			clear(n.saved)
			clear(n.sent)
		}
		w.transact(w.order[1:]...)
		w.advance(time.Minute)
		if err := w.check(); err != nil {
			t.Fatal(tt.name, err)
		}
		tt.p["c"] = tt.c
		for id, want := range tt.p {
			n := w.nodes[coterie.NodeID(id)]
			got := count{syncs: n.syncs}
			for _, k := range n.saved {
				got.records += k
			}
			for _, k := range n.sent {
				got.messages += k
			}
			if got != want {
				t.Errorf("%s: %s made %+v, want %+v (%v, %v)", tt.name, id, got, want, n.saved, n.sent)
			}
		}
	}
}
