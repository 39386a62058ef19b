package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

// ServerConfig configures a Server. The zero value is ready to use.
type ServerConfig struct {
	ID coterie.NodeID // this node; required with Identity, and a client that looks for another is turned away

	// Identity makes every connection one of mutual TLS 1.3, and Peer in a handler proven. Without it everything
	// travels in the clear and a caller is believed to be whom it says it is.
	Identity *transport.Identity

	Codec      Codec         // of all methods; default Auto
	Intercept  []Interceptor // around every handler, the first outermost
	MaxMessage int           // bytes of a request, answer or stream message; default 4 MiB
	MaxCalls   int           // calls running at a time; default 4096
	MaxQueue   int           // calls that wait beside them; one more is refused with ErrOverloaded; default 1024
	QueueBytes int           // answers waiting for one connection before no more is read from it; default 1 MiB
	Window     int           // bytes waiting in one direction of a stream; default 256 KiB

	MaxConns         int           // connections; one more is turned away; default 4096
	MaxHandshakes    int           // of these, those that have not said who they are; default 256
	HandshakeTimeout time.Duration // for TLS and hello together; default 5 s
	IdleTimeout      time.Duration // silence, or no progress, after which a connection is taken for dead; default 15 s

	// Journal makes the table by which repetitions of at-most-once calls are told outlive a restart. Without it the
	// table is in memory, and a restart ends the clients' sessions. The Server replays and owns it: Close closes it.
	Journal         coterie.Journal
	MaxSessions     int // clients whose calls are remembered, the longest unused is forgotten; default 4096
	MaxSessionBytes int // of answers remembered, likewise; default 64 MiB

	Logger *slog.Logger // connections turned away or cut off, handlers that panic; default silent
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Codec == nil {
		c.Codec = Auto
	}
	c.MaxMessage = cmp.Or(c.MaxMessage, 4<<20)
	c.MaxCalls = cmp.Or(c.MaxCalls, 4096)
	c.MaxQueue = cmp.Or(c.MaxQueue, 1024)
	c.QueueBytes = cmp.Or(c.QueueBytes, 1<<20)
	c.Window = cmp.Or(c.Window, 256<<10)
	c.MaxConns = cmp.Or(c.MaxConns, 4096)
	c.MaxHandshakes = cmp.Or(c.MaxHandshakes, 256)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 15*time.Second)
	c.MaxSessions = cmp.Or(c.MaxSessions, 4096)
	c.MaxSessionBytes = cmp.Or(c.MaxSessionBytes, 64<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c ServerConfig) validate() error {
	var errs []error
	if c.Identity != nil {
		if err := c.Identity.Check(c.ID); err != nil {
			errs = append(errs, fmt.Errorf("rpc: ServerConfig.Identity: %w", err))
		}
	}
	return errors.Join(append(errs, positive("ServerConfig", []limit{
		{"MaxMessage", int64(c.MaxMessage)}, {"MaxCalls", int64(c.MaxCalls)}, {"MaxQueue", int64(c.MaxQueue)},
		{"QueueBytes", int64(c.QueueBytes)}, {"Window", int64(c.Window)}, {"MaxConns", int64(c.MaxConns)},
		{"MaxHandshakes", int64(c.MaxHandshakes)}, {"HandshakeTimeout", int64(c.HandshakeTimeout)},
		{"IdleTimeout", int64(c.IdleTimeout)}, {"MaxSessions", int64(c.MaxSessions)},
		{"MaxSessionBytes", int64(c.MaxSessionBytes)},
	}), maxMessage("ServerConfig", c.MaxMessage), maxID("ServerConfig.ID", c.ID))...)
}

type limit struct {
	name  string
	value int64
}

func positive(config string, limits []limit) error {
	var errs []error
	for _, l := range limits {
		if l.value < 0 {
			errs = append(errs, fmt.Errorf("rpc: %s.%s is negative", config, l.name))
		}
	}
	return errors.Join(errs...)
}

// maxOverhead is what a frame may hold beside a message: a head of a method's name, a trace and an error's text.
const maxOverhead = 16 << 10

func maxMessage(config string, n int) error {
	if n > frame.MaxLength-maxOverhead {
		return fmt.Errorf("rpc: %s.MaxMessage is %d, at most %d", config, n, frame.MaxLength-maxOverhead)
	}
	return nil
}

func maxID(name string, id coterie.NodeID) error {
	if len(id) > maxHello/4 {
		return fmt.Errorf("rpc: %s is longer than %d bytes", name, maxHello/4)
	}
	return nil
}

// Server answers calls: those that come by the listeners it Serves and by the Endpoints it is attached to. Every
// method is safe for concurrent use.
//
// It owns a goroutine for each listener and connection, and those that run handlers, which are used again. Close waits
// for all of them.
type Server struct {
	cfg      ServerConfig
	table    *table
	workers  *workers
	counters counters
	methods  atomic.Pointer[map[string]*method] // copied on write, under mu

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the goroutines of listeners and connections, and the ticker
	active sync.WaitGroup // of calls accepted; Add under mu
	once   sync.Once

	mu        sync.Mutex // guards what follows
	draining  bool
	closed    bool
	ticking   bool
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	endpoints map[*Endpoint]struct{}
	greeting  int // of conns
}

// method is what a server has under a name.
type method struct {
	name   string
	unary  func(ctx context.Context, payload, buf []byte) ([]byte, error) // appends the answer to buf
	stream func(ctx context.Context, s *stream) error
	meter
}

// NewServer makes a Server and, if it has a Journal, replays that. Register methods with Handle, then Serve.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, listeners: make(map[net.Listener]struct{}), conns: make(map[*serverConn]struct{}),
		endpoints: make(map[*Endpoint]struct{}),
	}
	var err error
	if s.table, err = newTable(cfg.Journal, cfg.MaxSessions, cfg.MaxSessionBytes); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.methods.Store(&map[string]*method{})
	s.workers = newWorkers(cfg.MaxCalls, cfg.MaxQueue, s.run)
	s.handle(&method{name: methodSession, unary: s.openSession})
	return s, nil
}

// maxMethod bounds a method's name.
const maxMethod = 255

// handle registers a method; to register one twice is a bug that no error would undo.
func (s *Server) handle(m *method) {
	if m.name == "" || len(m.name) > maxMethod {
		panic(fmt.Sprintf("rpc: method %.300q must have 1 to %d bytes", m.name, maxMethod))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.methods.Load()
	if old[m.name] != nil {
		panic(fmt.Sprintf("rpc: method %q is handled already", m.name))
	}
	next := maps.Clone(old)
	next[m.name] = m
	s.methods.Store(&next)
}

// Serve accepts connections until the listener fails or the Server is shut down or closed, which closes the listener;
// then it returns coterie.ErrClosed. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed || s.draining {
		s.mu.Unlock()
		_ = l.Close()
		return fmt.Errorf("rpc: serve: %w", coterie.ErrClosed)
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	if !s.ticking {
		s.ticking = true
		s.wg.Add(1)
		go s.tick()
	}
	s.mu.Unlock()
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	pause := time.Duration(0)
	for {
		raw, err := l.Accept()
		if err == nil {
			pause = 0
			s.admit(raw)
			continue
		}
		s.mu.Lock()
		over := s.closed || s.draining
		s.mu.Unlock()
		if over {
			return fmt.Errorf("rpc: serve: %w", coterie.ErrClosed)
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("rpc: serve: %w", err)
		}
		// Most likely there is no file descriptor left. Those that end will make room.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.cfg.Logger.Warn("rpc: accept", "error", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// tick cuts off connections that are dead.
func (s *Server) tick() {
	defer s.wg.Done()
	ticker := time.NewTicker(max(s.cfg.IdleTimeout/beats, 1))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		for c := range s.conns {
			if c.greeted && c.pulse.beat(&c.out) {
				c.cut(errSilent)
			}
		}
		s.mu.Unlock()
	}
}

// Shutdown drains: it accepts no connection and no call any more, tells the clients to go elsewhere, waits for the
// calls under way, streams too, and closes. If ctx ends first, it closes at once and returns ctx.Err().
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		if c.greeted {
			c.out.pushNote(kindGoAway, note{})
		}
	}
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.active.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
		s.mu.Lock()
		var last []*serverConn
		for c := range s.conns {
			last = append(last, c)
		}
		s.mu.Unlock()
		flushed := make(chan struct{})
		go func() {
			for _, c := range last {
				c.out.awaitEmpty()
			}
			close(flushed)
		}()
		select {
		case <-flushed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, s.Close())
}

// Close cuts every connection, ends the contexts of the calls under way, waits for their handlers, and closes the
// Journal. Closing twice is harmless.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		c.cut(coterie.ErrClosed)
	}
	endpoints := slices.Collect(maps.Keys(s.endpoints))
	s.mu.Unlock()
	s.cancel()
	for _, e := range endpoints {
		e.cancelRunning()
	}
	s.wg.Wait()
	s.active.Wait()
	s.workers.close()
	var err error
	s.once.Do(func() { err = s.table.close() })
	return err
}

// accept counts a call as under way, unless no more are taken.
func (s *Server) accept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining {
		return false
	}
	s.active.Add(1)
	return true
}
