// Package udp is a coterie.Transport over UDP: one socket, one goroutine, no connection, whatever the number of peers.
//
// Use it where messages are small, many nodes talk to many others, and the protocol bears loss: membership and failure
// detection first of all. For a log's replication use package tcp; for payloads of both kinds give Config.Stream a
// transport that carries what does not fit a datagram:
//
//	stream, err := tcp.Start(tcp.Config{ID: id, Listen: "10.0.0.7:7946", AcceptUnknown: true})
//	...
//	t, err := udp.Start(udp.Config{ID: id, Listen: stream.Addr().String(), Stream: stream, StreamIdle: 10 * time.Second})
//
// Both then have the same port number, for a peer has but one address.
//
// Guarantees: a payload arrives whole or not at all, and unaltered as far as a CRC32C sees; a datagram meant for
// another node is dropped. Send waits for nothing but the kernel's copy of a datagram.
//
// Fault model: payloads are lost without notice, repeated and reordered. Whoever can send to the socket can send in any
// node's name and can read everything: authenticate and encrypt above, as package swim does, or use it where nobody
// else is.
package udp
