package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/coterie-go/coterie"
)

//go:embed page.html
var page []byte

func (h *hub) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("GET /events", h.events)
	mux.HandleFunc("POST /edit", func(w http.ResponseWriter, r *http.Request) {
		var e edit
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := h.apply(e)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	mux.HandleFunc("POST /offline", func(w http.ResponseWriter, r *http.Request) {
		if err := h.setOffline(coterie.NodeID(r.FormValue("id")), r.FormValue("offline") == "true"); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	return mux
}

// events is the stream of one page: first its id and text, then a word each time that there is something to ask for.
// The replica lives as long as the stream.
func (h *hub) events(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		name = "guest"
	}
	s, content, err := h.join(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer h.leave(s.id)
	w.Header().Set("Content-Type", "text/event-stream")
	hello, err := json.Marshal(map[string]any{"id": s.id, "text": content})
	if err != nil {
		return
	}
	// A failed write shows at the next Flush.
	_, _ = fmt.Fprintf(w, "event: hello\ndata: %s\n\n", hello)
	alive := time.NewTicker(10 * time.Second)
	defer alive.Stop()
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.poke:
			_, _ = fmt.Fprint(w, "event: poke\ndata: 1\n\n")
		case <-alive.C:
			_, _ = fmt.Fprint(w, ": alive\n\n")
		}
	}
}
