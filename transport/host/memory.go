package host

import (
	"errors"
	"slices"
	"sync"

	"github.com/coterie-go/coterie"
)

// MemoryJournal is a Journal in memory: for tests, examples and what need not outlive the process. It outlives the
// Host that wrote it: a second one that replays it is the first one restarted, if Close is not called. The zero value
// is ready to use.
type MemoryJournal struct {
	mu      sync.Mutex // guards what follows
	records [][]byte
	closed  bool
}

// Replay calls f with each record.
func (j *MemoryJournal) Replay(f func(record []byte) error) error {
	j.mu.Lock()
	records := slices.Clone(j.records)
	j.mu.Unlock()
	for _, record := range records {
		if err := f(record); err != nil {
			return err
		}
	}
	return nil
}

// Append keeps the records, which nobody may change.
func (j *MemoryJournal) Append(records ...[]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return coterie.ErrClosed
	}
	j.records = append(j.records, records...)
	return nil
}

// Keep forgets all but the newest records, in time: when they are less than half of what is held.
func (j *MemoryJournal) Keep(newest int) error {
	if newest < 0 {
		return errors.New("host: MemoryJournal.Keep of a negative number")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.records); newest < n/2 {
		j.records = slices.Clone(j.records[n-newest:])
	}
	return nil
}

// Close makes every later Append fail.
func (j *MemoryJournal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	return nil
}
