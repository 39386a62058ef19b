package main

import "testing"

func TestKilledConnections(t *testing.T) {
	if err := killed(t.Context()); err != nil {
		t.Error(err)
	}
}
