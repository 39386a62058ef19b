package transport

import (
	"bytes"
	"testing"

	"github.com/coterie-go/coterie/internal/wire"
)

func FuzzMuxPayload(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 0xac, 0x02, 'x'})
	f.Add([]byte{2, 1, 'x'})
	f.Add([]byte{1, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		number, rest, err := decodeMux(payload)
		if err != nil {
			if rest != nil || number != 0 {
				t.Fatal("an error beside a value")
			}
			return
		}
		again := append(wire.AppendUvarint([]byte{muxFormat}, number), rest...)
		number2, rest2, err := decodeMux(again)
		if err != nil || number2 != number || !bytes.Equal(rest, rest2) || !bytes.HasSuffix(payload, rest) {
			t.Fatalf("%x decoded to %d %x, then to %d %x, %v", payload, number, rest, number2, rest2, err)
		}
	})
}
