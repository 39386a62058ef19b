//go:build !race

package paxos

import "testing"

func TestMain(m *testing.M) {
	checked = true
	m.Run()
}
