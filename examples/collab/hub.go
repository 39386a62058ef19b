package main

import (
	"fmt"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/crdt/text"
)

const welcome = "Everybody may write here.\n\n"

// hub joins the replicas: each page's, and one of its own that stands for whoever is online.
type hub struct {
	mu       sync.Mutex // guards everything, the sessions' texts included
	doc      text.Text
	sessions map[coterie.NodeID]*session
	names    int
}

// session is the replica of one page. Only its page changes it: what others write waits in the inbox until the page
// asks, so that positions always mean the text that the page shows.
type session struct {
	id      coterie.NodeID
	doc     text.Text
	inbox   []text.Delta
	cursor  text.Anchor
	offline bool
	poke    chan struct{} // tells the page that there is something to ask for
}

// edit is what a page has changed since it last asked, and where its cursor is. The text in all is UTF-16, as a browser
// counts, only where it is in the page: here positions count code points.
type edit struct {
	ID     coterie.NodeID `json:"id"`
	Pos    int            `json:"pos"`
	Del    int            `json:"del"`
	Ins    string         `json:"ins"`
	Cursor int            `json:"cursor"`
}

// reply is what others have changed, in order, and where their cursors are.
type reply struct {
	Changes []change        `json:"changes"`
	Cursors map[string]int  `json:"cursors"`
	Offline map[string]bool `json:"offline"`
}

type change struct {
	Pos int    `json:"pos"`
	Del int    `json:"del"`
	Ins string `json:"ins"`
}

func newHub() *hub {
	h := &hub{sessions: make(map[coterie.NodeID]*session)}
	if _, err := h.doc.Insert("hub", 0, welcome); err != nil {
		panic(err) // a constant
	}
	return h
}

// join adds a page with a replica under a new id, for an id is never used twice.
func (h *hub) join(name string) (*session, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names++
	s := &session{id: coterie.NodeID(fmt.Sprintf("%s-%d", name, h.names)), poke: make(chan struct{}, 1)}
	d, err := h.doc.Since(s.doc.Version())
	if err != nil {
		return nil, "", err
	}
	if err := s.doc.Merge(d); err != nil {
		return nil, "", err
	}
	h.sessions[s.id] = s
	h.pokeAll(s)
	return s, s.doc.String(), nil
}

func (h *hub) leave(id coterie.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, id)
	h.pokeAll(nil)
}

func (h *hub) session(id coterie.NodeID) (*session, error) {
	if s, found := h.sessions[id]; found {
		return s, nil
	}
	return nil, fmt.Errorf("no session %q", id)
}

// apply makes a page's edit at its replica, sends the deltas to the others, and returns what they have changed.
func (h *hub) apply(e edit) (r reply, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := h.session(e.ID)
	if err != nil {
		return r, err
	}
	if e.Del > 0 {
		d, err := s.doc.Delete(s.id, e.Pos, e.Del)
		if err != nil {
			return r, err
		}
		h.publish(s, d)
	}
	if e.Ins != "" {
		d, err := s.doc.Insert(s.id, e.Pos, e.Ins)
		if err != nil {
			return r, err
		}
		h.publish(s, d)
	}
	if cursor := s.doc.Anchor(e.Cursor, true); cursor != s.cursor {
		s.cursor = cursor
		h.pokeAll(s)
	}
	if !s.offline {
		if r.Changes, err = s.take(); err != nil {
			return r, err
		}
	}
	r.Cursors, r.Offline = make(map[string]int), make(map[string]bool)
	for id, other := range h.sessions {
		r.Offline[string(id)] = other.offline
		if pos, err := s.doc.Position(other.cursor); err == nil && id != s.id {
			r.Cursors[string(id)] = pos
		}
	}
	return r, nil
}

// take merges what waits, and returns the changes of the text.
func (s *session) take() (changes []change, err error) {
	stop := s.doc.Watch(func(c text.Change) { changes = append(changes, change{c.Pos, c.Deleted, c.Inserted}) })
	defer stop()
	for _, d := range s.inbox {
		if err := s.doc.Merge(d); err != nil {
			return changes, err
		}
	}
	s.inbox = nil
	return changes, nil
}

// publish gives a delta to everybody online; one who is not gets what he lacks when he comes back.
func (h *hub) publish(from *session, d text.Delta) {
	if from.offline || d.IsEmpty() {
		return
	}
	if err := h.doc.Merge(d); err != nil {
		fmt.Println("collab:", err)
		return
	}
	for _, s := range h.sessions {
		if s != from && !s.offline {
			s.inbox = append(s.inbox, d)
		}
	}
	h.pokeAll(from)
}

// pokeAll tells the pages that something is new, but for one.
func (h *hub) pokeAll(but *session) {
	for _, s := range h.sessions {
		if s == but {
			continue
		}
		select {
		case s.poke <- struct{}{}:
		default: // it knows
		}
	}
}

// setOffline cuts a page's replica off or brings it back: then each side gets what it lacks of the other.
func (h *hub) setOffline(id coterie.NodeID, offline bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := h.session(id)
	if err != nil || s.offline == offline {
		return err
	}
	s.offline = offline
	if offline {
		h.pokeAll(nil)
		return nil
	}
	news, err := s.doc.Since(h.doc.Version())
	if err != nil {
		return err
	}
	missed, err := h.doc.Since(s.doc.Version())
	if err != nil {
		return err
	}
	s.inbox = append(s.inbox, missed)
	h.publish(s, news)
	h.pokeAll(nil)
	return nil
}
