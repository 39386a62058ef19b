package raft

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coterie-go/coterie/transport/sim"
)

func TestDbg(t *testing.T) {
	var seed uint64
	var nodes int
	fmt.Sscan(os.Getenv("DBG"), &nodes, &seed)
	tr := &sim.Trace{}
	o := drawOptions(seed, nodes)
	o.trace = tr
	s := newSimCluster(o)
	err := s.run()
	f, _ := os.Create("/tmp/raft-dbg.json")
	tr.WriteJSON(f)
	f.Close()
	fmt.Println(strings.ReplaceAll(fmt.Sprint(err), "\\n", "\n"))
}
