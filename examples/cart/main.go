// Command cart is a shop in three data centres that sells through a partition: carts are ORMaps of ORSets, in which an add
// wins over a concurrent remove, and the stock is a BoundedCounter, of which the three together cannot sell more than
// there is. Each pair of centres exchanges deltas; in the middle of the sale one centre is cut off, and goes on selling by
// the rights it holds. At the end the three are merged, equal, and nothing is oversold. It exits with 1 if that is not so.
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/crdt"
)

const (
	stock     = 100
	customers = 400
)

// shop is one data centre.
type shop struct {
	id    coterie.NodeID
	carts crdt.ORMap[string, crdt.ORSet[string]]
	stock crdt.BoundedCounter
	sold  int
	inbox []delta // deltas of others that have arrived, in whatever order
}

type delta struct {
	carts crdt.ORMap[string, crdt.ORSet[string]]
	stock crdt.BoundedCounter
}

// world is the three shops and who can reach whom.
type world struct {
	shops []*shop
	lost  []pending // deltas that a cut link holds back
	cut   coterie.NodeID
	rng   *rand.Rand
}

type pending struct {
	to *shop
	d  delta
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cart:", err)
		os.Exit(1)
	}
}

func run() error {
	w := &world{rng: rand.New(rand.NewPCG(1, 2))}
	for _, id := range []coterie.NodeID{"ams", "nyc", "sin"} {
		w.shops = append(w.shops, &shop{id: id})
	}
	ams, nyc, sin := w.shops[0], w.shops[1], w.shops[2]
	if err := w.deliver(ams, stock); err != nil {
		return err
	}
	fmt.Printf("%d tickets: rights ams %d, nyc %d, sin %d\n", ams.stock.Value(), ams.stock.Rights("ams"),
		nyc.stock.Rights("nyc"), sin.stock.Rights("sin"))

	w.sell(45)
	w.sync()
	fmt.Printf("%d sold so far; now sin is cut off\n", w.sold())
	w.cut = "sin"
	// While they cannot talk, a customer removes a ticket from the cart in one place and adds it in another.
	w.send(ams, ams.update("eve", func(c *crdt.ORSet[string]) crdt.ORSet[string] { return c.Remove("ticket") }))
	w.send(sin, sin.update("eve", func(c *crdt.ORSet[string]) crdt.ORSet[string] { return c.Add(sin.id, "ticket") }))
	w.sell(customers)
	w.sync()
	fmt.Printf("cut off: ams sees %d left, sin %d; its own rights are %d\n", ams.stock.Value(), sin.stock.Value(),
		sin.stock.Rights("sin"))

	w.cut = ""
	w.sync()
	return w.check()
}

// deliver makes the stock at one shop, which gives the others their share of rights.
func (w *world) deliver(at *shop, n uint64) error {
	d := delta{stock: at.stock.Inc(at.id, n)}
	for _, s := range w.shops {
		if s == at {
			continue
		}
		share, err := at.stock.Transfer(at.id, s.id, n/uint64(len(w.shops)))
		if err != nil {
			return err
		}
		d.stock.Merge(share)
	}
	d.carts.Merge(at.update("eve", func(c *crdt.ORSet[string]) crdt.ORSet[string] { return c.Add(at.id, "ticket") }).carts)
	w.send(at, d)
	w.sync()
	return nil
}

// update changes a customer's cart.
func (s *shop) update(customer string, f func(*crdt.ORSet[string]) crdt.ORSet[string]) delta {
	return delta{carts: s.carts.Update(customer, f)}
}

// sell lets customers buy at shops drawn at random.
func (w *world) sell(n int) {
	for i := range n {
		s := w.shops[w.rng.IntN(len(w.shops))]
		sale, err := s.stock.Dec(s.id, 1)
		if errors.Is(err, crdt.ErrRights) {
			// Ask a shop that can be reached for some of its rights; the customer tries again later.
			w.borrow(s)
			continue
		}
		s.sold++
		customer := fmt.Sprintf("customer %d", i)
		d := s.update(customer, func(c *crdt.ORSet[string]) crdt.ORSet[string] { return c.Add(s.id, "ticket") })
		d.stock = sale
		w.send(s, d)
		if w.rng.IntN(3) == 0 {
			w.sync()
		}
	}
}

func (w *world) borrow(s *shop) {
	for _, from := range w.shops {
		if from == s || from.id == w.cut || s.id == w.cut {
			continue
		}
		if d, err := from.stock.Transfer(from.id, s.id, (from.stock.Rights(from.id)+1)/2); err == nil {
			w.send(from, delta{stock: d})
		}
	}
	w.sync()
}

// send gives a delta to the other shops, some of them twice.
func (w *world) send(from *shop, d delta) {
	for _, s := range w.shops {
		if s == from {
			continue
		}
		for range 1 + w.rng.IntN(2) {
			if from.id == w.cut || s.id == w.cut {
				w.lost = append(w.lost, pending{s, d})
			} else {
				s.inbox = append(s.inbox, d)
			}
		}
	}
}

// sync merges what has arrived, in a random order, and what a healed link held back.
func (w *world) sync() {
	if w.cut == "" {
		for _, p := range w.lost {
			p.to.inbox = append(p.to.inbox, p.d)
		}
		w.lost = nil
	}
	for _, s := range w.shops {
		w.rng.Shuffle(len(s.inbox), func(i, j int) { s.inbox[i], s.inbox[j] = s.inbox[j], s.inbox[i] })
		for _, d := range s.inbox {
			s.carts.Merge(d.carts)
			s.stock.Merge(d.stock)
		}
		s.inbox = nil
	}
}

func (w *world) sold() (n int) {
	for _, s := range w.shops {
		n += s.sold
	}
	return n
}

// check verifies that all shops are equal, and what was sold.
func (w *world) check() error {
	first := w.shops[0]
	for _, s := range w.shops {
		for _, pair := range [][2]interface{ MarshalBinary() ([]byte, error) }{{s.carts, first.carts}, {s.stock, first.stock}} {
			a, err := pair[0].MarshalBinary()
			if err != nil {
				return err
			}
			b, err := pair[1].MarshalBinary()
			if err != nil {
				return err
			}
			if !slices.Equal(a, b) {
				return fmt.Errorf("%s and %s differ", s.id, first.id)
			}
		}
	}
	eve, _ := first.carts.Get("eve")
	fmt.Printf("merged: %d sold of %d, %d left, %d carts; eve's ticket is in her cart: %v\n", w.sold(), stock,
		first.stock.Value(), first.carts.Len(), eve.Contains("ticket"))
	switch {
	case w.sold() > stock:
		return fmt.Errorf("oversold: %d of %d", w.sold(), stock)
	case uint64(stock-w.sold()) != first.stock.Value():
		return fmt.Errorf("%d sold, but %d left", w.sold(), first.stock.Value())
	case !eve.Contains("ticket"):
		return errors.New("an add was lost to a concurrent remove")
	}
	return nil
}
