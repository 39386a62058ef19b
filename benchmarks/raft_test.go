package benchmarks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// raftCluster is three nodes in one process, whichever library they are of. propose returns when the leader has applied
// the command.
type raftCluster struct {
	propose func(command []byte) error
	close   func()
}

// raftImpls are the libraries; each starts a cluster with or without a disk in dir.
var raftImpls = []struct {
	name   string
	memory func(b *testing.B) raftCluster
	disk   func(b *testing.B, dir string) raftCluster
}{
	{"coterie", raftCoterieMemory, raftCoterieDisk},
	{"etcd", func(b *testing.B) raftCluster { return raftEtcd(b, "", false) }, func(b *testing.B, dir string) raftCluster { return raftEtcd(b, dir, false) }},
	{"etcd-bytes", func(b *testing.B) raftCluster { return raftEtcd(b, "", true) }, nil},
	{"hashicorp", func(b *testing.B) raftCluster { return raftHashicorp(b, "") }, raftHashicorp},
	{"dragonboat", raftDragonboatMemory, raftDragonboat},
}

// BenchmarkRaftMemory measures commits of three nodes in one process without a disk. Dragonboat has no such mode: it
// runs on a tmpfs, where a sync costs nothing.
func BenchmarkRaftMemory(b *testing.B) {
	for _, size := range []int{16, 1024} {
		for _, proposers := range []int{1, 64, 512} {
			for _, impl := range raftImpls {
				b.Run(fmt.Sprintf("size=%d/proposers=%d/impl=%s", size, proposers, impl.name), func(b *testing.B) {
					if testing.Short() && (impl.name == "hashicorp" || impl.name == "dragonboat") {
						b.Skip("takes longer than 2 s")
					}
					c := impl.memory(b)
					defer c.close()
					raftLoop(b, c, size, proposers)
				})
			}
		}
	}
}

// BenchmarkRaftDurable measures commits of three nodes in one process, each of which syncs its disk.
func BenchmarkRaftDurable(b *testing.B) {
	for _, size := range []int{16, 1024} {
		for _, proposers := range []int{1, 64, 512} {
			for _, impl := range raftImpls {
				if impl.disk == nil {
					continue
				}
				b.Run(fmt.Sprintf("size=%d/proposers=%d/impl=%s", size, proposers, impl.name), func(b *testing.B) {
					if testing.Short() {
						b.Skip("takes longer than 2 s")
					}
					c := impl.disk(b, b.TempDir())
					defer c.close()
					raftLoop(b, c, size, proposers)
				})
			}
		}
	}
}

// raftLoop is a closed loop: each proposer has one proposal under way.
func raftLoop(b *testing.B, c raftCluster, size, proposers int) {
	command := bytes.Repeat([]byte("x"), size)
	for range 64 { // until a leader is elected and everything is warm
		if err := c.propose(command); err != nil {
			b.Fatal(err)
		}
	}
	raftMeasure(b, proposers, "commits/s", func() error { return c.propose(command) })
}

// raftMeasure runs f b.N times from so many goroutines, and reports rate, latency and processor time.
func raftMeasure(b *testing.B, workers int, unit string, f func() error) {
	var next atomic.Int64
	samples := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	cpu := raftCPU()
	b.ReportAllocs()
	b.ResetTimer()
	for w := range workers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, b.N/workers+16)
			for next.Add(1) <= int64(b.N) {
				begin := time.Now()
				if err := f(); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(begin))
			}
			samples[w] = mine
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(samples...)))
	if len(all) == 0 {
		return
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), unit)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1000, "p99-us")
	b.ReportMetric(float64((raftCPU()-cpu).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
}

func raftCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raftNothing is a state machine that does nothing.
type raftNothing struct{}

func (raftNothing) Apply(coterie.Entry) []byte   { return nil }
func (raftNothing) Query([]byte) ([]byte, error) { return nil, nil }
func (raftNothing) Snapshot() (func(io.Writer) error, error) {
	return func(io.Writer) error { return nil }, nil
}
func (raftNothing) Restore(io.Reader) error { return nil }

// raftFiles are coterie.Snapshots in memory.
type raftFiles struct {
	mu    sync.Mutex
	files map[string][]byte
}

type raftFile struct {
	bytes.Buffer
	store *raftFiles
	name  string
}

func (f *raftFile) Close() error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.store.files == nil {
		f.store.files = map[string][]byte{}
	}
	f.store.files[f.name] = f.Bytes()
	return nil
}

func (s *raftFiles) Create(name string) (io.WriteCloser, error) {
	return &raftFile{store: s, name: name}, nil
}

func (s *raftFiles) Open(name string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *raftFiles) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, name)
	return nil
}

func (s *raftFiles) Names() ([]string, error) { return nil, nil }

func raftCoterieMemory(b *testing.B) raftCluster { return raftCoterie(b, "", nil).raftCluster }

func raftCoterieDisk(b *testing.B, dir string) raftCluster {
	return raftCoterie(b, dir, nil).raftCluster
}

// raftNodes are three raft.Nodes on the in-memory network; the first whose proposals are taken leads.
type raftNodes struct {
	raftCluster
	nodes  []*raft.Node
	leader atomic.Pointer[raft.Node]
}

func raftCoterie(b *testing.B, dir string, change func(*raft.Config)) *raftNodes {
	b.Helper()
	network := transport.NewNetwork(transport.NetworkConfig{Direct: true})
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	r := &raftNodes{}
	var logs []*wal.Log
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		cfg := raft.Config{ID: id, Voters: voters, StateMachine: raftNothing{}, Transport: network.Join(id), Snapshots: &raftFiles{}}
		if dir == "" {
			cfg.Journal = &host.MemoryJournal{}
		} else {
			log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, string(id)), Owner: id})
			if err != nil {
				b.Fatal(err)
			}
			logs = append(logs, log)
			cfg.Journal = log
		}
		if change != nil {
			change(&cfg)
		}
		n, err := raft.Start(cfg)
		if err != nil {
			b.Fatal(err)
		}
		r.nodes = append(r.nodes, n)
	}
	r.leader.Store(r.nodes[0])
	ctx := context.Background()
	r.propose = func(command []byte) error {
		for {
			_, err := r.leader.Load().Propose(ctx, command)
			if !errors.Is(err, coterie.ErrNotLeader) {
				return err
			}
			r.leader.Store(r.find())
		}
	}
	r.close = func() {
		for _, n := range r.nodes {
			if err := n.Close(); err != nil {
				b.Error(err)
			}
		}
		for _, l := range logs {
			_ = l.Close()
		}
	}
	return r
}

// find waits for a leader.
func (r *raftNodes) find() *raft.Node {
	for {
		for _, n := range r.nodes {
			if s := n.Status(); s.Leader == s.ID {
				return n
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkRaftRead measures linearizable reads at the leader from 512 readers, and beside them the writes of as many
// proposers; on disk with a sync for each write, and in memory.
func BenchmarkRaftRead(b *testing.B) {
	for _, storage := range []string{"", "storage=memory/"} {
		for _, mode := range []string{"write", "readindex", "lease"} {
			b.Run(fmt.Sprintf("mode=%s/%simpl=coterie", mode, storage), func(b *testing.B) {
				dir := ""
				if storage == "" {
					dir = b.TempDir()
				}
				r := raftCoterie(b, dir, func(c *raft.Config) { c.LeaseReads = mode == "lease" })
				defer r.close()
				if mode == "write" {
					raftLoop(b, r.raftCluster, 16, 512)
					return
				}
				for range 64 {
					if err := r.propose([]byte("warm")); err != nil {
						b.Fatal(err)
					}
				}
				ctx := context.Background()
				leader := r.leader.Load()
				raftMeasure(b, 512, "reads/s", func() error {
					_, err := leader.Read(ctx, nil)
					return err
				})
			})
		}
	}
}
