//go:build !race

package raft

import "testing"

func TestMain(m *testing.M) {
	checked = true
	m.Run()
}
