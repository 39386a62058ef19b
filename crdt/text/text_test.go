package text

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/testsize"
)

type id = coterie.NodeID

var ids = []id{"a", "b", "c"}

// check verifies what the structure rests on.
func (t *Text) check() error {
	if t.blocks == nil {
		return nil
	}
	length, live, count := 0, 0, 0
	for at := uint32(root); at != 0; at = t.following(at) {
		b := &t.blocks[at]
		count++
		length += b.visible()
		if !b.dead {
			live += int(b.b)
		}
		if b.n == 0 {
			return fmt.Errorf("block %d is empty", at)
		}
		if at != root && t.following(at) != 0 && t.preceding(t.following(at)) != at {
			return fmt.Errorf("block %d: neighbours disagree", at)
		}
		for k := range b.n {
			if got, i := t.lookup(charID{b.replica, b.seq + k}); got != at || i != k {
				return fmt.Errorf("character %d:%d is in block %d, found in %d", b.replica, b.seq+k, at, got)
			}
			t.lastLookup = 0
		}
		for kid := b.left; kid != 0; kid = t.blocks[kid].sibling {
			if k := &t.blocks[kid]; !k.isLeft || (charID{k.parentReplica, k.parentSeq}) != b.first() {
				return fmt.Errorf("block %d is no left child of %d", kid, at)
			}
		}
		for kid := b.right; kid != 0; kid = t.blocks[kid].sibling {
			if k := &t.blocks[kid]; k.isLeft || (charID{k.parentReplica, k.parentSeq}) != b.last() {
				return fmt.Errorf("block %d is no right child of %d", kid, at)
			}
		}
	}
	if length != t.length || live != t.live {
		return fmt.Errorf("%d characters in %d bytes, counted %d in %d", length, live, t.length, t.live)
	}
	listed := 1
	for h := 1; h < len(t.replicas); h++ {
		for at := t.replicas[h].oldest; at != 0; at = t.blocks[at].later {
			listed++
		}
	}
	if listed != count {
		return fmt.Errorf("%d blocks in order, %d by replica", count, listed)
	}
	return nil
}

// pair is a replica and its oracle.
type pair struct {
	text   Text
	oracle *oracle
}

// One replica against the oracle: insertions, deletions and positions.
func TestOneReplicaAgreesWithTree(t *testing.T) {
	testsize.Checks(t, 300, 10_000)
	rapid.Check(t, func(t *rapid.T) {
		p := pair{oracle: newOracle()}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step(t, &p, "a")
		}
		require.Equal(t, p.oracle.text(), p.text.String())
	})
}

// step makes a drawn change at both.
func step(t *rapid.T, p *pair, by id) Delta {
	n := p.text.Len()
	pos := rapid.IntRange(0, n).Draw(t, "pos")
	if n > 0 && rapid.IntRange(0, 9).Draw(t, "what") < 4 {
		k := rapid.IntRange(1, min(5, n)).Draw(t, "n")
		pos = min(pos, n-k)
		d, err := p.text.Delete(by, pos, k)
		require.NoError(t, err)
		p.oracle.remove(by, pos, k)
		require.NoError(t, p.text.check())
		return d
	}
	s := rapid.StringOfN(rapid.RuneFrom([]rune("abcdeä本\n😀")), 1, 4, -1).Draw(t, "s")
	d, err := p.text.Insert(by, pos, s)
	require.NoError(t, err)
	p.oracle.insert(by, pos, s)
	require.NoError(t, p.text.check())
	return d
}

// Three replicas that send each other single deltas late, twice and in any order, or states since a version: each ends
// as the tree says.
func TestReplicasAgreeWithTree(t *testing.T) {
	testsize.Checks(t, 1000, 100_000)
	rapid.Check(t, func(t *rapid.T) {
		var p [3]pair
		for i := range p {
			p[i].oracle = newOracle()
		}
		var deltas []Delta
		for range rapid.IntRange(1, 14).Draw(t, "steps") {
			i, j := rapid.IntRange(0, 2).Draw(t, "i"), rapid.IntRange(0, 2).Draw(t, "j")
			if rapid.IntRange(0, 3).Draw(t, "sync") > 0 || i == j {
				deltas = append(deltas, step(t, &p[i], ids[i]))
				continue
			}
			d, err := p[j].text.Since(p[i].text.Version())
			require.NoError(t, err)
			require.NoError(t, p[i].text.Merge(recode(t, d)))
			p[i].oracle.merge(p[j].oracle)
			require.NoError(t, p[i].text.check())
			require.Equal(t, p[i].oracle.text(), p[i].text.String())
		}
		all := newOracle()
		for i := range p {
			all.merge(p[i].oracle)
		}
		for i := range p {
			for _, n := range rapid.Permutation(indexes(len(deltas))).Draw(t, "order") {
				require.NoError(t, p[i].text.Merge(recode(t, deltas[n])))
				if n%3 == 0 {
					require.NoError(t, p[i].text.Merge(deltas[n]))
				}
			}
			require.NoError(t, p[i].text.check())
			require.Zero(t, p[i].text.Pending())
			require.Equal(t, all.text(), p[i].text.String())
		}
		var whole Text
		d, err := p[0].text.Since(clock.Vector{})
		require.NoError(t, err)
		require.NoError(t, whole.Merge(recode(t, d)))
		require.NoError(t, whole.check())
		require.Equal(t, all.text(), whole.String())
	})
}

// recode returns what comes out of the encoding of d.
func recode(t require.TestingT, d Delta) (read Delta) {
	b, err := d.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, read.UnmarshalBinary(b))
	again, err := read.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, b, again)
	return read
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
