// Package gossip replicates a CRDT among nodes over links that lose, repeat and reorder: each change's delta goes to
// every peer at once and again until it is acknowledged, and whatever was missed all the same is found by comparing
// digests with a peer drawn at random, after which only what differs travels.
//
// Use it for any type of package crdt and for text.Text. Where a causal broadcast is at hand already, it is not needed:
// deliver each delta by it and merge what arrives.
//
// # Guarantees
//
// Nodes that can reach each other, directly or by others, end with equal states (strong eventual consistency). The
// deltas of one node are merged in order and without gaps, those of different nodes in any order; a node's own changes
// are durable before anybody else sees them. When every node has acknowledged an event, what was kept on its behalf is
// collected (causal stability).
//
// # Fault model
//
// Nodes crash and come back with their journal; a node that lost it must come back under a new id. Messages are lost,
// repeated, delayed and reordered. A node that stays away is evicted by the application, on every node or on one that the
// others then learn it from; what it sends afterwards is refused, so that nothing collected comes back, and it is sent
// the full state, to begin anew from under a new id. Nodes do not lie.
//
// Papers: Almeida, Shoker and Baquero, "Delta State Replicated Data Types" (2018), Algorithm 2, for the deltas; Demers et
// al., "Epidemic Algorithms for Replicated Database Maintenance" (1987), for anti-entropy; Baquero, Almeida and Shoker,
// "Pure Operation-Based Replicated Data Types" (2017), §4, for stability.
package gossip
