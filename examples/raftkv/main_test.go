package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

// TestMain lets the test binary be a replica too: a cluster starts its own executable.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-id") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestNothingIsLostWhenLeadersAreKilled(t *testing.T) {
	require.NoError(t, demonstrate(t.Context(), plan{keys: 600}))
}

func TestNothingIsLostWhenMembersChange(t *testing.T) {
	require.NoError(t, demonstrate(t.Context(), plan{keys: 200, reconfigure: true}))
}

func TestNothingIsLostInASoak(t *testing.T) {
	require.NoError(t, demonstrate(t.Context(), plan{keys: 200, soak: 3 * time.Second}))
}

func TestSimulationWritesItsDiagram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.html")
	require.NoError(t, simulate(file))
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(page), "<!DOCTYPE html>") || strings.HasPrefix(string(page), "<!doctype html>"))
	assert.Contains(t, string(page), "AppendEntries")
}

func TestIdentifiersAreTheLibrarys(t *testing.T) {
	pairs, err := identifiers(1 << 20)
	require.NoError(t, err)
	i := slices.IndexFunc(pairs, func(p pair) bool { return p.key == "errors.Is" })
	require.GreaterOrEqual(t, i, 0)
	assert.Equal(t, "Is reports whether any error in err's tree matches target.", pairs[i].value)
	assert.Greater(t, len(pairs), 5000)
}

func Example() {
	s := store{}
	fmt.Print(string(s.Apply(coterie.Entry{Index: 1, Command: []byte("greeting=hello")})))
	value, err := s.Query([]byte("greeting"))
	fmt.Print(string(value), err)
	// Output:
	// write 1 of greeting
	// hello
	// <nil>
}
