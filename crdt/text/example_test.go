package text_test

import (
	"fmt"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/crdt/text"
)

// Two people write at one place at once.
func Example() {
	var a, b text.Text
	start, _ := a.Insert("a", 0, "Dear ,")
	_ = b.Merge(start)
	x, _ := a.Insert("a", 5, "Ann")
	y, _ := b.Insert("b", 5, " & Bob")
	_ = a.Merge(y)
	_ = b.Merge(x)
	fmt.Println(a.String())
	fmt.Println(b.String())
	// Output:
	// Dear Ann & Bob,
	// Dear Ann & Bob,
}

// An editor shows changes as they come.
func ExampleText_Watch() {
	var a, b text.Text
	cancel := b.Watch(func(c text.Change) { fmt.Printf("at %d: -%d +%q\n", c.Pos, c.Deleted, c.Inserted) })
	defer cancel()
	d, _ := a.Insert("a", 0, "hello")
	_ = b.Merge(d)
	d, _ = a.Delete("a", 1, 3)
	_ = b.Merge(d)
	// Output:
	// at 0: -0 +"hello"
	// at 1: -3 +""
}

// A replica that was away gets what it lacks.
func ExampleText_Since() {
	var a, b text.Text
	d, _ := a.Insert("a", 0, "one ")
	_ = b.Merge(d)
	_, _ = a.Insert("a", 4, "two")
	_, _ = b.Insert("b", 0, "un, ")
	missed, _ := a.Since(b.Version())
	_ = b.Merge(missed)
	fmt.Println(b.String())
	whole, _ := b.Since(clock.Vector{})
	var c text.Text
	_ = c.Merge(whole)
	fmt.Println(c.String())
	// Output:
	// un, one two
	// un, one two
}

func ExampleHistory() {
	var t text.Text
	h := text.NewHistory(&t, "a")
	_, _ = h.Insert(0, "good")
	h.Commit()
	_, _ = h.Insert(4, " idea")
	_, _, _ = h.Undo()
	fmt.Println(t.String())
	_, _, _ = h.Redo()
	fmt.Println(t.String())
	// Output:
	// good
	// good idea
}
