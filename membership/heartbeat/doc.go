// Package heartbeat watches a fixed list of members by heartbeats, to all or round a ring, and tells which of them hear
// each other.
//
// Use it for small clusters whose members are known beforehand, about 3 to 30, where everyone is to know at once who
// hears whom: before a failover, or to find out on which side of a network split one is. For groups that grow, and for
// larger ones, use package swim: here each member sends n-1 messages a period, or two in a ring, each of a size that
// grows with n squared bits.
//
// A heartbeat carries a row for every member, the newest that the sender has: how often that member has beaten, and
// whom it hears. All-to-all, a member is judged by the heartbeats that come from it; in a ring, where each sends to its
// next two live successors, by its row, whoever brought it. How silence is judged is up to an Estimator: by default a
// time-out, or one of package phi.
//
// Guarantees, of a network that is calm: a crash is known to all within Timeout + Interval (all-to-all), and within that
// and n Intervals (ring). One who is cut off and comes back is heard again within an Interval, or in a ring within
// 10 n Intervals. Report is what this member knows; that of another may differ. Majority at two members at once is
// possible for as long as a detection takes, so let it stop work rather than start it.
//
// Fault model: crashes and restarts, loss, delay, repetition, cuts in one direction. Not Byzantine: nothing is signed.
//
// The protocol is the classic one of Chandra and Toueg, Unreliable Failure Detectors for Reliable Distributed Systems,
// 1996, section 9; rows make it tell of others too, as in van Renesse, Minsky, Hayden, A Gossip-Style Failure Detection
// Service, 1998.
package heartbeat
