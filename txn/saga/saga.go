package saga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// Step is one piece of a saga, or several that run together.
type Step struct {
	Name string // required but for Parallel; unique in its definition, and kept from version to version
	// Do does the work. Its result is kept and shown to later steps and to compensations. It is called again after an
	// error, up to Attempts times, and after a crash, and must return when ctx ends. Required, unless Parallel is set.
	Do func(ctx context.Context, call Call) (result []byte, err error)
	// Undo compensates Do, also when Do may not have happened. nil if there is nothing to undo.
	Undo func(ctx context.Context, call Call) error

	Timeout  time.Duration // of one call of Do or Undo; default 30 s
	Attempts int           // calls of Do before the saga is given up; default 3
	Backoff  time.Duration // pause after the first failure, twice as long after each one more; default 100 ms

	Parallel []Step // if set, these run together, and nothing else of Step may be set
}

// Definition is a kind of saga.
type Definition struct {
	Name    string        // required, unique
	Steps   []Step        // required, in order
	Timeout time.Duration // from the beginning until the saga compensates if it is not done; 0 is never
}

// Call is what Do and Undo are called with.
type Call struct {
	Saga    string            // ID of the saga
	Step    string            // name of the step
	Undo    bool              // it is the compensation
	Attempt int               // from 1; counts anew after a restart
	Input   []byte            // what the saga was begun with; nobody may change it
	Results map[string][]byte // of the steps that are done, by name; nobody may change it
}

// Key is the same for every try of one step, or of its compensation, and another for everything else: an idempotency key
// for the service that is called.
func (c Call) Key() string { return c.key(c.Undo) }

func (c Call) key(undo bool) string {
	what := "do"
	if undo {
		what = "undo"
	}
	// Lengths, so that no two pairs of names make one key.
	return fmt.Sprintf("%d:%s/%d:%s/%s", len(c.Saga), c.Saga, len(c.Step), c.Step, what)
}

// State is how far a saga is.
type State byte

// The states. Done, Compensated and Stuck are ends; Retry leaves Stuck.
const (
	Running      State = iota + 1 // steps are being done
	Compensating                  // done steps are being undone
	Done                          // every step is done
	Compensated                   // everything that may have happened is undone
	Stuck                         // a compensation has failed too often
)

// String returns the state's name in lower case.
func (s State) String() string {
	names := [...]string{"unknown", "running", "compensating", "done", "compensated", "stuck"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", byte(s))
}

// Status is what the engine knows of one saga.
type Status struct {
	ID         string
	Definition string
	State      State
	Begun      time.Time
	Done       []string          // steps done, in the order of their ends
	Undo       []string          // steps still to be undone, in the order of the definition
	Results    map[string][]byte // of the steps done
	Failed     string            // the step that failed, or empty: a timeout, or Cancel
	Reason     string            // why the saga compensates
	Trouble    string            // the newest error of a compensation that is tried again, or that made it Stuck
}

// Errors of this package. They come wrapped: test with errors.Is.
var (
	// ErrCompensated is returned for a saga that did not succeed and was undone: a *CompensatedError says why. To try
	// again, begin one with another ID.
	ErrCompensated = errors.New("saga: compensated")
	// ErrStuck is returned for a saga of which a compensation has failed too often. Mend what it needs, then call Retry.
	ErrStuck = errors.New("saga: stuck")
	// ErrUnknown is returned for an ID that was never begun, or whose saga is over and forgotten, and for the name of a
	// definition that there is not.
	ErrUnknown = errors.New("saga: unknown")
	// ErrExists is returned by Begin and Run for an ID that was begun with another definition or input.
	ErrExists = errors.New("saga: another saga of that ID exists")
	// ErrTooLarge is returned for an input over 1 MiB; a result over it fails its step.
	ErrTooLarge = errors.New("saga: larger than 1 MiB")
)

// CompensatedError is an ErrCompensated that says why.
type CompensatedError struct {
	ID     string
	Step   string // that failed; empty for a timeout and for Cancel
	Reason string
}

// Error names the saga, the step and the reason.
func (e *CompensatedError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("saga: %q compensated: %s", e.ID, e.Reason)
	}
	return fmt.Sprintf("saga: %q compensated: step %q: %s", e.ID, e.Step, e.Reason)
}

// Is reports whether target is ErrCompensated.
func (e *CompensatedError) Is(target error) bool { return target == ErrCompensated }

// refusal is the error of a step that did nothing.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// Refuse wraps the error of a Do that says for certain that nothing happened and that trying again is of no use: no seat
// is left, the card is invalid. The saga compensates at once and, if it was the step's first try, leaves this step out.
func Refuse(err error) error {
	if err == nil {
		err = errors.New("refused")
	}
	return &refusal{err}
}

// check returns the stages of a definition: steps that run together.
func (d *Definition) check() ([][]Step, error) {
	if d.Name == "" {
		return nil, errors.New("no name")
	}
	if len(d.Steps) == 0 || d.Timeout < 0 {
		return nil, fmt.Errorf("%q: no steps, or a negative timeout", d.Name)
	}
	names := map[string]bool{}
	stages := make([][]Step, 0, len(d.Steps))
	for _, s := range d.Steps {
		stage := []Step{s}
		if s.Parallel != nil {
			if s.Do != nil || s.Undo != nil || s.Timeout != 0 || s.Attempts != 0 || s.Backoff != 0 || len(s.Parallel) == 0 {
				return nil, fmt.Errorf("%q: a step with Parallel has steps in it and nothing else", d.Name)
			}
			stage = append([]Step(nil), s.Parallel...)
		}
		for i := range stage {
			if err := stage[i].check(); err != nil {
				return nil, fmt.Errorf("%q: %w", d.Name, err)
			}
			if names[stage[i].Name] {
				return nil, fmt.Errorf("%q: step %q twice", d.Name, stage[i].Name)
			}
			names[stage[i].Name] = true
		}
		stages = append(stages, stage)
	}
	return stages, nil
}

func (s *Step) check() error {
	switch {
	case s.Name == "":
		return errors.New("a step without a name")
	case s.Do == nil:
		return fmt.Errorf("step %q has no Do", s.Name)
	case s.Parallel != nil:
		return fmt.Errorf("step %q: Parallel within Parallel", s.Name)
	case s.Timeout < 0 || s.Attempts < 0 || s.Backoff < 0:
		return fmt.Errorf("step %q: negative Timeout, Attempts or Backoff", s.Name)
	}
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	if s.Attempts == 0 {
		s.Attempts = 3
	}
	if s.Backoff == 0 {
		s.Backoff = 100 * time.Millisecond
	}
	return nil
}

// Config describes an Engine.
type Config struct {
	Journal      coterie.Journal // required; the engine's alone, and not closed by it
	Owner        coterie.NodeID  // whose sagas these are; a journal of another owner is refused
	Definitions  []Definition    // required: at least those of the unfinished sagas in the journal
	MaxOpen      int             // unfinished sagas; default 65,536
	Retain       int             // finished sagas remembered, the newest, so that an ID is not done twice; default 10,000
	UndoAttempts int             // calls of one Undo before the saga is Stuck; default 10
	MaxBackoff   time.Duration   // longest pause between tries; default 1 min
}

func (c Config) withDefaults() Config {
	if c.MaxOpen == 0 {
		c.MaxOpen = 1 << 16
	}
	if c.Retain == 0 {
		c.Retain = 10_000
	}
	if c.UndoAttempts == 0 {
		c.UndoAttempts = 10
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = time.Minute
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Journal == nil:
		return errors.New("saga: Config.Journal is required")
	case len(c.Definitions) == 0:
		return errors.New("saga: Config.Definitions is required")
	case c.MaxOpen < 0:
		return errors.New("saga: Config.MaxOpen is negative")
	case c.Retain < 0:
		return errors.New("saga: Config.Retain is negative")
	case c.UndoAttempts < 0:
		return errors.New("saga: Config.UndoAttempts is negative")
	case c.MaxBackoff < 0:
		return errors.New("saga: Config.MaxBackoff is negative")
	}
	return nil
}
