// Package transport carries payloads between nodes: an in-memory Network, a Mux that shares one transport among many
// protocols, and the Identity by which nodes know each other over TLS.
//
// A transport is a coterie.Transport: best effort, it may lose, delay, repeat and reorder, and it never blocks a
// sender. What runs a protocol on one is package host; the real networks are packages tcp and udp, and the simulated
// one, in which every fault follows from a seed, is package sim. Package transporttest holds the tests that every
// transport passes, yours too.
//
// Network is for nodes of one process: tests, examples, and services that keep several replicas in one binary. It
// loses nothing on purpose and does not copy payloads, so it shows neither what a lossy link does to a protocol nor
// what encoding costs.
package transport
