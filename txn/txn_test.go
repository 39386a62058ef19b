package txn_test

import (
	"testing"

	"github.com/coterie-go/coterie/txn"
)

func TestVoteStrings(t *testing.T) {
	for v, want := range map[txn.Vote]string{txn.No: "no", txn.Yes: "yes", txn.ReadOnly: "read-only", 9: "vote(9)"} {
		if got := v.String(); got != want {
			t.Errorf("Vote %d is %q, want %q", uint8(v), got, want)
		}
	}
	var zero txn.Vote
	if zero != txn.No {
		t.Errorf("the zero Vote is %v: a vote that was forgotten must refuse", zero)
	}
}
