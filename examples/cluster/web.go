package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coterie-go/coterie"
)

//go:embed page.html
var page []byte

// serveCluster serves the page until ctx ends.
func serveCluster(ctx context.Context, listen string) (err error) {
	c, err := startCluster()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(c), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	fmt.Printf("http://%s/\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(c *cluster) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(c.show())
	})
	mux.HandleFunc("POST /do", func(w http.ResponseWriter, r *http.Request) {
		if err := c.do(r.Context(), r.FormValue("action"), r.FormValue("member")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	return mux
}

// shown is what the page shows of one member.
type shown struct {
	ID     coterie.NodeID `json:"id"`
	Up     bool           `json:"up"`
	Paused bool           `json:"paused"`
	Side   int            `json:"side"`
	Health int            `json:"health"`
	Sent   uint64         `json:"sent"`
	Sees   []cell         `json:"sees"`
}

type cell struct {
	State string  `json:"state"`
	Phi   float64 `json:"phi"`
}

func (c *cluster) show() []shown {
	table, up := c.look(), c.running()
	side, paused := c.filter.state()
	all := make([]shown, size)
	for place := range all {
		s := shown{ID: id(place), Up: up[place] != nil, Paused: paused[id(place)], Side: side[id(place)]}
		if m := up[place]; m != nil {
			metrics := m.node.Metrics()
			s.Health, s.Sent = metrics.Health, metrics.Sent
		}
		for _, o := range table[place] {
			text := "unknown"
			if o.Known {
				text = o.State.String()
			}
			s.Sees = append(s.Sees, cell{text, min(o.Phi, 999)})
		}
		all[place] = s
	}
	return all
}

// do carries out what a button asks for.
func (c *cluster) do(ctx context.Context, action, name string) error {
	switch action {
	case "partition":
		c.filter.partition(id(0), id(1), id(2))
		return nil
	case "heal":
		c.filter.partition()
		return nil
	}
	number, err := strconv.Atoi(name)
	if err != nil || number < 1 || number > size {
		return fmt.Errorf("no member %q", name)
	}
	place := number - 1
	switch action {
	case "kill":
		return c.kill(place)
	case "start":
		c.filter.pause(id(place), false)
		return c.start(place)
	case "leave":
		return c.leave(ctx, place)
	case "pause", "resume":
		c.filter.pause(id(place), action == "pause")
		return nil
	}
	return fmt.Errorf("no action %q", action)
}
