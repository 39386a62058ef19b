// Package suzuki is mutual exclusion among peers by one token per name that is asked for by broadcast: I. Suzuki and
// T. Kasami, "A distributed mutual exclusion algorithm", ACM TOCS 3(4), 1985, with regeneration of a lost token.
//
// Use it among a few peers with few names, where one node often enters again and again: an entry costs no message if
// the node has the token, and n if not: n-1 requests and the token, one message delay after the former holder left. Do
// not use it with many nodes (every node hears of every request), for names that are made up as one goes (a name is
// remembered for ever), or where a holder must be able to rely on being alone: see lock/leased.
//
// # The algorithm
//
// Each node keeps RN, the highest request number heard of each node. The token has LN, the number of each node's request
// that was satisfied last, and a queue. Who leaves puts all nodes with RN over LN on the queue and passes the token to
// its head (§3 of the paper). It is first come, first served by the order in which the token finds the requests. At the
// beginning the token of a name is at a node that all compute from the name.
//
// Links may lose, repeat, delay and reorder. A request that waits longer than Config.Resend is repeated, also when
// nothing was lost, for a waiting node is told nothing; the pause doubles up to eight times Resend. Who passed the token
// on keeps a copy, which it sends again when somebody repeats a request and nothing tells that the token arrived. Each
// token has an epoch and a sequence number that counts its passages and entries, and a node takes none that is not newer
// than all it has had, so that copies do no harm. Core.Stats counts the repeats apart from the paper's messages.
//
// # Crashes
//
// A node saves its token before an entry is told and before it passes the token on: a restart has it still, but holds
// nothing and asks for nothing. Request numbers begin with the node's incarnation, which is saved, so that those of a
// restarted node are new without a save for each. The journal may not be lost; a node whose disk was wiped must come
// back under another name, with all peers reconfigured.
//
// With Config.Lost negative, tokens are never regenerated. Then two nodes never hold a name at once, and each entry's
// token is larger than all before it, whatever links, clocks and crashes do. A name is blocked while the node that
// has its token, or that is next in its queue or was sent it, is down or cut off from who waits.
//
// Otherwise, the default, a node that waited for Lost without a word of a holder gathers the promises of a majority of
// all peers, itself among them, to refuse tokens of epochs lower than a new one (the rule of Paxos' first phase; epochs
// differ by node). A node that promises gives up an idle token; one that is in its critical section answers that it is,
// which holds the new token back for Lost. Then the node makes a token of the new epoch. So a name is blocked for
// about Lost for each crashed node that the token is sent to, and for ever only without a majority.
//
// What that costs: a holder, or a node with an idle token, that is cut off or paused does not learn of the new epoch
// until it hears from the others. It may hold the name, or enter anew, beside a holder of the new epoch, and its token
// is lower than one that was given before. Its tokens never equal another's, and a lock.Fence that has seen the newer
// epoch refuses them, so that no two holders at one time are both admitted after the newer one was. Who made
// the new token tells every Lost, until it restarts, those that did not promise; a holder that hears of it gets
// lock.Forfeited. No algorithm that enters with no message, or with n, could exclude this and
// survive a crash without clocks: to know that no newer token exists a majority must be asked at each entry.
//
// The fencing token of an entry is the epoch in the high 24 bits and the sequence number in the low 40: within an
// epoch it rises by construction, and each epoch is above all that a majority had promised before.
//
// Not tolerated: peers that lie, peers with different Config.Peers, Config.Lost of either sign, or MaxNames.
package suzuki
