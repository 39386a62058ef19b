package leased

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"

	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/lock"
)

// Leadership is an election won. It lasts until Resign, or until Lost of its Lease is closed: then act as leader no
// more. Its Token fences what the leader writes.
type Leadership struct {
	*lock.Lease
	Value []byte // what was campaigned with
}

// Resign ends the leadership, and makes the next candidate leader. The error is that of Lease.Release.
func (l *Leadership) Resign(ctx context.Context) error { return l.Release(ctx) }

// Leader is who leads an election, as Observe tells it.
type Leader struct {
	Value []byte // what it campaigned with
	Token uint64 // its fencing token; 0 if nobody leads
}

// Campaign waits until this candidate leads, in the order of candidates. Others learn the value, an address for one, by
// Observe. Elections and locks have names of their own.
func (c *Client) Campaign(ctx context.Context, name string, value []byte) (*Leadership, error) {
	q, err := c.electorate(name)
	if err != nil {
		return nil, err
	}
	lease, err := c.acquire(ctx, q, value)
	if err != nil {
		return nil, err
	}
	return &Leadership{Lease: lease, Value: value}, nil
}

func (c *Client) electorate(name string) (*queue, error) {
	q, err := c.queue(name, lock.Options{})
	if err != nil {
		return nil, err
	}
	folder := c.cfg.Prefix + "/" + url.PathEscape(name) + "/" // no lock has such a folder: its name is not empty
	q.folder, q.put, q.ahead = kv.Prefix(folder), folder, []string{folder}
	q.class = q.folder
	return q, nil
}

// Observe yields the leader of an election, now and whenever another one leads, until ctx ends, which is its last
// error. It may skip one that led for a moment; tokens increase.
func (c *Client) Observe(ctx context.Context, name string) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		q, err := c.electorate(name)
		if err != nil {
			yield(Leader{}, err)
			return
		}
		told := Leader{}
		first := true
		for {
			is, revision, err := c.leader(ctx, q)
			if err == nil && (first || is.Token != told.Token) {
				first, told = false, is
				if !yield(is, nil) {
					return
				}
			}
			if err == nil {
				err = c.changed(ctx, q, revision)
			}
			if err != nil {
				yield(Leader{}, fmt.Errorf("leased: observe %s: %w", name, err))
				return
			}
		}
	}
}

func (c *Client) leader(ctx context.Context, q *queue) (Leader, uint64, error) {
	res, revision, err := c.kv.Range(ctx, kv.Get{Span: q.folder, Limit: 1})
	if err != nil || len(res.KVs) == 0 {
		return Leader{}, revision, err
	}
	return Leader{Value: res.KVs[0].Value, Token: res.KVs[0].Create}, revision, nil
}

// changed waits for a change of the electorate after a revision.
func (c *Client) changed(ctx context.Context, q *queue, revision uint64) error {
	for _, err := range c.kv.Watch(ctx, q.folder, revision+1) {
		if errors.Is(err, kv.ErrCompacted) {
			return nil // something has changed since
		}
		return err
	}
	return nil
}
