package sim

import (
	"time"

	"github.com/coterie-go/coterie"
)

// The Byzantine nodes of this file wrap an honest core and change what it sends. They leave mail to itself alone, so
// that the core under them stays what it is, and World.Core and World.Do look through them. They nest: a node that
// equivocates and repeats itself is Replay(Equivocate(core, ...), ...).

// Tamper returns a core whose every message to another node is what rewrite makes of it: none, one or many envelopes.
// rewrite may not change the bytes that it is given, only replace them, and is deterministic. Saves, events and timers
// stay the honest core's.
func Tamper(core coterie.Core, self coterie.NodeID, rewrite func(coterie.Envelope) []coterie.Envelope) coterie.Core {
	return &tamper{Core: core, self: self, rewrite: rewrite}
}

type tamper struct {
	coterie.Core
	self    coterie.NodeID
	rewrite func(coterie.Envelope) []coterie.Envelope
	send    []coterie.Envelope
}

// Unwrap returns the honest core.
func (t *tamper) Unwrap() coterie.Core { return t.Core }

func (t *tamper) Ready() coterie.Ready {
	rd := t.Core.Ready()
	t.send = t.send[:0]
	for _, env := range rd.Send {
		if env.To == t.self {
			t.send = append(t.send, env)
		} else {
			t.send = append(t.send, t.rewrite(env)...)
		}
	}
	rd.Send = t.send
	return rd
}

// Silent returns a core that takes part in everything but sends nothing to the nodes named, or to no other node at all
// if none is named.
func Silent(core coterie.Core, self coterie.NodeID, to ...coterie.NodeID) coterie.Core {
	mute := map[coterie.NodeID]bool{}
	for _, id := range to {
		mute[id] = true
	}
	return Tamper(core, self, func(env coterie.Envelope) []coterie.Envelope {
		if len(mute) == 0 || mute[env.To] {
			return nil
		}
		return []coterie.Envelope{env}
	})
}

// Equivocate returns a core that tells every node something of its own: mutate gets each payload and its receiver, and
// returns what is sent instead, or nil for nothing. It must not change the bytes it is given. Where messages are
// signed, it signs anew with the node's own key, which is all that a Byzantine node can do.
func Equivocate(core coterie.Core, self coterie.NodeID, mutate func(to coterie.NodeID, payload []byte) []byte) coterie.Core {
	return Tamper(core, self, func(env coterie.Envelope) []coterie.Envelope {
		if env.Payload = mutate(env.To, env.Payload); env.Payload == nil {
			return nil
		}
		return []coterie.Envelope{env}
	})
}

// ReplayConfig describes Replay. Self and Nodes are required.
type ReplayConfig struct {
	Self   coterie.NodeID
	Nodes  []coterie.NodeID // who gets old payloads
	Seed   uint64           // of what it draws; another per node
	Rate   float64          // old payloads per message that the core sends; default 1
	Memory int              // payloads remembered, the newest ones, its own and those of others; default 256
}

// Replay returns a core that also sends old payloads again, its own and those it received from others, to nodes drawn
// at random. Where payloads are signed, those of others are still theirs, long out of date.
func Replay(core coterie.Core, cfg ReplayConfig) coterie.Core {
	if cfg.Rate == 0 {
		cfg.Rate = 1
	}
	if cfg.Memory <= 0 {
		cfg.Memory = 256
	}
	r := &resend{cfg: cfg, src: newSource(cfg.Seed, "resend", cfg.Self, "")}
	r.tamper = tamper{Core: core, self: cfg.Self, rewrite: r.rewrite}
	return r
}

type resend struct {
	tamper
	cfg  ReplayConfig
	src  source
	old  [][]byte
	next int
}

func (r *resend) remember(payload []byte) {
	if len(r.old) < r.cfg.Memory {
		r.old = append(r.old, payload)
		return
	}
	r.old[r.next] = payload
	r.next = (r.next + 1) % len(r.old)
}

func (r *resend) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	if from != r.self {
		r.remember(payload)
	}
	return r.Core.Step(now, from, payload)
}

func (r *resend) rewrite(env coterie.Envelope) []coterie.Envelope {
	r.remember(env.Payload)
	envs := []coterie.Envelope{env}
	for left := r.cfg.Rate; r.src.chance(left) && len(r.cfg.Nodes) > 0; left-- {
		to := r.cfg.Nodes[r.src.below(int64(len(r.cfg.Nodes)))]
		if to != r.self {
			envs = append(envs, coterie.Envelope{To: to, Payload: r.old[r.src.below(int64(len(r.old)))], Early: true})
		}
	}
	return envs
}
