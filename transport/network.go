package transport

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/inlet"
)

// Errors of Send that the transports of this library share. They come wrapped: test with errors.Is. A closed
// transport returns coterie.ErrClosed.
var (
	// ErrUnknownPeer is returned by Send to a node that the transport has no way to reach: in memory one that never
	// joined, over a network one without an address.
	ErrUnknownPeer = errors.New("transport: unknown peer")
	// ErrTooLarge is returned by Send of a payload over the transport's limit.
	ErrTooLarge = errors.New("transport: payload too large")
)

// NetworkConfig configures a Network. The zero value is ready to use.
type NetworkConfig struct {
	// Direct makes Send call the receiver's handler itself when it can, which saves a goroutine's wake-up per
	// message. It is for handlers that only queue, as those of package host do: a handler must not take a lock that
	// is held while anything is sent. Without it every message is handed over by another goroutine.
	Direct bool
	// MaxPayload is the most bytes in one payload; default 16 MiB.
	MaxPayload int
	// QueueBytes bounds what waits from one node to another, each message counted 64 bytes longer than its payload;
	// the newest is dropped when it is full. Default 64 MiB.
	QueueBytes int
}

func (c NetworkConfig) withDefaults() NetworkConfig {
	if c.MaxPayload == 0 {
		c.MaxPayload = 16 << 20
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 64 << 20
	}
	return c
}

// messageOverhead is what a queued message counts for beside its payload, so that empty ones are bounded too.
const messageOverhead = 64

// Network joins nodes of one process, in memory: nothing is lost but what a full queue drops, what a cut link
// swallows and what comes to a node without a handler; messages from one node to another stay in order. It is for
// tests, examples and nodes that share a process; for faults that a seed decides use package sim.
//
// Every method is safe for concurrent use.
type Network struct {
	cfg NetworkConfig

	mu    sync.Mutex // guards the maps; taken before a link's lock, never held while a handler runs
	ports map[coterie.NodeID]*port
	links map[direction]*link
}

// direction names a link: what one node sends to another.
type direction struct{ from, to coterie.NodeID }

// NewNetwork makes a network that no node has joined.
func NewNetwork(cfg NetworkConfig) *Network {
	return &Network{
		cfg:   cfg.withDefaults(),
		ports: make(map[coterie.NodeID]*port),
		links: make(map[direction]*link),
	}
}

// Join adds a node and returns its transport. A node that has closed its transport may join again. It panics if the
// id is empty or is a member now: two nodes of one name are a bug that no error would undo.
func (n *Network) Join(id coterie.NodeID) coterie.Transport {
	if id == "" {
		panic("transport: Network.Join without an id")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[id] != nil {
		panic(fmt.Sprintf("transport: %q has joined the network already", id))
	}
	p := &port{net: n, id: id}
	p.links.Store(&map[coterie.NodeID]*link{})
	n.ports[id] = p
	n.linkLocked(direction{id, id}) // from now on the id is known, also after it leaves
	for d, l := range n.links {
		if d.to == id {
			l.connect(p)
		}
	}
	return p
}

// Cut makes the network lose whatever is sent between a and b, in both directions, until Heal. What was queued
// before arrives. The nodes need not have joined.
func (n *Network) Cut(a, b coterie.NodeID) { n.setCut(a, b, true) }

// Heal ends a Cut.
func (n *Network) Heal(a, b coterie.NodeID) { n.setCut(a, b, false) }

func (n *Network) setCut(a, b coterie.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range []direction{{a, b}, {b, a}} {
		l := n.linkLocked(d)
		l.mu.Lock()
		l.cut = cut
		l.mu.Unlock()
	}
}

// NetworkMetrics counts the messages of a Network since it was made.
type NetworkMetrics struct {
	Sent      uint64 // accepted by Send
	Delivered uint64 // handed to a handler
	Dropped   uint64 // lost because a queue was full
	Lost      uint64 // lost on a cut link, or to a node that has left or has no handler
}

// Metrics returns the counters. Those of a message under way may not be there yet.
func (n *Network) Metrics() NetworkMetrics {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sum NetworkMetrics
	for _, l := range n.links {
		l.mu.Lock()
		sum.Sent += l.metrics.Sent
		sum.Delivered += l.metrics.Delivered
		sum.Dropped += l.metrics.Dropped
		sum.Lost += l.metrics.Lost
		l.mu.Unlock()
	}
	return sum
}

// linkLocked returns the link of a direction and makes it if need be; n.mu is held.
func (n *Network) linkLocked(d direction) *link {
	l := n.links[d]
	if l == nil {
		l = &link{from: d.from, direct: n.cfg.Direct, limit: n.cfg.QueueBytes, to: n.ports[d.to]}
		n.links[d] = l
	}
	return l
}

// port is a node's end of the network.
type port struct {
	net    *Network
	id     coterie.NodeID
	inlet  inlet.Inlet
	links  atomic.Pointer[map[coterie.NodeID]*link] // by receiver; copied on write, for Send takes no lock to find one
	drains sync.WaitGroup                           // goroutines that deliver to this port
	closed atomic.Bool
	once   sync.Once
}

func (p *port) LocalID() coterie.NodeID { return p.id }

func (p *port) Receive(handle func(from coterie.NodeID, payload []byte)) {
	p.inlet.Set(handle)
	if p.closed.Load() {
		p.inlet.Set(nil)
	}
}

func (p *port) Send(to coterie.NodeID, payload []byte) error {
	if p.closed.Load() {
		return fmt.Errorf("send from %s: %w", p.id, coterie.ErrClosed)
	}
	if len(payload) > p.net.cfg.MaxPayload {
		return fmt.Errorf("send %d bytes to %s, limit %d: %w", len(payload), to, p.net.cfg.MaxPayload, ErrTooLarge)
	}
	l := (*p.links.Load())[to]
	if l == nil {
		if l = p.open(to); l == nil {
			return fmt.Errorf("send to %q: %w", to, ErrUnknownPeer)
		}
	}
	l.send(payload)
	return nil
}

// open finds the link to a node for the first time; nil if no such node ever joined.
func (p *port) open(to coterie.NodeID) *link {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	if p.net.links[direction{to, to}] == nil {
		return nil
	}
	links := maps.Clone(*p.links.Load())
	links[to] = p.net.linkLocked(direction{p.id, to})
	p.links.Store(&links)
	return links[to]
}

func (p *port) Close() error {
	p.once.Do(func() {
		p.closed.Store(true)
		p.net.mu.Lock()
		for d, l := range p.net.links {
			if d.to == p.id {
				l.disconnect()
			}
		}
		p.net.mu.Unlock()
		p.inlet.Set(nil)
		p.drains.Wait()
		p.net.mu.Lock()
		delete(p.net.ports, p.id)
		p.net.mu.Unlock()
	})
	return nil
}

// link carries messages one way between two nodes and calls the receiver's handler for one message at a time.
type link struct {
	from   coterie.NodeID
	direct bool
	limit  int // bytes, with overhead

	mu      sync.Mutex // never held while a handler runs
	to      *port      // nil while the receiver is not there
	cut     bool
	running bool     // some goroutine is calling the handler, and looks into the queue afterwards
	queue   [][]byte // waits while running
	spare   [][]byte // the queue's other array; nil while it is being delivered
	bytes   int      // in queue, with overhead
	metrics NetworkMetrics
}

// send delivers at once or queues. It runs the handler on the caller's goroutine at most once, so that handlers that
// answer each other neither recurse without end nor keep Send from returning.
func (l *link) send(payload []byte) {
	l.mu.Lock()
	to := l.to
	l.metrics.Sent++
	switch {
	case to == nil || l.cut:
		l.metrics.Lost++
	case l.direct && !l.running:
		l.running = true
		l.mu.Unlock()
		delivered := to.inlet.Deliver(l.from, payload)
		l.mu.Lock()
		l.count(delivered)
		l.drainOrRest()
	case l.bytes+len(payload)+messageOverhead > l.limit:
		l.metrics.Dropped++
	default:
		l.queue = append(l.queue, payload)
		l.bytes += len(payload) + messageOverhead
		if !l.running {
			l.drainOrRest()
		}
	}
	l.mu.Unlock()
}

// drainOrRest starts a goroutine to deliver what is queued, if anything is; l.mu is held and nobody else delivers.
func (l *link) drainOrRest() {
	l.running = len(l.queue) > 0 && l.to != nil
	if l.running {
		l.to.drains.Add(1)
		go l.drain(l.to)
	}
}

// drain delivers until the queue is empty.
func (l *link) drain(to *port) {
	defer to.drains.Done()
	l.mu.Lock()
	for len(l.queue) > 0 {
		batch := l.queue
		l.queue, l.spare, l.bytes = l.spare[:0], nil, 0
		l.mu.Unlock()
		delivered := uint64(0)
		for _, payload := range batch {
			if to.inlet.Deliver(l.from, payload) {
				delivered++
			}
		}
		clear(batch)
		l.mu.Lock()
		l.metrics.Delivered += delivered
		l.metrics.Lost += uint64(len(batch)) - delivered
		if cap(batch) <= maxSpare {
			l.spare = batch
		}
	}
	l.running = false
	l.mu.Unlock()
}

// maxSpare is the longest queue whose array is kept for the next one.
const maxSpare = 4096

func (l *link) count(delivered bool) {
	if delivered {
		l.metrics.Delivered++
	} else {
		l.metrics.Lost++
	}
}

func (l *link) connect(p *port) {
	l.mu.Lock()
	l.to = p
	l.mu.Unlock()
}

// disconnect takes the receiver away, and with it what waits for it: a node that joins again is a new life.
func (l *link) disconnect() {
	l.mu.Lock()
	l.to = nil
	l.metrics.Lost += uint64(len(l.queue))
	clear(l.queue)
	l.queue, l.bytes = l.queue[:0], 0
	l.mu.Unlock()
}
