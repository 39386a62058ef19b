package mvcc_test

import (
	"context"
	"fmt"

	"github.com/coterie-go/coterie/txn/mvcc"
)

func Example() {
	ctx := context.Background()
	store, err := mvcc.Open(mvcc.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	err = store.Update(ctx, func(tx *mvcc.Tx) error {
		if err := tx.Put("fruit/apple", []byte("3")); err != nil {
			return err
		}
		return tx.Put("fruit/pear", []byte("5"))
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = store.View(ctx, func(tx *mvcc.Tx) error {
		for key, value := range tx.Scan("fruit/", "fruit0") {
			fmt.Printf("%s %s\n", key, value)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// fruit/apple 3
	// fruit/pear 5
	// <nil>
}

// Two transactions that each read what the other writes cannot both have been first.
func ExampleTx_Commit() {
	ctx := context.Background()
	store, _ := mvcc.Open(mvcc.Config{})
	defer store.Close()
	alice, bob := store.Begin(), store.Begin()
	_, bobIsOn := alice.Get("bob is off call")
	_, aliceIsOn := bob.Get("alice is off call")
	fmt.Println(bobIsOn, aliceIsOn)
	_ = alice.Put("alice is off call", nil)
	_ = bob.Put("bob is off call", nil)
	fmt.Println(alice.Commit(ctx, alice.ID()))
	fmt.Println(bob.Commit(ctx, bob.ID()))
	// Output:
	// false false
	// <nil>
	// mvcc: conflict: txn: aborted: what was read fits no serial order
}
