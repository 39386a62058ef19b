package tcp

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/inlet"
	"github.com/coterie-go/coterie/transport"
)

// Transport is a node's coterie.Transport over TCP. It owns a goroutine that accepts, one for each peer that was ever
// sent to, and one for each connection in each direction; all are finished when Close returns. Every method is safe
// for concurrent use.
type Transport struct {
	cfg      Config
	listener net.Listener
	inlet    inlet.Inlet
	counters counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of all goroutines
	down   atomic.Bool    // closed, for who does not take mu

	peers atomic.Pointer[map[coterie.NodeID]*peer] // copied on write, under mu: Send takes no lock to find one

	mu             sync.Mutex // guards what follows, and changes of peers
	closed         bool
	greeting       []*inbound // connections that have not said yet who they are, oldest first
	inbound        map[coterie.NodeID]*inbound
	removedDropped uint64 // frames that the queues of removed peers dropped
}

var _ transport.Gatherer = (*Transport)(nil)

// Start listens, and connects to a peer when there is something to send to it.
func Start(cfg Config) (*Transport, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	listener := cfg.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("tcp: Config.Listen: %w", err)
		}
	}
	t := &Transport{cfg: cfg, listener: listener, inbound: make(map[coterie.NodeID]*inbound)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	// A node is a peer of its own, for who sends to all need not make an exception.
	peers := map[coterie.NodeID]*peer{cfg.ID: newPeer(t, cfg.ID, ownAddress(listener.Addr()))}
	for id, address := range cfg.Peers {
		peers[id] = newPeer(t, id, address)
	}
	t.peers.Store(&peers)
	t.wg.Add(1)
	go t.accept()
	return t, nil
}

// ownAddress is where a node reaches itself.
func ownAddress(listening net.Addr) string {
	if a, ok := listening.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", fmt.Sprint(a.Port))
	}
	return listening.String()
}

// LocalID is the node's id.
func (t *Transport) LocalID() coterie.NodeID { return t.cfg.ID }

// Addr is the address at which peers are accepted, with the port that was picked.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// Send queues a payload for a peer and never blocks: it copies the payload. What was queued before a connection could
// be made is sent when it is; what was written to one that breaks is not sent again. Errors are
// transport.ErrUnknownPeer, transport.ErrTooLarge and coterie.ErrClosed.
func (t *Transport) Send(to coterie.NodeID, payload []byte) error {
	return t.SendParts(to, nil, payload)
}

// SendParts is Send of a payload given in two parts.
func (t *Transport) SendParts(to coterie.NodeID, head, payload []byte) error {
	if size := len(head) + len(payload); size > t.cfg.MaxPayload {
		return fmt.Errorf("send %d bytes to %s, limit %d: %w", size, to, t.cfg.MaxPayload, transport.ErrTooLarge)
	}
	p := (*t.peers.Load())[to]
	switch {
	case t.down.Load():
		return fmt.Errorf("send from %s: %w", t.cfg.ID, coterie.ErrClosed)
	case p == nil:
		return fmt.Errorf("send to %q: %w", to, transport.ErrUnknownPeer)
	}
	p.queue.push(head, payload)
	if !p.running.Load() {
		t.run(p)
	}
	return nil
}

// Receive sets the handler for payloads that arrive, as coterie.Transport says. It is called by one goroutine for
// each connected peer.
func (t *Transport) Receive(handle func(from coterie.NodeID, payload []byte)) {
	t.inlet.Set(handle)
	if t.down.Load() {
		t.inlet.Set(nil)
	}
}

// SetPeer adds a peer, or moves one: the connection to its old address is closed, and what is queued goes to the new
// one. An empty address removes the peer, with what is queued for it and the connections to and from it. It returns an
// error for an empty id, an address that is not "host:port", and after Close.
func (t *Transport) SetPeer(id coterie.NodeID, address string) error {
	if address != "" {
		if err := checkPeer(id, address); err != nil {
			return fmt.Errorf("tcp: SetPeer: %w", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("tcp: SetPeer: %w", coterie.ErrClosed)
	}
	peers := *t.peers.Load()
	p := peers[id]
	switch {
	case p != nil && address != "":
		p.move(address)
		return nil
	case address != "":
		peers = maps.Clone(peers)
		peers[id] = newPeer(t, id, address)
	case p != nil:
		peers = maps.Clone(peers)
		delete(peers, id)
		p.stop()
		t.removedDropped += p.queue.droppedFrames()
		if in := t.inbound[id]; in != nil && !t.cfg.AcceptUnknown {
			in.cut(errStranger)
		}
	}
	t.peers.Store(&peers)
	return nil
}

// run starts a peer's goroutine, unless it runs or must not.
func (t *Transport) run(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && p.ctx.Err() == nil && p.running.CompareAndSwap(false, true) {
		t.wg.Add(1)
		go p.run()
	}
}

// Close closes the listener and every connection, drops what is queued, and waits for all goroutines and calls of the
// handler. Closing twice is harmless.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.down.Store(true)
	for _, in := range t.greeting {
		in.cut(coterie.ErrClosed)
	}
	for _, in := range t.inbound {
		in.cut(coterie.ErrClosed)
	}
	t.mu.Unlock()
	t.cancel()
	err := t.listener.Close()
	t.inlet.Set(nil)
	t.wg.Wait()
	if err != nil && !isClosed(err) {
		return fmt.Errorf("tcp: close: %w", err)
	}
	return nil
}
