// Package phi tells from the arrival times of heartbeats how sure one may be that their sender is gone.
//
// Accrual is the phi-accrual detector: phi is -log10 of the probability that a heartbeat comes even later than now,
// given how they came before. At phi 1 one suspicion in ten is wrong, at phi 8 one in 10^8, as far as the past tells
// of the future. Fixed is the plain time-out, and Chen the detector whose mistakes and detection time can be computed
// from the network's loss and delay. Monitor keeps one of them for each of many peers and is a coterie.Detector.
//
// Use it beside traffic of your own: a connection pool, a replication stream, workers that report. Nothing is sent by
// this package and no clock is read; time comes in as an argument. To find members and to spread what is known of them
// use package swim.
//
// Papers: Hayashibara, Defago, Yared, Katayama, The phi Accrual Failure Detector, 2004; Chen, Toueg, Aguilera, On the
// Quality of Service of Failure Detectors, 2002. The exponential model is that of Lakshman and Malik, Cassandra: A
// Decentralized Structured Storage System, 2010, section 5.4.
//
// Guarantees: for a sender that has crashed the level grows beyond every bound (strong completeness), at the time that
// Deadline tells. A live one whose heartbeats come as they came before is suspected with the probability 10^-Threshold
// for each heartbeat, less what Pause allows. Heartbeat and Phi allocate nothing and take about 50 ns.
//
// Fault model: crashes, pauses, loss and delay. Times of one peer must not run backwards; those that do are taken for
// the latest known.
package phi
