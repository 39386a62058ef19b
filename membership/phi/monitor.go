package phi

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// MonitorConfig configures a Monitor. Its zero value has an Accrual with its defaults for each peer.
type MonitorConfig struct {
	New  func() Detector // makes the detector of a peer; default an Accrual by the zero Config
	Dead float64         // level at which a suspected peer is taken for dead; default 2
}

// Monitor keeps a Detector for each of many peers, known by keys of type K. A Monitor[coterie.NodeID] is a
// coterie.Detector. Its methods are safe for concurrent use; those but Watch and the first Heartbeat of a peer allocate
// nothing.
type Monitor[K cmp.Ordered] struct {
	cfg MonitorConfig

	tell     sync.Mutex // held while watchers are called; taken before mu
	watchers []*func(K, coterie.Liveness)

	mu    sync.Mutex // guards what follows
	peers map[K]*watched
	order []K // sorted
}

// watched is a peer.
type watched struct {
	detector Detector
	opinion  coterie.Liveness
}

var _ coterie.Detector = (*Monitor[coterie.NodeID])(nil)

// NewMonitor makes a Monitor that knows no peer. The error names the field of MonitorConfig that is wrong.
func NewMonitor[K cmp.Ordered](cfg MonitorConfig) (*Monitor[K], error) {
	cfg.Dead = cmp.Or(cfg.Dead, 2)
	if !(cfg.Dead >= 1) { // refuses NaN too
		return nil, fmt.Errorf("phi: MonitorConfig.Dead is %v, not 1 or more", cfg.Dead)
	}
	if cfg.New == nil {
		cfg.New = func() Detector {
			a, err := New(Config{})
			if err != nil {
				panic(err) // the defaults are valid
			}
			return a
		}
	} else if cfg.New() == nil {
		return nil, errors.New("phi: MonitorConfig.New makes no detector")
	}
	return &Monitor[K]{cfg: cfg, peers: make(map[K]*watched)}, nil
}

// Heartbeat tells of a heartbeat of a peer, which is thereby known, and alive.
func (m *Monitor[K]) Heartbeat(peer K, at time.Time) {
	m.mu.Lock()
	p := m.peers[peer]
	news := p == nil || p.opinion != coterie.Alive
	if p != nil {
		p.detector.Heartbeat(at)
	}
	m.mu.Unlock()
	if news {
		m.revive(peer, at, p == nil)
	}
}

// revive is the part of Heartbeat that tells watchers.
func (m *Monitor[K]) revive(peer K, at time.Time, unknown bool) {
	m.tell.Lock()
	defer m.tell.Unlock()
	m.mu.Lock()
	p := m.peers[peer]
	if p == nil && unknown {
		p = &watched{detector: m.cfg.New(), opinion: coterie.Dead}
		p.detector.Heartbeat(at)
		m.peers[peer] = p
		i, _ := slices.BinarySearch(m.order, peer)
		m.order = slices.Insert(m.order, i, peer)
	}
	changed := p != nil && p.opinion != coterie.Alive
	if changed {
		p.opinion = coterie.Alive
	}
	m.mu.Unlock()
	if changed {
		m.announce(peer, coterie.Alive)
	}
}

// announce calls the watchers. The caller holds tell.
func (m *Monitor[K]) announce(peer K, l coterie.Liveness) {
	for _, f := range m.watchers {
		(*f)(peer, l)
	}
}

// Check judges all peers at a time, tells the watchers of each that has become suspect or dead, and returns when to
// check again: when the next peer will be suspected if it stays silent, or a tenth of the time-out of one that is;
// zero if there is nothing to wait for.
func (m *Monitor[K]) Check(at time.Time) (next time.Time) {
	m.tell.Lock()
	defer m.tell.Unlock()
	for i := 0; ; i++ {
		peer, opinion, changed, again, ok := m.judge(i, at)
		if !ok {
			return next
		}
		if changed {
			m.announce(peer, opinion)
		}
		if !again.IsZero() && (next.IsZero() || again.Before(next)) {
			next = again
		}
	}
}

// judge is Check of one peer.
func (m *Monitor[K]) judge(i int, at time.Time) (peer K, opinion coterie.Liveness, changed bool, again time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i >= len(m.order) {
		return peer, 0, false, again, false
	}
	peer = m.order[i]
	p := m.peers[peer]
	opinion = coterie.Alive
	switch level := p.detector.Level(at); {
	case level >= m.cfg.Dead:
		opinion = coterie.Dead
	case level >= 1:
		opinion = coterie.Suspect
		again = at.Add(100 * time.Millisecond)
	default:
		if again = p.detector.Deadline(); !again.After(at) { // rounding: it is about to be
			again = at.Add(time.Millisecond)
		}
	}
	// What a Check decides stands until the next one or a heartbeat, even if time is said to run backwards.
	changed = opinion > p.opinion
	if changed {
		p.opinion = opinion
	}
	return peer, opinion, changed, again, true
}

// Level is how suspicious a peer's silence is; see Detector. It is 0 for a peer that is unknown.
func (m *Monitor[K]) Level(peer K, at time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[peer]; p != nil {
		return p.detector.Level(at)
	}
	return 0
}

// Phi is the phi of a peer whose detector is an Accrual; of another detector, or an unknown peer, it is 0.
func (m *Monitor[K]) Phi(peer K, at time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[peer]; p != nil {
		if a, ok := p.detector.(*Accrual); ok {
			return a.Phi(at)
		}
	}
	return 0
}

// Remove forgets a peer; watchers are not told.
func (m *Monitor[K]) Remove(peer K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[peer] == nil {
		return
	}
	delete(m.peers, peer)
	i, _ := slices.BinarySearch(m.order, peer)
	m.order = slices.Delete(m.order, i, i+1)
}

// Peers lists the known peers, sorted.
func (m *Monitor[K]) Peers() []K {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}

// Watch calls f with the opinion of each known peer, then with every change, which comes within a Check or a Heartbeat:
// f must not block, and may not call Check, Heartbeat, Watch or cancel.
func (m *Monitor[K]) Watch(f func(K, coterie.Liveness)) (cancel func()) {
	m.tell.Lock()
	defer m.tell.Unlock()
	m.mu.Lock()
	order := slices.Clone(m.order)
	opinions := make([]coterie.Liveness, len(order))
	for i, peer := range order {
		opinions[i] = m.peers[peer].opinion
	}
	m.mu.Unlock()
	for i, peer := range order {
		f(peer, opinions[i])
	}
	entry := &f
	m.watchers = append(m.watchers, entry)
	return func() {
		m.tell.Lock()
		defer m.tell.Unlock()
		m.watchers = slices.DeleteFunc(m.watchers, func(other *func(K, coterie.Liveness)) bool { return other == entry })
	}
}
