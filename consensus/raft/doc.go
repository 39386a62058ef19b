// Package raft is the Raft consensus protocol.
package raft
