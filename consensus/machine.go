package consensus

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// MachineConfig says what a Machine keeps.
type MachineConfig struct {
	StateMachine coterie.StateMachine // required
	// SnapshotBytes is how many bytes of log are applied between two snapshots, each entry counted 64 bytes longer than
	// its command; it is raised to the size of the last snapshot, so that writing them costs no more than the log does.
	// Default 64 MiB; negative is never.
	SnapshotBytes int64
	// SnapshotEntries, if positive, makes a snapshot due after so many entries too.
	SnapshotEntries int

	bug bug
}

// bug is one that a test plants, to see that it is found.
type bug int

const (
	bugSnapshotWithoutSessions bug = iota + 1
)

const (
	defaultSnapshotBytes = 64 << 20
	entryOverhead        = 64
)

// Machine is the state machine that is replicated: the application's with the table of sessions and the log's clock
// around it. It is deterministic: no goroutine, clock or lock. The driver and the simulator run the same one.
//
// A Machine is not safe for concurrent use.
type Machine struct {
	cfg      MachineConfig
	deadline interface{ Deadline() time.Time } // nil if the application has none
	sessions *sessions
	index    uint64 // the last one applied
	now      int64  // the log's clock: the largest stamp so far
	outcomes []Outcome
	waiting  []ReadAt // reads whose index is not applied yet

	due          bool  // the core wants a snapshot at this index
	sinceBytes   int64 // applied since the last snapshot
	sinceEntries int
	size         int64 // of the last snapshot
}

// Outcome is what became of a proposal of this node.
type Outcome struct {
	ID     uint64 // what Propose called it
	Index  uint64 // where it stands in the log
	Result []byte
	Err    error
}

// NewMachine makes a Machine that has applied nothing.
func NewMachine(cfg MachineConfig) *Machine {
	if cfg.SnapshotBytes == 0 {
		cfg.SnapshotBytes = defaultSnapshotBytes
	}
	m := &Machine{cfg: cfg, sessions: newSessions()}
	m.deadline, _ = cfg.StateMachine.(interface{ Deadline() time.Time })
	return m
}

// Index is the index of the last entry applied.
func (m *Machine) Index() uint64 { return m.index }

// Now is the log's clock, which never goes back: the largest wall time that a leader stamped an entry with.
func (m *Machine) Now() time.Time { return logTime(m.now) }

// Sessions is how many sessions are open.
func (m *Machine) Sessions() int { return m.sessions.order.Len() }

// Apply applies decided entries and returns the outcomes of those that this node proposed, valid until the next call.
// An error is final: the log has a gap, or is of a newer version of this library.
func (m *Machine) Apply(c Committed) ([]Outcome, error) {
	m.outcomes = m.outcomes[:0]
	for i := range c.Entries {
		if index := c.Index + uint64(i); index != m.index+1 {
			return nil, fmt.Errorf("consensus: entry %d committed after %d", index, m.index)
		}
		e := &c.Entries[i]
		var o Outcome
		if !e.Internal {
			var final error
			if o.Result, o.Err, final = m.applyCommand(m.index+1, e.Command); final != nil {
				return nil, final
			}
		}
		m.index++
		m.sinceEntries++
		m.sinceBytes += int64(len(e.Command)) + entryOverhead
		if e.ID != 0 {
			o.ID, o.Index = e.ID, m.index
			m.outcomes = append(m.outcomes, o)
		}
	}
	return m.outcomes, nil
}

func (m *Machine) applyCommand(index uint64, command []byte) (result []byte, err, final error) {
	e, err := decode(command)
	if err != nil {
		if newer := (*coterie.FormatError)(nil); errors.As(err, &newer) {
			return nil, nil, fmt.Errorf("consensus: entry %d: %w", index, err)
		}
		// Every replica finds the same fault and skips the command: only a proposer that is not this driver, or one
		// that lies, sends such.
		return nil, fmt.Errorf("consensus: entry %d: %w", index, err), nil
	}
	m.now = max(m.now, e.stamp)
	m.sessions.expire(m.now)
	entry := coterie.Entry{Index: index, Time: logTime(m.now), Command: e.body}
	switch e.kind {
	case kindPlain, kindTick:
		result = m.cfg.StateMachine.Apply(entry)
	case kindOf:
		result, err = m.sessions.apply(e.tag, m.now, m.cfg.StateMachine, entry)
	case kindOpen:
		m.sessions.open(index, e.limits, m.now)
	case kindEnd:
		m.sessions.end(e.tag.Session)
	}
	return result, err, nil
}

// ReadAt takes the answer to a read.
func (m *Machine) ReadAt(r ReadAt) { m.waiting = append(m.waiting, r) }

// Readable calls f with the id of each read that the state is now fit to answer.
func (m *Machine) Readable(f func(id uint64)) {
	m.waiting = slices.DeleteFunc(m.waiting, func(r ReadAt) bool {
		if r.Index > m.index {
			return false
		}
		f(r.ID)
		return true
	})
}

// Query asks the application.
func (m *Machine) Query(query []byte) ([]byte, error) { return m.cfg.StateMachine.Query(query) }

// minTick is the least time between two ticks whose deadline does not move on.
const minTick = 10 * time.Millisecond

// TickAt is the wall time at which a leader should propose a tick: an empty entry that brings the log's clock to the
// application's deadline; zero is never. ticked is when it last did.
func (m *Machine) TickAt(ticked time.Time) time.Time {
	if m.deadline == nil {
		return time.Time{}
	}
	at := m.deadline.Deadline()
	if at.IsZero() {
		return time.Time{}
	}
	if least := ticked.Add(minTick); at.Before(least) {
		return least
	}
	return at
}

// SnapshotDue reports whether enough was applied since the last snapshot.
func (m *Machine) SnapshotDue() bool {
	if m.due || m.cfg.SnapshotEntries > 0 && m.sinceEntries >= m.cfg.SnapshotEntries {
		return true
	}
	return m.cfg.SnapshotBytes > 0 && m.sinceBytes >= max(m.cfg.SnapshotBytes, m.size)
}

// Capture is the frozen state of a Machine.
type Capture struct {
	Index  uint64 // the last entry it holds
	header []byte
	write  func(io.Writer) error
}

// Capture freezes the state, so that it can be written while the Machine goes on.
func (m *Machine) Capture() (*Capture, error) {
	m.due = false
	write, err := m.cfg.StateMachine.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("consensus: snapshot of the state machine at %d: %w", m.index, err)
	}
	m.sinceBytes, m.sinceEntries = 0, 0
	return &Capture{Index: m.index, header: m.appendHeader(nil), write: write}, nil
}

// Written tells the size of a snapshot that was written.
func (m *Machine) Written(size int64) { m.size = size }

// A snapshot is: format byte | length of the header (uvarint) | header | state of the application.
const snapshotFormat = 1

func (m *Machine) appendHeader(b []byte) []byte {
	b = wire.AppendUvarint(b, m.index)
	b = wire.AppendUvarint(b, uint64(m.now))
	if m.cfg.bug == bugSnapshotWithoutSessions {
		return newSessions().append(b)
	}
	return m.sessions.append(b)
}

// WriteTo writes the snapshot. It may be called once, beside the Machine's other methods.
func (c *Capture) WriteTo(w io.Writer) (int64, error) {
	counter := &countingWriter{w: w}
	start := wire.AppendUvarint([]byte{snapshotFormat}, uint64(len(c.header)))
	if _, err := counter.Write(append(start, c.header...)); err != nil {
		return counter.n, err
	}
	err := c.write(counter)
	return counter.n, err
}

// Restore replaces the state by that of a snapshot, which holds the state through index. On an error of the header
// nothing has changed; on one of the application the Machine is not fit for use.
func (m *Machine) Restore(index uint64, r io.Reader) error {
	header, rest, err := readHeader(r)
	if err != nil {
		return err
	}
	in := wire.NewReader(header)
	at, now := in.Uvarint(), int64(in.Uvarint())
	table := readSessions(&in)
	if now < 0 || at != index {
		in.Fail("state through %d where %d was expected", at, index)
	}
	if err := in.Done(); err != nil {
		return fmt.Errorf("consensus: snapshot header: %w", err)
	}
	if err := m.cfg.StateMachine.Restore(rest); err != nil {
		return fmt.Errorf("consensus: state machine restored at %d: %w", index, err)
	}
	m.index, m.now, m.sessions = index, now, table
	m.sinceBytes, m.sinceEntries = 0, 0
	return nil
}
