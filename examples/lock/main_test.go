package main

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be a worker too: the demonstration starts its own executable.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-worker") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestStaleWriteIsRefused(t *testing.T) {
	require.NoError(t, demonstrate(t.Context(), 3, true))
}
