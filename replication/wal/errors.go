package wal

import (
	"errors"
	"fmt"

	"github.com/coterie-go/coterie"
)

// ErrLocked is returned by Open when another process, or this one, has the log open. Close that one first.
var ErrLocked = errors.New("wal: the log is open elsewhere")

// ErrPoisoned is returned by every Append and Keep after one whose write or sync failed: what is on the disk is not
// known any more. Close the log and Open it again, which reads what the disk really holds.
var ErrPoisoned = errors.New("wal: an earlier write or sync failed")

// OwnerError is returned by Open for the log of another node: a node that took up another's promises would break
// them. Give the node its own folder, or start it under the owner's id.
type OwnerError struct {
	Dir   string         // the folder
	Owner coterie.NodeID // whose log it holds
	Want  coterie.NodeID // Config.Owner
}

// Error names both nodes.
func (e *OwnerError) Error() string {
	return fmt.Sprintf("wal: the log in %s belongs to %q, not to %q", e.Dir, string(e.Owner), string(e.Want))
}

// CorruptionError is returned by Open and Replay for damage that no crash leaves: bytes that were once durable are
// not as they were written. Nothing is repaired and nothing dropped, since the records behind may have been promised
// to others. Restore the folder from a copy, or remove the node and add a new one.
type CorruptionError struct {
	Segment string // path of the file
	Offset  int64  // of the first byte that is not understood; all before it is sound
	Reason  string // what is wrong there
}

// Error names the file and the place.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("wal: %s is corrupt at offset %d: %s", e.Segment, e.Offset, e.Reason)
}

// headerError is the error for a segment whose header is not sound.
func headerError(path string, err error) error {
	if _, ok := errors.AsType[*coterie.FormatError](err); ok {
		return fmt.Errorf("wal: %s: %w", path, err)
	}
	return &CorruptionError{Segment: path, Reason: err.Error()}
}
