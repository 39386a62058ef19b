//go:build !race

package raft

func init() { checked = true }
