package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), printer{&out}, false))
	for _, want := range []string{"majority", "grid 3x2", "tree", "searched", "█", "a is dead", "no read ever returned an older value"} {
		require.Contains(t, out.String(), want)
	}
}
