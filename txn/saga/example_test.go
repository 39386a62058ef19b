package saga_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn/saga"
)

// A journey is booked in steps; when no car is left, the flight and the hotel are given back. In production the journal is
// a stream of a wal.Log, and the sagas that a crash interrupted go on at Start.
func Example() {
	book := func(what string, err error) saga.Step {
		return saga.Step{
			Name: what,
			Do: func(_ context.Context, c saga.Call) ([]byte, error) {
				if err != nil {
					return nil, saga.Refuse(err)
				}
				fmt.Println("book", what, "for", string(c.Input))
				return []byte(what + "-7"), nil
			},
			Undo: func(_ context.Context, c saga.Call) error {
				fmt.Println("give back", string(c.Results[what]))
				return nil
			},
		}
	}
	engine, err := saga.Start(saga.Config{
		Journal: &host.MemoryJournal{},
		Definitions: []saga.Definition{{Name: "journey", Steps: []saga.Step{
			book("flight", nil), book("hotel", nil), book("car", errors.New("no car left")),
		}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	err = engine.Run(context.Background(), "journey", "order-1", []byte("ada"))
	fmt.Println(err)
	status, _ := engine.Status("order-1")
	fmt.Println(status.State)
	// Output:
	// book flight for ada
	// book hotel for ada
	// give back hotel-7
	// give back flight-7
	// saga: "order-1" compensated: step "car": no car left
	// compensated
}

// marks is a Store in memory. That of a database inserts into a table with a unique key, in the transaction of the work.
type marks map[string]bool

func (m marks) Insert(_ context.Context, key string) (bool, error) {
	fresh := !m[key]
	m[key] = true
	return fresh, nil
}

// Once keeps a repeated call, a compensation of what never happened, and a step that comes after its compensation from
// taking effect.
func ExampleOnce() {
	ctx, table, balance := context.Background(), marks{}, 100
	pay := func(c saga.Call) {
		_ = saga.Once(ctx, table, c, func(context.Context) error {
			if c.Undo {
				balance += 10
			} else {
				balance -= 10
			}
			return nil
		})
		fmt.Println(c.Saga, c.Undo, balance)
	}
	pay(saga.Call{Saga: "s1", Step: "pay"})
	pay(saga.Call{Saga: "s1", Step: "pay"}) // the answer was lost, so the step is tried again
	pay(saga.Call{Saga: "s1", Step: "pay", Undo: true})
	pay(saga.Call{Saga: "s2", Step: "pay", Undo: true}) // the step has not arrived
	pay(saga.Call{Saga: "s2", Step: "pay"})             // and comes late
	// Output:
	// s1 false 90
	// s1 false 90
	// s1 true 100
	// s2 true 100
	// s2 false 100
}

// Steps that do not depend on each other run together.
func ExampleStep_parallel() {
	step := func(name string) saga.Step {
		return saga.Step{Name: name, Do: func(context.Context, saga.Call) ([]byte, error) { return []byte(name), nil }}
	}
	engine, err := saga.Start(saga.Config{Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{{
		Name:  "order",
		Steps: []saga.Step{{Parallel: []saga.Step{step("reserve"), step("pay")}}, step("ship")},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	fmt.Println(engine.Run(context.Background(), "order", "17", nil))
	status, _ := engine.Status("17")
	fmt.Println(len(status.Done), status.Done[2])
	// Output:
	// <nil>
	// 3 ship
}
