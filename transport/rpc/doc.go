// Package rpc makes calls between nodes that say what happened when they fail: nothing, perhaps something, or this.
//
// A Server has methods, registered with Handle, and serves them on listeners; a Client makes calls, with Call, many at
// a time over one connection. Beside unary calls there are streams in either direction or both, each with credit of
// its own, so that a slow one stalls no other. Requests and answers are Go values, encoded by a Codec. Deadlines and
// cancellation travel, and so do errors, with their meaning: errors.Is finds coterie.ErrOverloaded on the far side.
//
// How often a call may be executed when messages are lost is chosen by name, see Semantics:
//   - Maybe: once or not at all, tried once; without an answer the error is coterie.ErrUnknownOutcome.
//   - AtLeastOnce: tried until there is an answer; executed once or more. Hedging belongs here.
//   - AtMostOnce: tried until there is an answer, and executed once at most, by a table at the server that tells
//     repetitions (Birrell and Nelson, Implementing Remote Procedure Calls, 1984; Lee et al., RIFL, 2015). The table is
//     bounded: what it has forgotten it refuses. With ServerConfig.Journal it outlives a crash.
//
// Retries pause for longer each time, with jitter, and within a budget of all the calls of a client. A server bounds
// what it runs and what waits, and refuses the rest at once with ErrOverloaded; Shutdown drains it. Both sides count
// calls, errors and durations by method, take Interceptors, and carry the trace context of W3C Trace Context.
//
// Use it between the services of a system that is written in Go. Where other languages call, or a browser, gRPC or
// HTTP serve better; for the messages of a protocol among peers, which need no answer, use a coterie.Transport. Over
// one, an Endpoint carries unary calls too: on a lossy network, in a simulation, or beside a protocol's own messages.
//
// Fault model: connections break, hang and are cut at any byte; over an Endpoint messages are lost, repeated, delayed
// and reordered; servers crash and lose what their journal has not made durable. Bytes of a peer are not trusted: they
// are checked and bounded, and what is wrong is counted and cut off. Who may call is decided by an Identity, mutual
// TLS 1.3; without one everybody who reaches the port may.
//
// The format is one of frames with a checksum; requests and answers have fields by number, of which a peer skips those
// that it does not know.
package rpc
