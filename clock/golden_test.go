package clock

import (
	"encoding"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

type stringDVV struct{ DVVSet[string] }

func (s stringDVV) MarshalBinary() ([]byte, error) { return s.AppendBinaryFunc(nil, encodeString) }

type streamed struct {
	enc *VectorEncoder
	v   Vector
}

func (s streamed) MarshalBinary() ([]byte, error) { return s.enc.AppendVector(nil, s.v), nil }

// What format 1 wrote must be read for ever: the files pin it byte by byte.
func TestGoldenFormats(t *testing.T) {
	v := VectorOf(counts{"a": 1, "node-17": 300, "z": MaxTime - 1})
	s := DotSetOf(VectorOf(counts{"a": 200}))
	s.AddRun(Dot{"a", 202}, 203)
	s.Add(Dot{"b", 1000})
	var d DVVSet[string]
	d.Write("a", Vector{}, "x")
	d.Write("a", Vector{}, "yy")
	d.Discard(VectorOf(counts{"b": 3}))
	enc := &VectorEncoder{}
	for name, value := range map[string]encoding.BinaryMarshaler{
		"timestamp":      Timestamp{1<<40 + 5, "node-17"},
		"wide-timestamp": WideTimestamp{1 << 40, 7, "node-17"},
		"vector":         v,
		"dotset":         s,
		"dvvset":         stringDVV{d},
		"vector-stream":  streamed{enc, v},
	} {
		b, err := value.MarshalBinary()
		require.NoError(t, err)
		got := hex.EncodeToString(b) + "\n"
		path := filepath.Join("testdata", "golden", name+".hex")
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(want)), strings.TrimSpace(got), name)
	}
}
