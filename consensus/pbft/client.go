package pbft

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// maxBody is the most bytes of one request or reply over HTTP.
const maxBody = 16 << 20

// Request executes a client's signed request, as Dial's client makes it, and returns the reply. It is executed once,
// however many replicas are asked; every copy is answered with the same reply.
func (n *Node) Request(ctx context.Context, signed []byte) (reply []byte, err error) {
	if len(signed) < clientHeader+ed25519.SignatureSize || signed[0] == opLocal {
		return nil, errors.New("pbft: not a client's request")
	}
	return n.driver.Propose(ctx, signed)
}

// Serve gives a replica to the clients that Dial makes, over HTTP. Clients are known by the keys they make themselves,
// and anybody may make one: put it behind TLS with client certificates, or a handler that asks who is there.
//
//	POST /request  the body is a signed request, the answer the reply
//	GET  /status   coterie.Status as JSON
func Serve(n *Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /request", func(w http.ResponseWriter, r *http.Request) {
		signed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := n.Request(r.Context(), signed)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(reply) // the client has gone
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.Status()) // the client has gone
	})
	return mux
}

// ClientConfig says where the replicas are. It needs Addrs, or Nodes and Ask.
type ClientConfig struct {
	// Addrs are base URLs of what Serve serves, of all replicas.
	Addrs map[coterie.NodeID]string
	// TLS is for https; default the system's roots and no client certificate.
	TLS *tls.Config
	// Nodes and Ask are used instead of Addrs: Ask gives a signed request to one replica's Node.Request by other means.
	// It must be safe for concurrent use.
	Nodes []coterie.NodeID
	Ask   func(ctx context.Context, to coterie.NodeID, signed []byte) (reply []byte, err error)
	// TryTimeout is how long f+1 replicas are waited for before all are asked, and then all again. Default 2 s.
	TryTimeout time.Duration
	// Clock tells the wall time; default time.Now. Requests of a clock that is more than a minute ahead of the replicas'
	// are refused.
	Clock func() time.Time
}

// Client is a coterie.Replica of a whole group, of which it trusts no single member: what it returns, f+1 replicas have
// answered alike, so that one of them does not lie (§4.1). Each of its calls is executed exactly once, however often it
// is sent. A read is ordered as a command is, since answers from different points of the log would not be alike. Every
// call costs f+1 entries of the log, all but one of which change nothing.
//
// Its methods are safe for concurrent use.
type Client struct {
	cfg    ClientConfig
	nodes  []coterie.NodeID // sorted
	faulty int
	ask    func(ctx context.Context, to coterie.NodeID, signed []byte) ([]byte, error)
	http   *http.Client // nil with Config.Ask

	mu     sync.Mutex  // guards what follows
	idle   []*identity // those of no call under way
	first  int         // which replica is asked first
	closed bool
	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	calls  sync.WaitGroup
}

var _ coterie.Replica = (*Client)(nil)

// identity is who the replicas take a caller for. It makes one request at a time, as the paper's clients do (§4.1).
type identity struct {
	key  ed25519.PrivateKey
	last uint64 // timestamp of its last request
}

// Dial makes a Client. It returns when f+1 replicas have answered alike, or with an error when ctx ends. Close it.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx, opNothing, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("pbft: dial: %w", err), c.Close())
	}
	return c, nil
}

func newClient(cfg ClientConfig) (*Client, error) {
	c := &Client{cfg: cfg, ask: cfg.Ask, nodes: slices.Sorted(maps.Keys(cfg.Addrs))}
	if cfg.Ask != nil {
		c.nodes = slices.Sorted(slices.Values(cfg.Nodes))
	}
	switch {
	case cfg.Ask != nil && len(cfg.Addrs) > 0:
		return nil, errors.New("pbft: ClientConfig.Addrs is of no use beside Ask")
	case len(c.nodes) == 0:
		return nil, errors.New("pbft: ClientConfig.Addrs is empty, and Nodes and Ask are not both given")
	case len(slices.Compact(slices.Clone(c.nodes))) < len(c.nodes):
		return nil, errors.New("pbft: ClientConfig.Nodes names one twice")
	case cfg.TryTimeout < 0:
		return nil, errors.New("pbft: ClientConfig.TryTimeout is negative")
	}
	c.faulty = (len(c.nodes) - 1) / 3
	if c.cfg.TryTimeout == 0 {
		c.cfg.TryTimeout = 2 * time.Second
	}
	if c.cfg.Clock == nil {
		c.cfg.Clock = time.Now
	}
	if c.ask == nil {
		c.http = &http.Client{Transport: &http.Transport{
			TLSClientConfig: cfg.TLS, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
		}}
		c.ask = c.post
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Propose executes a command and returns the result that f+1 replicas agree on. It tries until ctx ends; the error then
// is ErrUnknownOutcome and ctx.Err().
func (c *Client) Propose(ctx context.Context, command []byte) ([]byte, error) {
	return c.call(ctx, opExecute, command)
}

// Read answers a query linearizably, by f+1 replicas that agree. If ctx ends first, the error is ctx.Err().
func (c *Client) Read(ctx context.Context, query []byte) ([]byte, error) {
	return c.call(ctx, opQuery, query)
}

// Status tells nothing but that this is a client: it is no replica, and takes no replica's word for how far the log is.
func (c *Client) Status() coterie.Status { return coterie.Status{} }

// Close ends the calls under way and waits for them. Closing twice is harmless.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.calls.Wait()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	return nil
}

// answer is one replica's.
type answer struct {
	from  int
	reply []byte
	err   error
}

func (c *Client) call(ctx context.Context, op byte, body []byte) ([]byte, error) {
	id, first, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer c.calls.Done()
	timestamp := max(id.last+1, uint64(max(c.cfg.Clock().UnixNano(), 1)))
	id.last = timestamp
	signed := signedCommand(id.key, op, timestamp, body)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	said, err := c.agree(ctx, cancel, signed, first)
	switch {
	case err == nil:
		c.mu.Lock()
		c.idle = append(c.idle, id)
		c.mu.Unlock()
	case c.ctx.Err() != nil:
		return nil, fmt.Errorf("pbft: client: %w: %w", coterie.ErrUnknownOutcome, coterie.ErrClosed)
	case op != opExecute:
		return nil, err
	default:
		return nil, fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, err)
	}
	if len(said) == 0 || said[0] > 1 {
		return nil, errors.New("pbft: the replicas agree on a reply that is malformed")
	}
	if said[0] == 1 {
		return nil, errors.New(string(said[1:]))
	}
	return said[1:], nil
}

func (c *Client) begin() (*identity, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, fmt.Errorf("pbft: client: %w", coterie.ErrClosed)
	}
	var id *identity
	if n := len(c.idle); n > 0 {
		id, c.idle = c.idle[n-1], c.idle[:n-1]
	} else {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, 0, fmt.Errorf("pbft: client: %w", err)
		}
		id = &identity{key: key}
	}
	c.calls.Add(1)
	return id, c.first, nil
}

// poll is one call's asking of the replicas.
type poll struct {
	c       *Client
	ctx     context.Context
	signed  []byte
	answers chan answer
	asked   []bool // since the last time-out
	running int
	said    [][]byte // by replica; nil until it has answered
}

// ask asks a replica unless it has been.
func (p *poll) ask(i int) {
	if p.asked[i] || p.said[i] != nil {
		return
	}
	p.asked[i] = true
	p.running++
	go func() {
		reply, err := p.c.ask(p.ctx, p.c.nodes[i], p.signed)
		p.answers <- answer{i, reply, err}
	}()
}

// take takes an answer, and reports whether f+1 replicas have given it. One that fails has another one asked in its
// place; if two differ, somebody lies, and all are asked.
func (p *poll) take(a answer) bool {
	p.running--
	if a.err != nil || len(a.reply) == 0 {
		for i := range p.asked {
			if p.running <= p.c.faulty {
				p.ask(i)
			}
		}
		return false
	}
	p.said[a.from] = a.reply
	alike, answered := 0, 0
	for _, reply := range p.said {
		if reply != nil {
			answered++
			if bytes.Equal(reply, a.reply) {
				alike++
			}
		}
	}
	if alike < answered {
		for i := range p.asked {
			p.ask(i)
		}
	}
	return alike > p.c.faulty
}

// agree asks f+1 replicas, then all again and again, until f+1 have answered alike (§4.1).
func (c *Client) agree(ctx context.Context, cancel func(), signed []byte, first int) ([]byte, error) {
	n := len(c.nodes)
	p := &poll{c: c, ctx: ctx, signed: signed, answers: make(chan answer, n), asked: make([]bool, n), said: make([][]byte, n)}
	defer func() { // nobody is left behind
		cancel()
		for ; p.running > 0; p.running-- {
			<-p.answers
		}
	}()
	for k := range c.faulty + 1 {
		p.ask((first + k) % n)
	}
	again := time.NewTimer(c.cfg.TryTimeout)
	defer again.Stop()
	failed := make([]bool, n)
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case a := <-p.answers:
			failed[a.from] = a.err != nil // and so may be asked again
			if p.take(a) {
				return a.reply, nil
			}
		case <-again.C:
			again.Reset(c.cfg.TryTimeout)
			c.mu.Lock()
			c.first = (first + 1) % n // others first, the next time
			c.mu.Unlock()
			for i := range n {
				if failed[i] {
					failed[i], p.asked[i] = false, false
				}
				p.ask(i)
			}
		}
	}
}

// post asks a replica over HTTP.
func (c *Client) post(ctx context.Context, to coterie.NodeID, signed []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Addrs[to]+"/request", bytes.NewReader(signed))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	_ = response.Body.Close() // read only: nothing is lost
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("pbft: %s: %s: %s", to, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}
