package udp

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestGoldenDatagram(t *testing.T) {
	path := filepath.Join("testdata", "datagram.hex")
	got := hex.EncodeToString(appendDatagram(nil, "node-a", "node-b", []byte("payload"))) + "\n"
	if os.Getenv("COTERIE_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestNewerFormat(t *testing.T) {
	b := appendDatagram(nil, "a", "b", nil)
	b[0] = format + 1
	_, _, _, err := readDatagram(b)
	var newer *coterie.FormatError
	require.ErrorAs(t, err, &newer)
	require.Equal(t, byte(format+1), newer.Got)
}

func TestDatagramRoundTrip(t *testing.T) {
	id := rapid.StringN(1, 20, maxID)
	rapid.Check(t, func(t *rapid.T) {
		from, to := id.Draw(t, "from"), id.Draw(t, "to")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		b := appendDatagram([]byte{}, coterie.NodeID(from), coterie.NodeID(to), payload)
		f, d, p, err := readDatagram(b)
		require.NoError(t, err)
		require.Equal(t, []string{from, to, string(payload)}, []string{string(f), string(d), string(p)})
		i := rapid.IntRange(0, len(b)-1).Draw(t, "flip")
		b[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		_, _, _, err = readDatagram(b)
		require.Error(t, err, "a flipped bit goes unnoticed")
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add(appendDatagram(nil, "a", "b", []byte("payload")))
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		from, to, payload, err := readDatagram(b)
		if err != nil {
			return
		}
		again := appendDatagram(nil, coterie.NodeID(from), coterie.NodeID(to), payload)
		f2, t2, p2, err := readDatagram(again)
		require.NoError(t, err)
		require.Equal(t, []string{string(from), string(to), string(payload)}, []string{string(f2), string(t2), string(p2)})
	})
}
