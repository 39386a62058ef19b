package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
)

// replica is one process.
type replica struct {
	id, dir, http string
	listen        string // set on one that joins a cluster
}

// run serves until an interrupt, or until standard input ends: that of a child when its parent is gone.
func (r *replica) run(ctx context.Context, members []string) error {
	voters := map[coterie.NodeID]string{}
	for _, m := range members {
		id, addr, _ := strings.Cut(m, "=")
		voters[coterie.NodeID(id)] = addr
	}
	in := func(name string) string { return filepath.Join(r.dir, name) }
	identity, err := transport.LoadIdentity(in("cert.pem"), in("key.pem"), in("roots.pem"))
	if err != nil {
		return err
	}
	node, err := raft.Start(raft.Config{
		ID: coterie.NodeID(r.id), Voters: voters, Join: r.listen != "", Listen: r.listen, Dir: r.dir, TLS: identity, StateMachine: store{},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	server := http.Server{Addr: r.http, Handler: withAdmin(consensus.Handler(node), node)}
	go func() {
		select {
		case <-node.Done():
		case <-ctx.Done():
		case <-ended(os.Stdin):
		}
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, node.Close())
	}
	return node.Close()
}

func ended(r io.Reader) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		if _, err := io.Copy(io.Discard, r); err != nil {
			fmt.Fprintln(os.Stderr, "raftkv:", err)
		}
	}()
	return end
}
