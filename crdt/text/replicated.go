package text

import (
	"fmt"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// MergeBinary merges an encoded Delta; a Text is a gossip.Replicated by it and the methods below.
func (t *Text) MergeBinary(b []byte) error {
	var d Delta
	if err := d.UnmarshalBinary(b); err != nil {
		return err
	}
	return t.Merge(d)
}

// AppendDigest appends what another replica's AppendDiff needs: the version.
func (t *Text) AppendDigest(b []byte) ([]byte, error) { return t.Version().AppendBinary(b) }

// AppendDiff appends the encoding of what a replica lacks that has made a digest, nothing if it lacks nothing.
func (t *Text) AppendDiff(b, digest []byte) ([]byte, error) {
	var v clock.Vector
	if err := v.UnmarshalBinary(digest); err != nil {
		return b, fmt.Errorf("text: digest: %w: %w", wire.ErrMalformed, err)
	}
	d, err := t.Since(v)
	if err != nil || d.IsEmpty() {
		return b, err
	}
	return d.AppendBinary(b)
}
