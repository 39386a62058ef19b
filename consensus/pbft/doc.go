// Package pbft is practical Byzantine fault tolerance as a consensus.Core: 3f+1 replicas agree on one log although f of
// them lie.
//
// Papers: Castro and Liskov, Practical Byzantine Fault Tolerance, OSDI 1999; § numbers are of it. Castro and Liskov,
// Practical Byzantine Fault Tolerance and Proactive Recovery, ACM TOCS 20(4), 2002, where it is named.
//
// Use it where replicas are run by parties that do not trust each other, or where a broken or broken-into machine must
// not decide what the others do. Where machines only crash, consensus/raft needs 2f+1 replicas instead of 3f+1, one
// round trip instead of two and a half, and no signatures; it is several times as fast.
//
// Start runs a replica as a Node. A Node is one replica, which its caller trusts; Dial makes a coterie.Replica of all
// of them, which trusts none: it waits for f+1 equal replies (§4.1).
//
// Guarantees, while at most f of 3f+1 replicas (or of more) are faulty:
//   - Replicas that are not faulty execute the same requests in the same order, each once (§4.5.1, Safety), whatever the
//     network does. One that restarts says nothing that contradicts what it said before: its word is in its journal
//     before it is on the wire.
//   - What Dial's client is answered was executed, and is linearizable.
//   - If messages arrive in the end within some bounded time, requests are executed (§4.5.2, Liveness): a primary that
//     is silent or orders nothing is replaced after Config.ViewTimeout, which doubles until a view lasts.
//
// What it does not: keep anything secret; hinder a faulty replica from proposing commands of its own, from stamping
// them with a wrong wall clock (the log's clock never goes back, but what expires by it may expire early), or from
// opening and ending sessions; change the members while it runs. Sessions (consensus.Session) are for clients that
// trust their replica.
//
// Fault model: f replicas do anything at all but break ed25519 or SHA-256. Others may crash, restart with their
// journal, be slow, cut off; messages may be lost, repeated, delayed and reordered. A disk that forgets what was
// durable makes a replica faulty.
//
// The state machine must be deterministic, and for a replica that is far behind to be brought up to date, so must the
// bytes of its snapshots be: it takes a snapshot only if f+1 replicas vouch for the digest of its content.
//
// Requests, pre-prepares, prepares, commits, checkpoints, view changes and new views are signed (the OSDI version; the
// later one replaces most signatures by authenticators). Verifier checks them before the Core sees them, on goroutines
// of their own.
package pbft
