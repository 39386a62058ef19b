package kv

// bug is a fault that a test plants to see that it is found.
type bug uint8

const (
	_                    bug = iota
	bugLateRenewal           // a lease is renewed by a renewal that comes after its end
	bugForgetfulSnapshot     // numbers that were given are given again after a snapshot
	bugGrantDead             // it is the turn of a waiter that has gone
)
