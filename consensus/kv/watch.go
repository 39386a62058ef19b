package kv

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
)

const (
	// watchWait is how long one query waits: less than a Client of consensus waits for a replica.
	watchWait = time.Second

	// A replica that does not wait is asked again after such pauses.
	firstPoll = 2 * time.Millisecond
	maxPoll   = 100 * time.Millisecond
)

// Watch yields every change of the keys of a span from a revision on, in order, none left out and none twice, also when
// replicas fail meanwhile; 0 is from now on. To have a state and then what changes it, Range first and watch from the
// revision after. What cannot be told any more, because it is compacted, is an error that is ErrCompacted, and ends the
// watch: begin anew. So do the end of ctx, and an error of the replica that will not pass.
func (c *Client) Watch(ctx context.Context, s Span, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q := query{kind: queryWatch, span: s, from: from, wait: watchWait}
		var b backoff
		for {
			asked := time.Now()
			r, _, err := c.askOnce(ctx, &q)
			var events []Event
			next := q.from
			if err == nil {
				events, next, err = readWatch(&r)
			}
			if err = b.pause(ctx, err, len(events) > 0 || time.Since(asked) > watchWait/2); err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			q.from = next
		}
	}
}

// Await waits until it is the turn of a key: see Turn. It reports false if the key has gone, which is final if the key
// is sequential. What it reports was true when a replica looked; that may be history by now, above all for the key of
// a lease, whose owner must look at its own clock (LeaseHandle.Err). Of many that wait in a queue only those are woken
// whose turn may have come.
func (c *Client) Await(ctx context.Context, t Turn) (there bool, err error) {
	q := query{kind: queryTurn, turn: t, wait: watchWait}
	var b backoff
	for {
		asked := time.Now()
		r, _, err := c.askOnce(ctx, &q)
		turn := false
		if err == nil {
			there, turn = r.Bool(), r.Bool()
			err = wrong(r.Done())
		}
		if err == nil && (turn || !there) {
			return there, nil
		}
		if err = b.pause(ctx, err, time.Since(asked) > watchWait/2); err != nil {
			return false, err
		}
	}
}

// backoff says how long to wait before a question is asked again.
type backoff struct{ wait time.Duration }

// pause waits after an answer without news or an error that may pass; it returns one that will not. After an answer that
// was long in coming it does not wait: the replica does.
func (b *backoff) pause(ctx context.Context, err error, atOnce bool) error {
	if err != nil && !passing(err) || ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	if atOnce && err == nil {
		b.wait = 0
		return nil
	}
	b.wait = min(max(2*b.wait, firstPoll), maxPoll)
	timer := time.NewTimer(b.wait/2 + rand.N(b.wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing reports whether a read may succeed later.
func passing(err error) bool {
	for _, e := range []error{coterie.ErrNotLeader, coterie.ErrOverloaded, coterie.ErrUnknownOutcome, coterie.ErrNoQuorum} {
		if errors.Is(err, e) {
			return !errors.Is(err, coterie.ErrClosed)
		}
	}
	return false
}
