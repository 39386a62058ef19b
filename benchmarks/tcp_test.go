package benchmarks

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/tcp"
)

// tcpWindow is how many messages may be under way: enough to keep every part of the way busy, and less than a queue
// drops.
const tcpWindow = 16 << 10

// tcpCounter counts what has arrived, and tells the sender now and then.
type tcpCounter struct {
	n     atomic.Int64
	every chan struct{}
}

func (c *tcpCounter) add([]byte) {
	if c.n.Add(1)%(tcpWindow/16) == 0 {
		select {
		case c.every <- struct{}{}:
		default:
		}
	}
}

// BenchmarkTCPOneWay sends small messages to one peer over loopback and counts those that have arrived. raw is what a
// program without this library would write: one goroutine that frames messages, with length and CRC32C, through a
// bufio.Writer, and one that reads them through a bufio.Reader into a slice each.
func BenchmarkTCPOneWay(b *testing.B) {
	for _, impl := range []struct {
		name string
		open func(b *testing.B, arrived *tcpCounter) (send func([]byte) error, flush func() error)
	}{
		{"coterie", tcpCoterie},
		{"raw", tcpRaw},
	} {
		b.Run(fmt.Sprintf("size=64/impl=%s", impl.name), func(b *testing.B) {
			arrived := tcpCounter{every: make(chan struct{}, 1)}
			send, flush := impl.open(b, &arrived)
			payload := make([]byte, 64)
			tcpPump(b, 1000, payload, &arrived, send, flush) // connect and warm up
			arrived.n.Store(0)
			b.ReportAllocs()
			b.ResetTimer()
			tcpPump(b, b.N, payload, &arrived, send, flush)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
			b.SetBytes(int64(len(payload)))
		})
	}
}

// tcpPump sends n messages and returns when all have arrived.
func tcpPump(b *testing.B, n int, payload []byte, arrived *tcpCounter, send func([]byte) error, flush func() error) {
	for sent := range int64(n) {
		for sent-arrived.n.Load() >= tcpWindow {
			if err := flush(); err != nil {
				b.Fatal(err)
			}
			<-arrived.every
		}
		if err := send(payload); err != nil {
			b.Fatal(err)
		}
	}
	if err := flush(); err != nil {
		b.Fatal(err)
	}
	for arrived.n.Load() < int64(n) {
		runtime.Gosched()
	}
}

func tcpCoterie(b *testing.B, arrived *tcpCounter) (send func([]byte) error, flush func() error) {
	to, err := tcp.Start(tcp.Config{ID: "to", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"from": "127.0.0.1:1"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = to.Close() })
	to.Receive(func(_ coterie.NodeID, p []byte) { arrived.add(p) })
	from, err := tcp.Start(tcp.Config{
		ID: "from", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"to": to.Addr().String()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = from.Close() })
	return func(p []byte) error { return from.Send("to", p) }, func() error { return nil }
}

func tcpRaw(b *testing.B, arrived *tcpCounter) (send func([]byte) error, flush func() error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tcpRawReceive(listener, arrived.add) }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		_ = listener.Close()
		if err := <-done; !errors.Is(err, io.EOF) {
			b.Error(err)
		}
	})
	w := bufio.NewWriterSize(conn, 64<<10)
	table := crc32.MakeTable(crc32.Castagnoli)
	header := make([]byte, 8)
	return func(p []byte) error {
		binary.BigEndian.PutUint32(header, uint32(len(p)))
		binary.BigEndian.PutUint32(header[4:], crc32.Checksum(p, table))
		if _, err := w.Write(header); err != nil {
			return err
		}
		_, err := w.Write(p)
		return err
	}, w.Flush
}

func tcpRawReceive(listener net.Listener, handle func([]byte)) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	table := crc32.MakeTable(crc32.Castagnoli)
	header := make([]byte, 8)
	for {
		if _, err := io.ReadFull(r, header); err != nil {
			return err
		}
		p := make([]byte, binary.BigEndian.Uint32(header))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		if crc32.Checksum(p, table) != binary.BigEndian.Uint32(header[4:]) {
			return errors.New("wrong checksum")
		}
		handle(p)
	}
}
