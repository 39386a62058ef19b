package abd

import "github.com/coterie-go/coterie"

// Lie returns the payload that a lying server sends instead of a report: the same round, but a register of its choice.
// Other payloads stay as they are.
func Lie(payload []byte, seq uint64, writer coterie.NodeID, value string) []byte {
	m, err := decodeMessage(payload, 1<<10, 1<<20)
	if err != nil || m.kind != msgReport {
		return payload
	}
	m.register = register{timestamp{seq, writer, 7}, []byte(value)}
	return m.encode()
}
