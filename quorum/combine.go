package quorum

import (
	"context"

	"github.com/coterie-go/coterie"
)

// Newest makes the call and returns the greatest value of the first quorum. If every write reached a quorum that meets
// this one, that is the last one written, or one being written. Two reads one after the other may still see a new value
// and then an old one; ReadRepair prevents that.
func Newest[T any](r Responses[T], compare func(a, b T) int) (T, error) {
	var newest T
	found := false
	for _, res := range r.All() {
		if res.Err == nil && (!found || compare(res.Value, newest) > 0) {
			newest, found = res.Value, true
		}
	}
	if err := r.Err(); err != nil {
		var zero T
		return zero, err
	}
	return newest, nil
}

// MajorityValue makes the call and returns the value on which a quorum of nodes agree. It waits beyond the first
// quorum if their values differ, and returns a *NoQuorumError when no value can have a quorum any more.
func MajorityValue[T comparable](r Responses[T]) (T, error) {
	c := r.call
	var value T
	if c == nil {
		return value, errNoCall
	}
	votes := make(map[T]Set)
	silent, won := Set(0), false
	for _, id := range c.nodes {
		silent |= System{c.sys}.Set(id)
	}
	if c.nodes == nil {
		silent = c.sys.all()
	}
	// winnable reports whether some value has a quorum if the given nodes vote for it too.
	winnable := func(more Set) bool {
		for _, voters := range votes {
			if c.sys.root.opens(voters | more) {
				return true
			}
		}
		return c.sys.root.opens(more)
	}
	c.enough = func() bool { return winnable(c.under) }
	c.run(func(id coterie.NodeID, res Result[T]) bool {
		i := c.sys.index(id)
		silent = silent.Without(i)
		if res.Err == nil {
			votes[res.Value] = votes[res.Value].With(i)
			if c.sys.root.opens(votes[res.Value]) {
				value, won = res.Value, true
				return false
			}
		}
		return winnable(silent)
	})
	if c.err == nil && !won {
		c.err = c.noQuorum()
	}
	return value, c.err
}

// ReadRepair makes the call and returns the greatest value of the first quorum, as Newest does, but not before a quorum
// of writes holds it: it calls repair for nodes that are not known to, unless enough of them are. So no later read sees
// an older value (Attiya, Bar-Noy and Dolev 1995); without repair one does (CASSANDRA-12126). compare must be 0 for the
// same value only, and repair must not replace a newer value.
//
// If repair fails on too many nodes, the value comes with a *NoQuorumError: it was read, but may be gone.
func ReadRepair[T any](ctx context.Context, r Responses[T], writes System, compare func(a, b T) int,
	repair func(context.Context, coterie.NodeID, T) error,
) (T, error) {
	values := make(map[coterie.NodeID]T)
	var newest T
	for id, res := range r.All() {
		if res.Err != nil {
			continue
		}
		if len(values) == 0 || compare(res.Value, newest) > 0 {
			newest = res.Value
		}
		values[id] = res.Value
	}
	if err := r.Err(); err != nil {
		var zero T
		return zero, err
	}
	if err := writes.Err(); err != nil {
		return newest, err
	}
	held := NewTally(writes, 0)
	for id, v := range values {
		if compare(v, newest) == 0 {
			held.Add(id, true)
		}
	}
	if held.Outcome() == Won {
		return newest, nil
	}
	c := Call(ctx, writes, nil, func(ctx context.Context, id coterie.NodeID) (struct{}, error) {
		return struct{}{}, repair(ctx, id, newest)
	}).call
	c.held = held.yes
	c.run(func(id coterie.NodeID, res Result[struct{}]) bool { return held.Add(id, res.Err == nil) == Pending })
	if c.err == nil && held.Outcome() != Won {
		c.err = c.noQuorum()
	}
	return newest, c.err
}
