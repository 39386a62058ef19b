package consensus

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// ClientConfig says where the replicas are.
type ClientConfig struct {
	Addrs      map[coterie.NodeID]string // required: base URLs of what Serve serves, "https://10.0.0.1:8080"
	TLS        *tls.Config               // for https; default the system's roots and no client certificate
	HTTP       *http.Client              // instead of one that the Client makes from TLS
	TryTimeout time.Duration             // how long one replica is waited for before the next is asked; default 2 s
}

// Client is a Replica far away: all of them as one. It finds the leader, follows it, and tries again until ctx ends;
// its Propose is exactly once. Its methods are safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	http  *http.Client
	nodes []coterie.NodeID // sorted

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
	if c.http == nil {
		// Many calls at once go to one node, the leader; the default of 2 idle connections would close most of them.
		c.http = &http.Client{Transport: &http.Transport{
			TLSClientConfig: cfg.TLS, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute,
		}}
	}
	c.target = c.nodes[0]
	err := retry(ctx, func() error {
		_, err := c.call(ctx, http.MethodGet, "/status", nil, nil)
		return err
	})
	if err != nil {
		c.http.CloseIdleConnections()
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
		result, err = c.call(ctx, http.MethodPost, "/read", nil, query)
		return err
	})
	return result, err
}

// Status is that of the replica asked last, zero if it does not answer.
func (c *Client) Status() (status coterie.Status) {
	c.mu.Lock()
	target := c.target
	c.mu.Unlock()
	if b, err := c.ask(context.Background(), target, http.MethodGet, "/status", nil, nil); err == nil {
		_ = json.Unmarshal(b, &status)
	}
	return status
}

// OpenSession opens a session, in one try.
func (c *Client) OpenSession(ctx context.Context) (uint64, error) {
	b, err := c.call(ctx, http.MethodPost, "/session", nil, nil)
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
	h := make(http.Header, 3)
	h.Set(headerSession, strconv.FormatUint(tag.Session, 10))
	h.Set(headerSeq, strconv.FormatUint(tag.Seq, 10))
	h.Set(headerLow, strconv.FormatUint(tag.Low, 10))
	return c.call(ctx, http.MethodPost, "/propose", h, command)
}

// EndSession makes the replicas forget a session, in one try.
func (c *Client) EndSession(ctx context.Context, id uint64) error {
	_, err := c.call(ctx, http.MethodDelete, "/session/"+strconv.FormatUint(id, 10), nil, nil)
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
	c.http.CloseIdleConnections()
	return nil
}

// call asks the leader, and if it was another one, that one.
func (c *Client) call(ctx context.Context, method, path string, h http.Header, body []byte) ([]byte, error) {
	c.mu.Lock()
	target := c.target
	c.mu.Unlock()
	for hop := 0; ; hop++ {
		b, err := c.ask(ctx, target, method, path, h, body)
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

// ask makes one request to one node.
func (c *Client) ask(ctx context.Context, node coterie.NodeID, method, path string, h http.Header, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.cfg.Addrs[node], "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if h != nil {
		req.Header = h.Clone()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("consensus: %s is %w: %w", node, errUnreachable, err)
		}
		return nil, fmt.Errorf("consensus: %s: %w: %w", node, coterie.ErrUnknownOutcome, err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // read to its end or given up
	if err != nil {
		return nil, fmt.Errorf("consensus: %s: %w: %w", node, coterie.ErrUnknownOutcome, err)
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	return nil, remoteError(node, resp, b)
}

// remoteError is the error that a replica answered with.
func remoteError(node coterie.NodeID, resp *http.Response, body []byte) error {
	text := strings.TrimSpace(string(body))
	name := resp.Header.Get(headerError)
	if name == "not-leader" {
		return fmt.Errorf("consensus: %s: %w", node, &coterie.NotLeaderError{Leader: coterie.NodeID(resp.Header.Get(headerLeader))})
	}
	if name == "closed" {
		return fmt.Errorf("consensus: %s is %w: %s", node, errUnreachable, text)
	}
	for _, f := range faults {
		if f.name == name {
			return fmt.Errorf("consensus: %s: %w (%s)", node, f.err, text)
		}
	}
	return fmt.Errorf("consensus: %s: %s", node, text)
}
