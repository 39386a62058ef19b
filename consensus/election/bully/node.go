package bully

import "github.com/coterie-go/coterie/consensus/election/internal/reign"

// Node is a running Core. It owns one goroutine, which has ended when Close returns. Leader tells whom it follows,
// Watch every change, Elect begins an election early. Its methods are safe for concurrent use.
type Node struct{ *reign.Node[*Core] }

// Start runs a node. The error names the field of Config that is wrong.
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	n, err := reign.Start("bully", core, reign.Config{ID: cfg.ID, Transport: cfg.Transport, Journal: cfg.Journal, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}
