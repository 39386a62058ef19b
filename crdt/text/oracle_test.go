package text

import (
	"cmp"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// oracle is the slow and obvious form of a Text: a tree of single characters, listed anew for each question.
type oracle struct {
	nodes map[clock.Dot]*oracleNode
	seen  clock.DotSet
}

type oracleNode struct {
	id, parent clock.Dot
	left, dead bool
	r          rune
}

func newOracle() *oracle { return &oracle{nodes: map[clock.Dot]*oracleNode{{}: {dead: true}}} }

// list returns the nodes in the order of the text, the root first.
func (o *oracle) list() (all []*oracleNode) {
	kids := map[clock.Dot][]*oracleNode{}
	for _, n := range o.nodes {
		if n.id != (clock.Dot{}) {
			kids[n.parent] = append(kids[n.parent], n)
		}
	}
	var visit func(n *oracleNode)
	visit = func(n *oracleNode) {
		of := kids[n.id]
		slices.SortFunc(of, func(a, b *oracleNode) int {
			return cmp.Or(cmp.Compare(a.id.Node, b.id.Node), cmp.Compare(a.id.Seq, b.id.Seq))
		})
		for _, k := range of {
			if k.left {
				visit(k)
			}
		}
		all = append(all, n)
		for _, k := range of {
			if !k.left {
				visit(k)
			}
		}
	}
	visit(o.nodes[clock.Dot{}])
	return all
}

func (o *oracle) text() string {
	var s []rune
	for _, n := range o.list() {
		if !n.dead {
			s = append(s, n.r)
		}
	}
	return string(s)
}

// descends reports whether n is in the right subtree of l.
func (o *oracle) descends(n, l *oracleNode) bool {
	for n.id != (clock.Dot{}) {
		if n.parent == l.id {
			return !n.left
		}
		n = o.nodes[n.parent]
	}
	return false
}

func (o *oracle) insert(id coterie.NodeID, pos int, s string) {
	for i, r := range []rune(s) {
		all := o.list()
		at := -1 // of the character before
		for j, n := range all {
			if !n.dead || j == 0 {
				at++
			}
			if at == pos+i {
				at = j
				break
			}
		}
		l := all[at]
		n := &oracleNode{id: o.seen.Next(id), parent: l.id, r: r}
		if at+1 < len(all) && o.descends(all[at+1], l) {
			n.parent, n.left = all[at+1].id, true
		}
		o.nodes[n.id] = n
	}
}

func (o *oracle) remove(id coterie.NodeID, pos, n int) {
	o.seen.Next(id)
	for _, c := range o.list() {
		if c.dead {
			continue
		}
		if pos <= 0 && n > 0 {
			c.dead = true
			n--
		}
		pos--
	}
}

func (o *oracle) merge(from *oracle) {
	for id, n := range from.nodes {
		if mine, found := o.nodes[id]; found {
			mine.dead = mine.dead || n.dead
			continue
		}
		c := *n
		o.nodes[id] = &c
	}
	o.seen.Merge(from.seen)
}

// since returns what o has and before had not: the effect of one edit.
func (o *oracle) since(before *oracle) *oracle {
	d := newOracle()
	for id, n := range o.nodes {
		if old, found := before.nodes[id]; !found || old.dead != n.dead {
			c := *n
			d.nodes[id] = &c
		}
	}
	d.seen = o.seen.Clone()
	d.seen.Subtract(before.seen)
	return d
}
