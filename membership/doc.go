// Package membership holds the words that failure detectors and membership protocols share: members, their states, and
// the events by which they change.
//
// Which one?
//
//	package     who is watched                  cost per member          use it for
//	swim        a group that finds itself       constant                 8 to thousands of members; joins, leaves, metadata
//	heartbeat   a fixed list, all-to-all/ring   n or 1 message a period  up to about 30 members; who hears whom, majority
//	phi         whatever you hear from          nothing is sent          a suspicion level beside your own traffic
//
// Each of them is a coterie.Detector. What they hand out are values: a Member never changes after it was returned, and
// may be kept and read by many goroutines.
//
// Guarantees: those of the protocol; see each package. No failure detector in an asynchronous network is both complete
// and accurate (Chandra and Toueg, Unreliable Failure Detectors for Reliable Distributed Systems, 1996), so a state is
// an opinion: use it to route around trouble, and never as the only guard of data. For that there are fencing tokens
// and quorums.
package membership
