package benchmarks

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// etcdNode drives a RawNode as fast as its documentation allows: one goroutine takes its whole inbox at once, a leader
// sends before it persists, and messages to a peer go as one slice.
type etcdNode struct {
	id      uint64
	raw     *raft.RawNode
	storage *raft.MemoryStorage
	wal     *wal.WAL // nil without a disk
	peers   []*etcdNode
	encoded bool // messages travel as bytes

	mu        sync.Mutex // guards what follows
	messages  [][]*raftpb.Message
	bytes     [][]byte
	proposals []*etcdProposal
	campaign  bool
	stop      bool
	wake      chan struct{} // holds one

	waiting map[uint64]*etcdProposal // of the node's goroutine
	lastID  uint64
	leads   bool
	done    chan struct{}
	outbox  map[uint64][]*raftpb.Message
}

type etcdProposal struct {
	data []byte
	done chan error
}

func raftEtcd(b *testing.B, dir string, encoded bool) raftCluster {
	b.Helper()
	var nodes []*etcdNode
	for id := uint64(1); id <= 3; id++ {
		n := &etcdNode{
			id: id, storage: raft.NewMemoryStorage(), encoded: encoded, wake: make(chan struct{}, 1),
			waiting: map[uint64]*etcdProposal{}, done: make(chan struct{}), outbox: map[uint64][]*raftpb.Message{},
		}
		if dir != "" {
			w, err := wal.Create(zap.NewNop(), filepath.Join(dir, fmt.Sprint(id)), nil)
			if err != nil {
				b.Fatal(err)
			}
			n.wal = w
		}
		raw, err := raft.NewRawNode(&raft.Config{
			ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: n.storage, MaxSizePerMsg: 512 << 10, MaxInflightMsgs: 256,
			PreVote: true, CheckQuorum: false, Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := raw.Bootstrap([]raft.Peer{{ID: 1}, {ID: 2}, {ID: 3}}); err != nil {
			b.Fatal(err)
		}
		n.raw = raw
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.peers = nodes
		go n.run()
	}
	leader := nodes[0]
	leader.with(func() { leader.campaign = true })
	pool := sync.Pool{New: func() any { return &etcdProposal{done: make(chan error, 1)} }}
	return raftCluster{
		propose: func(command []byte) error {
			p := pool.Get().(*etcdProposal)
			defer pool.Put(p)
			for {
				p.data = append(make([]byte, 8, 8+len(command)), command...)
				leader.with(func() { leader.proposals = append(leader.proposals, p) })
				if err := <-p.done; err != raft.ErrProposalDropped { // no leader yet
					return err
				}
			}
		},
		close: func() {
			for _, n := range nodes {
				n.with(func() { n.stop = true })
				<-n.done
			}
		},
	}
}

// with changes the inbox and wakes the node.
func (n *etcdNode) with(f func()) {
	n.mu.Lock()
	f()
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *etcdNode) run() {
	defer close(n.done)
	var messages [][]*raftpb.Message
	var encoded [][]byte
	var proposals []*etcdProposal
	for range n.wake {
		n.mu.Lock()
		messages, n.messages = n.messages, messages[:0]
		encoded, n.bytes = n.bytes, encoded[:0]
		proposals, n.proposals = n.proposals, proposals[:0]
		campaign, stop := n.campaign, n.stop
		n.campaign = false
		n.mu.Unlock()
		if stop {
			if n.wal != nil {
				_ = n.wal.Close()
			}
			return
		}
		if campaign {
			n.drain() // the bootstrap entries
			_ = n.raw.Campaign()
		}
		for _, batch := range messages {
			for _, m := range batch {
				_ = n.raw.Step(m)
			}
		}
		for _, data := range encoded {
			m := &raftpb.Message{}
			if proto.Unmarshal(data, m) == nil {
				_ = n.raw.Step(m)
			}
		}
		for _, p := range proposals {
			n.lastID++
			binary.BigEndian.PutUint64(p.data, n.lastID)
			n.waiting[n.lastID] = p
			if err := n.raw.Propose(p.data); err != nil {
				delete(n.waiting, n.lastID)
				p.done <- err
			}
		}
		n.drain()
	}
}

func (n *etcdNode) drain() {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		if rd.SoftState != nil {
			n.leads = rd.RaftState == raft.StateLeader
		}
		if n.leads {
			n.send(rd.Messages)
		}
		if n.wal != nil {
			hard := rd.HardState
			if hard == nil {
				hard = &raftpb.HardState{}
			}
			if err := n.wal.Save(hard, rd.Entries); err != nil {
				panic(err)
			}
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			_ = n.storage.SetHardState(rd.HardState)
		}
		_ = n.storage.Append(rd.Entries)
		if !n.leads {
			n.send(rd.Messages)
		}
		n.apply(rd.CommittedEntries)
		n.raw.Advance(rd)
	}
}

func (n *etcdNode) apply(entries []*raftpb.Entry) {
	for _, e := range entries {
		if e.GetType() == raftpb.EntryConfChange {
			cc := &raftpb.ConfChange{}
			if proto.Unmarshal(e.Data, cc) == nil {
				n.raw.ApplyConfChange(cc)
			}
			continue
		}
		if len(e.Data) < 8 || !n.leads {
			continue
		}
		id := binary.BigEndian.Uint64(e.Data)
		if p := n.waiting[id]; p != nil {
			delete(n.waiting, id)
			p.done <- nil
		}
	}
	if len(entries) > 0 {
		if index := entries[len(entries)-1].GetIndex(); index%65536 < uint64(len(entries)) && index > 10000 {
			_ = n.storage.Compact(index - 10000)
		}
	}
}

func (n *etcdNode) send(messages []*raftpb.Message) {
	for _, m := range messages {
		n.outbox[m.GetTo()] = append(n.outbox[m.GetTo()], m)
	}
	for _, p := range n.peers {
		batch := n.outbox[p.id]
		if len(batch) == 0 || p == n {
			continue
		}
		n.outbox[p.id] = nil
		if !n.encoded {
			p.with(func() { p.messages = append(p.messages, batch) })
			continue
		}
		data := make([][]byte, len(batch))
		for i, m := range batch {
			data[i], _ = proto.Marshal(m)
		}
		p.with(func() { p.bytes = append(p.bytes, data...) })
	}
}
