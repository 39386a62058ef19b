// Package hashring places keys on nodes so that little moves when nodes come and go.
//
// Use it to decide which of several servers holds a key, a shard, a session or a cache entry, without a directory: all
// who know the nodes agree. New makes the scheme that most should take. The schemes share one contract, Locator:
//
//	scheme      lookup, 100 nodes   memory a node    peak to mean of 100   moves beside the node's own   depends on  paper
//	Table       1.1x hash%N         9-12 B/partition  1.06                  none                          the set     Thaler and Ravishankar 1998
//	Ring        4x                  2.4 kB           1.20 (V=256)          none                          the set     Karger et al. 1997
//	Rendezvous  11x, O(N)           100 B            1.03                  none                          the set     Thaler and Ravishankar 1998
//	Maglev      1.05x               4 B/entry        1.03                  about 1% of keys              the set     Eisenbud et al. 2016
//	Anchor      1.3x                100 B            1.03                  none                          the history Mendelson et al. 2020
//	Jump        6x, O(log N)        80 B             1.03                  none; removes the last only   the history Lamping and Veach 2014
//
// (Measured on 2 cores, Go 1.26, 21-byte keys, one million of them; 1.03 is the noise of a million keys.)
//
//   - Table is the default: one load for a lookup, weights, replicas that move up when the owner goes, and partitions
//     with numbers, which a store can hand over one by one. A change takes tens of milliseconds.
//   - Ring when changes must be quick or there are thousands of nodes of widely different weight; raise
//     Config.VirtualNodes for balance.
//   - Rendezvous for a few nodes, or none of whose memory may be spent.
//   - Maglev when shares must be even and a few stray keys do not matter.
//   - Anchor when nodes change often, in one order known to all, and are alike.
//   - Jump for numbered shards that only grow.
//
// Bounded adds a bound on each node's load to any of them. Diff tells what moves when one placement becomes another.
// States are marshalled with a format byte, so that schemes that depend on history agree between processes.
//
// When not: for placement by anything but a hash (locality, free space), or where a directory that a consensus group
// keeps is at hand and keys are few.
//
// Keys are hashed with 64-bit xxHash, which is not keyed: who may choose keys can choose ones that fall on one node.
// Nodes are placed by the hash of their names alone.
package hashring
