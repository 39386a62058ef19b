package clocksync

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

const (
	protocolFormat = 1

	kindAsk    = 1 // what time is it?
	kindTime   = 2 // the answer
	kindAdjust = 3 // turn your clock
)

// message is any of both protocols' messages: a format byte, the kind, the round and, but for an Ask, a value.
type message struct {
	kind  byte
	round uint64
	value int64 // nanoseconds: since 1970 in a Time, to add in an Adjust
}

func (m message) encode() []byte {
	b := wire.AppendUvarint([]byte{protocolFormat, m.kind}, m.round)
	if m.kind != kindAsk {
		b = wire.AppendVarint(b, m.value)
	}
	return b
}

func decode(payload []byte) (message, error) {
	r := wire.NewReader(payload)
	if f := r.Byte(); r.Err() == nil && f > protocolFormat {
		return message{}, &coterie.FormatError{What: "clock message", Got: f, Max: protocolFormat}
	} else if f != protocolFormat {
		r.Fail("format %d", f)
	}
	m := message{kind: r.Byte(), round: r.Uvarint()}
	switch m.kind {
	case kindAsk:
	case kindTime, kindAdjust:
		m.value = r.Varint()
	default:
		r.Fail("unknown kind %d", m.kind)
	}
	if err := r.Done(); err != nil {
		return message{}, fmt.Errorf("clocksync: message: %w", err)
	}
	return m, nil
}

func describe(payload []byte) string {
	m, err := decode(payload)
	switch {
	case err != nil:
		return err.Error()
	case m.kind == kindAsk:
		return fmt.Sprintf("Ask round=%d", m.round)
	case m.kind == kindTime:
		return fmt.Sprintf("Time round=%d %s", m.round, time.Unix(0, m.value).UTC().Format(time.RFC3339Nano))
	}
	return fmt.Sprintf("Adjust round=%d by=%v", m.round, time.Duration(m.value))
}

// CristianConfig configures a Cristian core.
type CristianConfig struct {
	Clock  func() time.Time // required: the wall clock
	Seed   uint64           // required, another one for each incarnation: numbers requests, so that old answers do not count
	Server coterie.NodeID   // whom to ask; empty asks nobody and only answers

	Interval time.Duration // between requests; default 16 s
	MaxDelay time.Duration // answers that took longer are not used; default 1 s
	MinDelay time.Duration // what a message takes one way at the least, where known: makes the error smaller; default 0
}

// Synced is the event of a Cristian core: what an answer told.
type Synced struct {
	Server coterie.NodeID
	Sample Sample
}

// Cristian asks one server for the time and answers whoever asks (Cristian, "Probabilistic Clock Synchronization",
// 1989). It emits Synced for every answer in time. The fault model: the network may lose, delay, repeat and reorder;
// the server is trusted. What it does not do is to choose: of several Synced, the one of the smallest Error is the best
// at its time, which clock.IntervalClock takes care of.
//
// It is a coterie.Core and remembers nothing across restarts.
type Cristian struct {
	cfg   CristianConfig
	out   coterie.Outbox
	round uint64
	sent  time.Time // zero: no request is open
	next  time.Time
}

// NewCristian returns a core. Errors name the field.
func NewCristian(cfg CristianConfig) (*Cristian, error) {
	if cfg.Interval == 0 {
		cfg.Interval = 16 * time.Second
	}
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = time.Second
	}
	var errs []error
	if cfg.Clock == nil {
		errs = append(errs, errors.New("field Clock is required"))
	}
	if cfg.Seed == 0 {
		errs = append(errs, errors.New("field Seed is required"))
	}
	if cfg.Interval < 0 || cfg.MaxDelay < 0 || cfg.MinDelay < 0 {
		errs = append(errs, errors.New("fields Interval, MaxDelay and MinDelay must not be negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("clocksync: CristianConfig: %w", err)
	}
	return &Cristian{cfg: cfg, round: mix(cfg.Seed)}, nil
}

// mix spreads a seed over 63 bits (the finalizer of SplitMix64, Steele et al., 2014).
func mix(seed uint64) uint64 {
	seed = (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
	seed = (seed ^ seed>>27) * 0x94d049bb133111eb
	return (seed ^ seed>>31) >> 1
}

// Replay refuses: the core saves nothing.
func (*Cristian) Replay([]byte) error { return errors.New("clocksync: a record that was never saved") }

// Step takes a request or an answer.
func (c *Cristian) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	m, err := decode(payload)
	if err != nil {
		return err
	}
	switch {
	case m.kind == kindAsk:
		c.out.Send(from, message{kindTime, m.round, c.cfg.Clock().UnixNano()}.encode())
	case m.kind == kindAdjust:
		return errors.New("clocksync: Adjust sent to a Cristian core")
	case from == c.cfg.Server && m.round == c.round && !c.sent.IsZero():
		c.answer(now, m)
	}
	return nil
}

// answer computes §4's estimate: the server's time plus half the round trip, off by at most the other half less what
// the way takes at the least.
func (c *Cristian) answer(now time.Time, m message) {
	delay := now.Sub(c.sent)
	c.sent = time.Time{}
	if delay < 0 || delay > c.cfg.MaxDelay {
		return
	}
	wall := c.cfg.Clock()
	c.out.Emit(Synced{c.cfg.Server, Sample{
		At:     wall,
		Offset: time.Unix(0, m.value).Sub(wall) + delay/2,
		Delay:  delay,
		Error:  max(delay/2-c.cfg.MinDelay, 0) + 1,
	}})
}

// Tick asks, when it is time.
func (c *Cristian) Tick(now time.Time) {
	if c.cfg.Server == "" || now.Before(c.next) {
		return
	}
	c.round++
	c.sent, c.next = now, now.Add(c.cfg.Interval)
	c.out.SendEarly(c.cfg.Server, message{kind: kindAsk, round: c.round}.encode())
}

// Ready ends a batch.
func (c *Cristian) Ready() coterie.Ready {
	c.out.Wake(c.next)
	return c.out.Take()
}

// Describe tells what a payload says.
func (*Cristian) Describe(payload []byte) string { return describe(payload) }
