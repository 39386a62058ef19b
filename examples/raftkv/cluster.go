package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/transport"
)

// cluster is the three processes.
type cluster struct {
	dir     string
	ids     []coterie.NodeID
	members []string                             // id=host:port, for the replicas
	urls    map[coterie.NodeID]string            // for clients
	clients map[coterie.NodeID]*consensus.Client // of one replica each
	running map[coterie.NodeID]*process
	ca      *transport.ThrowawayCA
	listen  map[coterie.NodeID]string // of those that joined later
}

type process struct {
	*exec.Cmd
	stdin io.Closer
}

// startCluster makes folders and certificates and starts this program three times more.
func startCluster(ctx context.Context, dir string) (*cluster, error) {
	c := &cluster{
		dir: dir, ids: []coterie.NodeID{"a", "b", "c"}, urls: map[coterie.NodeID]string{},
		clients: map[coterie.NodeID]*consensus.Client{}, running: map[coterie.NodeID]*process{},
		listen: map[coterie.NodeID]string{},
	}
	var err error
	if c.ca, err = transport.NewThrowawayCA(); err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2 * len(c.ids))
	if err != nil {
		return nil, err
	}
	for i, id := range c.ids {
		c.members = append(c.members, fmt.Sprintf("%s=%s", id, addrs[2*i]))
		c.urls[id] = "http://" + addrs[2*i+1]
	}
	for _, id := range c.ids {
		if err := c.create(ctx, id); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

// create makes a replica's folder with its certificates, starts it and connects a client to it.
func (c *cluster) create(ctx context.Context, id coterie.NodeID) error {
	cert, key, roots, err := c.ca.PEM(id)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.folder(id), 0o700); err != nil {
		return err
	}
	for name, pem := range map[string][]byte{"cert.pem": cert, "key.pem": key, "roots.pem": roots} {
		if err := os.WriteFile(filepath.Join(c.folder(id), name), pem, 0o600); err != nil {
			return err
		}
	}
	if err := c.start(id); err != nil {
		return err
	}
	c.clients[id], err = consensus.Dial(ctx, consensus.ClientConfig{Addrs: map[coterie.NodeID]string{id: c.urls[id]}})
	return err
}

func (c *cluster) folder(id coterie.NodeID) string { return filepath.Join(c.dir, string(id)) }

func (c *cluster) start(id coterie.NodeID) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"-id", string(id), "-dir", c.folder(id), "-http", c.urls[id][len("http://"):], "-listen", c.listen[id]}
	args = append(args, c.members...)
	p := &process{Cmd: exec.Command(self, args...)}
	log, err := os.OpenFile(filepath.Join(c.folder(id), "stderr.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	p.Stderr = log
	if p.stdin, err = p.StdinPipe(); err != nil {
		return errors.Join(err, log.Close())
	}
	if err := errors.Join(p.Start(), log.Close()); err != nil { // the child has the file for its own
		return err
	}
	c.running[id] = p
	return nil
}

// kill ends a process as a power cut would: SIGKILL, nothing is flushed.
func (c *cluster) kill(id coterie.NodeID) error {
	if err := c.running[id].Process.Kill(); err != nil {
		return err
	}
	_ = c.running[id].Wait() // "signal: killed"
	delete(c.running, id)
	return nil
}

// leader asks each replica until one knows the leader.
func (c *cluster) leader(ctx context.Context) (coterie.NodeID, error) {
	for {
		for _, id := range c.ids {
			if s := c.clients[id].Status(); s.ID == id && s.Leader == id { // a follower's word may be old
				return id, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("no leader: %w; see the stderr.log files in %s", ctx.Err(), c.dir)
		}
	}
}

// stop ends the processes in good order.
func (c *cluster) stop() error {
	var errs []error
	for _, p := range c.running {
		errs = append(errs, p.stdin.Close(), p.Wait())
	}
	return errors.Join(errs...)
}

func freeAddrs(n int) ([]string, error) {
	var addrs []string
	var listeners []net.Listener // closed at the end, so that none is found twice
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		addrs = append(addrs, l.Addr().String())
	}
	for _, l := range listeners {
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}
