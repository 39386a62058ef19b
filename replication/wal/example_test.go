package wal_test

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/coterie-go/coterie/replication/wal"
)

func tempDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

func Example() {
	dir, remove := tempDir()
	defer remove()
	for range 2 { // the second time it finds what the first wrote
		l, err := wal.Open(wal.Config{Dir: dir, Owner: "node-1"})
		if err != nil {
			log.Fatal(err)
		}
		err = l.Replay(func(record []byte) error {
			fmt.Printf("remembered %q\n", record)
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := l.Append([]byte("term 1"), []byte("vote for node-2")); err != nil {
			log.Fatal(err) // final: what is on the disk is not known any more
		}
		if err := l.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// remembered "term 1"
	// remembered "vote for node-2"
}

func ExampleLog_Stream() {
	dir, remove := tempDir()
	defer remove()
	l, err := wal.Open(wal.Config{Dir: dir, Owner: "node-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	for i := range 3 { // three groups, one file
		group := l.Stream(fmt.Sprint("group-", i))
		for k := range 5 {
			if err := group.Append(fmt.Appendf(nil, "entry %d of %d", k, i)); err != nil {
				log.Fatal(err)
			}
		}
		if err := group.Keep(1); err != nil { // a record that stands alone: the rest may go
			log.Fatal(err)
		}
	}
	err = l.Stream("group-1").Replay(func(record []byte) error {
		fmt.Printf("%s\n", record)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: entry 4 of 1
}

func ExampleOpenSnapshots() {
	dir, remove := tempDir()
	defer remove()
	snapshots, err := wal.OpenSnapshots(dir)
	if err != nil {
		log.Fatal(err)
	}
	w, err := snapshots.Create("state-7")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(w, "everything up to entry 7"); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil { // only now it is there, and durable
		log.Fatal(err)
	}
	r, err := snapshots.Open("state-7")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", b, err)
	// Output: everything up to entry 7 <nil>
}
