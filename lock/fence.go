package lock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// FenceConfig tells a Fence where to remember.
type FenceConfig struct {
	// Journal keeps what the Fence has seen across a restart of the resource; not closed by the Fence. Default none:
	// the Fence then forgets, and a stale token passes after a restart until a newer one has come again.
	Journal coterie.Journal
}

// Fence is the guard at a resource: it remembers the largest token that was used for each name and refuses smaller
// ones, so that a holder of a lock that was overtaken, without knowing, can do no harm. It belongs where the data is,
// in the one process that writes it, and everyone who writes must come by it.
//
// Tokens of one name are those of one Locker, for exclusive locks. Holders of a shared lock or of a semaphore hold it
// together, so that all but the newest would be refused; give each slot a name of its own if they need fencing.
//
// Its methods are safe for concurrent use.
type Fence struct {
	mu      sync.Mutex // guards what follows, and is held while a new token is made durable
	journal coterie.Journal
	names   map[string]*fenced
	records int // in the journal since its last summary
	failed  error
}

// fenced is one name at a Fence.
type fenced struct {
	writing sync.Mutex // held by Guard while it writes
	seen    uint64     // the largest token used
}

// StaleError is an ErrStale.
type StaleError struct {
	Name  string
	Token uint64 // that was refused
	Seen  uint64 // the larger one that was used before
}

// Error names the tokens.
func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: %s, token %d after %d", ErrStale, e.Name, e.Token, e.Seen)
}

// Is reports whether target is ErrStale.
func (e *StaleError) Is(target error) bool { return target == ErrStale }

// NewFence makes a Fence that knows what its journal knows. The error is that of the journal, or of a record that is
// not a Fence's, or a *coterie.FormatError.
func NewFence(cfg FenceConfig) (*Fence, error) {
	f := &Fence{journal: cfg.Journal, names: map[string]*fenced{}}
	if f.journal == nil {
		return f, nil
	}
	if err := f.journal.Replay(f.replay); err != nil {
		return nil, fmt.Errorf("lock: fence: %w", err)
	}
	return f, nil
}

// Check admits a token: it returns nil if no larger one was used for the name, and from then on refuses all smaller
// ones. That the token is the largest is durable when Check returns. Errors: *StaleError, and that of the journal,
// which is final.
//
// What is written after Check has returned may be written when a newer token has passed meanwhile: unless the write
// carries its token with it, use Guard.
func (f *Fence) Check(name string, token uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen(name)
	switch {
	case f.failed != nil:
		return f.failed
	case token < seen || token == 0: // nobody is given 0: a caller without a lock has it
		return &StaleError{Name: name, Token: token, Seen: seen}
	case token == seen:
		return nil
	}
	if err := f.save(name, token); err != nil {
		f.failed = fmt.Errorf("lock: fence: %w", err)
		return f.failed
	}
	f.name(name).seen = token
	return nil
}

// Guard checks a token and, if it passes, runs write before any other write of this name: no newer token can pass in
// between. It returns the error of Check or that of write, which must not call Guard of the same name.
func (f *Fence) Guard(name string, token uint64, write func() error) error {
	f.mu.Lock()
	n := f.names[name]
	if n == nil {
		n = &fenced{}
		if token > 0 { // else Check refuses it: what is bad leaves nothing behind
			f.names[name] = n
		}
	}
	f.mu.Unlock()
	n.writing.Lock()
	defer n.writing.Unlock()
	if err := f.Check(name, token); err != nil {
		return err
	}
	return write()
}

// Seen is the largest token that was used for a name, 0 if none was.
func (f *Fence) Seen(name string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen(name)
}

func (f *Fence) seen(name string) uint64 {
	if n := f.names[name]; n != nil {
		return n.seen
	}
	return 0
}

func (f *Fence) name(name string) *fenced {
	n := f.names[name]
	if n == nil {
		n = &fenced{}
		f.names[name] = n
	}
	return n
}

// A record is: format byte | kind | fields. One of kind seen holds one name and its token, one of kind summary all
// names and tokens, and makes all records before it superfluous.
const (
	fenceFormat = 1

	kindSeen    = 1
	kindSummary = 2
)

// save makes a token durable. Every so often a summary of all takes the place of what was saved before, so that the
// journal is never much longer than twice the number of names.
func (f *Fence) save(name string, token uint64) error {
	if f.journal == nil {
		return nil
	}
	if f.records < max(64, 2*len(f.names)) {
		f.records++
		return f.journal.Append(appendToken([]byte{fenceFormat, kindSeen}, name, token))
	}
	f.name(name).seen = token // if it fails, nothing passes any more
	record := wire.AppendUvarint([]byte{fenceFormat, kindSummary}, uint64(len(f.names)))
	for _, n := range slices.Sorted(maps.Keys(f.names)) {
		record = appendToken(record, n, f.names[n].seen)
	}
	if err := f.journal.Append(record); err != nil {
		return err
	}
	f.records = 0
	return f.journal.Keep(1)
}

func appendToken(b []byte, name string, token uint64) []byte {
	return wire.AppendUvarint(wire.AppendString(b, name), token)
}

// replay takes back a record. More may be replayed than was kept, oldest first: the largest token counts.
func (f *Fence) replay(record []byte) error {
	r := wire.NewReader(record)
	if format := r.Byte(); r.Err() == nil && format > fenceFormat {
		return &coterie.FormatError{What: "fence record", Got: format, Max: fenceFormat}
	} else if format == 0 {
		r.Fail("format 0")
	}
	count := 1
	switch kind := r.Byte(); kind {
	case kindSeen:
	case kindSummary:
		count = r.Count(2)
	default:
		r.Fail("kind %d", kind)
	}
	tokens := make(map[string]uint64, count)
	for range count {
		name := r.String()
		tokens[name] = max(tokens[name], r.Uvarint())
	}
	if err := r.Done(); err != nil {
		return errors.Join(errors.New("fence record"), err)
	}
	for name, token := range tokens {
		n := f.name(name)
		n.seen = max(n.seen, token)
	}
	f.records++
	return nil
}
