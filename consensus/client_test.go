package consensus

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

// scripted is a Replica that always answers with one error.
type scripted struct{ err error }

func (s scripted) Propose(context.Context, []byte) ([]byte, error)        { return nil, s.err }
func (s scripted) Read(context.Context, []byte) ([]byte, error)           { return nil, s.err }
func (s scripted) ProposeAs(context.Context, Tag, []byte) ([]byte, error) { return nil, s.err }
func (s scripted) OpenSession(context.Context) (uint64, error)            { return 0, s.err }
func (s scripted) EndSession(context.Context, uint64) error               { return s.err }
func (s scripted) Status() coterie.Status                                 { return coterie.Status{ID: "s"} }
func (s scripted) Close() error                                           { return nil }

// serve serves what h makes of requests and counts them.
func serve(t *testing.T, h http.Handler) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func mustDial(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := Dial(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// closedPort is an address that nobody listens at.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestClientFindsTheLeader(t *testing.T) {
	r := newRig(t, Config{})
	leader, _ := serve(t, Handler(r))
	follower, asked := serve(t, Handler(scripted{fmt.Errorf("wrapped: %w", &coterie.NotLeaderError{Leader: "c"})}))
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": closedPort(t), "b": follower, "c": leader + "/"}})
	result, err := c.Propose(t.Context(), []byte("3"))
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
	result, err = c.Read(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
	assert.Equal(t, int64(2), asked.Load(), "Dial and the first call ask it; then the client stays with the leader")
	assert.Equal(t, coterie.NodeID("a"), c.Status().ID, "what the leader calls itself")
	_, err = c.Read(t.Context(), []byte("?"))
	assert.ErrorContains(t, err, `query "?"`)

	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err = c.Propose(t.Context(), []byte("1"))
	assert.ErrorIs(t, err, coterie.ErrClosed)
	require.NoError(t, r.Do(t.Context(), func(time.Time, *solo) {}))
}

// Answers that are lost do not make commands apply twice (vesoft-inc/nebula#3109, cockroachdb/cockroach#111564).
func TestClientIsExactlyOnceWhenAnswersAreLost(t *testing.T) {
	r := newRig(t, Config{})
	var calls atomic.Int64
	h := Handler(r)
	addr, asked := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if calls.Add(1)%3 == 0 {
			h.ServeHTTP(httptest.NewRecorder(), req)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		h.ServeHTTP(w, req)
	}))
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": addr}})
	const callers, each = 8, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, err := c.Propose(t.Context(), []byte("1"))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	result, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(callers*each), string(result))
	assert.Greater(t, asked.Load(), int64(callers*each))
}

func TestClientLeavesAHangingReplica(t *testing.T) {
	r := newRig(t, Config{})
	leader, _ := serve(t, Handler(r))
	release := make(chan struct{}) // a process that is stopped, or a disk that hangs
	hanging, _ := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": hanging, "b": leader}, TryTimeout: 100 * time.Millisecond})
	result, err := c.Propose(t.Context(), []byte("3"))
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
}

func TestClientErrorsKeepTheirMeaning(t *testing.T) {
	for _, f := range faults {
		if f.name == "closed" {
			continue // a closed replica is one that another may stand in for
		}
		addr, _ := serve(t, Handler(scripted{fmt.Errorf("wrapped: %w", f.err)}))
		c := &Client{cfg: ClientConfig{Addrs: map[coterie.NodeID]string{"a": addr}, TryTimeout: time.Second}, http: http.DefaultClient, nodes: []coterie.NodeID{"a"}, target: "a"}
		_, err := c.ProposeAs(t.Context(), Tag{1, 1, 1}, []byte("1"))
		assert.ErrorIs(t, err, f.err)
	}
}

func TestDialWithoutACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, ClientConfig{Addrs: map[coterie.NodeID]string{"a": closedPort(t)}})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = Dial(ctx, ClientConfig{})
	assert.ErrorContains(t, err, "Addrs is required")
	_, err = Dial(ctx, ClientConfig{Addrs: map[coterie.NodeID]string{"a": "x"}, TryTimeout: -1})
	assert.ErrorContains(t, err, "TryTimeout")
}

func TestHandlerRefusesBadRequests(t *testing.T) {
	r := newRig(t, Config{})
	addr, _ := serve(t, Handler(r))
	request := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, addr+path, strings.NewReader(body))
		require.NoError(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get(headerError)
	}
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		fault              string
	}{
		{"GET", "/propose", "", nil, http.StatusMethodNotAllowed, ""},
		{"POST", "/nothing", "", nil, http.StatusNotFound, ""},
		{"POST", "/propose", "1", []string{headerSession, "x"}, http.StatusBadRequest, ""},
		{"POST", "/propose", "1", []string{headerSession, "1"}, http.StatusBadRequest, ""},
		{"POST", "/propose", "1", []string{headerSession, "1", headerSeq, "1", headerLow, "2"}, http.StatusBadRequest, ""},
		{"POST", "/propose", "1", []string{headerSession, "1", headerSeq, "1", headerLow, "0"}, http.StatusBadRequest, ""},
		{"POST", "/propose", "1", []string{headerSession, "99", headerSeq, "1", headerLow, "1"}, http.StatusGone, "session-expired"},
		{"POST", "/propose", strings.Repeat("x", maxRequest+1), nil, http.StatusRequestEntityTooLarge, ""},
		{"DELETE", "/session/x", "", nil, http.StatusBadRequest, ""},
		{"DELETE", "/session/99", "", nil, http.StatusOK, ""},
		{"POST", "/read", "?", nil, http.StatusUnprocessableEntity, "other"},
		{"POST", "/propose", "1", nil, http.StatusOK, ""},
		{"GET", "/status", "", nil, http.StatusOK, ""},
	} {
		status, fault := request(c.method, c.path, c.body, c.header...)
		assert.Equal(t, c.status, status, "%s %s", c.method, c.path)
		assert.Equal(t, c.fault, fault, "%s %s", c.method, c.path)
	}
	assert.Equal(t, 2, r.mustPropose(t, 1), "a refused request changed the state")
}
