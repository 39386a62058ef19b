package txn_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/coterie-go/coterie/txn"
)

// stock is a resource in memory: a count, and what transactions have reserved of it.
type stock struct {
	mu       sync.Mutex
	left     int
	reserved map[txn.ID]int
}

func (s *stock) Reserve(id txn.ID, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left -= n
	s.reserved[id] += n
}

func (s *stock) Prepare(_ context.Context, id txn.ID) (txn.Vote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, ok := s.reserved[id]; {
	case !ok:
		return txn.No, fmt.Errorf("stock: %w: %s", txn.ErrUnknown, id)
	case s.left < 0:
		return txn.No, nil
	}
	return txn.Yes, nil
}

func (s *stock) Commit(_ context.Context, id txn.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reserved, id)
	return nil
}

func (s *stock) Abort(_ context.Context, id txn.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += s.reserved[id]
	delete(s.reserved, id)
	return nil
}

// A resource takes part in transactions by three methods, each of which may be called again.
func ExampleParticipant() {
	ctx := context.Background()
	shelf := &stock{left: 5, reserved: map[txn.ID]int{}}
	var resource txn.Participant = shelf

	for _, want := range []int{3, 4} {
		id := txn.ID(fmt.Sprintf("order-%d", want))
		shelf.Reserve(id, want)
		vote, err := resource.Prepare(ctx, id)
		if vote == txn.Yes && err == nil {
			err = resource.Commit(ctx, id)
		} else {
			err = resource.Abort(ctx, id)
		}
		fmt.Println(id, vote, err, shelf.left)
	}
	_ = resource.Commit(ctx, "order-3") // again: nothing happens
	_ = resource.Abort(ctx, "order-3")
	fmt.Println(shelf.left)
	// Output:
	// order-3 yes <nil> 2
	// order-4 no <nil> 2
	// 2
}
