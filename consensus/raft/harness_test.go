package raft

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

const testTimeout = 100 * time.Millisecond // ElectionTimeout of group

// group is a few cores driven by hand: messages wait until they are delivered, disks are as fast as the test says, and
// nothing happens by itself.
type group struct {
	t     *testing.T
	now   time.Time
	ids   []coterie.NodeID
	nodes map[coterie.NodeID]*member
	mail  []mail
	lose  func(mail) bool // messages that are lost when they would be delivered
	cut   map[coterie.NodeID]bool
}

type mail struct {
	from, to coterie.NodeID
	payload  []byte
}

func (m mail) kind() kind { return kind(m.payload[1]) }

func (m mail) decode() message {
	var d message
	if err := d.decode(m.payload); err != nil {
		panic(err)
	}
	return d
}

// member is one core, its disk and what its application has seen.
type member struct {
	*Core
	g       *group
	cfg     Config
	journal [][]byte
	files   map[string][]byte
	partial []byte
	events  []any
	applied []string
	index   uint64
	hung    bool // the disk: a Ready with a Save stays where it is
	stuck   []coterie.Ready
	lives   uint64
}

func newGroup(t *testing.T, n int, change func(*Config)) *group {
	t.Helper()
	g := &group{t: t, now: time.Unix(0, 0), nodes: map[coterie.NodeID]*member{}, cut: map[coterie.NodeID]bool{}}
	voters := map[coterie.NodeID]string{}
	for i := range n {
		voters[coterie.NodeID(rune('a'+i))] = ""
	}
	for i := range n {
		cfg := Config{
			ID: coterie.NodeID(rune('a' + i)), Voters: voters, ElectionTimeout: testTimeout, HeartbeatInterval: testTimeout / 10,
			TrailingEntries: -1,
		}
		if change != nil {
			change(&cfg)
		}
		g.add(cfg)
	}
	return g
}

func (g *group) add(cfg Config) {
	g.t.Helper()
	m := &member{g: g, cfg: cfg, files: map[string][]byte{}}
	g.ids = append(g.ids, cfg.ID)
	g.nodes[cfg.ID] = m
	m.boot()
}

// boot starts the next incarnation from the journal.
func (m *member) boot() {
	m.g.t.Helper()
	m.lives++
	m.cfg.Seed = m.lives*1000 + xxhash.Sum64String(string(m.cfg.ID))%1000 + 1
	core, err := NewCore(m.cfg)
	require.NoError(m.g.t, err)
	for _, r := range m.journal {
		require.NoError(m.g.t, core.Replay(r))
	}
	m.Core, m.applied, m.index, m.stuck, m.hung = core, nil, 0, nil, false
	core.Tick(m.g.now)
	m.ready()
}

// crash loses what is not durable, mail to the node and from it, and starts it again.
func (m *member) crash() {
	m.g.mail = slices.DeleteFunc(m.g.mail, func(x mail) bool { return x.to == m.cfg.ID })
	m.boot()
}

// elapsed is the node's own clock.
func (m *member) elapsed() instant { return m.now }

func (m *member) wipe() {
	m.journal, m.files = nil, map[string][]byte{}
}

// ready performs the effects of a batch, as a host does.
func (m *member) ready() {
	r := m.Ready()
	r = coterie.Ready{Save: slices.Clone(r.Save), Keep: r.Keep, Send: slices.Clone(r.Send), Events: slices.Clone(r.Events), Wake: r.Wake}
	for _, e := range r.Send {
		if e.Early {
			m.g.mail = append(m.g.mail, mail{m.cfg.ID, e.To, e.Payload})
		}
	}
	if m.hung {
		m.stuck = append(m.stuck, r)
		return
	}
	m.durable(r)
}

// unhang lets the syncs under way end.
func (m *member) unhang() {
	m.hung = false
	for _, r := range m.stuck {
		m.durable(r)
	}
	m.stuck = nil
}

func (m *member) durable(r coterie.Ready) {
	m.journal = append(m.journal, r.Save...)
	if r.Keep > 0 {
		require.LessOrEqual(m.g.t, r.Keep, len(m.journal))
		m.journal = slices.Clone(m.journal[len(m.journal)-r.Keep:])
	}
	for _, e := range r.Send {
		if !e.Early {
			m.g.mail = append(m.g.mail, mail{m.cfg.ID, e.To, e.Payload})
		}
	}
	for _, e := range r.Events {
		m.events = append(m.events, e)
		m.event(e)
	}
}

func (m *member) event(event any) {
	switch e := event.(type) {
	case consensus.Committed:
		require.Equal(m.g.t, m.index+1, e.Index)
		for _, entry := range e.Entries {
			m.index++
			if !entry.Internal {
				m.applied = append(m.applied, string(entry.Command))
			}
		}
		m.Applied(m.g.now, m.index)
	case consensus.Installed:
		m.index, m.applied = e.Index, nil
		m.applied = slices.AppendSeq(m.applied, lines(m.files[e.Snapshot.Name]))
	case consensus.ReadChunk:
		f, ok := m.files[e.Name]
		if !ok {
			m.ChunkRead(m.g.now, e.ID, nil, fmt.Errorf("gone"))
		} else {
			m.ChunkRead(m.g.now, e.ID, f[e.Offset:e.Offset+int64(e.Limit)], nil)
		}
		m.ready()
	case consensus.WriteChunk:
		if e.Offset == 0 {
			m.partial = nil
		}
		require.EqualValues(m.g.t, len(m.partial), e.Offset)
		m.partial = append(m.partial, e.Data...)
		if int64(len(m.partial)) == e.Snapshot.Size {
			require.Equal(m.g.t, e.Snapshot.Checksum, xxhash.Sum64(m.partial))
			m.files[e.Snapshot.Name] = m.partial
		}
		m.ChunkWritten(m.g.now, e.ID, nil)
		m.ready()
	case consensus.Superseded:
		delete(m.files, e.Name)
	}
}

func lines(b []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(b) > 0 {
			i := slices.Index(b, '\n')
			if !yield(string(b[:i])) {
				return
			}
			b = b[i+1:]
		}
	}
}

// snapshot writes one of all that is applied, and compacts.
func (m *member) snapshot() {
	var b []byte
	for _, a := range m.applied {
		b = append(append(b, a...), '\n')
	}
	name := fmt.Sprintf("own-%d", m.index)
	m.files[name] = b
	m.Compact(m.g.now, m.index, consensus.Snapshot{Name: name, Size: int64(len(b)), Checksum: xxhash.Sum64(b)})
	m.ready()
}

// deliver carries all messages, and those that answer them, until none is left; at most so many rounds.
func (g *group) deliver() {
	g.t.Helper()
	for range 500 {
		if len(g.mail) == 0 {
			return
		}
		g.deliverOnce()
	}
	g.t.Fatal("messages without end")
}

func (g *group) deliverOnce() {
	batch := g.mail
	g.mail = nil
	var touched []coterie.NodeID
	for _, x := range batch {
		if x.from != x.to && (g.cut[x.from] || g.cut[x.to]) || g.lose != nil && g.lose(x) || g.nodes[x.to] == nil {
			continue
		}
		require.NoError(g.t, g.nodes[x.to].Step(g.now, x.from, x.payload))
		if !slices.Contains(touched, x.to) {
			touched = append(touched, x.to)
		}
	}
	for _, id := range touched {
		g.nodes[id].ready()
	}
}

// advance lets time pass in small steps, ticking nodes and delivering messages.
func (g *group) advance(d time.Duration) {
	g.t.Helper()
	for end := g.now.Add(d); g.now.Before(end); {
		g.now = g.now.Add(testTimeout / 20)
		for _, id := range g.ids {
			g.nodes[id].Tick(g.now)
			g.nodes[id].ready()
		}
		g.deliver()
	}
}

// elect makes a node the leader: it alone campaigns.
func (g *group) elect(id coterie.NodeID) *member {
	g.t.Helper()
	g.now = g.now.Add(2 * testTimeout) // nobody is protected any more
	n := g.nodes[id]
	n.electionDue = n.elapsed()
	n.Tick(g.now)
	n.ready()
	g.deliver()
	require.Equal(g.t, Leader, n.role, "%s leads", id)
	g.heartbeat(id)
	return n
}

// heartbeat makes a leader send one, and delivers.
func (g *group) heartbeat(id coterie.NodeID) {
	g.t.Helper()
	g.now = g.now.Add(testTimeout / 10)
	g.nodes[id].Tick(g.now)
	g.nodes[id].ready()
	g.deliver()
}

func (m *member) propose(id uint64, command string) {
	m.Propose(m.g.now, id, []byte(command))
	m.ready()
}

// count returns how many messages of a kind wait for delivery to a node, "" for any.
func (g *group) count(k kind, to coterie.NodeID) (n int) {
	for _, x := range g.mail {
		if x.kind() == k && (to == "" || x.to == to) {
			n++
		}
	}
	return n
}

// find returns the events of a type that a node has seen.
func find[E any](m *member) (found []E) {
	for _, e := range m.events {
		if e, ok := e.(E); ok {
			found = append(found, e)
		}
	}
	return found
}
