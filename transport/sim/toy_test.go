package sim_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport/sim"
)

// register is a toy protocol, primary copy: the node that is first in the list takes writes, each with the next
// version, saves them and sends them to the others, and tells all nodes of one that every node has on disk: they
// acknowledge it.
type register struct {
	id      coterie.NodeID
	nodes   []coterie.NodeID
	bug     bug
	out     coterie.Outbox
	version uint64
	value   uint64
	acked   uint64
	have    map[coterie.NodeID]uint64 // the version that each node has told to have on disk, of this incarnation
	resend  time.Time
}

type bug int

const (
	none       bug = iota
	ackEarly       // the primary counts its own copy before it is durable
	goBack         // a late message makes a node go back to an older version
	replyEarly     // a copy's reply does not wait for its disk
)

// acked is the event that a write is acknowledged.
type acked struct{ version, value uint64 }

const (
	msgWrite = 1 // version and value: to save
	msgHave  = 2 // version: it is on the sender's disk
	msgDone  = 3 // version and value: it is on every disk
)

const resendEvery = 50 * time.Millisecond

func newRegister(id coterie.NodeID, nodes []coterie.NodeID, b bug) *register {
	return &register{id: id, nodes: nodes, bug: b, have: map[coterie.NodeID]uint64{}}
}

func (r *register) primary() bool { return r.id == r.nodes[0] }

func (r *register) Replay(record []byte) error {
	version, value, err := decode(record, msgWrite)
	if err == nil && version > r.version {
		r.version, r.value = version, value
	}
	return err
}

// Write is the typed call.
func (r *register) Write(now time.Time, value uint64) error {
	if !r.primary() {
		return coterie.ErrNotLeader
	}
	if r.version > r.acked {
		return coterie.ErrOverloaded
	}
	r.version++
	r.value = value
	r.replicate(now, true)
	return nil
}

func (r *register) replicate(now time.Time, save bool) {
	record := encode(msgWrite, r.version, r.value)
	if save {
		r.out.Save(record)
		r.out.Keep(1)
		if r.bug == ackEarly {
			r.have[r.id] = r.version
		}
	}
	for _, to := range r.nodes {
		switch {
		case to != r.id && r.have[to] < r.version:
			r.out.SendEarly(to, record)
		case to == r.id && save && r.bug != ackEarly:
			r.out.Send(to, encode(msgHave, r.version, 0))
		}
	}
	r.resend = now.Add(resendEvery)
}

func (r *register) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	if len(payload) == 0 {
		return errors.New("empty")
	}
	version, value, err := decode(payload, payload[0])
	if err != nil {
		return err
	}
	switch payload[0] {
	case msgWrite:
		r.copied(from, version, value)
	case msgHave:
		r.have[from] = max(r.have[from], version)
		r.count()
	case msgDone:
		r.out.Emit(acked{version, value})
	}
	return nil
}

func (r *register) copied(from coterie.NodeID, version, value uint64) {
	if version > r.version || r.bug == goBack && version != r.version {
		r.version, r.value = version, value
		r.out.Save(encode(msgWrite, version, value))
		r.out.Keep(1)
	}
	if r.bug == replyEarly {
		r.out.SendEarly(from, encode(msgHave, r.version, 0))
		return
	}
	r.out.Send(from, encode(msgHave, r.version, 0))
}

func (r *register) count() {
	least := r.version
	for _, id := range r.nodes {
		least = min(least, r.have[id])
	}
	if least > r.acked && least == r.version {
		r.acked = least
		for _, id := range r.nodes {
			r.out.SendEarly(id, encode(msgDone, r.version, r.value))
		}
	}
}

func (r *register) Tick(now time.Time) {
	if !r.primary() || r.version == r.acked || now.Before(r.resend) {
		return
	}
	if r.have[r.id] < r.version && r.resend.IsZero() { // after a restart: what was replayed is on disk
		r.have[r.id] = r.version
	}
	r.replicate(now, false)
}

func (r *register) Ready() coterie.Ready {
	if r.primary() && r.version > r.acked {
		r.out.Wake(r.resend)
	}
	return r.out.Take()
}

func (r *register) Describe(payload []byte) string {
	names := map[byte]string{msgWrite: "Write", msgHave: "Have", msgDone: "Done"}
	if len(payload) == 0 {
		return "empty"
	}
	version, value, err := decode(payload, payload[0])
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s version=%d value=%d", names[payload[0]], version, value)
}

func encode(kind byte, version, value uint64) []byte {
	return wire.AppendUvarint(wire.AppendUvarint([]byte{kind}, version), value)
}

func decode(b []byte, kind byte) (version, value uint64, err error) {
	r := wire.NewReader(b)
	if r.Byte() != kind || kind < msgWrite || kind > msgDone {
		r.Fail("kind")
	}
	version, value = r.Uvarint(), r.Uvarint()
	return version, value, r.Done()
}

// cluster is a world of registers and what a client knows of it.
type cluster struct {
	*sim.World
	ids   []coterie.NodeID
	acked acked
	count int
}

func newCluster(cfg sim.Config, size int, b bug) (*cluster, error) {
	w, err := sim.New(cfg)
	if err != nil {
		return nil, err
	}
	c := &cluster{World: w}
	for i := range size {
		c.ids = append(c.ids, coterie.NodeID(rune('a'+i)))
	}
	for _, id := range c.ids {
		spec := sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			return newRegister(id, slices.Clone(c.ids), b), sim.EventFunc(func(_ time.Time, event any) {
				if e := event.(acked); e.version > c.acked.version {
					c.acked = e
					c.count++
				}
			})
		}}
		if err := w.Add(id, spec); err != nil {
			return nil, err
		}
	}
	w.Invariant("acknowledged writes are on every disk", c.durable)
	return c, nil
}

// durable holds when every node would come back with what was acknowledged.
func (c *cluster) durable(w *sim.World) error {
	for _, id := range c.ids {
		fresh := newRegister(id, c.ids, none)
		for _, record := range w.Records(id) {
			version, value, err := decode(record, msgWrite)
			if err != nil {
				return err
			}
			fresh.version, fresh.value = version, value // the last record counts
		}
		if fresh.version < c.acked.version {
			return errors.New(string(id) + " has lost an acknowledged write")
		}
	}
	return nil
}

// write keeps a client writing.
func (c *cluster) write(every time.Duration) {
	value := uint64(0)
	var next func()
	next = func() {
		_ = c.Do(c.ids[0], func(now time.Time, core coterie.Core) {
			if core.(*register).Write(now, value) == nil {
				value++
			}
		})
		c.After(every, next)
	}
	c.After(every, next)
}
