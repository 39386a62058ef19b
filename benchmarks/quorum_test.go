package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/quorum"

	"github.com/coterie-go/coterie"
	coteriequorum "github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/quorum/abd"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/tcp"
)

func quorumIDs(n int) []coterie.NodeID {
	ids := make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprintf("node-%d", i))
	}
	return ids
}

func quorumSystem(b *testing.B, kind string, ids []coterie.NodeID) coteriequorum.System {
	b.Helper()
	switch kind {
	case "grid":
		columns := map[int]int{3: 2, 5: 3, 11: 4}[len(ids)]
		grid, err := coteriequorum.Grid(slices.Collect(slices.Chunk(ids, columns))...)
		if err != nil {
			b.Fatal(err)
		}
		return grid.Write()
	case "weighted":
		weights, total := map[coterie.NodeID]int{}, 0
		for i, id := range ids {
			weights[id] = 1 + i%3
			total += weights[id]
		}
		return coteriequorum.Weighted(weights, total/2+1)
	}
	return coteriequorum.Majority(ids...)
}

// BenchmarkTally is one vote of which every node has answered. coterie counts the answers one by one from the first, and
// knows the outcome after each; etcd evaluates a map of all answers, filled beforehand, once.
func BenchmarkTally(b *testing.B) {
	for _, kind := range []string{"majority", "grid", "weighted"} {
		for _, n := range []int{3, 5, 11} {
			b.Run(fmt.Sprintf("system=%s/n=%d/impl=coterie", kind, n), func(b *testing.B) {
				ids := quorumIDs(n)
				tally := coteriequorum.NewTally(quorumSystem(b, kind, ids), 0)
				ballot := uint64(0)
				b.ReportAllocs()
				for b.Loop() {
					ballot++
					tally.Reset(ballot)
					for _, id := range ids {
						tally.Add(id, true)
					}
					if tally.Outcome() != coteriequorum.Won {
						b.Fatal(tally.Outcome())
					}
				}
			})
			if kind != "majority" {
				continue
			}
			b.Run(fmt.Sprintf("system=%s/n=%d/impl=etcd", kind, n), func(b *testing.B) {
				voters, votes := quorum.MajorityConfig{}, map[uint64]bool{}
				for i := range uint64(n) {
					voters[i+1], votes[i+1] = struct{}{}, true
				}
				b.ReportAllocs()
				for b.Loop() {
					if voters.VoteResult(votes) != quorum.VoteWon {
						b.Fatal("lost")
					}
				}
			})
		}
	}
}

// BenchmarkCall asks 5 nodes of this process and waits for the first 3. goroutines is what one writes by hand: a
// goroutine for each node, a channel, a context canceled at the third answer, and a wait for the rest.
func BenchmarkCall(b *testing.B) {
	ids := quorumIDs(5)
	maj := coteriequorum.Majority(ids...)
	values := map[coterie.NodeID]int{}
	for i, id := range ids {
		values[id] = i
	}
	get := func(_ context.Context, id coterie.NodeID) (int, error) { return values[id], nil }
	b.Run("impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			answers := 0
			r := coteriequorum.Call(context.Background(), maj, nil, get)
			for _, res := range r.All() {
				if res.Err == nil {
					answers++
				}
			}
			if r.Err() != nil || answers != 3 {
				b.Fatal(r.Err(), answers)
			}
		}
	})
	b.Run("impl=goroutines", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if answers := quorumByHand(ids, get); answers != 3 {
				b.Fatal(answers)
			}
		}
	})
}

func quorumByHand(ids []coterie.NodeID, get func(context.Context, coterie.NodeID) (int, error)) int {
	type answer struct {
		id    coterie.NodeID
		value int
		err   error
	}
	ctx, cancel := context.WithCancel(context.Background())
	answers := make(chan answer, len(ids))
	for _, id := range ids {
		go func() {
			value, err := get(ctx, id)
			answers <- answer{id, value, err}
		}()
	}
	yes, arrived := 0, 0
	for yes < 3 && arrived < len(ids) {
		a := <-answers
		arrived++
		if a.err == nil {
			yes++
		}
	}
	cancel()
	for ; arrived < len(ids); arrived++ {
		<-answers
	}
	return yes
}

// quorumEcho is a core that sends back what it gets: what it measures is one round trip between two hosts.
type quorumEcho struct {
	coterie.Outbox
	self coterie.NodeID
}

func (e *quorumEcho) Replay([]byte) error { return nil }

func (e *quorumEcho) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	switch payload[0] {
	case 1:
		e.Send(from, []byte{2})
	case 2:
		e.Emit(struct{}{})
	}
	return nil
}

func (e *quorumEcho) Tick(time.Time)       {}
func (e *quorumEcho) Ready() coterie.Ready { return e.Take() }

// quorumLinks connects nodes by TCP over loopback.
func quorumLinks(b *testing.B, ids []coterie.NodeID) map[coterie.NodeID]*tcp.Transport {
	b.Helper()
	links := map[coterie.NodeID]*tcp.Transport{}
	for _, id := range ids {
		peers := map[coterie.NodeID]string{}
		for _, peer := range ids {
			if peer != id {
				peers[peer] = "127.0.0.1:1" // SetPeer tells the address when it is known
			}
		}
		link, err := tcp.Start(tcp.Config{ID: id, Listen: "127.0.0.1:0", Peers: peers})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = link.Close() })
		links[id] = link
	}
	for _, id := range ids {
		for _, peer := range ids {
			if peer != id {
				if err := links[id].SetPeer(peer, links[peer].Addr().String()); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return links
}

// quorumRoundTrip returns the median time of a message to another host and back, over TCP loopback.
func quorumRoundTrip(b *testing.B) time.Duration {
	b.Helper()
	ids := []coterie.NodeID{"ping", "pong"}
	links := quorumLinks(b, ids)
	back := make(chan struct{}, 1)
	var ping *host.Host[*quorumEcho]
	for _, id := range ids {
		h, err := host.Start(&quorumEcho{self: id}, host.Config{Transport: links[id], Handle: func(time.Time, any) { back <- struct{}{} }})
		if err != nil {
			b.Fatal(err)
		}
		defer h.Close()
		if id == "ping" {
			ping = h
		}
	}
	trip := func() {
		if err := ping.Post(func(_ time.Time, core *quorumEcho) { core.Send("pong", []byte{1}) }); err != nil {
			b.Fatal(err)
		}
	}
	for connected := false; !connected; { // what is sent before the connection is there is lost
		trip()
		select {
		case <-back:
			connected = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	for len(back) > 0 {
		<-back
	}
	times := make([]time.Duration, 3000)
	for i := range times {
		began := time.Now()
		trip()
		<-back
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// BenchmarkABD reads and writes one atomic register at three nodes over TCP loopback, one operation at a time, with
// journals in memory; a node asks a quorum, itself and one other, and the third only if they are late (Config.Hedge).
// rtt/op is the median in round trips, measured in the same run between two hosts that only echo.
func BenchmarkABD(b *testing.B) {
	for _, op := range []string{"read", "write"} {
		b.Run(fmt.Sprintf("op=%s/impl=coterie", op), func(b *testing.B) {
			rtt := quorumRoundTrip(b)
			ids := quorumIDs(3)
			links := quorumLinks(b, ids)
			system, err := coteriequorum.Symmetric(coteriequorum.Majority(ids...))
			if err != nil {
				b.Fatal(err)
			}
			const hedge = 20 * time.Millisecond
			nodes := make([]*abd.Node, len(ids))
			for i, id := range ids {
				nodes[i], err = abd.Start(abd.Config{ID: id, System: system, Transport: links[id], Journal: new(host.MemoryJournal), Hedge: hedge})
				if err != nil {
					b.Fatal(err)
				}
				defer nodes[i].Close()
			}
			ctx, value := context.Background(), make([]byte, 100)
			do := func() error { return nodes[0].Write(ctx, "register", value) }
			for range 1000 { // connect and warm up; a read then finds the value at rest
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			if op == "read" {
				do = func() error {
					got, err := nodes[0].Read(ctx, "register")
					if err == nil && len(got) != len(value) {
						err = errors.New("another value")
					}
					return err
				}
			}
			times := make([]time.Duration, 0, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if err := do(); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(began))
			}
			slices.Sort(times)
			p50, p99 := times[len(times)/2], times[len(times)*99/100]
			b.ReportMetric(float64(p50.Nanoseconds())/1e3, "p50-us")
			b.ReportMetric(float64(p99.Nanoseconds())/1e3, "p99-us")
			b.ReportMetric(float64(p50)/float64(rtt), "rtt/op")
		})
	}
}
