package hashring

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A state that was written once is read for ever; what differs from the golden file is another format.
func TestStatesMatchTheGoldenFiles(t *testing.T) {
	forEach(t, func(t *testing.T, s scheme) {
		cfg := small(Config[string]{Domains: func(string) []string { return []string{"z", "r"} }})
		l, err := s.make(cfg, "a", "b", "c", "d")
		require.NoError(t, err)
		require.NoError(t, l.Remove("d"))
		if s.weights {
			require.NoError(t, l.SetWeight("b", 2))
		}
		data, err := l.AppendBinary(nil)
		require.NoError(t, err)
		file := filepath.Join("testdata", s.name+".hex")
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(file, []byte(hex.EncodeToString(data)+"\n"), 0o644))
		}
		golden, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(golden)), hex.EncodeToString(data))
		o, err := s.make(cfg)
		require.NoError(t, err)
		require.NoError(t, o.UnmarshalBinary(data))
		require.Equal(t, owners(l, 100), owners(o, 100))
	})
}

func TestMalformedStates(t *testing.T) {
	forEach(t, func(t *testing.T, s scheme) {
		l, err := s.make(small(Config[string]{}), "a", "b")
		require.NoError(t, err)
		data, err := l.AppendBinary(nil)
		require.NoError(t, err)
		before := owners(l, 50)
		for i := range data { // cut anywhere
			require.ErrorIs(t, l.UnmarshalBinary(data[:i]), wire.ErrMalformed)
		}
		require.ErrorIs(t, l.UnmarshalBinary(append(slices.Clip(data), 0)), wire.ErrMalformed)
		newer := append([]byte{format + 1}, data[1:]...)
		var f *coterie.FormatError
		require.ErrorAs(t, l.UnmarshalBinary(newer), &f)
		require.Equal(t, byte(format), f.Max)
		other := append([]byte{format, 99}, data[2:]...)
		require.ErrorIs(t, l.UnmarshalBinary(other), wire.ErrMalformed)
		require.Equal(t, before, owners(l, 50))
	})
	a, err := NewTable(Config[string]{Partitions: 64}, "a")
	require.NoError(t, err)
	b, err := NewTable(Config[string]{Partitions: 128})
	require.NoError(t, err)
	data, err := a.AppendBinary(nil)
	require.NoError(t, err)
	require.ErrorContains(t, b.UnmarshalBinary(data), "state of size 64, this one's Config says 128")
}
