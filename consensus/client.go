package consensus

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/rpc"
)

// ClientConfig says where the replicas are.
type ClientConfig struct {
	// Addrs, which is required, says where each replica is: "10.0.0.1:7000" where Serve serves it, or the base URL of
	// what Handler serves, "https://10.0.0.1:8080".
	Addrs map[coterie.NodeID]string

	ID       coterie.NodeID      // who the client is; required with Identity
	Identity *transport.Identity // mutual TLS 1.3, where Serve serves with an Identity; the replicas have those of Addrs

	TLS  *tls.Config  // for https; default the system's roots and no client certificate
	HTTP *http.Client // instead of one that the Client makes from TLS

	TryTimeout time.Duration // how long one replica is waited for before the next is asked; default 2 s
}

// Client is a Replica far away: all of them as one. It finds the leader, follows it, and tries again until ctx ends;
// its Propose is exactly once. Its methods are safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	http  *http.Client
	rpc   map[coterie.NodeID]*rpc.Client // of those whose address is no URL
	nodes []coterie.NodeID               // sorted

	mu      sync.Mutex     // guards what follows
	target  coterie.NodeID // the leader, as far as is known
	session *Session       // nil until one is open
	closed  bool
}

// errUnreachable is a connection that was not made, or a replica that is closed: nothing was done.
var errUnreachable = errors.New("unreachable")

// Dial makes a Client. It returns when one of the replicas answers, be there a leader or not, or with an error when ctx
// ends. The client's session is opened by its first Propose.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("consensus: ClientConfig.Addrs is required")
	}
	if cfg.TryTimeout == 0 {
		cfg.TryTimeout = 2 * time.Second
	}
	if cfg.TryTimeout < 0 {
		return nil, errors.New("consensus: ClientConfig.TryTimeout is negative")
	}
	c := &Client{cfg: cfg, http: cfg.HTTP, nodes: slices.Sorted(maps.Keys(cfg.Addrs))}
	if err := c.makeRPC(); err != nil {
		return nil, err
	}
	if c.http == nil {
		// Many calls at once go to one node, the leader; the default of 2 idle connections would close most of them.
		c.http = &http.Client{Transport: &http.Transport{
			TLSClientConfig: cfg.TLS, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute,
		}}
	}
	c.target = c.nodes[0]
	err := retry(ctx, func() error {
		_, err := c.call(ctx, ask{verb: verbStatus})
		return err
	})
	if err != nil {
		c.disconnect()
		return nil, err
	}
	return c, nil
}

// current returns the open session, or opens one.
func (c *Client) current(ctx context.Context) (*Session, error) {
	c.mu.Lock()
	s, closed := c.session, c.closed
	c.mu.Unlock()
	if closed {
		return nil, errStopped
	}
	if s != nil {
		return s, nil
	}
	s, err := NewSession(ctx, c)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil { // else another call was quicker, and this one expires
		c.session = s
	}
	return c.session, nil
}

// Propose replicates a command exactly once, whichever replica leads, see Session.Propose. If the cluster has forgotten
// the client's session because it was idle for too long, the next one is opened.
func (c *Client) Propose(ctx context.Context, command []byte) ([]byte, error) {
	for {
		s, err := c.current(ctx)
		if err != nil {
			return nil, err
		}
		result, err := s.Propose(ctx, command)
		if !errors.Is(err, ErrSessionExpired) {
			return result, err
		}
		c.mu.Lock()
		if c.session == s {
			c.session = nil
		}
		c.mu.Unlock()
		if errors.Is(err, coterie.ErrUnknownOutcome) {
			return nil, err // an earlier try may have been applied: a new session would not know
		}
	}
}

// Read answers a query linearizably.
func (c *Client) Read(ctx context.Context, query []byte) (result []byte, err error) {
	err = retry(ctx, func() (err error) {
		result, err = c.call(ctx, ask{verb: verbRead, body: query})
		return err
	})
	return result, err
}

// Status is that of the replica asked last, zero if it does not answer.
func (c *Client) Status() (status coterie.Status) {
	c.mu.Lock()
	target := c.target
	c.mu.Unlock()
	if b, err := c.ask(context.Background(), target, ask{verb: verbStatus}); err == nil {
		_ = json.Unmarshal(b, &status)
	}
	return status
}

// OpenSession opens a session, in one try.
func (c *Client) OpenSession(ctx context.Context) (uint64, error) {
	b, err := c.call(ctx, ask{verb: verbOpen})
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("consensus: session id: %w", err)
	}
	return id, nil
}

// ProposeAs makes one try of a session's command.
func (c *Client) ProposeAs(ctx context.Context, tag Tag, command []byte) ([]byte, error) {
	return c.call(ctx, ask{verb: verbPropose, tag: tag, body: command})
}

// EndSession makes the replicas forget a session, in one try.
func (c *Client) EndSession(ctx context.Context, id uint64) error {
	_, err := c.call(ctx, ask{verb: verbEnd, id: id})
	return err
}

// Close ends the session, as far as that takes no longer than one try, and lets the connections go.
func (c *Client) Close() error {
	c.mu.Lock()
	s, closed := c.session, c.closed
	c.closed = true
	c.mu.Unlock()
	if s != nil && !closed {
		_ = c.EndSession(context.Background(), s.id) // else it expires
	}
	c.disconnect()
	return nil
}

func (c *Client) disconnect() {
	c.http.CloseIdleConnections()
	for _, each := range c.rpc {
		_ = each.Close() // it has no error
	}
}

// call asks the leader, and if it was another one, that one.
func (c *Client) call(ctx context.Context, a ask) ([]byte, error) {
	c.mu.Lock()
	target := c.target
	c.mu.Unlock()
	for hop := 0; ; hop++ {
		b, err := c.ask(ctx, target, a)
		next := c.next(target, err)
		if next == target {
			return b, err
		}
		c.mu.Lock()
		if c.target == target { // else another call has found out already
			c.target = next
		}
		c.mu.Unlock()
		// Only a node that says who leads is worth another try at once.
		if not := (*coterie.NotLeaderError)(nil); hop > 0 || !errors.As(err, &not) || not.Leader != next {
			return b, err
		}
		target = next
	}
}

// next is whom to ask after a node answered so: the leader if that is known, the node itself if it knew, or the next.
func (c *Client) next(asked coterie.NodeID, err error) coterie.NodeID {
	not := (*coterie.NotLeaderError)(nil)
	switch {
	case errors.As(err, &not):
		if _, ok := c.cfg.Addrs[not.Leader]; ok {
			return not.Leader
		}
	case errors.Is(err, errUnreachable), errors.Is(err, coterie.ErrUnknownOutcome):
	default:
		return asked
	}
	return c.nodes[(slices.Index(c.nodes, asked)+1)%len(c.nodes)]
}

// verb is what a replica is asked for.
type verb uint8

const (
	verbPropose verb = iota
	verbRead
	verbOpen
	verbEnd
	verbStatus
)

// ask is one request to a replica.
type ask struct {
	verb verb
	tag  Tag    // of a command of a session
	id   uint64 // of the session to end
	body []byte
}

// ask makes one request to one node.
func (c *Client) ask(ctx context.Context, node coterie.NodeID, a ask) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, c.cfg.TryTimeout)
	defer cancel()
	if remote := c.rpc[node]; remote != nil {
		return askRPC(limited, remote, node, a)
	}
	return c.askHTTP(limited, node, a)
}
