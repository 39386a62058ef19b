// Package txn holds the words that the packages of transactions share: the ID of a transaction, the Vote of a
// participant, and Participant, the resource that takes part in a transaction across nodes.
//
// Which one to use:
//
//	twophase  all nodes commit or none does, and readers see nothing between: two-phase commit with presumed abort.
//	          Locks are held while it runs, and a node that voted yes waits for the decision, through crashes.
//	saga      a long piece of work in steps, each of which commits at once and can be undone by a compensation:
//	          nothing is locked, and others see the steps between. For what crosses organisations or takes minutes.
//	mvcc      transactions inside one node: a multi-version store with snapshot isolation or serializable; its
//	          transactions can be participants of twophase.
//
// This package has no behaviour but that of its values, which may be copied and used from any goroutine.
package txn
