// Package quorum says which sets of nodes may decide, counts their votes, finds out what a choice of quorums costs, and
// asks a quorum of nodes.
//
//	maj := quorum.Majority("a", "b", "c")                              // any two of three
//	joint := quorum.And(maj, quorum.Majority("c", "d", "e"))           // two of each: Raft's joint consensus
//	zones := quorum.Choose(2, quorum.Majority("a", "b", "c"), d, e)    // nodes and systems nest
//	rw, err := quorum.FromReads(quorum.Or(quorum.And(a, b), quorum.And(c, d))) // with the best writes for these reads
//	rw, err = quorum.NRW([]coterie.NodeID{"a", "b", "c"}, 1, 2)        // refused: reads {a} and writes {b c} do not meet
//
// Use it wherever a protocol waits for some of its nodes. Tally counts the votes of one ballot, by node; Committed
// is Raft's commit rule. Call asks nodes concurrently until a quorum has answered, over any RPC or function, and
// Newest, MajorityValue and ReadRepair make one answer of many. Analyse and Search tell which system is the best for a
// workload on given nodes. Package quorum/abd has registers that work over any of these systems.
//
// It is no consensus: a quorum of answers is not yet agreement. For that see consensus/raft and its siblings.
//
// # Systems
//
// What the smallest quorum, the load (the share of all requests that the busiest node serves under the best strategy)
// and the resilience (how many nodes may fail) are, for 9 nodes but where it says else; where reads and writes differ,
// "read / write":
//
//	system                 built by                         quorum   load           resilience
//	majority               Majority                         5        0.556          4
//	weighted               Weighted                         as the weights are
//	grid 3x3               Grid                             3 / 3    0.333 / 0.333  2 / 2
//	hierarchical 3x3       Hierarchical                     4        0.444          3
//	tree of 15             Tree                             4        0.400          3
//	N, R=3, W=7            NRW                              3 / 7    0.333 / 0.778  6 / 2
//	flexible, phase 2 of 3 FlexiblePaxos                    7 / 3    0.778 / 0.333  2 / 6
//	fast, of 5             FastPaxos (classic / fast)       3 / 4    0.600 / 0.800  2 / 1
//	Byzantine, of 10       Byzantine (f = 3)                7        0.700          3
//	masking                Masking (f = 2)                  7        0.778          2
//
// The grid has less load than a majority and costs fewer messages, and pays with resilience; a system of unequal nodes
// is best looked for (Search).
//
// # Guarantees
//
// Every read quorum of a ReadWrite meets every write quorum: what cannot be shown is refused. Sets, systems and
// strategies never change and are safe for concurrent use. A System of bad arguments has no quorum at all, and says why
// by Err. A Tally counts each node once, whatever is repeated, and knows the outcome as early as it can be known.
//
// Papers: Garcia-Molina and Barbara 1985 (coteries); Naor and Wool 1998 (load, capacity, availability); Malkhi and
// Reiter 1998 (Byzantine quorums); Howard, Malkhi and Spiegelman 2016 (flexible quorums); Whittaker, Charapko,
// Hellerstein, Howard and Stoica 2021, Read-Write Quorum Systems Made Practical (the analysis).
package quorum
