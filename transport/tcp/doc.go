// Package tcp is a coterie.Transport over TCP connections, in the clear or with mutual TLS 1.3.
//
// Use it between the nodes of a cluster: messages of any size up to a limit, from bytes to megabytes, to peers whose
// addresses are known and may change. For small messages that are worthless when late, package udp may do.
//
// A node connects to a peer when it has something to send to it, and what it sends goes by that connection; what the
// peer sends comes by the one that the peer makes. One goroutine for each peer writes all that is queued at once, so
// that many messages share a system call. While a connection is not there, it is tried again and again, with pauses
// that grow and differ; a peer that connects shortens them.
//
// It is best effort, as every Transport. Messages that were written to a connection that then broke are lost, and so
// are the oldest that wait for a peer that is slower than its senders. Otherwise messages from one node to another
// arrive once and in order; protocols should rely on neither.
//
// With a Config.Identity a node accepts only peers that prove to be whom they say they are, and talks only to the
// node that it means to talk to. Whoever has the network can then delay, and cut, but neither read, alter, repeat nor
// forge. Without it, the checksums guard against accidents only.
//
// What comes from outside is bounded: frames by MaxPayload, connections by MaxConns and MaxHandshakes, time by
// HandshakeTimeout and IdleTimeout, and a peer has one connection to a node, the newest. Whatever is turned away is
// counted (Metrics) and logged, and disturbs nobody else.
package tcp
