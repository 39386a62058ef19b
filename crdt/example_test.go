package crdt_test

import (
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/crdt"
)

// Two replicas change one set; each sends the other what its change returned.
func Example() {
	var a, b crdt.ORSet[string]
	b.Merge(a.Add("a", "milk"))
	a.Merge(b.Add("b", "bread"))

	removal := a.Remove("milk") // while b, who does not know, adds it again
	again := b.Add("b", "milk")
	a.Merge(again)
	b.Merge(removal)
	fmt.Println(slices.Sorted(a.All()), slices.Sorted(b.All()))
	// Output: [bread milk] [bread milk]
}

func ExampleGCounter() {
	var a, b crdt.GCounter
	a.Inc("a", 2)
	b.Inc("b", 3)
	a.Merge(b)
	a.Merge(b) // twice does no harm
	fmt.Println(a.Value())
	// Output: 5
}

func ExamplePNCounter() {
	var a, b crdt.PNCounter
	b.Merge(a.Add("a", 10))
	a.Merge(b.Add("b", -4))
	fmt.Println(a.Value(), b.Value())
	// Output: 6 6
}

func ExampleBoundedCounter() {
	var shop, branch crdt.BoundedCounter
	branch.Merge(shop.Inc("shop", 10))
	share, err := shop.Transfer("shop", "branch", 3)
	branch.Merge(share)
	_, refused := branch.Dec("branch", 4)
	sale, _ := branch.Dec("branch", 3)
	shop.Merge(sale)
	fmt.Println(err, refused)
	fmt.Println(shop.Value(), "left")
	// Output:
	// <nil> crdt: not enough rights: branch has 3 of 4
	// 7 left
}

func ExampleRWSet() {
	var a, b crdt.RWSet[string]
	b.Merge(a.Add("a", "mallory"))
	a.Merge(b.Add("b", "mallory")) // granted again
	revoked := a.Remove("a", "mallory")
	granted := b.Add("b", "mallory") // at the same time
	a.Merge(granted)
	b.Merge(revoked)
	fmt.Println(a.Contains("mallory"), b.Contains("mallory"))
	// Output: false false
}

func ExampleMVRegister() {
	var a, b crdt.MVRegister[string]
	x, y := a.Set("a", "red"), b.Set("b", "blue")
	a.Merge(y)
	b.Merge(x)
	fmt.Println(a.Values())
	b.Merge(a.Set("a", "violet")) // who has seen both decides
	fmt.Println(b.Values())
	// Output:
	// [red blue]
	// [violet]
}

func ExampleLWWMap() {
	now, _ := clock.NewHLC(clock.HLCConfig{})
	stamp := func(node coterie.NodeID) clock.Timestamp { return clock.Timestamp{Time: now.Now().Time, Node: node} }
	var m crdt.LWWMap[string, string]
	m.Put(stamp("a"), "color", "red")
	m.Put(stamp("a"), "color", "blue")
	fmt.Println(m.Get("color"))
	m.Delete(stamp("a"), "color")
	fmt.Println(m.Len())
	// Output:
	// blue true
	// 0
}

func ExampleORMap() {
	var a, b crdt.ORMap[string, crdt.ORSet[string]]
	tag := func(m *crdt.ORMap[string, crdt.ORSet[string]], by coterie.NodeID, tag string) crdt.ORMap[string, crdt.ORSet[string]] {
		return m.Update("photo", func(v *crdt.ORSet[string]) crdt.ORSet[string] { return v.Add(by, tag) })
	}
	b.Merge(tag(&a, "a", "sea"))
	removed := a.Remove("photo")
	a.Merge(tag(&b, "b", "sun"))
	b.Merge(removed)
	tags, _ := b.Get("photo")
	fmt.Println(slices.Sorted(tags.All()))
	// Output: [sun]
}

func ExampleList() {
	var a, b crdt.List[string]
	b.Merge(a.Insert("a", 0, "one"))
	x, y := a.Insert("a", 1, "two"), b.Insert("b", 1, "zwei")
	a.Merge(y)
	b.Merge(x)
	fmt.Println(a.Values(), b.Values())
	// Output: [one two zwei] [one two zwei]
}

func ExampleStability() {
	var a, b crdt.RWSet[string]
	var s crdt.Stability // at a
	s.Join("b")
	b.Merge(a.Add("a", "x"))
	removal := a.Remove("a", "x")
	s.Ack("b", b.Context().Vector())
	fmt.Println(a.Stable(s.Frontier(a.Context().Vector())))
	b.Merge(removal)
	s.Ack("b", b.Context().Vector())
	fmt.Println(a.Stable(s.Frontier(a.Context().Vector())))
	// Output:
	// 0
	// 1
}
