package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/inlet"
	"github.com/coterie-go/coterie/transport"
)

// Transport is a node's coterie.Transport over UDP. It owns the goroutine that reads, and while a host name is being
// resolved one more; all are finished when Close returns. Every method is safe for concurrent use.
type Transport struct {
	cfg      Config
	conn     packetConn
	inlet    inlet.Inlet
	counters counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of all goroutines
	down   atomic.Bool

	mu       sync.RWMutex // guards what follows
	peers    map[coterie.NodeID]*peer
	speakers map[coterie.NodeID]*sync.Mutex // held while the handler runs for a node: it may come by both ways
	closed   bool
}

// packetConn is a *net.UDPConn, or what a test puts in its place.
type packetConn interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// addressBook is a stream that must be told where peers are.
type addressBook interface {
	SetPeer(id coterie.NodeID, address string) error
}

// peer is a node that can be sent to.
type peer struct {
	id coterie.NodeID

	mu        sync.Mutex // guards what follows
	address   string
	at        netip.AddrPort // not valid while it is unknown
	resolved  time.Time      // when at became known, of a host name; zero if address is an IP
	resolving bool
	stream    time.Time   // when the stream was last sent to; zero if it is not open
	idle      *time.Timer // closes it
}

// resolveAgain is how long the address of a host name is used before it is looked up anew.
const resolveAgain = time.Minute

// Start opens the socket. The error names every field of Config that is wrong.
func Start(cfg Config) (*Transport, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	conn, err := open(cfg)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, conn: conn,
		peers: make(map[coterie.NodeID]*peer), speakers: make(map[coterie.NodeID]*sync.Mutex),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers[cfg.ID] = newPeer(cfg.ID, ownAddress(conn.LocalAddr()))
	for id, address := range cfg.Peers {
		t.peers[id] = newPeer(id, address)
	}
	if cfg.Stream != nil {
		cfg.Stream.Receive(t.deliver)
	}
	t.wg.Add(1)
	go t.read()
	return t, nil
}

func open(cfg Config) (packetConn, error) {
	conn := cfg.Conn
	if conn == nil {
		var err error
		if conn, err = net.ListenPacket("udp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("udp: Config.Listen: %w", err)
		}
	}
	c, ok := conn.(packetConn)
	if !ok {
		return nil, fmt.Errorf("udp: Config.Conn is a %T, which cannot be used like a *net.UDPConn", conn)
	}
	if b, ok := conn.(interface{ SetReadBuffer(bytes int) error }); ok {
		if err := b.SetReadBuffer(cfg.ReadBuffer); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("udp: Config.ReadBuffer: %w", err)
		}
	}
	return c, nil
}

// ownAddress is where a node reaches itself.
func ownAddress(listening net.Addr) string {
	if a, ok := listening.(*net.UDPAddr); ok && a.IP.IsUnspecified() {
		loopback := net.IPv6loopback
		if a.IP.To4() != nil {
			loopback = net.IPv4(127, 0, 0, 1)
		}
		return net.JoinHostPort(loopback.String(), fmt.Sprint(a.Port))
	}
	return listening.String()
}

func newPeer(id coterie.NodeID, address string) *peer {
	p := &peer{id: id}
	p.move(address)
	return p
}

// move sets a peer's address. The caller holds mu, or nobody else knows the peer.
func (p *peer) move(address string) {
	p.address, p.resolved = address, time.Time{}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		at = netip.AddrPort{}
	}
	p.at = unmap(at)
}

// LocalID is the node's id.
func (t *Transport) LocalID() coterie.NodeID { return t.cfg.ID }

// Addr is the address of the socket, with the port that was picked.
func (t *Transport) Addr() net.Addr { return t.conn.LocalAddr() }

// Send sends a payload by a datagram, or by Config.Stream if it has more than MaxDatagram bytes. While the name of a
// peer's host is being resolved datagrams to it are lost. Errors are transport.ErrUnknownPeer, transport.ErrTooLarge
// and coterie.ErrClosed; what the network says of a datagram is counted and logged.
func (t *Transport) Send(to coterie.NodeID, payload []byte) error {
	if len(payload) > t.cfg.MaxDatagram && t.cfg.Stream == nil {
		return fmt.Errorf("send %d bytes to %s, limit %d: %w", len(payload), to, t.cfg.MaxDatagram, transport.ErrTooLarge)
	}
	if t.down.Load() {
		return fmt.Errorf("send from %s: %w", t.cfg.ID, coterie.ErrClosed)
	}
	t.mu.RLock()
	p := t.peers[to]
	t.mu.RUnlock()
	if p == nil {
		return fmt.Errorf("send to %q: %w", to, transport.ErrUnknownPeer)
	}
	if len(payload) > t.cfg.MaxDatagram {
		return t.sendStream(p, payload)
	}
	at := t.locate(p)
	if !at.IsValid() {
		t.counters.unresolved.Add(1)
		return nil
	}
	buffer := buffers.Get().(*[]byte)
	*buffer = appendDatagram((*buffer)[:0], t.cfg.ID, to, payload)
	n, err := t.conn.WriteToUDPAddrPort(*buffer, at)
	buffers.Put(buffer)
	if err != nil {
		t.counters.sendErrors.Add(1)
		t.cfg.Logger.Debug("udp: cannot send", "node", t.cfg.ID, "peer", to, "address", at, "error", err)
		return nil
	}
	t.counters.sent.Add(1)
	t.counters.sentBytes.Add(uint64(n))
	return nil
}

// buffers are datagrams under construction: the kernel copies them, so that they can be used again at once.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// locate returns where a peer is, as far as is known, and has its name resolved if that was not done lately.
func (t *Transport) locate(p *peer) netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	named := !p.at.IsValid() || !p.resolved.IsZero()
	if named && !p.resolving && time.Since(p.resolved) > resolveAgain {
		t.mu.RLock()
		if !t.closed {
			p.resolving = true
			t.wg.Add(1)
			go t.resolve(p, p.address)
		}
		t.mu.RUnlock()
	}
	return p.at
}

func (t *Transport) resolve(p *peer, address string) {
	defer t.wg.Done()
	at, err := lookUp(t.ctx, address)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resolving = false
	switch {
	case p.address != address: // moved meanwhile
	case err != nil:
		t.cfg.Logger.Debug("udp: cannot resolve", "node", t.cfg.ID, "peer", p.id, "address", address, "error", err)
		p.resolved = time.Now().Add(time.Second - resolveAgain) // once a second
	default:
		p.at, p.resolved = at, time.Now()
	}
}

func lookUp(ctx context.Context, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() {
			return netip.AddrPortFrom(ip, uint16(port)), nil
		}
	}
	return netip.AddrPortFrom(ips[0], uint16(port)), nil // LookupNetIP returns one at least, or an error
}

func unmap(at netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) }

// sendStream sends by the stream.
func (t *Transport) sendStream(p *peer, payload []byte) error {
	book, ok := t.cfg.Stream.(addressBook)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok && p.stream.IsZero() && p.id != t.cfg.ID {
		if err := book.SetPeer(p.id, p.address); err != nil {
			return fmt.Errorf("udp: %w", err)
		}
	}
	if err := t.cfg.Stream.Send(p.id, payload); err != nil {
		return err
	}
	p.stream = time.Now()
	if t.cfg.StreamIdle > 0 && p.idle == nil && p.id != t.cfg.ID {
		p.idle = time.AfterFunc(t.cfg.StreamIdle, func() { t.closeIdle(p) })
	}
	t.counters.streamed.Add(1)
	return nil
}

// closeIdle closes a stream that was not used for StreamIdle.
func (t *Transport) closeIdle(p *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle == nil || p.stream.IsZero() {
		return
	}
	if left := t.cfg.StreamIdle - time.Since(p.stream); left > 0 {
		p.idle.Reset(left)
		return
	}
	_ = t.cfg.Stream.(addressBook).SetPeer(p.id, "") // it can only be closed
	p.stream, p.idle = time.Time{}, nil
	t.counters.idleStreams.Add(1)
}

// Receive sets the handler for payloads that arrive, by either way, as coterie.Transport says.
func (t *Transport) Receive(handle func(from coterie.NodeID, payload []byte)) {
	t.inlet.Set(handle)
	if t.down.Load() {
		t.inlet.Set(nil)
	}
}

// SetPeer adds a peer, or moves one; its stream follows. An empty address removes the peer. It returns an error for an
// empty id, an address that is not "host:port", and after Close.
func (t *Transport) SetPeer(id coterie.NodeID, address string) error {
	if address != "" {
		if err := checkPeer(id, address); err != nil {
			return fmt.Errorf("udp: SetPeer: %w", err)
		}
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return fmt.Errorf("udp: SetPeer: %w", coterie.ErrClosed)
	}
	p := t.peers[id]
	switch {
	case address == "":
		delete(t.peers, id)
		delete(t.speakers, id)
	case p == nil:
		t.peers[id] = newPeer(id, address)
	}
	t.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address == address {
		return nil
	}
	open := !p.stream.IsZero()
	p.move(address)
	if book, ok := t.cfg.Stream.(addressBook); ok && open {
		if address == "" {
			p.stream = time.Time{}
		}
		return book.SetPeer(id, address)
	}
	return nil
}

// read is the goroutine that reads the socket.
func (t *Transport) read() {
	defer t.wg.Done()
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := t.conn.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, net.ErrClosed) || t.down.Load():
			return
		case err != nil: // of an earlier send: nobody listens there
			t.counters.readErrors.Add(1)
			continue
		}
		t.take(buffer[:n])
	}
}

// take hands over what a datagram holds.
func (t *Transport) take(datagram []byte) {
	from, to, payload, err := readDatagram(datagram)
	if err != nil {
		t.counters.malformed.Add(1)
		t.cfg.Logger.Debug("udp: datagram", "node", t.cfg.ID, "error", err)
		return
	}
	if string(to) != string(t.cfg.ID) {
		t.counters.misdirected.Add(1)
		return
	}
	t.counters.received.Add(1)
	t.counters.receivedBytes.Add(uint64(len(payload)))
	t.deliver(coterie.NodeID(from), append(make([]byte, 0, len(payload)), payload...))
}

// deliver calls the handler, for one node one call at a time.
func (t *Transport) deliver(from coterie.NodeID, payload []byte) {
	t.mu.RLock()
	known := t.peers[from] != nil
	speaker := t.speakers[from]
	t.mu.RUnlock()
	if t.cfg.RefuseUnknown && !known {
		t.counters.strangers.Add(1)
		return
	}
	if t.cfg.Stream != nil {
		if speaker == nil {
			speaker = t.speaker(from)
		}
		speaker.Lock()
		defer speaker.Unlock()
	}
	if !t.inlet.Deliver(from, payload) {
		t.counters.unhandled.Add(1)
	}
}

// maxSpeakers bounds the locks for nodes that are not among the peers; beyond it they share one.
const maxSpeakers = 1 << 16

func (t *Transport) speaker(from coterie.NodeID) *sync.Mutex {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.speakers) >= maxSpeakers && t.peers[from] == nil {
		from = ""
	}
	s := t.speakers[from]
	if s == nil {
		s = new(sync.Mutex)
		t.speakers[from] = s
	}
	return s
}

// Close closes the socket and the stream, and waits for all goroutines and calls of the handler. Closing twice is
// harmless.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.down.Store(true)
	peers := t.peers
	t.peers = make(map[coterie.NodeID]*peer)
	t.mu.Unlock()
	for _, p := range peers {
		p.mu.Lock()
		if p.idle != nil {
			p.idle.Stop()
			p.idle = nil
		}
		p.mu.Unlock()
	}
	t.cancel()
	err := t.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if t.cfg.Stream != nil {
		err = errors.Join(err, t.cfg.Stream.Close())
	}
	t.inlet.Set(nil)
	t.wg.Wait()
	if err != nil {
		return fmt.Errorf("udp: close: %w", err)
	}
	return nil
}
