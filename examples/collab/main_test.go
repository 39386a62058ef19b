package main

import "testing"

func TestScript(t *testing.T) {
	if err := run(t.Context(), "127.0.0.1:0", false); err != nil {
		t.Fatal(err)
	}
}
