package consensus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
)

// maxRequest is the most bytes in one command or query over HTTP.
const maxRequest = 16 << 20

// The headers by which Handler and Client speak to each other.
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

// Handler gives a replica to clients over HTTP: to curl, and to those that Dial makes for an address that is a URL. Serve
// is the faster. Who may reach it may do all that the replica can: put it behind TLS with client certificates, or a
// handler that asks who is there.
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
func Handler(replica Replica) http.Handler {
	s := httpServer{replica}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /propose", s.propose)
	mux.HandleFunc("POST /read", s.read)
	mux.HandleFunc("POST /session", s.open)
	mux.HandleFunc("DELETE /session/{id}", s.end)
	mux.HandleFunc("GET /status", s.status)
	return mux
}

type httpServer struct{ replica Replica }

func (s httpServer) propose(w http.ResponseWriter, r *http.Request) {
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

func (s httpServer) read(w http.ResponseWriter, r *http.Request) {
	query, ok := readBody(w, r)
	if !ok {
		return
	}
	result, err := s.replica.Read(r.Context(), query)
	respond(w, result, err)
}

func (s httpServer) open(w http.ResponseWriter, r *http.Request) {
	id, err := s.replica.OpenSession(r.Context())
	respond(w, strconv.AppendUint(nil, id, 10), err)
}

func (s httpServer) end(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, fmt.Sprintf("session %q is not a number", r.PathValue("id")), http.StatusBadRequest)
		return
	}
	respond(w, nil, s.replica.EndSession(r.Context(), id))
}

func (s httpServer) status(w http.ResponseWriter, _ *http.Request) {
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

// askHTTP makes one request to one node that Handler serves.
func (c *Client) askHTTP(ctx context.Context, node coterie.NodeID, a ask) ([]byte, error) {
	method, path := a.verb.httpRequest(a.id)
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.cfg.Addrs[node], "/")+path, bytes.NewReader(a.body))
	if err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if a.tag != (Tag{}) {
		req.Header.Set(headerSession, strconv.FormatUint(a.tag.Session, 10))
		req.Header.Set(headerSeq, strconv.FormatUint(a.tag.Seq, 10))
		req.Header.Set(headerLow, strconv.FormatUint(a.tag.Low, 10))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("consensus: %s is %w: %w", node, errUnreachable, err)
		}
		return nil, fmt.Errorf("consensus: %s: %w: %w", node, coterie.ErrUnknownOutcome, err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // read to its end or given up
	if err != nil {
		return nil, fmt.Errorf("consensus: %s: %w: %w", node, coterie.ErrUnknownOutcome, err)
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	return nil, remoteError(node, resp, b)
}

// remoteError is the error that a replica answered with.
func remoteError(node coterie.NodeID, resp *http.Response, body []byte) error {
	text := strings.TrimSpace(string(body))
	name := resp.Header.Get(headerError)
	if name == "not-leader" {
		return fmt.Errorf("consensus: %s: %w", node, &coterie.NotLeaderError{Leader: coterie.NodeID(resp.Header.Get(headerLeader))})
	}
	if name == "closed" {
		return fmt.Errorf("consensus: %s is %w: %s", node, errUnreachable, text)
	}
	for _, f := range faults {
		if f.name == name {
			return fmt.Errorf("consensus: %s: %w (%s)", node, f.err, text)
		}
	}
	return fmt.Errorf("consensus: %s: %s", node, text)
}

// httpRequest is how a verb is said over HTTP.
func (v verb) httpRequest(session uint64) (method, path string) {
	switch v {
	case verbPropose:
		return http.MethodPost, "/propose"
	case verbRead:
		return http.MethodPost, "/read"
	case verbOpen:
		return http.MethodPost, "/session"
	case verbEnd:
		return http.MethodDelete, "/session/" + strconv.FormatUint(session, 10)
	default:
		return http.MethodGet, "/status"
	}
}
