package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/raft"
)

// withAdmin adds what an operator needs: GET /members, POST /members with a raft.Change as JSON, POST /transfer. A
// service that strangers reach would ask who they are.
func withAdmin(clients http.Handler, node *raft.Node) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", clients)
	mux.HandleFunc("GET /members", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(node.Metrics().Members); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /members", func(w http.ResponseWriter, r *http.Request) {
		var change raft.Change
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&change)
		if err == nil {
			err = node.Reconfigure(r.Context(), change)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /transfer", func(w http.ResponseWriter, r *http.Request) {
		if err := node.TransferLeadership(r.Context(), ""); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	return mux
}

// ask makes one request of a replica's operator.
func (c *cluster) ask(ctx context.Context, id coterie.NodeID, method, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.urls[id]+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // all of it has been read
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s at %s: %s", method, path, id, bytes.TrimSpace(text))
	case answer != nil:
		return json.Unmarshal(text, answer)
	}
	return nil
}
