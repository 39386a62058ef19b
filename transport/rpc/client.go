package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
)

// Semantics says how often a call may be executed when requests or answers are lost.
type Semantics uint8

const (
	// Maybe executes a call once or not at all: it is tried once. Without an answer the error is
	// coterie.ErrUnknownOutcome. The default.
	Maybe Semantics = iota
	// AtLeastOnce tries again until there is an answer or the context ends: a call that returns its answer was executed
	// once or more. For what may be repeated, such as reads.
	AtLeastOnce
	// AtMostOnce tries again as well, and the server tells repetitions by a number that the client gives each call: a
	// call that returns its answer was executed exactly once, and one that returns an error at most once. With a
	// ServerConfig.Journal that outlives a restart of the server; without one, a call that a restart interrupts returns
	// coterie.ErrUnknownOutcome. It holds for one server: for a replicated one use a session of package consensus.
	AtMostOnce
)

// String returns "maybe", "at-least-once" or "at-most-once".
func (s Semantics) String() string {
	switch s {
	case Maybe:
		return "maybe"
	case AtLeastOnce:
		return "at-least-once"
	case AtMostOnce:
		return "at-most-once"
	}
	return fmt.Sprintf("semantics(%d)", uint8(s))
}

// Options say how calls are made. The zero value is the default.
type Options struct {
	Semantics Semantics

	// TryTimeout is how long an answer is waited for before the next try, if there may be one. Default: over an
	// Endpoint 500 ms; over connections none, as one that breaks is noticed.
	TryTimeout time.Duration
	MaxTries   int           // tries of a call, the first and hedges too; default no limit but the context
	MinBackoff time.Duration // the first pause between tries, doubling; default 5 ms
	MaxBackoff time.Duration // the longest; each is shortened at random by up to a half; default 1 s, or MinBackoff

	// Hedge is how long an answer is waited for before a second copy of the request is sent, to the next of Backups or,
	// without any, to the same server; the first answer counts. Only for AtLeastOnce, as both may be executed; default
	// never. Choose what few calls exceed, such as the 95th percentile (Dean and Barroso, The Tail at Scale, 2013).
	Hedge   time.Duration
	Backups []*Client // whom hedges are sent to
}

// ClientConfig configures a Client.
type ClientConfig struct {
	// Dial makes a connection to the server; it is called when there is none and a call needs one. Either it, Addr or
	// Endpoint is required.
	Dial func(ctx context.Context) (net.Conn, error)
	Addr string // "host:port", instead of Dial

	// Endpoint makes the calls travel over a coterie.Transport, to Peer. Unary calls only.
	Endpoint *Endpoint

	ID       coterie.NodeID      // this node; required with Identity, else what Peer says in a handler
	Peer     coterie.NodeID      // the server; required with Identity and with Endpoint
	Identity *transport.Identity // makes connections of mutual TLS 1.3

	Options                 // of calls, but for those of With
	Codec     Codec         // default Auto
	Intercept []Interceptor // around every call, the first outermost

	MaxMessage int // bytes of a request, answer or stream message; default 4 MiB
	MaxCalls   int // calls under way; one more gives coterie.ErrOverloaded; default 16384
	QueueBytes int // requests waiting to be written; one more gives coterie.ErrOverloaded; default 8 MiB
	Window     int // bytes waiting in one direction of a stream; default 256 KiB

	// The retry budget, of all the calls of the Client together, bounds what retries add to the load of a server that
	// is in trouble: each first try adds RetryRatio, each second RetryRate, and each retry or hedge takes one. When it is
	// used up, a retry waits and a hedge is left out.
	RetryRatio float64 // default 0.2
	RetryRate  float64 // per second; default 10

	DialTimeout time.Duration // for Dial, TLS and hello together; default 5 s
	IdleTimeout time.Duration // silence, or no progress, after which a connection is taken for dead; default 15 s
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Codec == nil {
		c.Codec = Auto
	}
	if c.Dial == nil && c.Addr != "" {
		var d net.Dialer
		addr := c.Addr
		c.Dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	c.MaxMessage = cmp.Or(c.MaxMessage, 4<<20)
	c.MaxCalls = cmp.Or(c.MaxCalls, 16<<10)
	c.QueueBytes = cmp.Or(c.QueueBytes, 8<<20)
	c.Window = cmp.Or(c.Window, 256<<10)
	c.RetryRatio = cmp.Or(c.RetryRatio, 0.2)
	c.RetryRate = cmp.Or(c.RetryRate, 10)
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 15*time.Second)
	c.Options = c.Options.withDefaults(c.Endpoint != nil)
	return c
}

func (o Options) withDefaults(datagrams bool) Options {
	if datagrams {
		o.TryTimeout = cmp.Or(o.TryTimeout, 500*time.Millisecond)
	}
	o.MinBackoff = cmp.Or(o.MinBackoff, 5*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, max(time.Second, o.MinBackoff))
	return o
}

func (o Options) validate() error {
	errs := []error{positive("Options", []limit{
		{"TryTimeout", int64(o.TryTimeout)}, {"MaxTries", int64(o.MaxTries)}, {"MinBackoff", int64(o.MinBackoff)},
		{"Hedge", int64(o.Hedge)},
	})}
	if o.Semantics > AtMostOnce {
		errs = append(errs, fmt.Errorf("rpc: Options.Semantics is unknown: %v", o.Semantics))
	}
	if o.MaxBackoff < o.MinBackoff {
		errs = append(errs, errors.New("rpc: Options.MaxBackoff is less than MinBackoff"))
	}
	if o.Hedge > 0 && o.Semantics != AtLeastOnce {
		errs = append(errs, fmt.Errorf("rpc: Options.Hedge would execute a call twice, and Semantics is %v", o.Semantics))
	}
	for _, b := range o.Backups {
		if b == nil {
			errs = append(errs, errors.New("rpc: Options.Backups has a nil Client"))
		}
	}
	return errors.Join(errs...)
}

func (c ClientConfig) validate() error {
	errs := []error{c.Options.validate(), positive("ClientConfig", []limit{
		{"MaxMessage", int64(c.MaxMessage)}, {"MaxCalls", int64(c.MaxCalls)}, {"QueueBytes", int64(c.QueueBytes)},
		{"Window", int64(c.Window)}, {"DialTimeout", int64(c.DialTimeout)}, {"IdleTimeout", int64(c.IdleTimeout)},
	}), maxMessage("ClientConfig", c.MaxMessage), maxID("ClientConfig.ID", c.ID), maxID("ClientConfig.Peer", c.Peer)}
	fail := func(text string) { errs = append(errs, errors.New("rpc: ClientConfig."+text)) }
	if (c.Dial == nil) == (c.Endpoint == nil) {
		fail("Dial, Addr or Endpoint is required, and one of them only")
	}
	if c.Peer == "" && (c.Identity != nil || c.Endpoint != nil) {
		fail("Peer is required with Identity or Endpoint")
	}
	if c.Identity != nil {
		if err := c.Identity.Check(c.ID); err != nil {
			errs = append(errs, fmt.Errorf("rpc: ClientConfig.Identity: %w", err))
		}
	}
	if !(c.RetryRatio >= 0 && c.RetryRate >= 0) {
		fail("RetryRatio and RetryRate must not be negative")
	}
	return errors.Join(errs...)
}

// Client makes calls to one server, many at a time over one connection, which is made when it is needed and again when
// it breaks. Every method is safe for concurrent use.
type Client struct {
	*clientCore
	options Options
}

// clientCore is what the Clients that With makes of one share.
type clientCore struct {
	cfg    ClientConfig
	link   link
	budget budget

	dials, dialErrors, broken atomic.Uint64
	methods                   atomic.Pointer[map[string]*clientMethod] // copied on write, under mu

	mu       sync.Mutex        // guards what follows
	sessions [2]*clientSession // for Maybe over an Endpoint, and for AtMostOnce; nil until needed
}

// link carries requests to the server.
type link interface {
	// call makes one try. An error that is no *Error is one of ErrUnreachable, coterie.ErrOverloaded and ErrClosed:
	// nothing was sent; coterie.ErrUnknownOutcome: it was; or of ctx. The server learns the deadline of outer, and that
	// the call is given up if outer has ended when ctx has.
	call(ctx, outer context.Context, q *request) ([]byte, error)
	close()
}

// clientMethod is what a client knows of a method.
type clientMethod struct {
	name []byte
	meter
}

// NewClient makes a Client. It does not connect yet.
func NewClient(cfg ClientConfig) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &clientCore{cfg: cfg, budget: newBudget(cfg.RetryRatio, cfg.RetryRate)}
	c.methods.Store(&map[string]*clientMethod{})
	if cfg.Endpoint != nil {
		c.link = newEndpointLink(c)
	} else {
		c.link = newConnLink(c)
	}
	return &Client{clientCore: c, options: cfg.Options}, nil
}

// With returns a Client that makes its calls otherwise, over the same connection. Closing either closes both.
func (c *Client) With(o Options) (*Client, error) {
	o = o.withDefaults(c.cfg.Endpoint != nil)
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Client{clientCore: c.clientCore, options: o}, nil
}

// Close breaks the connection: calls under way return coterie.ErrClosed, with ErrUnknownOutcome if they were sent. It
// waits for the Client's goroutines. Closing twice is harmless.
func (c *Client) Close() error {
	c.link.close()
	return nil
}

// maxMethods is how many methods a client counts by name, lest names made up for each call fill the memory.
const maxMethods = 1000

// method finds what is known of a method.
func (c *clientCore) method(name string) *clientMethod {
	if m := (*c.methods.Load())[name]; m != nil {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.methods.Load()
	if m := old[name]; m != nil {
		return m
	}
	m := &clientMethod{name: []byte(name)}
	if len(old) < maxMethods {
		next := maps.Clone(old)
		next[name] = m
		c.methods.Store(&next)
	}
	return m
}

// Metrics returns the counters.
func (c *Client) Metrics() ClientMetrics {
	m := ClientMetrics{
		Methods: make(map[string]MethodMetrics), Dials: c.dials.Load(), DialErrors: c.dialErrors.Load(), Broken: c.broken.Load(),
	}
	for name, method := range *c.methods.Load() {
		m.Methods[name] = method.metrics()
	}
	return m
}
