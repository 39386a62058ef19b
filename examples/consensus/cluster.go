package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/transport/sim"
)

// network is where clusters are simulated.
type network struct {
	name    string
	link    sim.Link
	timeout time.Duration // after which a leader is suspected
}

var networks = []network{
	{"LAN", sim.Link{Latency: sim.Uniform(200*time.Microsecond, 400*time.Microsecond)}, 100 * time.Millisecond},
	{"WAN", sim.Link{Latency: sim.Uniform(30*time.Millisecond, 50*time.Millisecond)}, time.Second},
}

// cluster is a simulated one and its clients, which sit with the leader.
type cluster struct {
	*sim.World
	net network
	ids []coterie.NodeID
}

func newCluster(p protocol, net network, nodes int, cfg sim.Config) (*cluster, error) {
	cfg.Link = net.link
	w, err := sim.New(cfg)
	if err != nil {
		return nil, err
	}
	c := &cluster{World: w, net: net}
	for i := range nodes {
		c.ids = append(c.ids, coterie.NodeID(rune('a'+i)))
	}
	for _, id := range c.ids {
		s := setup{id: id, ids: c.ids, timeout: net.timeout}
		if _, err := p.core(withSeed(s, cfg.Seed, 1)); err != nil {
			return nil, err
		}
		if err := w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := p.core(withSeed(s, cfg.Seed, incarnation))
			if err != nil {
				panic(err) // it was made like this before
			}
			return core, consensus.NewInline(consensus.InlineConfig{
				ID: id, World: w, Config: consensus.Config{StateMachine: nothing{}, Clock: w.Clock(id).Now},
			})
		}}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func withSeed(s setup, seed, incarnation uint64) setup {
	s.seed = seed*1_000_003 + incarnation*1009 + uint64(s.id[0])
	return s
}

// leader returns the replica that leads, nil if none does.
func (c *cluster) leader() *consensus.Inline {
	var best *consensus.Inline
	for _, id := range c.ids {
		app, _ := c.App(id).(*consensus.Inline)
		if app == nil {
			continue
		}
		if s := app.Status(); s.Leader == id && (best == nil || s.Term > best.Status().Term) {
			best = app
		}
	}
	return best
}

// anyone returns the leader, or a replica that is up while there is none: some protocols need no leader to propose.
func (c *cluster) anyone() *consensus.Inline {
	if app := c.leader(); app != nil {
		return app
	}
	for _, id := range c.ids {
		if app, _ := c.App(id).(*consensus.Inline); app != nil {
			return app
		}
	}
	return nil
}

var command = []byte("sixteen bytes ok")

// commit proposes until a proposal is answered, and then calls done with how long that one took.
func (c *cluster) commit(done func(took time.Duration)) {
	begin := c.Elapsed()
	answered := false
	again := func() {
		if !answered {
			answered = true
			c.commit(done)
		}
	}
	c.After(2*c.net.timeout, again) // a lost answer
	app := c.anyone()
	if app == nil {
		return
	}
	app.Propose(consensus.Tag{}, command, func(o consensus.Outcome) {
		switch {
		case answered:
		case o.Err != nil:
			c.After(c.net.timeout/10, again)
		default:
			answered = true
			done(c.Elapsed() - begin)
		}
	})
}

// ready waits until the cluster works.
func (c *cluster) ready() error {
	committed := 0
	c.commit(func(time.Duration) { committed++ })
	if err := c.RunUntil(func() bool { return committed > 0 }, 100*c.net.timeout); err != nil {
		return fmt.Errorf("no first commit: %w", err)
	}
	return c.Run(2 * c.net.timeout)
}

// load lets clients commit, each one command after the other, and returns how long each took.
func (c *cluster) load(clients, commands int) ([]time.Duration, error) {
	var took []time.Duration
	begun := 0
	var next func()
	next = func() {
		if begun == commands {
			return
		}
		begun++
		c.commit(func(d time.Duration) {
			took = append(took, d)
			next()
		})
	}
	for range clients {
		c.After(0, next)
	}
	err := c.RunUntil(func() bool { return len(took) == commands }, time.Hour)
	return took, err
}

// crash stops the leader and returns how long it takes until the next commit.
func (c *cluster) crash() (time.Duration, error) {
	victim := c.leader()
	if victim == nil {
		return 0, errors.New("there is no leader to crash")
	}
	begin := c.Elapsed()
	c.Crash(victim.Status().ID)
	recovered := time.Duration(0)
	var try func()
	try = func() {
		if app := c.anyone(); app != nil && recovered == 0 {
			app.Propose(consensus.Tag{}, command, func(o consensus.Outcome) {
				if o.Err == nil && recovered == 0 {
					recovered = c.Elapsed() - begin
				}
			})
		}
		if recovered == 0 {
			c.After(c.net.timeout/20, try)
		}
	}
	c.After(0, try)
	if err := c.RunUntil(func() bool { return recovered > 0 }, 100*c.net.timeout); err != nil {
		return 0, fmt.Errorf("no commit after a crash: %w", err)
	}
	return recovered, nil
}

// diagram writes the space-time diagram of one commit, a crash of the leader, and a commit of its successor.
func diagram(out io.Writer, p protocol, seed uint64, file string) error {
	trace := new(sim.Trace)
	net := networks[0]
	c, err := newCluster(p, net, p.least, sim.Config{Seed: seed, Trace: trace})
	if err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	took, err := c.load(1, 1)
	if err != nil {
		return err
	}
	_ = c.Run(net.timeout / 2)
	at := c.Elapsed()
	recovery, err := c.crash()
	if err != nil {
		return err
	}
	_ = c.Run(net.timeout / 2)
	if err := toFile(file, trace.WriteHTML); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s, %d replicas: a commit in %s ms; the leader crashes at %s ms, the next commit is %s ms later: see %s\n",
		p.name, p.least, milliseconds(took[0]), milliseconds(at), milliseconds(recovery), file)
	return err
}

// nothing is a state machine that does nothing.
type nothing struct{}

func (nothing) Apply(coterie.Entry) []byte   { return nil }
func (nothing) Query([]byte) ([]byte, error) { return nil, nil }
func (nothing) Snapshot() (func(io.Writer) error, error) {
	return func(w io.Writer) error {
		_, err := w.Write([]byte("nothing"))
		return err
	}, nil
}

func (nothing) Restore(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
