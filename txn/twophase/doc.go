// Package twophase commits a transaction on several nodes or on none: two-phase commit with presumed abort, whose
// coordinator and participants find their way back from a crash at any point.
//
// Paper: Mohan, Lindsay and Obermarck, "Transaction Management in the R* Distributed Database Management System", ACM
// TODS 11(4), 1986; section numbers are of it. Cooperative termination is from Bernstein, Hadzilacos and Goodman,
// "Concurrency Control and Recovery in Database Systems", 1987, section 7.4.
//
// Use it when work on several resources must become visible together and each can hold a promise (a database with
// PREPARE TRANSACTION, a store of this library). Do not use it across organisations or for work that takes minutes: locks
// are held from the work to the decision, and a participant that voted yes waits for as long as its coordinator is away
// and no other participant knows the decision. Package saga holds nothing, and shows the steps between.
//
// A Node plays both parts: Run coordinates a transaction, and Config.Resource takes part in those of any node.
//
// # Guarantees
//
//   - All participants that decide, decide alike.
//   - Run returns nil only when the decision to commit is durable; every participant then commits, in the end.
//   - A participant that voted yes never aborts alone.
//   - Once every node is up, no participant stays in doubt and nothing stays held.
//   - A message that comes late never touches another transaction: an ID is used once, whatever crashes.
//
// # Costs
//
// A commit by n participants that vote yes takes one forced write at the coordinator, one at each participant before its
// vote, and 4n messages; Run returns after the third message delay. What a participant notes of the end, with its
// acknowledgement, waits up to 20 ms for another forced write to ride on, and what the coordinator notes of it waits until
// there is one. A participant that votes read-only forces nothing and takes 2 messages; if all do, the coordinator forces
// nothing either. An abort forces nothing at the coordinator. Writes of transactions that run at the same time are shared.
//
// # Fault model
//
// Nodes crash at any moment and come back with their journal. Messages are lost, repeated, delayed and reordered. A node
// that lost its journal must not come back under its old name. Nodes do not lie.
package twophase
