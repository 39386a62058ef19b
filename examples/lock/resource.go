package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/replication/wal"
)

// resource is a counter in a file, which workers read and write over HTTP. Its fence stands where it is written.
type resource struct {
	path   string
	fence  *lock.Fence // nil lets everything pass
	log    *wal.Log    // what the fence remembers across restarts
	server *http.Server
	url    string
	begin  time.Time

	mu      sync.Mutex // guards what follows
	value   int
	newest  uint64 // token of the last write
	refused int
	wrote   chan struct{} // closed at the next write
}

func openResource(dir string, fenced bool) (*resource, error) {
	r := &resource{path: filepath.Join(dir, "counter"), begin: time.Now(), wrote: make(chan struct{})}
	var err error
	if r.log, err = wal.Open(wal.Config{Dir: filepath.Join(dir, "fence"), Owner: "counter"}); err != nil {
		return nil, err
	}
	if fenced {
		if r.fence, err = lock.NewFence(lock.FenceConfig{Journal: r.log}); err != nil {
			return nil, errors.Join(err, r.log.Close())
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, r.log.Close())
	}
	r.url = "http://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counter", r.read)
	mux.HandleFunc("PUT /counter", r.write)
	r.server = &http.Server{Handler: mux}
	go func() { _ = r.server.Serve(l) }() // until close
	return r, nil
}

func (r *resource) read(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprint(w, r.value)
}

// write is PUT /counter?worker=NAME&token=TOKEN&value=N.
func (r *resource) write(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	token, err1 := strconv.ParseUint(q.Get("token"), 10, 64)
	value, err2 := strconv.Atoi(q.Get("value"))
	if err := errors.Join(err1, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	store := func() error { return r.store(q.Get("worker"), token, value) }
	var err error
	if r.fence == nil {
		err = store()
	} else {
		err = r.fence.Guard("counter", token, store)
	}
	switch {
	case errors.Is(err, lock.ErrStale):
		r.mu.Lock()
		r.refused++
		r.mu.Unlock()
		r.say("%s, token %d: REFUSED to write %d: %v", q.Get("worker"), token, value, err)
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (r *resource) store(worker string, token uint64, value int) error {
	if err := os.WriteFile(r.path, strconv.AppendInt(nil, int64(value), 10), 0o600); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	note := ""
	if value != r.value+1 {
		note = "  <- an increment is lost"
	}
	r.say("%s, token %d: %d -> %d%s", worker, token, r.value, value, note)
	r.value, r.newest = value, token
	close(r.wrote)
	r.wrote = make(chan struct{})
	return nil
}

// say prints what happens, and when.
func (r *resource) say(format string, args ...any) {
	fmt.Printf("%6.3f s  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

// overtaken waits until somebody has written with a larger token.
func (r *resource) overtaken(ctx context.Context, token uint64) error {
	for {
		r.mu.Lock()
		newest, wrote := r.newest, r.wrote
		r.mu.Unlock()
		if newest > token {
			return nil
		}
		select {
		case <-wrote:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// result reads the count from the file.
func (r *resource) result() (count, refused int) {
	b, err := os.ReadFile(r.path)
	if err == nil {
		count, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return count, r.refused
}

func (r *resource) close() error { return errors.Join(r.server.Close(), r.log.Close()) }
