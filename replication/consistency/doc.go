// Package consistency judges what clients saw: whether a history of concurrent operations is linearizable,
// sequential, causal or worse, why not, and in a picture.
//
// Record a history with a Recorder (or read a published one: ReadJSON, ReadJepsenRegisters, ReadJepsenTxns,
// ReadPorcupineLog), then ask for a model:
//
//	model                   what it forbids                                                    source
//	Linearizable            an order of effects other than real time's                         Herlihy and Wing 1990
//	Sequential              an order of effects other than every client's own                  Lamport 1979
//	Causal                  seeing an effect without its causes, or causes in another order    Ahamad et al. 1995
//	CausalConvergence       the same, and orders of writes on which clients never agree        Burckhardt 2014
//	PRAM                    seeing one client's writes in another order than it made them      Lipton and Sandberg 1988
//	ReadYourWrites          a read that misses its own client's earlier write                  Terry et al. 1994
//	MonotonicReads          a read older than the same client's last                           Terry et al. 1994
//	MonotonicWrites         a write seen without its client's earlier ones                     Terry et al. 1994
//	WritesFollowReads       a write seen without what its client had read                      Terry et al. 1994
//	BoundedStaleness        a read more than k versions, or a time, behind                     Aiyer et al. 2005; Golab et al. 2011
//	EventualConvergence     disagreement long after the last write                             Vogels 2009
//	ReadUncommitted         transactions that overwrite each other both ways (G0)              Adya 1999, PL-1
//	ReadCommitted           reads of aborted, intermediate or circular writes (G1)             Adya 1999, PL-2
//	SnapshotIsolation       lost updates, read skew (cycles without two adjacent rw)           Fekete et al. 2005; Cerone and Gotsman 2018
//	Serializable            write skew: any cycle of dependencies (G2-item)                    Adya 1999, PL-3
//	StrongSession...        the same, with every client's order of transactions                Daudjee and Salem 2004
//	StrictSerializable      the same, with real time's                                         Papadimitriou 1979
//
// Each implies the next of its kind: linearizable, sequential, causal, PRAM and the first three session guarantees
// (causal implies the fourth too); the levels of transactions in their order. ListAppend and ReadWrite name the
// strongest level that a history allows. CausalDelivery judges broadcasts. Stream and RegisterStream judge
// linearizability while a system runs, with bounded memory.
//
// Linearizable and Sequential take any Model, a data type's sequential specification: Register, CASRegister, KV,
// MultiRegister, Counter, Set, Queue, Mutex, LeasedMutex, Bank, or one of your own; the weaker models are about
// registers whose writes are unique. Shrink, ShrinkAccesses and ShrinkTxns cut a violation down to the fewest
// operations that show it, Draw and DrawTxns make it a page to look at. In a test, use consistencytest.
//
// Guarantees: Violated is never a false alarm, and Holds means that an execution that the model allows exists, for
// what clients saw: no checker sees what nobody asked. Operations of unknown outcome may have happened at any time
// after their call, or never. Search can take exponential time, so that every search ends with its context, as
// Unknown. Nothing here starts a goroutine. Not for proofs about a protocol: it judges runs, one at a time.
package consistency
