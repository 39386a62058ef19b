package saga

import (
	"fmt"
	"maps"
	"slices"
)

// Status tells how far a saga is. It may be ahead of the disk by one sync. The error is ErrUnknown.
func (e *Engine) Status(id string) (Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	in := e.book.sagas[id]
	if in == nil {
		return Status{}, fmt.Errorf("saga: status of %q: %w", id, ErrUnknown)
	}
	return e.statusLocked(in), nil
}

// Unfinished lists the sagas that are not over, the stuck ones among them, sorted by ID.
func (e *Engine) Unfinished() []Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Status
	for _, id := range slices.Sorted(maps.Keys(e.book.sagas)) {
		if in := e.book.sagas[id]; in.state == Running || in.state == Compensating {
			list = append(list, e.statusLocked(in))
		}
	}
	return list
}

func (e *Engine) statusLocked(in *instance) Status {
	s := Status{ID: in.id, Definition: in.def, State: in.state, Begun: in.begun, Failed: in.failed, Reason: in.reason, Results: map[string][]byte{}}
	for _, d := range in.done {
		s.Done = append(s.Done, d.step)
		s.Results[d.step] = d.value
	}
	if in.state == Compensating {
		s.Undo = slices.Clone(in.left)
	}
	if l := e.live[in.id]; l != nil {
		s.Trouble = l.trouble
		if l.stuck {
			s.State = Stuck
		}
	}
	return s
}

// Metrics counts what an engine has done since its start.
type Metrics struct {
	Done        uint64 // sagas
	Compensated uint64 // sagas
	Retries     uint64 // calls of Do and Undo that failed and were made again
	Syncs       uint64 // forced writes of the journal
}

// Metrics returns the counters.
func (e *Engine) Metrics() Metrics {
	return Metrics{e.done.Load(), e.compensated.Load(), e.retries.Load(), e.syncs.Load()}
}
