package kv

// bug is a fault that a test plants to see that it is found.
type bug uint8

const (
	_                    bug = iota
	bugLateRenewal           // a lease that has ended is renewed
	bugForgetfulSnapshot     // numbers that were given are given again after a snapshot
	bugGrantDead             // it is the turn of a waiter that has gone
)
