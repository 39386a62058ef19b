package mvcc

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

var update = flag.Bool("update", false, "write the golden file anew")

func TestRecordsMatchTheGoldenFile(t *testing.T) {
	r := &record{key: "r"}
	records := [][]byte{
		encodeCommit(7, map[string]write{"a": {value: []byte("1")}}),
		encodeCommit(8, map[string]write{"a": {deleted: true}}),
		encodePrepared(&Tx{
			id: "t", writes: map[string]write{"b": {value: []byte("2")}},
			reads: map[*record]struct{}{r: {}}, ranges: []span{{from: "a", to: "c"}, {from: "x", open: true}},
		}),
		encodeDecided("t", 9),
		encodeDecided("u", 0),
		{format, kindState, 1, 'k', 5, 1, 'v'},
	}
	var lines []string
	for _, record := range records {
		lines = append(lines, hex.EncodeToString(record))
	}
	file := filepath.Join("testdata", "records.hex")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	}
	golden, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, strings.Fields(string(golden)), lines)

	s := open(t, Config{})
	for _, record := range records {
		require.NoError(t, s.replay(record))
		for cut := range record {
			if record[1] != kindState || cut < 2 { // a state is a list: it may end after any item
				require.Error(t, open(t, Config{}).replay(record[:cut]))
			}
		}
	}
	var f *coterie.FormatError
	require.ErrorAs(t, s.replay([]byte{format + 1}), &f)
	require.ErrorIs(t, s.replay([]byte{format, 99}), wire.ErrMalformed)
	require.ErrorIs(t, s.replay(nil), wire.ErrMalformed)
}
