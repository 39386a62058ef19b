package benchmarks

import (
	"fmt"
	"io"
	"log"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	craft "github.com/coterie-go/coterie/consensus/raft"
)

const raftBatch = 64

// BenchmarkRaftCore measures the protocol alone, one leader of three whose peers are scripted. op=cycle is a proposal's
// whole way at a batch of 64: proposed, saved and sent, acknowledged by itself and one peer, committed, emitted and
// applied. op=step is the acknowledgement that commits one entry, without the rest.
func BenchmarkRaftCore(b *testing.B) {
	b.Run("op=cycle/impl=coterie", func(b *testing.B) { newScriptedCore(b).cycle(b) })
	b.Run("op=cycle/impl=etcd", func(b *testing.B) { newScriptedEtcd(b).cycle(b) })
	b.Run("op=step/impl=coterie", func(b *testing.B) { newScriptedCore(b).step(b) })
	b.Run("op=step/impl=etcd", func(b *testing.B) { newScriptedEtcd(b).step(b) })
}

// scriptedCore is a leader and, beside it, a real follower that makes the answers.
type scriptedCore struct {
	core, follower *craft.Core
	now            time.Time
	self, answer   []byte
	applied        uint64
	nextID         uint64
}

func newScriptedCore(b *testing.B) *scriptedCore {
	b.Helper()
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	s := &scriptedCore{now: time.Unix(0, 0)}
	for i, id := range []coterie.NodeID{"a", "b"} {
		core, err := craft.NewCore(craft.Config{ID: id, Voters: voters, Seed: uint64(i + 1), ElectionTimeout: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		core.Tick(s.now)
		core.Ready()
		if i == 0 {
			s.core = core
		} else {
			s.follower = core
		}
	}
	s.now = s.now.Add(3 * time.Hour)
	s.core.Tick(s.now)
	for range 10 {
		s.exchange(b)
	}
	if m := s.core.Metrics(); m.Role != craft.Leader || m.CommitIndex == 0 {
		b.Fatalf("no leader: %+v", m)
	}
	return s
}

// exchange performs one Ready of each, and carries what they send to each other.
func (s *scriptedCore) exchange(b *testing.B) {
	var toFollower, toLeader, own [][]byte
	for _, e := range s.leaderReady() {
		switch e.To {
		case "a":
			own = append(own, e.Payload)
		case "b":
			toFollower = append(toFollower, e.Payload)
		}
	}
	for _, p := range own {
		if err := s.core.Step(s.now, "a", p); err != nil {
			b.Fatal(err)
		}
	}
	for _, p := range toFollower {
		if err := s.follower.Step(s.now, "a", p); err != nil {
			b.Fatal(err)
		}
	}
	r := s.follower.Ready()
	for _, e := range r.Send {
		if e.To == "a" {
			toLeader = append(toLeader, e.Payload)
		}
	}
	s.apply(s.follower, r)
	for _, p := range toLeader {
		if err := s.core.Step(s.now, "b", p); err != nil {
			b.Fatal(err)
		}
	}
}

func (s *scriptedCore) leaderReady() []coterie.Envelope {
	r := s.core.Ready()
	s.apply(s.core, r)
	return r.Send
}

func (s *scriptedCore) apply(core *craft.Core, r coterie.Ready) {
	for _, e := range r.Events {
		if c, ok := e.(consensus.Committed); ok {
			last := c.Index + uint64(len(c.Entries)) - 1
			core.Applied(s.now, last)
			if last%65536 < uint64(len(c.Entries)) {
				core.Compact(s.now, last, consensus.Snapshot{Name: fmt.Sprint(last), Size: 1})
			}
		}
	}
}

// acks makes the answers of the leader's disk and of a peer for the next batch, off the clock.
func (s *scriptedCore) acks(b *testing.B) {
	s.self, s.answer = nil, nil
	for _, e := range s.leaderReady() {
		switch e.To {
		case "a":
			s.self = e.Payload
		case "b":
			if err := s.follower.Step(s.now, "a", e.Payload); err != nil {
				b.Fatal(err)
			}
		}
	}
	r := s.follower.Ready()
	for _, e := range r.Send {
		if e.To == "a" {
			s.answer = e.Payload
		}
	}
	s.apply(s.follower, r)
}

func (s *scriptedCore) propose(n int, command []byte) {
	for range n {
		s.nextID++
		s.core.Propose(s.now, s.nextID, command)
	}
}

func (s *scriptedCore) cycle(b *testing.B) {
	command := make([]byte, 16)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += raftBatch {
		s.propose(raftBatch, command)
		sent := s.leaderReady()
		var own, early []byte
		for _, e := range sent {
			switch e.To {
			case "a":
				own = e.Payload
			case "b":
				early = e.Payload
			}
		}
		b.StopTimer()
		if err := s.follower.Step(s.now, "a", early); err != nil {
			b.Fatal(err)
		}
		r := s.follower.Ready()
		var answer []byte
		for _, e := range r.Send {
			if e.To == "a" {
				answer = e.Payload
			}
		}
		s.apply(s.follower, r)
		b.StartTimer()
		if err := s.core.Step(s.now, "a", own); err != nil {
			b.Fatal(err)
		}
		if err := s.core.Step(s.now, "b", answer); err != nil {
			b.Fatal(err)
		}
		s.leaderReady()
	}
}

func (s *scriptedCore) step(b *testing.B) {
	command := make([]byte, 16)
	const rounds = 1024
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for n := 0; n < b.N; {
		// Many entries, each saved, sent and answered by itself; then the answers, one after the other.
		var answers [][]byte
		for range min(rounds, b.N-n) {
			s.propose(1, command)
			s.acks(b)
			answers = append(answers, s.answer)
			if err := s.core.Step(s.now, "a", s.self); err != nil {
				b.Fatal(err)
			}
			if len(answers)%64 == 0 {
				b.StartTimer()
				for _, a := range answers[len(answers)-64:] {
					if err := s.core.Step(s.now, "b", a); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				n += 64
				s.exchange(b)
			}
		}
		if len(answers)%64 != 0 {
			for _, a := range answers[len(answers)/64*64:] {
				if err := s.core.Step(s.now, "b", a); err != nil {
					b.Fatal(err)
				}
			}
			n += len(answers) % 64
			s.exchange(b)
		}
	}
}

// scriptedEtcd is the same for etcd's RawNode; answers are made by hand, as they can be.
type scriptedEtcd struct {
	raw     *raft.RawNode
	storage *raft.MemoryStorage
	last    uint64
}

func newScriptedEtcd(b *testing.B) *scriptedEtcd {
	b.Helper()
	s := &scriptedEtcd{storage: raft.NewMemoryStorage()}
	raw, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: s.storage, MaxSizePerMsg: 512 << 10, MaxInflightMsgs: 4096,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := raw.Bootstrap([]raft.Peer{{ID: 1}, {ID: 2}, {ID: 3}}); err != nil {
		b.Fatal(err)
	}
	s.raw = raw
	s.drain()
	if err := raw.Campaign(); err != nil {
		b.Fatal(err)
	}
	s.drain()
	for _, id := range []uint64{2, 3} {
		if err := raw.Step(&raftpb.Message{
			Type: raftpb.MsgVoteResp.Enum(), From: proto.Uint64(id), To: proto.Uint64(1), Term: proto.Uint64(raw.BasicStatus().GetTerm()),
		}); err != nil {
			b.Fatal(err)
		}
	}
	s.drain()
	s.ack(b)
	s.drain()
	if s.raw.BasicStatus().RaftState != raft.StateLeader {
		b.Fatal("etcd: no leader")
	}
	return s
}

func (s *scriptedEtcd) drain() {
	for s.raw.HasReady() {
		rd := s.raw.Ready()
		if !raft.IsEmptyHardState(rd.HardState) {
			_ = s.storage.SetHardState(rd.HardState)
		}
		if len(rd.Entries) > 0 {
			_ = s.storage.Append(rd.Entries)
			s.last = rd.Entries[len(rd.Entries)-1].GetIndex()
		}
		for _, e := range rd.CommittedEntries {
			if e.GetType() == raftpb.EntryConfChange {
				cc := &raftpb.ConfChange{}
				if proto.Unmarshal(e.Data, cc) == nil {
					s.raw.ApplyConfChange(cc)
				}
			}
		}
		if n := len(rd.CommittedEntries); n > 0 {
			if last := rd.CommittedEntries[n-1].GetIndex(); last%65536 < uint64(n) && last > 5000 {
				_ = s.storage.Compact(last - 4096)
			}
		}
		s.raw.Advance(rd)
	}
}

func (s *scriptedEtcd) ack(b *testing.B) {
	if err := s.raw.Step(s.answer(s.last)); err != nil {
		b.Fatal(err)
	}
}

func (s *scriptedEtcd) answer(index uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgAppResp.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(s.raw.BasicStatus().GetTerm()),
		Index: proto.Uint64(index),
	}
}

func (s *scriptedEtcd) cycle(b *testing.B) {
	command := make([]byte, 16)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += raftBatch {
		for range raftBatch {
			if err := s.raw.Propose(command); err != nil {
				b.Fatal(err)
			}
		}
		s.drain()
		b.StopTimer()
		m := s.answer(s.last)
		b.StartTimer()
		if err := s.raw.Step(m); err != nil {
			b.Fatal(err)
		}
		s.drain()
	}
}

func (s *scriptedEtcd) step(b *testing.B) {
	command := make([]byte, 16)
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	for n := 0; n < b.N; n += raftBatch {
		var answers []*raftpb.Message
		for range raftBatch {
			if err := s.raw.Propose(command); err != nil {
				b.Fatal(err)
			}
			s.drain()
			answers = append(answers, s.answer(s.last))
		}
		b.StartTimer()
		for _, m := range answers {
			if err := s.raw.Step(m); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		s.drain()
	}
}
