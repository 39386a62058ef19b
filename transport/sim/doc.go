// Package sim runs a whole cluster of Cores in one goroutine, on virtual time, under every fault that can be drawn,
// and does it again exactly from the same seed.
//
// Use it to test a protocol or an application built on one: thousands of seeds, each with its own faults, and an
// invariant checked after every event. It is not a model checker (it samples schedules and proves nothing of those it
// did not see), it does not run code that has goroutines of its own (that is what testing/synctest is for), and its
// times say nothing of real hardware beyond the distributions it was given.
//
// A World has nodes, and each node has a Core, perhaps an App that gets the core's events, a disk (journal and
// snapshots) and a clock. Between nodes are links. The World performs the effects of a Core as transport/host does:
// the whole inbox in one batch, mail to oneself first, Tick when due, one Ready; Early messages leave at once, the
// others and the events when the batch's Save is durable. It is harsher than a real host in one way, and on purpose:
// while a Save is under way the core is stepped on, and later Saves queue behind it.
//
// # Fault model
//
// Links lose, repeat, delay and reorder messages, and may be cut in one direction. Nodes crash at any moment, also
// within a Save: a random prefix of the records that were not yet durable survives. They restart from their journal,
// which may begin earlier than the core asked by Keep. Nodes pause, disks slow down and hang, clocks are skewed, drift
// and jump. A Byzantine node is any Core that the test supplies; Silent, Equivocate, Replay and Tamper wrap an honest
// one. What the library promises is kept: no payload is altered, no durable record is lost.
//
// # A test
//
// A usual test makes a World for each seed (simtest.Seeds), adds the nodes and an Invariant for each property that must
// hold at every moment, lets clients work through After and Do, plays a drawn schedule (Play and DrawSchedule), which
// ends with everything healed, and then waits by RunUntil for the progress that the protocol promises. When a seed fails,
// run it again with a Trace and look at the diagram.
//
// # Replay
//
// Everything follows from Config.Seed: no map order, no global randomness, no real time. The same seed, the same calls
// and the same build give the same trace, byte for byte. Each link and each disk draws from a stream of its own, so
// that a fault taken out of a schedule leaves the rest of the run as it was, as far as it can be; that is what lets
// schedules shrink (package simtest). A violation's text says the seed.
//
// A World is not safe for concurrent use; functions given to it are called by the goroutine that runs it.
package sim
