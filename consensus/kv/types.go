package kv

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// KV is a key with its value and its history in brief. Nobody may change the Value.
type KV struct {
	Key     string
	Value   []byte
	Create  uint64 // revision that created it
	Mod     uint64 // revision that wrote it last
	Version uint64 // how often it was written since it was created, from 1
	Lease   uint64 // it goes with this lease; 0 is none
}

// size is what a key counts for in the bounds on bytes.
func (k *KV) size() int64 { return int64(len(k.Key)+len(k.Value)) + 64 }

// Span is the keys from From on and below To; an empty To is no end.
type Span struct {
	From, To string
}

// Key is the span of one key.
func Key(key string) Span { return Span{From: key, To: key + "\x00"} }

// Prefix is the span of the keys that begin so; of all keys if it is empty.
func Prefix(prefix string) Span {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return Span{From: prefix, To: prefix[:i] + string([]byte{prefix[i] + 1})}
		}
	}
	return Span{From: prefix}
}

// Contains reports whether the key is in the span.
func (s Span) Contains(key string) bool { return key >= s.From && (s.To == "" || key < s.To) }

// Op is one act of a Txn: a Put, Delete, Get or Rollback.
type Op interface {
	appendTo(b []byte) []byte
}

// Put writes a key. Its Result has the Key.
type Put struct {
	Key   string
	Value []byte
	// Lease makes the key ephemeral: it goes when the lease ends. 0 is none.
	Lease uint64
	// Sequential appends 16 hexadecimal digits to the Key, larger than those of every earlier sequential key of the
	// store, so that keys of one prefix sort in the order in which they were written. They are never given twice.
	Sequential bool
}

// Delete removes keys. Its Result has the Count of those that were there.
type Delete struct{ Span Span }

// Rollback makes the keys of a span what they were at a revision: removes those that were not there, writes those that
// were otherwise. Leases that have ended meanwhile stay ended, and keys of theirs are not written. Its Result has the
// Count of keys changed.
type Rollback struct {
	Span     Span
	Revision uint64
}

// Get reads keys. Its Result has the KVs, and as Count how many there are in the span, whatever the Limit.
type Get struct {
	Span       Span
	Revision   uint64 // at this revision; default 0, the newest; within a Txn that with what was done before the Get
	Limit      int    // at most so many KVs; default 0, no limit but that of an answer's bytes
	KeysOnly   bool   // the KVs lack their Values
	CountOnly  bool   // no KVs
	Descending bool   // the largest keys first
}

// Result is that of one Op. Which fields it has is said there.
type Result struct {
	Key   string
	Count int
	KVs   []KV
	More  bool // there are more KVs than the Limit, or than fit into an answer
}

// Field is what of a key a Compare looks at.
type Field uint8

// The fields of a Compare. A key that is not there has zeroes and no Value.
const (
	FieldCreate  Field = iota + 1 // KV.Create
	FieldMod                      // KV.Mod
	FieldVersion                  // KV.Version
	FieldLease                    // KV.Lease
	FieldValue                    // KV.Value
	FieldCount                    // how many keys are in the Span
)

// Relation is how a Compare looks at it.
type Relation uint8

// The relations of a Compare.
const (
	Equal Relation = iota + 1
	NotEqual
	Less
	Greater
)

// Compare is a condition of a Txn: that a field stands in a relation to Number, or to Bytes if it is FieldValue.
type Compare struct {
	Key    string
	Span   Span // of FieldCount, instead of Key
	Field  Field
	Is     Relation
	Number uint64
	Bytes  []byte
}

// Absent is the condition that there is no such key.
func Absent(key string) Compare { return Compare{Key: key, Field: FieldVersion, Is: Equal} }

// Present is the condition that there is such a key.
func Present(key string) Compare { return Compare{Key: key, Field: FieldVersion, Is: Greater} }

// Unchanged is the condition that a key was last written by this revision; 0 if it was not there.
func Unchanged(key string, mod uint64) Compare {
	return Compare{Key: key, Field: FieldMod, Is: Equal, Number: mod}
}

// ValueIs is the condition that a key has this value.
func ValueIs(key string, value []byte) Compare {
	return Compare{Key: key, Field: FieldValue, Is: Equal, Bytes: value}
}

// Txn is a compare-and-act transaction, done at one revision or not at all: if all conditions hold, Then is done in
// order, else Else is.
type Txn struct {
	If   []Compare
	Then []Op
	Else []Op
}

// TxnResult is what became of a Txn.
type TxnResult struct {
	Revision  uint64 // of the store after it; the one it made if it changed anything
	Succeeded bool   // the conditions held
	Results   []Result
}

// Event is one change of a key.
type Event struct {
	// KV is what was written. Of a deletion it has the Key, and as Mod the revision; Version is 0.
	KV KV
}

// Deleted reports whether the key was removed, by Delete, by Rollback or because its lease ended.
func (e Event) Deleted() bool { return e.KV.Version == 0 }

// Revision is the revision that made the change.
func (e Event) Revision() uint64 { return e.KV.Mod }

// Turn is a question about a queue: whether Key is there, and fewer than Below keys are in the Spans, which are those
// of the queue that are ahead of it.
type Turn struct {
	Key   string
	Spans []Span
	Below int // default 1
	// Revision is that which created the Key. A replica that has not come so far does not know the key yet, and must
	// not say that it has gone.
	Revision uint64
}

// Bounds on what a command may hold.
const (
	MaxKeyBytes = 4 << 10
	MaxOps      = 4096 // conditions and acts of one Txn, each of the three lists
	MaxTTL      = 10 * 365 * 24 * time.Hour
)

// maxAnswer is about how many bytes of KVs or events are in one answer.
const maxAnswer = 1 << 20

// Errors of the store. They come wrapped: test with errors.Is.
var (
	// ErrNotFound is returned by Client.Get for a key that is not there.
	ErrNotFound = errors.New("kv: no such key")
	// ErrCompacted is returned for a revision that is not remembered any more. A *CompactedError says which is.
	ErrCompacted = errors.New("kv: revision is compacted")
	// ErrFuture is returned for a revision that has not been yet.
	ErrFuture = errors.New("kv: revision is in the future")
	// ErrNoLease is returned for a lease that has ended or never was. It never comes back.
	ErrNoLease = errors.New("kv: no such lease")
	// ErrInvalid is returned for what Config.Validate refused, with its text. Nothing was changed.
	ErrInvalid = errors.New("kv: refused by validation")
	// ErrFull is returned when the store is full by Config.MaxBytes. Nothing was changed.
	ErrFull = errors.New("kv: store is full")
	// ErrBadCommand is returned for a command or query that is malformed or breaks a bound. Nothing was changed.
	ErrBadCommand = errors.New("kv: bad command")
)

// CompactedError is an ErrCompacted.
type CompactedError struct {
	Asked  uint64
	Oldest uint64 // the oldest revision that can be read; a watch can begin after it
}

// Error names the revisions.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("%v: asked for %d, the oldest is %d", ErrCompacted, e.Asked, e.Oldest)
}

// Is reports whether target is ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// sequential is the name of a sequential key.
func sequential(prefix string, n uint64) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	b.Grow(len(prefix) + 16)
	b.WriteString(prefix)
	for shift := 60; shift >= 0; shift -= 4 {
		b.WriteByte(digits[n>>shift&15])
	}
	return b.String()
}
