package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// solo is the least Core: one node that leads itself. An entry is committed when its record is durable.
type solo struct {
	coterie.Outbox
	id        coterie.NodeID
	entries   []Entry // from base+1 on
	base      uint64
	snapshot  Snapshot
	committed uint64
	applied   []uint64 // what Applied said
	compacts  []Installed

	refuse error    // what Propose and Read answer, if not nil
	hold   bool     // nothing is committed or answered
	held   []uint64 // reads
	readAt time.Time
	chunks []any // what ChunkRead and ChunkWritten said
}

const (
	soloEntry byte = iota
	soloSnapshot
)

func (s *solo) Replay(record []byte) error {
	r := wire.NewReader(record)
	switch r.Byte() {
	case soloEntry:
		s.entries = append(s.entries, Entry{Term: 1, Command: r.Rest()})
	case soloSnapshot:
		index := r.Uvarint()
		s.snapshot = Snapshot{Name: r.String(), Size: int64(r.Uvarint()), Checksum: r.Uint64()}
		s.entries = s.entries[index-s.base:]
		s.base = index
	}
	return r.Done()
}

func (s *solo) Tick(time.Time) {
	s.Emit(Leader{ID: s.id, Term: 1})
	if s.base > 0 {
		s.Emit(Installed{s.base, s.snapshot})
		s.committed = s.base
	}
	s.commit()
}

func (s *solo) last() uint64 { return s.base + uint64(len(s.entries)) }

func (s *solo) commit() {
	if s.committed < s.last() && !s.hold {
		s.Emit(Committed{s.committed + 1, s.entries[s.committed-s.base:]})
		s.committed = s.last()
	}
}

func (s *solo) Step(time.Time, coterie.NodeID, []byte) error { return errors.New("solo: a message") }

func (s *solo) Ready() coterie.Ready { return s.Take() }

func (s *solo) Propose(_ time.Time, id uint64, command []byte) {
	if s.refuse != nil {
		s.Emit(Rejected{id, s.refuse})
		return
	}
	s.entries = append(s.entries, Entry{ID: id, Term: 1, Command: command})
	s.Save(append([]byte{soloEntry}, command...))
	s.commit()
}

func (s *solo) Read(now time.Time, id uint64) {
	s.readAt = now
	switch {
	case s.refuse != nil:
		s.Emit(Rejected{id, s.refuse})
	case s.hold:
		s.held = append(s.held, id)
	default:
		s.Emit(ReadAt{id, s.committed})
	}
}

func (s *solo) release() {
	s.hold = false
	s.commit()
	for _, id := range s.held {
		s.Emit(ReadAt{id, s.committed})
	}
	s.held = nil
}

func (s *solo) Applied(_ time.Time, index uint64) { s.applied = append(s.applied, index) }

func (s *solo) Compact(_ time.Time, index uint64, snapshot Snapshot) {
	s.compacts = append(s.compacts, Installed{index, snapshot})
	b := wire.AppendUvarint([]byte{soloSnapshot}, index)
	b = wire.AppendString(b, snapshot.Name)
	b = wire.AppendUvarint(b, uint64(snapshot.Size))
	s.Save(wire.AppendUint64(b, snapshot.Checksum))
	if s.snapshot.Name != "" {
		s.Emit(Superseded{s.snapshot.Name})
	}
	s.entries = s.entries[index-s.base:]
	s.base, s.snapshot = index, snapshot
}

func (s *solo) ChunkRead(_ time.Time, id uint64, data []byte, err error) {
	s.chunks = append(s.chunks, fmt.Sprintf("read %d %q %v", id, data, err))
}

func (s *solo) ChunkWritten(_ time.Time, id uint64, err error) {
	s.chunks = append(s.chunks, fmt.Sprintf("written %d %v", id, err))
}

// memory is a coterie.Snapshots. Its content outlives a driver.
type memory struct {
	mu    sync.Mutex // guards files and fail
	files map[string][]byte
	fail  error
}

func newMemory() *memory { return &memory{files: make(map[string][]byte)} }

type memoryFile struct {
	bytes.Buffer
	m       *memory
	name    string
	aborted bool
}

func (m *memory) Create(name string) (io.WriteCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	return &memoryFile{m: m, name: name}, nil
}

func (f *memoryFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.fail != nil {
		return f.m.fail
	}
	f.m.files[f.name] = f.Bytes()
	return nil
}

func (f *memoryFile) Abort() { f.aborted = true }

func (m *memory) Open(name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

func (m *memory) Names() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files)), nil
}

// tally is a state machine that adds up its commands; it remembers what it applied. The command "due 1s" sets the
// deadline.
type tally struct {
	entries  []coterie.Entry
	total    int
	due      time.Time // what Deadline says
	ticks    atomic.Int64
	restored int
}

func (c *tally) Apply(e coterie.Entry) []byte {
	c.entries = append(c.entries, e)
	if len(e.Command) == 0 {
		c.ticks.Add(1)
		if !e.Time.Before(c.due) {
			c.due = time.Time{}
		}
		return nil
	}
	var n int
	if due, ok := strings.CutPrefix(string(e.Command), "due "); ok {
		var d time.Duration
		d, _ = time.ParseDuration(due)
		c.due = e.Time.Add(d)
		return nil
	}
	if _, err := fmt.Sscan(string(e.Command), &n); err != nil {
		return []byte(err.Error())
	}
	c.total += n
	return fmt.Append(nil, c.total)
}

func (c *tally) Query(query []byte) ([]byte, error) {
	if len(query) > 0 {
		return nil, fmt.Errorf("tally: query %q", query)
	}
	return fmt.Append(nil, c.total), nil
}

func (c *tally) Snapshot() (func(io.Writer) error, error) {
	total := c.total
	return func(w io.Writer) error {
		_, err := fmt.Fprint(w, total)
		return err
	}, nil
}

func (c *tally) Restore(r io.Reader) error {
	c.restored++
	c.entries = nil
	_, err := fmt.Fscan(r, &c.total)
	return err
}

func (c *tally) Deadline() time.Time { return c.due }
