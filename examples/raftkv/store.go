package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"

	"github.com/coterie-go/coterie"
)

// store is the application: a coterie.StateMachine. A command is "key=value", a query a key; the empty query asks for
// everything, as JSON.
type store map[string]item

type item struct {
	Value  string
	Writes int // how often the key was written, to find commands that were applied twice
}

// Apply is called on every replica with the same commands in the same order.
func (s store) Apply(e coterie.Entry) []byte {
	key, value, _ := bytes.Cut(e.Command, []byte("="))
	writes := s[string(key)].Writes + 1
	s[string(key)] = item{string(value), writes}
	return fmt.Appendf(nil, "write %d of %s\n", writes, key)
}

// Query is called on the replica that was asked, when its state is fresh enough.
func (s store) Query(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return json.Marshal(s)
	}
	i, ok := s[string(key)]
	if !ok {
		return nil, fmt.Errorf("no key %q", key)
	}
	return []byte(i.Value + "\n"), nil
}

// Snapshot freezes the state; what it returns runs while Apply goes on.
func (s store) Snapshot() (func(io.Writer) error, error) {
	frozen := maps.Clone(s)
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(frozen) }, nil
}

// Restore replaces the state by that of a snapshot.
func (s store) Restore(r io.Reader) error {
	clear(s)
	return json.NewDecoder(r).Decode(&s)
}
