package quorum

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
)

// CallConfig changes how CallWith asks. The zero value asks all nodes at once.
type CallConfig struct {
	// Hedge asks only the first nodes that are a quorum, in the order given, and one more whenever this time has gone
	// by without a quorum; one that fails is replaced at once. It trades latency for fewer requests. Default 0, which
	// asks all at once.
	Hedge time.Duration
}

// Result is what one node answered.
type Result[T any] struct {
	Value T
	Err   error // the call of this node failed; Value is as fn returned it
}

// Responses is a call to many nodes, which is made when All, Wait or a combinator asks for the responses, and only
// once. It is not safe for concurrent use.
type Responses[T any] struct {
	call *call[T]
}

// Call asks nodes concurrently by fn, a remote call or any function, until those that answered without error are a
// quorum. Then, and also when a quorum has become impossible or ctx ends, it cancels the context of the calls still
// under way and waits for them, so that no goroutine outlives the call: fn must return soon once its ctx is done.
//
// Without nodes (nil) all of the System are asked, in their order. A node that is named twice is asked once; one that
// the System does not speak of is an error, and nobody is asked.
//
// What a canceled call did on its node is not known. A write that must reach all nodes in the end needs more than a
// quorum call.
func Call[T any](ctx context.Context, sys System, nodes []coterie.NodeID, fn func(context.Context, coterie.NodeID) (T, error)) Responses[T] {
	return CallWith(ctx, CallConfig{}, sys, nodes, fn)
}

// CallWith is Call with a configuration.
func CallWith[T any](ctx context.Context, cfg CallConfig, sys System, nodes []coterie.NodeID, fn func(context.Context, coterie.NodeID) (T, error)) Responses[T] {
	return Responses[T]{&call[T]{ctx: ctx, cfg: cfg, sys: sys.impl(), nodes: nodes, fn: fn}}
}

// All makes the call and yields the responses as they come, failures too, until a quorum has answered: the last one
// completes it, or shows that there will be none. Leaving the loop ends the call. Err then tells how it ended.
func (r Responses[T]) All() iter.Seq2[coterie.NodeID, Result[T]] {
	return func(yield func(coterie.NodeID, Result[T]) bool) {
		if r.call == nil {
			return
		}
		tally := NewTally(System{r.call.sys}, 0)
		left := false
		r.call.run(func(id coterie.NodeID, res Result[T]) bool {
			outcome := tally.Add(id, res.Err == nil)
			left = !yield(id, res)
			return !left && outcome == Pending
		})
		if !left && r.call.err == nil && tally.Outcome() != Won {
			r.call.err = r.call.noQuorum()
		}
	}
}

// Wait makes the call and returns the values of the nodes that answered until there was a quorum. Its error is that of
// Err.
func (r Responses[T]) Wait() (map[coterie.NodeID]T, error) {
	values := make(map[coterie.NodeID]T)
	for id, res := range r.All() {
		if res.Err == nil {
			values[id] = res.Value
		}
	}
	return values, r.Err()
}

// Err returns nil if a quorum answered, if the loop over All was left early, or if the call has not been made. Else it
// returns a *NoQuorumError, which is coterie.ErrNoQuorum, or what was wrong with the arguments.
func (r Responses[T]) Err() error {
	if r.call == nil {
		return errNoCall
	}
	return r.call.err
}

// NodeError is the failure of one node.
type NodeError struct {
	Node coterie.NodeID
	Err  error
}

// Error names the node.
func (e NodeError) Error() string { return string(e.Node) + ": " + e.Err.Error() }

// Unwrap returns the failure.
func (e NodeError) Unwrap() error { return e.Err }

// NoQuorumError is returned when too few nodes answered. It is coterie.ErrNoQuorum, and also each of the errors of the
// nodes and that of the context, if that ended the call.
type NoQuorumError struct {
	Answered []coterie.NodeID // who answered without error, sorted
	Failed   []NodeError      // who failed, in the order in which they did
	Cause    error            // why the context ended; nil if it did not
}

// Error tells who answered and how the others failed.
func (e *NoQuorumError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: answered {%s}", coterie.ErrNoQuorum, list(e.Answered))
	for _, f := range e.Failed {
		fmt.Fprintf(&b, "; %v", f)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, "; %v", e.Cause)
	}
	return b.String()
}

// Unwrap returns coterie.ErrNoQuorum and all that went wrong.
func (e *NoQuorumError) Unwrap() []error {
	errs := []error{coterie.ErrNoQuorum}
	for _, f := range e.Failed {
		errs = append(errs, f)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

var (
	errNoCall    = errors.New("quorum: zero Responses")
	errCallTwice = errors.New("quorum: a call is made only once")
	errExited    = errors.New("quorum: the function ended its goroutine")
)

// call is one fan-out. One goroutine, the caller's, owns all but fn.
type call[T any] struct {
	ctx   context.Context
	cfg   CallConfig
	sys   *system
	nodes []coterie.NodeID
	fn    func(context.Context, coterie.NodeID) (T, error)

	made   bool
	err    error
	asked  []coterie.NodeID // who is asked, in order
	begun  int              // how many of asked have been
	under  Set              // those of which no response has come
	held   Set              // who answered without error, or need not be asked
	failed []NodeError
	cause  error
	enough func() bool // with hedging: whether those asked so far may suffice; nil is the default
}

type arrival[T any] struct {
	node int // index in asked
	res  Result[T]
}

// run asks the nodes and hands their responses to each until it returns false, all have answered or the context ends;
// then it waits for the calls under way.
func (c *call[T]) run(each func(coterie.NodeID, Result[T]) bool) {
	if c.err = c.prepare(); c.err != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	results := make(chan arrival[T], len(c.asked))
	start := func() {
		i := c.begun
		c.begun++
		c.under = c.under.With(c.sys.index(c.asked[i]))
		go func() {
			a := arrival[T]{node: i, res: Result[T]{Err: errExited}}
			defer func() { results <- a }() // also when fn calls runtime.Goexit
			a.res.Value, a.res.Err = c.fn(ctx, c.asked[i])
		}()
	}
	arrived := 0
	defer func() {
		cancel()
		for ; arrived < c.begun; arrived++ {
			c.note(<-results)
		}
	}()
	hedge, stop := c.hedge()
	defer stop()
	c.fill(start)
	for arrived < len(c.asked) {
		select {
		case a := <-results:
			arrived++
			c.note(a)
			if !each(c.asked[a.node], a.res) {
				return
			}
			c.fill(start)
		case <-hedge:
			if c.begun < len(c.asked) {
				start()
			}
		case <-c.ctx.Done():
			c.cause = context.Cause(c.ctx)
			return
		}
	}
}

// fill starts as many calls as it takes for a quorum if no more fail; all of them without hedging.
func (c *call[T]) fill(start func()) {
	for c.begun < len(c.asked) {
		if c.cfg.Hedge > 0 && (c.enough != nil && c.enough() || c.enough == nil && c.sys.root.opens(c.held|c.under)) {
			return
		}
		start()
	}
}

// hedge returns a channel that ticks when one more node is to be asked.
func (c *call[T]) hedge() (ticks <-chan time.Time, stop func()) {
	if c.cfg.Hedge <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(c.cfg.Hedge)
	return t.C, t.Stop
}

// note counts a response.
func (c *call[T]) note(a arrival[T]) {
	id := c.asked[a.node]
	i := c.sys.index(id)
	c.under = c.under.Without(i)
	if a.res.Err != nil {
		c.failed = append(c.failed, NodeError{id, a.res.Err})
		return
	}
	c.held = c.held.With(i)
}

// prepare checks the arguments and the context.
func (c *call[T]) prepare() error {
	if c.made {
		return errCallTwice
	}
	c.made = true
	if c.sys.err != nil {
		return c.sys.err
	}
	if c.fn == nil {
		return errors.New("quorum: Call without a function")
	}
	nodes := c.nodes
	if nodes == nil {
		nodes = c.sys.ids
	}
	named := c.held
	c.asked = make([]coterie.NodeID, 0, len(nodes))
	for _, id := range nodes {
		i := c.sys.index(id)
		if i < 0 {
			return fmt.Errorf("quorum: Call names node %q, of which the System does not speak", id)
		}
		if !named.Has(i) {
			named = named.With(i)
			c.asked = append(c.asked, id)
		}
	}
	if !c.sys.root.opens(named) {
		return fmt.Errorf("quorum: Call names nodes that are no quorum: %w", c.noQuorum())
	}
	if c.ctx.Err() != nil {
		c.cause = context.Cause(c.ctx)
		return c.noQuorum()
	}
	return nil
}

// noQuorum tells how the call ended.
func (c *call[T]) noQuorum() error {
	return &NoQuorumError{
		Answered: System{c.sys}.IDs(c.held),
		Failed:   slices.Clone(c.failed),
		Cause:    c.cause,
	}
}
