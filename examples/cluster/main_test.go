package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheStoryEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute at most")
	}
	var plain strings.Builder
	require.NoError(t, tell(t.Context(), &plain, false, 0))
	require.NotContains(t, plain.String(), "\x1b")
	require.Equal(t, 8, strings.Count(plain.String(), "Seconds until members"), plain.String())
}

func TestThePage(t *testing.T) {
	c, err := startCluster()
	require.NoError(t, err)
	defer func() { require.NoError(t, c.close()) }()
	server := httptest.NewServer(handler(c))
	defer server.Close()
	act := func(action, member string) int {
		r, err := http.PostForm(server.URL+"/do", url.Values{"action": {action}, "member": {member}})
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		return r.StatusCode
	}
	for _, action := range []string{"partition", "heal", "pause", "resume", "kill", "start", "leave"} {
		require.Equal(t, http.StatusOK, act(action, "3"), action)
	}
	require.Equal(t, http.StatusBadRequest, act("kill", "9"))
	require.Equal(t, http.StatusBadRequest, act("dance", "1"))
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for begin := time.Now(); c.show()[0].Sees[2].State != "left"; <-ticker.C {
		require.Less(t, time.Since(begin), 30*time.Second)
	}
	text := render(c.look(), c.running(), "title", true)
	require.Contains(t, text, "m3    is down")
	require.Contains(t, text, "left")
}
