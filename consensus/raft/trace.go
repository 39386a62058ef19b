package raft

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// TraceKind is what a TraceEvent tells of.
type TraceKind uint8

// The events of the protocol.
const (
	TraceInit     TraceKind = iota // the node has read its journal
	TraceBecome                    // its role or term has changed
	TraceSend                      // Message goes to Peer
	TraceReceive                   // Message has come from Peer
	TraceCommit                    // its commit index has advanced
	TraceConfig                    // it uses another configuration
	TraceSnapshot                  // a snapshot has taken the place of a part of its log
	TraceReady                     // a batch has ended
)

// String returns the event's name.
func (k TraceKind) String() string {
	names := [...]string{"init", "become", "send", "receive", "commit", "config", "snapshot", "ready"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// TraceEvent is one event of the protocol with the state after it, enough to check a run against a formal
// specification of Raft. The values are copies, but Entries shares the log and must not be changed.
type TraceEvent struct {
	Kind TraceKind
	Node coterie.NodeID

	Term        uint64
	Vote        coterie.NodeID
	Role        StateRole
	Leader      coterie.NodeID
	LastIndex   uint64
	LastTerm    uint64
	CommitIndex uint64
	Members     Membership

	Peer    coterie.NodeID
	Message *TraceMessage // of TraceSend and TraceReceive
}

// TraceMessage is a message as a specification sees it.
type TraceMessage struct {
	Type    string // "AppendEntries", "AppendReply", "RequestVote", "VoteReply", "InstallSnapshot", ...
	Term    uint64
	Index   uint64 // of the entry before, the last entry, the match or the snapshot
	LogTerm uint64 // of the entry there
	Commit  uint64
	Entries []consensus.Entry
	Pre     bool // of a vote: it is a pre-vote
	Reject  bool
}

// trace tells the observer of an event, if there is one.
func (c *Core) trace(kind TraceKind, m *message, peer coterie.NodeID) {
	if c.cfg.Trace == nil {
		return
	}
	e := TraceEvent{
		Kind: kind, Node: c.cfg.ID, Term: c.term, Vote: c.vote, Role: c.role, Leader: c.leader,
		LastIndex: c.log.last(), LastTerm: c.log.lastTerm(), CommitIndex: c.committed, Members: c.conf.Membership,
		Peer: peer,
	}
	if m != nil {
		e.Message = &TraceMessage{
			Type: m.kind.String(), Term: m.term, Index: m.index, LogTerm: m.at, Commit: m.commit, Entries: m.entries,
			Pre: m.pre, Reject: m.refused,
		}
	}
	c.cfg.Trace(e)
}

// traceAppend tells of an append that has been encoded already.
func (c *Core) traceAppend(payload []byte, to coterie.NodeID) {
	if c.cfg.Trace == nil {
		return
	}
	var m message
	if m.decode(payload) != nil {
		return
	}
	m.entries = make([]consensus.Entry, m.count)
	if m.readEntries(m.entries) == nil {
		c.trace(TraceSend, &m, to)
	}
}
