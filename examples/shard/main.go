// Command shard grows a sharded in-memory store from three nodes to five while clients read and write: it prints the
// plan, moves exactly the keys that the plan names, and shows the load before and after. No request fails.
package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/coterie-go/coterie/hashring"
)

const (
	keys    = 60_000
	clients = 8
)

// node is one shard of the store.
type node struct {
	mu   sync.Mutex
	data map[string]int
}

func (n *node) get(key string) (int, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.data[key]
	return v, ok
}

func (n *node) put(key string, value int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.data[key] = value
}

// store routes keys. While it grows, before is where keys were and after where they go.
type store struct {
	nodes         map[string]*node
	before, after *hashring.Table[string]
	phase         sync.RWMutex // a request sees one phase
}

// put writes to where the key goes.
func (s *store) put(key string, value int) {
	s.phase.RLock()
	defer s.phase.RUnlock()
	s.nodes[s.after.Locate(key)].put(key, value)
}

// get looks where the key goes, then where it was; and once more, for it may have moved in between.
func (s *store) get(key string) (int, bool) {
	s.phase.RLock()
	defer s.phase.RUnlock()
	for _, table := range []*hashring.Table[string]{s.after, s.before, s.after} {
		if v, ok := s.nodes[table.Locate(key)].get(key); ok {
			return v, true
		}
	}
	return 0, false
}

// grow starts a phase in which the added nodes take over keys.
func (s *store) grow(added ...string) (hashring.Plan[string], error) {
	s.phase.Lock()
	defer s.phase.Unlock()
	names := append([]string{}, added...)
	for name := range s.nodes {
		names = append(names, name)
	}
	for _, name := range added {
		s.nodes[name] = &node{data: map[string]int{}}
	}
	after, err := hashring.New(hashring.Config[string]{}, names...)
	if err != nil {
		return hashring.Plan[string]{}, err
	}
	s.after = after
	return hashring.Diff[string](s.before, after), nil
}

// carry moves the keys of one move of the plan and returns how many. What a client has written meanwhile is newer.
func (s *store) carry(m hashring.Move[string]) (moved int) {
	partitions := map[int]bool{}
	for _, p := range m.Partitions {
		partitions[p] = true
	}
	from, to := s.nodes[m.From], s.nodes[m.To]
	from.mu.Lock()
	var leaving []string
	for key := range from.data {
		if partitions[s.after.Partition(hashring.Hash(key))] {
			leaving = append(leaving, key)
		}
	}
	from.mu.Unlock()
	for _, key := range leaving {
		value, _ := from.get(key)
		to.mu.Lock()
		if _, newer := to.data[key]; !newer {
			to.data[key] = value
		}
		to.mu.Unlock()
		from.mu.Lock()
		delete(from.data, key)
		from.mu.Unlock()
	}
	return len(leaving)
}

// chart shows the load of each node as bars.
func (s *store) chart(title string) {
	fmt.Println(title)
	for i := 1; i <= 5; i++ {
		name := fmt.Sprintf("node-%d", i)
		if n := s.nodes[name]; n != nil {
			fmt.Printf("  %s %6d %s\n", name, len(n.data), strings.Repeat("#", len(n.data)*100/keys))
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "shard:", err)
		os.Exit(1)
	}
}

func run() error {
	table, err := hashring.New(hashring.Config[string]{}, "node-1", "node-2", "node-3")
	if err != nil {
		return err
	}
	s := &store{nodes: map[string]*node{}, before: table, after: table}
	for name := range table.Nodes() {
		s.nodes[name] = &node{data: map[string]int{}}
	}
	key := func(i int) string { return fmt.Sprintf("user:%d", i) }
	for i := range keys {
		s.put(key(i), 0)
	}
	s.chart("before:")

	var stop atomic.Bool
	var requests atomic.Int64
	var load errgroup.Group
	for c := range clients {
		load.Go(func() error { // each client owns its keys, and so knows what it must read
			for round := 1; !stop.Load(); round++ {
				for i := c; i < keys; i += clients {
					if v, ok := s.get(key(i)); !ok || v != round-1 {
						return fmt.Errorf("%s: read %d, %v; wrote %d", key(i), v, ok, round-1)
					}
					s.put(key(i), round)
					requests.Add(2)
				}
			}
			return nil
		})
	}
	moved, err := migrate(s)
	stop.Store(true)
	if failed := load.Wait(); failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	s.chart("after:")
	fmt.Printf("%d keys moved, %d requests meanwhile, 0 failed\n", moved, requests.Load())
	return check(s, key)
}

// migrate adds two nodes, prints the plan and carries it out.
func migrate(s *store) (moved int, err error) {
	plan, err := s.grow("node-4", "node-5")
	if err != nil {
		return 0, err
	}
	fmt.Printf("plan: %.1f%% of the keys move (2 of 5 nodes are new: at least 40%%)\n", 100*plan.Share())
	for _, m := range plan.Moves {
		fmt.Printf("  %s to %s %5.1f%% %6d partitions\n", m.From, m.To, 100*m.Share, len(m.Partitions))
		moved += s.carry(m)
	}
	s.phase.Lock()
	defer s.phase.Unlock()
	s.before = s.after
	return moved, nil
}

// check finds every key on its owner and nowhere else.
func check(s *store, key func(int) string) error {
	total := 0
	for _, n := range s.nodes {
		total += len(n.data)
	}
	if total != keys {
		return fmt.Errorf("%d keys on the nodes, %d were written", total, keys)
	}
	for i := range keys {
		if _, ok := s.nodes[s.after.Locate(key(i))].get(key(i)); !ok {
			return fmt.Errorf("%s is not on its owner", key(i))
		}
	}
	return nil
}
