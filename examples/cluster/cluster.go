package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/phi"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/coterie-go/coterie/transport/udp"
)

const (
	size     = 8
	interval = 200 * time.Millisecond // faster than the default, for who watches

	swimChannel, beatChannel = 1, 2
)

// cluster is all members and the network between them.
type cluster struct {
	filter filter

	mu        sync.Mutex // guards what follows
	members   []*member  // by place; nil is down
	addresses map[coterie.NodeID]string
}

// member is one process, as it were.
type member struct {
	id      coterie.NodeID
	sockets *udp.Transport
	mux     *transport.Mux
	node    *swim.Node
	phi     *phi.Monitor[coterie.NodeID]
	cancel  context.CancelFunc
	done    chan struct{} // closed when it beats no more
}

func id(place int) coterie.NodeID { return coterie.NodeID(fmt.Sprintf("m%d", place+1)) }

// startCluster starts all members; the first is the seed of the others.
func startCluster() (*cluster, error) {
	c := &cluster{members: make([]*member, size), addresses: make(map[coterie.NodeID]string)}
	for place := range size {
		if err := c.start(place); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// start starts a member that is down.
func (c *cluster) start(place int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members[place] != nil {
		return nil
	}
	sockets, err := c.open(id(place))
	if err != nil {
		return err
	}
	mux := transport.NewMux(&filtered{Transport: sockets, filter: &c.filter})
	seeds := []coterie.NodeID{id(0), id(1)}
	node, err := swim.Start(swim.Config{
		ID: id(place), Transport: mux.Channel(swimChannel), Address: sockets.Addr().String(), Seeds: seeds,
		Meta:          fmt.Appendf(nil, `{"rack":%d}`, 1+place/3),
		ProbeInterval: interval, RetryInterval: 10 * interval, SuspicionMult: 8,
	})
	if err != nil {
		return errors.Join(err, mux.Close())
	}
	monitor, err := phi.NewMonitor[coterie.NodeID](phi.MonitorConfig{New: func() phi.Detector {
		a, _ := phi.New(phi.Config{Pause: -1, MinStdDev: 40 * time.Millisecond, First: interval}) // the fields are valid
		return a
	}})
	if err != nil {
		return errors.Join(err, node.Close(), mux.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{id: id(place), sockets: sockets, mux: mux, node: node, phi: monitor, cancel: cancel, done: make(chan struct{})}
	go m.beat(ctx)
	c.members[place] = m
	return nil
}

// open opens a member's sockets, at the port it had before if there was one, and introduces everyone to everyone.
func (c *cluster) open(id coterie.NodeID) (*udp.Transport, error) {
	var failed error
	for range 20 { // a port that TCP picked may be taken on UDP
		at := c.addresses[id]
		if at == "" {
			at = "127.0.0.1:0"
		}
		stream, err := tcp.Start(tcp.Config{ID: id, Listen: at, AcceptUnknown: true})
		if err != nil {
			return nil, err
		}
		sockets, err := udp.Start(udp.Config{
			ID: id, Listen: stream.Addr().String(), Peers: c.addresses, Stream: stream, StreamIdle: 5 * time.Second,
		})
		if err != nil {
			failed = errors.Join(err, stream.Close())
			continue
		}
		c.addresses[id] = sockets.Addr().String()
		for _, m := range c.members {
			if m != nil {
				_ = m.sockets.SetPeer(id, c.addresses[id]) // the address is one
			}
		}
		return sockets, nil
	}
	return nil, failed
}

// beat sends a heartbeat to all and notes theirs.
func (m *member) beat(ctx context.Context) {
	defer close(m.done)
	channel := m.mux.Channel(beatChannel)
	channel.Receive(func(from coterie.NodeID, _ []byte) { m.phi.Heartbeat(from, time.Now()) })
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		for place := range size {
			if to := id(place); to != m.id {
				_ = channel.Send(to, nil) // best effort
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *member) close() error {
	m.cancel()
	<-m.done
	return errors.Join(m.node.Close(), m.mux.Close())
}

// kill ends a member without a goodbye.
func (c *cluster) kill(place int) error {
	c.mu.Lock()
	m := c.members[place]
	c.members[place] = nil
	c.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.close()
}

// leave ends a member with one.
func (c *cluster) leave(ctx context.Context, place int) error {
	c.mu.Lock()
	m := c.members[place]
	c.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := m.node.Leave(ctx); err != nil {
		return err
	}
	return c.kill(place)
}

func (c *cluster) close() error {
	var errs []error
	for place := range size {
		errs = append(errs, c.kill(place))
	}
	return errors.Join(errs...)
}

// running returns the members that are up, by place.
func (c *cluster) running() map[int]*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := make(map[int]*member)
	for place, m := range c.members {
		if m != nil {
			up[place] = m
		}
	}
	return up
}

// opinion is what one member holds of another.
type opinion struct {
	Known bool
	State membership.State
	Phi   float64
}

// look returns what each member that is up holds of each.
func (c *cluster) look() [size][size]opinion {
	var table [size][size]opinion
	now := time.Now()
	for place, m := range c.running() {
		for other := range size {
			if seen, ok := m.node.Member(id(other)); ok {
				table[place][other] = opinion{Known: true, State: seen.State, Phi: m.phi.Phi(id(other), now)}
			}
		}
	}
	return table
}
