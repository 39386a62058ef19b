package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/leased"
)

// worker is one process.
type worker struct {
	id         string
	resource   string
	increments int
	victim     bool
}

// run increments the counter so many times.
func (w *worker) run(ctx context.Context, replicas []string) error {
	replica, err := dial(ctx, replicas)
	if err != nil {
		return err
	}
	locks, err := leased.New(leased.Config{Replica: replica, TTL: ttl})
	if err != nil {
		return err
	}
	for done := 0; done < w.increments; {
		err := locks.Do(ctx, "counter", func(_ context.Context, token uint64) error { return w.increment(token, done) })
		switch {
		case err == nil:
			done++
		case errors.Is(err, lock.ErrStale):
			// Another one has written since. That attempt has not counted: try again.
		case errors.Is(err, lock.ErrLost):
			done++ // the write was accepted, before anyone else could write
		default:
			return err
		}
	}
	return errors.Join(locks.Close(), replica.Close())
}

// increment reads the counter and writes one more. Whatever happens in between, also to this process, the token keeps
// it from doing harm.
func (w *worker) increment(token uint64, done int) error {
	resp, err := http.Get(w.resource + "/counter")
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	value, err := strconv.Atoi(string(b))
	if err != nil {
		return err
	}
	if w.victim && done == 1 {
		w.victim = false
		fmt.Println("ready", token)
		time.Sleep(200 * time.Millisecond) // so that it is stopped here
	}
	return w.write(token, value+1)
}

func (w *worker) write(token uint64, value int) error {
	q := url.Values{"worker": {w.id}, "token": {strconv.FormatUint(token, 10)}, "value": {strconv.Itoa(value)}}
	req, err := http.NewRequest(http.MethodPut, w.resource+"/counter?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return lock.ErrStale
	}
	return fmt.Errorf("write: %s", resp.Status)
}
