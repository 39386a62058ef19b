// Package tokenring is mutual exclusion by a token that goes round a logical ring (Le Lann, "Distributed systems:
// towards a formal approach", IFIP Congress 1977, §§3-4): who has the token of a name may hold the name.
//
// Use it where many peers want a name again and again: when all want it, an entry costs one message, less than any other
// algorithm among peers. Where a name is wanted seldom, lock/suzuki finds the token faster; where crashes must not make
// anybody wait for an opinion about who is dead, use lock/leased.
//
// # The ring at rest
//
// Le Lann's token circulates for ever. This one rests where it was used last. Who wants it sends a want to its
// predecessor, which hands it on against the ring until it meets the token or a peer that has asked already; the token
// then comes with the ring. An idle ring sends nothing and has no timer.
//
// # Messages
//
// Without faults, per entry: 0 where the token rests; d wants and d passes of the token, if it rests d peers back, so 2
// to 2(n-1), of which the token makes 1 to n-1; 1 where everybody always wants it, for a peer that leaves and wants again
// says so in the token. Making the token of a new name costs 4(n-1) more, once. Who waits longer than Config.Resend asks
// everybody where the token is, 2(n-1) messages, then ever more rarely, up to every 16 times Resend.
//
// # A lost token
//
// Nothing is acknowledged, so that a lost message or a crash of the holder loses the token. Who waits too long asks
// every peer (probe). If all answer, none has it and it has not moved since the probe before, it claims a new epoch:
// a peer that does not have the token promises, durably, to refuse tokens of earlier epochs, and one that has it without
// using it gives it up. One that uses it keeps it, and promises when it leaves. The claim succeeds when a majority of
// all peers, and every peer that Liveness does not call Dead, have promised; then no other token of the name can be
// used or come to be used, and a new one is made. Numbers of epochs belong to one claimant each, and the highest claim
// wins.
//
// A token is epoch<<36 + sequence, and rises with each entry; only a new epoch and a restart are saved, not each pass.
// An epoch ends after 2^36 passes and entries, and there are 2^28 numbers of epochs, a name's n peers taking turns.
//
// # Faults
//
// Links may lose, repeat, delay and reorder. A restarted node holds nothing and is known by its incarnation: a token
// sent to an earlier one is refused. Safety, never two holders and ever rising tokens, needs no clock and survives
// all that, as long as nobody is called Dead who holds, or who is about to receive, the token. If one is, as in a
// partition, two may hold at once: their tokens differ, the one of the newer epoch is the larger, and a lock.Fence
// that has seen it refuses the other; the overtaken holder is told (Forfeited) when it hears of the newer token.
//
// What blocks: a crashed peer that is not called Dead blocks a name while the token must pass it, and every
// regeneration, until it is back; so does a cut link between neighbours or from a claimant to a peer. The crash of
// a peer that is called Dead is survived, as long as a majority of all peers runs and can talk. Without a call of
// Liveness nobody is ever dead. Nothing is first come, first served, but no peer is passed over: the token goes
// round. A wiped disk must not come back under its old ID.
//
// Every name ever used takes memory on every node for good, and a record after it was regenerated. A node that knows
// Config.MaxNames of them ignores others: a Request for one is not remembered and never Entered, and other nodes
// that want one wait too. Use a fixed set of names.
package tokenring
