package saga

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

var (
	errCancelled = errors.New("cancelled")
	errTimeout   = errors.New("the saga took too long")
	errSibling   = errors.New("a step beside it failed")
)

// worker does or undoes one saga, on its own goroutine. That the same goroutine that starts the steps also decides to
// compensate, and only when all that it started have returned, is what keeps a step from beginning or ending afterwards.
type worker struct {
	e        *Engine
	live     *live
	id       string
	kind     *kind
	input    []byte
	deadline time.Time // for doing; zero is never
	resumed  bool      // a step may have been tried before the start
}

// run goes on with the saga until it is over, stuck, or the engine stops. It reports whether it is stuck.
func (w *worker) run(compensating bool) (stuck bool) {
	if !compensating {
		failed, undo := w.forward()
		switch {
		case w.e.ctx.Err() != nil:
			return false
		case failed == nil:
			w.e.done.Add(1)
			return false
		}
		rec := &record{kind: recordCompensating, id: w.id, step: failed.step, reason: clip(failed.err.Error()), steps: undo}
		if w.e.commit(rec) != nil {
			return false
		}
	}
	return w.backward()
}

// clip bounds a text that goes into the journal.
func clip(s string) string { return s[:min(len(s), 1024)] }

// failure is why a saga compensates.
type failure struct {
	step string // empty: none in particular
	err  error
}

// forward does the steps that are left, stage by stage. If one fails it returns why, and which steps are to be undone.
func (w *worker) forward() (failed *failure, undo []string) {
	ctx := w.live.ctx
	if !w.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, w.deadline, errTimeout)
		defer cancel()
	}
	for _, stage := range w.kind.stages {
		left, results := w.view()
		todo := slices.DeleteFunc(slices.Clone(stage), func(s Step) bool { return !slices.Contains(left, s.Name) })
		if len(todo) == 0 {
			continue
		}
		attempted := make([]bool, len(todo))
		if ctx.Err() != nil {
			failed = &failure{err: context.Cause(ctx)}
			for i := range attempted {
				attempted[i] = w.resumed
			}
		} else {
			failed = w.together(ctx, todo, results, attempted)
		}
		w.resumed = false
		if failed != nil {
			return failed, w.toUndo(todo, attempted)
		}
	}
	return nil, nil
}

// view is what the journal says of the saga.
func (w *worker) view() (left []string, results map[string][]byte) {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	in := w.live.in
	results = make(map[string][]byte, len(in.done))
	for _, d := range in.done {
		results[d.step] = d.value
	}
	return slices.Clone(in.left), results
}

// together does the steps of a stage and returns when all of them have returned, with the first failure. attempted
// tells which may have happened.
func (w *worker) together(ctx context.Context, todo []Step, results map[string][]byte, attempted []bool) *failure {
	if len(todo) == 1 {
		var err error
		attempted[0], err = w.do(ctx, &todo[0], results)
		if err != nil {
			return &failure{todo[0].Name, err}
		}
		return w.expired(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards first
		first *failure
	)
	for i := range todo {
		wg.Go(func() {
			var err error
			attempted[i], err = w.do(ctx, &todo[i], maps.Clone(results))
			if err == nil {
				return
			}
			mu.Lock()
			if first == nil {
				first = &failure{todo[i].Name, err}
			}
			mu.Unlock()
			cancel(errSibling)
		})
	}
	wg.Wait()
	if first == nil {
		return w.expired(ctx)
	}
	return first
}

// expired is the failure of a saga whose time is over although its steps went well; a saga that is done stays so.
func (w *worker) expired(ctx context.Context) *failure {
	if left, _ := w.view(); ctx.Err() == nil || len(left) == 0 {
		return nil
	}
	return &failure{err: context.Cause(ctx)}
}

// do does one step, with retries, and notes that it is done. attempted is false only if it certainly did nothing.
func (w *worker) do(ctx context.Context, s *Step, results map[string][]byte) (attempted bool, err error) {
	for attempt := 1; ; attempt++ {
		call := Call{Saga: w.id, Step: s.Name, Attempt: attempt, Input: w.input, Results: results}
		value, err := w.doOnce(ctx, s, call)
		if err == nil {
			// The step has happened, whatever has become of ctx meanwhile.
			return true, w.e.commit(&record{kind: recordDone, id: w.id, step: s.Name, blob: value})
		}
		if refused, ok := errors.AsType[*refusal](err); ok {
			return attempt > 1 || w.resumed, refused.err
		}
		if cause := context.Cause(ctx); cause != nil {
			return true, fmt.Errorf("%w: %w", cause, err)
		}
		if attempt >= s.Attempts {
			return true, err
		}
		w.e.retries.Add(1)
		if !w.pause(ctx, s.Backoff, attempt) {
			return true, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (w *worker) doOnce(ctx context.Context, s *Step, call Call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	value, err := s.Do(ctx, call)
	if err == nil && len(value) > maxBlob {
		return nil, fmt.Errorf("result of %d bytes: %w", len(value), ErrTooLarge)
	}
	return value, err
}

// pause waits before the next try; false if ctx ends first.
func (w *worker) pause(ctx context.Context, base time.Duration, attempt int) bool {
	wait := base
	for i := 1; i < attempt && wait < w.e.cfg.MaxBackoff; i++ {
		wait *= 2
	}
	timer := time.NewTimer(min(wait, w.e.cfg.MaxBackoff))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// toUndo lists what may have happened and can be undone, in the order of the definition.
func (w *worker) toUndo(todo []Step, attempted []bool) (names []string) {
	_, done := w.view()
	for _, stage := range w.kind.stages {
		for _, s := range stage {
			_, happened := done[s.Name]
			if i := slices.IndexFunc(todo, func(t Step) bool { return t.Name == s.Name }); i >= 0 {
				happened = happened || attempted[i]
			}
			if happened && s.Undo != nil {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// backward undoes what is left to undo, stage by stage in reverse. It reports whether the saga is stuck.
func (w *worker) backward() (stuck bool) {
	for _, stage := range slices.Backward(w.kind.stages) {
		left, results := w.view()
		var wg sync.WaitGroup
		failed := make([]bool, len(stage))
		for i := range stage {
			if slices.Contains(left, stage[i].Name) {
				wg.Go(func() { failed[i] = !w.undo(&stage[i], results) })
			}
		}
		wg.Wait()
		switch {
		case w.e.ctx.Err() != nil:
			return false
		case slices.Contains(failed, true):
			return true
		}
	}
	w.e.compensated.Add(1)
	return false
}

// undo compensates one step, with retries, and notes it; false if it failed too often or the engine stops.
func (w *worker) undo(s *Step, results map[string][]byte) bool {
	for attempt := 1; ; attempt++ {
		err := w.undoOnce(s, Call{Saga: w.id, Step: s.Name, Undo: true, Attempt: attempt, Input: w.input, Results: maps.Clone(results)})
		if err == nil {
			return w.e.commit(&record{kind: recordUndone, id: w.id, step: s.Name}) == nil
		}
		w.e.mu.Lock()
		w.live.trouble = fmt.Sprintf("undo of step %q: %v", s.Name, err)
		w.e.mu.Unlock()
		if attempt >= w.e.cfg.UndoAttempts {
			return false
		}
		w.e.retries.Add(1)
		if !w.pause(w.e.ctx, s.Backoff, attempt) {
			return false
		}
	}
}

// undoOnce calls Undo under the engine's ctx: a cancelled saga still compensates.
func (w *worker) undoOnce(s *Step, call Call) error {
	ctx, cancel := context.WithTimeout(w.e.ctx, s.Timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Undo(ctx, call)
}
