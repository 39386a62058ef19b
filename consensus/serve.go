package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/coterie-go/coterie"
)

// maxRequest is the most bytes in one command or query over HTTP.
const maxRequest = 16 << 20

// The headers by which Serve and Client speak to each other.
const (
	headerError   = "Coterie-Error"   // a key of faults
	headerLeader  = "Coterie-Leader"  // of a "not-leader"
	headerSession = "Coterie-Session" // of a command, with the next two
	headerSeq     = "Coterie-Seq"
	headerLow     = "Coterie-Low"
)

// faults are the errors that keep their meaning over HTTP, the first that matches counts.
var faults = []struct {
	name   string
	err    error
	status int
}{
	{"unknown-outcome", coterie.ErrUnknownOutcome, http.StatusGatewayTimeout},
	{"session-expired", ErrSessionExpired, http.StatusGone},
	{"not-leader", coterie.ErrNotLeader, http.StatusMisdirectedRequest},
	{"overloaded", coterie.ErrOverloaded, http.StatusTooManyRequests},
	{"no-quorum", coterie.ErrNoQuorum, http.StatusServiceUnavailable},
	{"closed", coterie.ErrClosed, http.StatusServiceUnavailable},
}

// Serve gives a replica to clients over HTTP: to those that Dial makes, and to curl. Who may reach it may do all that
// the replica can: put it behind TLS with client certificates, or a handler that asks who is there.
//
//	POST   /propose       the body is a command, the answer its result
//	POST   /read          the body is a query, the answer its result
//	POST   /session       the answer is a new session's id
//	DELETE /session/{id}  ends a session
//	GET    /status        coterie.Status as JSON
//
// A command of a session has the headers Coterie-Session, Coterie-Seq and Coterie-Low, see Tag. An error has the header
// Coterie-Error, which is unknown-outcome, session-expired, not-leader (then Coterie-Leader may name it), overloaded,
// no-quorum, closed or other; the body says more. A body may have 16 MiB.
func Serve(replica Replica) http.Handler {
	s := server{replica}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /propose", s.propose)
	mux.HandleFunc("POST /read", s.read)
	mux.HandleFunc("POST /session", s.open)
	mux.HandleFunc("DELETE /session/{id}", s.end)
	mux.HandleFunc("GET /status", s.status)
	return mux
}

type server struct{ replica Replica }

func (s server) propose(w http.ResponseWriter, r *http.Request) {
	tag, err := readTag(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	command, ok := readBody(w, r)
	if !ok {
		return
	}
	var result []byte
	if tag == (Tag{}) {
		result, err = s.replica.Propose(r.Context(), command)
	} else {
		result, err = s.replica.ProposeAs(r.Context(), tag, command)
	}
	respond(w, result, err)
}

func (s server) read(w http.ResponseWriter, r *http.Request) {
	query, ok := readBody(w, r)
	if !ok {
		return
	}
	result, err := s.replica.Read(r.Context(), query)
	respond(w, result, err)
}

func (s server) open(w http.ResponseWriter, r *http.Request) {
	id, err := s.replica.OpenSession(r.Context())
	respond(w, strconv.AppendUint(nil, id, 10), err)
}

func (s server) end(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, fmt.Sprintf("session %q is not a number", r.PathValue("id")), http.StatusBadRequest)
		return
	}
	respond(w, nil, s.replica.EndSession(r.Context(), id))
}

func (s server) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.replica.Status()) // the client has gone
}

// readTag is zero if the headers name no session.
func readTag(h http.Header) (Tag, error) {
	if h.Get(headerSession) == "" {
		return Tag{}, nil
	}
	var tag Tag
	for name, field := range map[string]*uint64{headerSession: &tag.Session, headerSeq: &tag.Seq, headerLow: &tag.Low} {
		v, err := strconv.ParseUint(h.Get(name), 10, 64)
		if err != nil || v == 0 {
			return Tag{}, fmt.Errorf("%s %q is not a number from 1", name, h.Get(name))
		}
		*field = v
	}
	if tag.Low > tag.Seq {
		return Tag{}, fmt.Errorf("%s %d is over %s %d", headerLow, tag.Low, headerSeq, tag.Seq)
	}
	return tag, nil
}

func readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		return body, true
	}
	status := http.StatusBadRequest
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		status = http.StatusRequestEntityTooLarge
	}
	http.Error(w, err.Error(), status)
	return nil, false
}

func respond(w http.ResponseWriter, result []byte, err error) {
	if err == nil {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(result) // the client has gone
		return
	}
	name, status := "other", http.StatusUnprocessableEntity
	for _, f := range faults {
		if errors.Is(err, f.err) {
			name, status = f.name, f.status
			break
		}
	}
	w.Header().Set(headerError, name)
	if not := (*coterie.NotLeaderError)(nil); errors.As(err, &not) && not.Leader != "" {
		w.Header().Set(headerLeader, string(not.Leader))
	}
	http.Error(w, err.Error(), status)
}
