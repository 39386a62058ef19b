// Package benchmarks measures this library beside the ones a user would pick instead, in one run. It is a module of
// its own, so that the peers it links burden nobody who imports the library; it holds benchmarks only.
package benchmarks
