package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn/saga"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// services is everything that the steps of a saga reach: a table of marks for Once, and a log of what happened. It
// outlives the process, which may crash at any point that it passes.
type services struct {
	mu     sync.Mutex
	marks  map[string]bool
	log    []string // "a", "-a": what took effect, in order
	calls  []string // what was called
	points int
	crash  []int // at these points
	dead   bool
}

func newServices() *services { return &services{marks: map[string]bool{}} }

var errCrash = errors.New("crash")

// point is passed before and after everything that lasts.
func (s *services) point() error {
	s.points++
	if slices.Contains(s.crash, s.points) {
		s.dead = true
	}
	if s.dead {
		return errCrash
	}
	return nil
}

// Insert is for Once; the caller holds mu, which makes a transaction of it.
func (s *services) Insert(_ context.Context, key string) (bool, error) {
	fresh := !s.marks[key]
	s.marks[key] = true
	return fresh, nil
}

// reach is a call that takes effect at most once.
func (s *services) reach(ctx context.Context, c saga.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := c.Step
	if c.Undo {
		name = "-" + name
	}
	if err := s.point(); err != nil {
		return err
	}
	s.calls = append(s.calls, name)
	err := saga.Once(ctx, s, c, func(context.Context) error {
		s.log = append(s.log, name)
		return nil
	})
	return errors.Join(err, s.point())
}

// step reaches the services and, if fail is not nil, fails as it says, after the effect.
func (s *services) step(name string, fail func(saga.Call) error) saga.Step {
	return saga.Step{
		Name: name,
		Do: func(ctx context.Context, c saga.Call) ([]byte, error) {
			if fail != nil {
				if err := fail(c); err != nil {
					if !errors.Is(err, errSeats) {
						err = errors.Join(err, s.reach(ctx, c))
					}
					return nil, err
				}
			}
			return []byte(name + "!"), s.reach(ctx, c)
		},
		Undo: func(ctx context.Context, c saga.Call) error { return s.reach(ctx, c) },
	}
}

// crashJournal passes points of the services before and after each record, and keeps what was durable.
type crashJournal struct {
	host.MemoryJournal
	s *services
}

func (j *crashJournal) Append(records ...[]byte) error {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	for _, r := range records {
		if err := j.s.point(); err != nil {
			return err
		}
		if err := j.MemoryJournal.Append(r); err != nil {
			return err
		}
		if err := j.s.point(); err != nil {
			return err
		}
	}
	return nil
}

var (
	errSeats  = errors.New("no seats")
	errBroken = errors.New("connection reset")
)

func refused(saga.Call) error { return saga.Refuse(errSeats) }
func broken(saga.Call) error  { return errBroken }

// trip is three stages: a, then b beside c, then d, which may fail.
func trip(s *services, fail func(saga.Call) error) saga.Definition {
	return saga.Definition{Name: "trip", Timeout: time.Hour, Steps: []saga.Step{
		s.step("a", nil),
		{Parallel: []saga.Step{s.step("b", nil), s.step("c", nil)}},
		s.step("d", fail),
	}}
}

// outlive is a run of one saga: it starts an engine again after each crash until the saga is over.
func outlive(s *services, define func() saga.Definition) (saga.Status, error) {
	j := &crashJournal{s: s}
	for range 4 {
		s.mu.Lock()
		s.dead = false
		s.mu.Unlock()
		e, err := saga.Start(saga.Config{Journal: j, Definitions: []saga.Definition{define()}})
		if errors.Is(err, errCrash) {
			continue
		}
		if err != nil {
			return saga.Status{}, err
		}
		err = e.Run(context.Background(), "trip", "1", []byte("in"))
		s.mu.Lock()
		died := s.dead
		s.mu.Unlock()
		status, _ := e.Status("1")
		_ = e.Close()
		if !died && (err == nil || errors.Is(err, saga.ErrCompensated)) {
			return status, nil
		}
		if !died {
			return status, err
		}
	}
	return saga.Status{}, errors.New("too many lives")
}

// verdict checks that a saga ended fully done or fully undone, each effect at most once, in an order that is right.
func verdict(s *services, status saga.Status, want saga.State) error {
	if status.State != want {
		return fmt.Errorf("%v, want %v", status.State, want)
	}
	in := map[string]int{}
	for i, what := range s.log {
		name, undone := strings.CutPrefix(what, "-")
		if slices.Contains(s.log[:i], what) {
			return fmt.Errorf("%q twice in %v", what, s.log)
		}
		if undone {
			in[name]--
		} else {
			in[name]++
		}
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		if n := in[name]; n != 0 && want == saga.Compensated || n != 1 && want == saga.Done {
			return fmt.Errorf("%v, but %q counts %d in %v", want, name, n, s.log)
		}
	}
	stage := map[string]int{"a": 1, "b": 2, "c": 2, "d": 3, "-d": 4, "-b": 5, "-c": 5, "-a": 6}
	if !slices.IsSortedFunc(s.log, func(x, y string) int { return stage[x] - stage[y] }) {
		return fmt.Errorf("out of order: %v", s.log)
	}
	return nil
}

var endings = []struct {
	name string
	fail func(saga.Call) error
	want saga.State
}{
	{"succeeds", nil, saga.Done},
	{"is refused", refused, saga.Compensated},
	{"fails, and has happened", broken, saga.Compensated},
	{"fails twice", func(c saga.Call) error {
		if c.Attempt < 3 {
			return errBroken
		}
		return nil
	}, saga.Done},
}

// crashing runs one saga of an ending with crashes, and returns how many points it passed.
func crashing(t *testing.T, ending int, points ...int) int {
	t.Helper()
	s := newServices()
	s.crash = points
	var status saga.Status
	var err error
	synctest.Test(t, func(*testing.T) {
		status, err = outlive(s, func() saga.Definition { return trip(s, endings[ending].fail) })
	})
	if err == nil {
		err = verdict(s, status, endings[ending].want)
	}
	require.NoError(t, err, "the last step %s, crashes at points %d: %v", endings[ending].name, points, s.calls)
	return s.points
}

// A crash before and after every record and every effect, and every two of them.
func TestEveryCrash(t *testing.T) {
	once, twice := 0, 0
	for ending := range endings {
		whole := crashing(t, ending)
		for first := 1; first <= whole; first++ {
			once++
			for second, points := first+1, crashing(t, ending, first); second <= points; second++ {
				if testsize.Race() && second%10 != 0 {
					continue
				}
				crashing(t, ending, first, second)
				twice++
			}
		}
	}
	t.Logf("%d crashes tried, %d pairs of them", once, twice)
	require.Greater(t, once, 80)
}

// inBubble runs f with an engine of one definition.
func inBubble(t *testing.T, cfg saga.Config, f func(t *testing.T, e *saga.Engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if cfg.Journal == nil {
			cfg.Journal = &host.MemoryJournal{}
		}
		e, err := saga.Start(cfg)
		require.NoError(t, err)
		defer e.Close()
		f(t, e)
	})
}

func TestResultsAndForcedWrites(t *testing.T) {
	s := newServices()
	seen := map[string][]byte{}
	d := trip(s, nil)
	d.Steps = append(d.Steps, saga.Step{Name: "e", Do: func(_ context.Context, c saga.Call) ([]byte, error) {
		seen = c.Results
		require.Equal(t, "in", string(c.Input))
		return nil, nil
	}})
	d.Steps = []saga.Step{d.Steps[0], d.Steps[2], d.Steps[3]} // one after the other
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}}, func(t *testing.T, e *saga.Engine) {
		require.NoError(t, e.Run(t.Context(), "trip", "1", []byte("in")))
		require.Equal(t, map[string][]byte{"a": []byte("a!"), "d": []byte("d!")}, seen)
		require.Equal(t, uint64(4), e.Metrics().Syncs, "n+1 forced writes for n steps")
		require.NoError(t, e.Run(t.Context(), "trip", "1", []byte("in")), "again is the same saga")
		require.Equal(t, []string{"a", "d"}, s.calls)
		require.ErrorIs(t, e.Begin(t.Context(), "trip", "1", []byte("other")), saga.ErrExists)
		require.Equal(t, uint64(1), e.Metrics().Done)
		require.Equal(t, uint64(4), e.Metrics().Syncs)
		status, err := e.Status("1")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "d", "e"}, status.Done)
		require.Empty(t, e.Unfinished())
	})
}

func TestRefusedStepIsNotUndone(t *testing.T) {
	s := newServices()
	inBubble(t, saga.Config{Definitions: []saga.Definition{trip(s, refused)}}, func(t *testing.T, e *saga.Engine) {
		err := e.Run(t.Context(), "trip", "1", nil)
		var c *saga.CompensatedError
		require.ErrorAs(t, err, &c)
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.Equal(t, saga.CompensatedError{ID: "1", Step: "d", Reason: "no seats"}, *c)
		require.NotContains(t, s.calls, "-d")
		require.Equal(t, "-a", s.calls[len(s.calls)-1])
	})
}

// A first try that may have happened is undone although a later one refuses.
func TestRefusalAfterAnUnknownOutcomeIsUndone(t *testing.T) {
	s := newServices()
	fail := func(c saga.Call) error {
		if c.Attempt == 1 {
			return errBroken
		}
		return saga.Refuse(errSeats)
	}
	inBubble(t, saga.Config{Definitions: []saga.Definition{trip(s, fail)}}, func(t *testing.T, e *saga.Engine) {
		require.ErrorIs(t, e.Run(t.Context(), "trip", "1", nil), saga.ErrCompensated)
		status, err := e.Status("1")
		require.NoError(t, err)
		require.NoError(t, verdict(s, status, saga.Compensated))
		require.Contains(t, s.log, "-d")
	})
}

// The saga's time is over while a step's answer is on its way (apache/camel, CAMEL-19031): no step begins any more, the
// late success is undone exactly once, and nothing is undone while the step still runs.
func TestTimeoutWhileAStepRuns(t *testing.T) {
	s := newServices()
	running := false
	d := trip(s, nil)
	d.Timeout = time.Second
	slow := s.step("b", nil)
	do, undo := slow.Do, slow.Undo
	slow.Do = func(_ context.Context, c saga.Call) ([]byte, error) {
		running = true
		defer func() { running = false }()
		time.Sleep(5 * time.Second) // it does not look at ctx
		return do(context.Background(), c)
	}
	slow.Undo = func(ctx context.Context, c saga.Call) error {
		if running {
			t.Error("undone while it runs")
		}
		return undo(ctx, c)
	}
	d.Steps = []saga.Step{s.step("a", nil), slow, s.step("d", nil)}
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}}, func(t *testing.T, e *saga.Engine) {
		err := e.Run(t.Context(), "trip", "1", nil)
		require.ErrorIs(t, err, saga.ErrCompensated)
		require.ErrorContains(t, err, "took too long")
		require.Equal(t, []string{"a", "b", "-b", "-a"}, s.calls)
	})
}

func TestStepTimeout(t *testing.T) {
	s := newServices()
	d := saga.Definition{Name: "trip", Steps: []saga.Step{s.step("a", nil), {Name: "b", Timeout: time.Second, Attempts: 2,
		Do: func(ctx context.Context, _ saga.Call) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }}}}
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}}, func(t *testing.T, e *saga.Engine) {
		begun := time.Now()
		require.ErrorIs(t, e.Run(t.Context(), "trip", "1", nil), saga.ErrCompensated)
		require.Equal(t, 2*time.Second+100*time.Millisecond, time.Since(begun))
		require.Equal(t, []string{"a", "-a"}, s.log)
	})
}

func TestCancel(t *testing.T) {
	s := newServices()
	d := saga.Definition{Name: "trip", Steps: []saga.Step{s.step("a", nil), {Name: "b",
		Do: func(ctx context.Context, _ saga.Call) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }}}}
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}}, func(t *testing.T, e *saga.Engine) {
		require.NoError(t, e.Begin(t.Context(), "trip", "1", nil))
		synctest.Wait()
		status, err := e.Status("1")
		require.NoError(t, err)
		require.Equal(t, saga.Running, status.State)
		require.Equal(t, []string{"a"}, status.Done)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		require.ErrorIs(t, e.Wait(ctx, "1"), coterie.ErrUnknownOutcome)
		require.NoError(t, e.Cancel("1", errors.New("changed my mind")))
		require.ErrorContains(t, e.Wait(t.Context(), "1"), "changed my mind")
		require.Equal(t, []string{"a", "-a"}, s.log)
		require.ErrorIs(t, e.Cancel("1", nil), saga.ErrUnknown)
	})
}

// Retries of a compensation pause longer each time and end (dtm-labs/dtm#306 retried one 80 times a second for ever).
func TestCompensationRetriesAreBounded(t *testing.T) {
	s := newServices()
	var tries []time.Time
	healed := false
	a := s.step("a", nil)
	undo := a.Undo
	a.Undo = func(ctx context.Context, c saga.Call) error {
		tries = append(tries, time.Now())
		if !healed {
			return errBroken
		}
		return undo(ctx, c)
	}
	d := saga.Definition{Name: "trip", Steps: []saga.Step{a, s.step("d", refused)}}
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}, UndoAttempts: 6, MaxBackoff: time.Second}, func(t *testing.T, e *saga.Engine) {
		err := e.Run(t.Context(), "trip", "1", nil)
		require.ErrorIs(t, err, saga.ErrStuck)
		require.ErrorContains(t, err, "connection reset")
		var pauses []time.Duration
		for i := range tries[1:] {
			pauses = append(pauses, tries[i+1].Sub(tries[i]).Round(time.Millisecond))
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1000 * ms}, pauses)
		require.Len(t, e.Unfinished(), 1)
		require.Equal(t, saga.Stuck, e.Unfinished()[0].State)
		time.Sleep(time.Hour)
		require.Len(t, tries, 6)

		healed = true
		require.NoError(t, e.Retry("1"))
		require.ErrorIs(t, e.Wait(t.Context(), "1"), saga.ErrCompensated)
		require.ErrorIs(t, e.Retry("1"), saga.ErrUnknown)
		require.Equal(t, []string{"a", "-a"}, s.log)
	})
}

// A step that took effect before a crash hid it is undone, also if it is refused when it is tried again, and if the saga's
// time is over before it is.
func TestStepThatHappenedBeforeACrash(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newServices()
			j := &crashJournal{s: s}
			crashed := false
			define := func() saga.Definition {
				return trip(s, func(saga.Call) error {
					if crashed {
						return saga.Refuse(errSeats)
					}
					s.mu.Lock()
					s.crash = []int{s.points + 2} // after the effect
					s.mu.Unlock()
					return nil
				})
			}
			e, err := saga.Start(saga.Config{Journal: j, Definitions: []saga.Definition{define()}})
			require.NoError(t, err)
			require.ErrorIs(t, e.Run(t.Context(), "trip", "1", nil), coterie.ErrUnknownOutcome)
			require.ErrorIs(t, e.Close(), errCrash)
			require.Contains(t, s.log, "d")
			crashed, s.dead = true, false
			if late {
				time.Sleep(2 * time.Hour)
			}
			e, err = saga.Start(saga.Config{Journal: j, Definitions: []saga.Definition{define()}})
			require.NoError(t, err)
			defer e.Close()
			require.ErrorIs(t, e.Wait(t.Context(), "1"), saga.ErrCompensated)
			status, err := e.Status("1")
			require.NoError(t, err)
			require.NoError(t, verdict(s, status, saga.Compensated))
		})
	}
}

// When one of parallel steps fails the others are told to stop, and all that may have happened is undone.
func TestParallelSteps(t *testing.T) {
	s := newServices()
	d := saga.Definition{Name: "trip", Steps: []saga.Step{{Parallel: []saga.Step{
		s.step("a", nil),
		{Name: "b", Do: func(ctx context.Context, c saga.Call) ([]byte, error) {
			<-ctx.Done()
			return nil, errors.Join(ctx.Err(), s.reach(ctx, c))
		}, Undo: s.step("b", nil).Undo},
		s.step("c", func(saga.Call) error { time.Sleep(time.Second); return saga.Refuse(errSeats) }),
	}}}}
	inBubble(t, saga.Config{Definitions: []saga.Definition{d}}, func(t *testing.T, e *saga.Engine) {
		require.ErrorContains(t, e.Run(t.Context(), "trip", "1", nil), "no seats")
		slices.Sort(s.log)
		require.Equal(t, []string{"-a", "-b", "a", "b"}, s.log)
	})
}

func TestCloseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, j := newServices(), &host.MemoryJournal{}
		hang := true
		d := saga.Definition{Name: "trip", Steps: []saga.Step{s.step("a", nil), {Name: "b", Do: func(ctx context.Context, _ saga.Call) ([]byte, error) {
			if hang {
				<-ctx.Done()
			}
			return nil, ctx.Err()
		}}, s.step("d", nil)}}
		cfg := saga.Config{Journal: j, Owner: "me", Definitions: []saga.Definition{d}}
		e, err := saga.Start(cfg)
		require.NoError(t, err)
		require.NoError(t, e.Begin(t.Context(), "trip", "1", nil))
		synctest.Wait()
		require.NoError(t, e.Close())
		require.ErrorIs(t, e.Wait(t.Context(), "1"), coterie.ErrUnknownOutcome)
		require.ErrorIs(t, e.Begin(t.Context(), "trip", "2", nil), coterie.ErrClosed)
		require.NoError(t, e.Close())

		for what, spoil := range map[string]func(*saga.Config){
			`that of "me"`: func(c *saga.Config) { c.Owner = "you" },
			`lacks its`:    func(c *saga.Config) { c.Definitions = []saga.Definition{{Name: "x", Steps: d.Steps}} },
			`lacks step`:   func(c *saga.Config) { c.Definitions = []saga.Definition{{Name: "trip", Steps: d.Steps[:1]}} },
		} {
			wrong := cfg
			spoil(&wrong)
			_, err := saga.Start(wrong)
			require.ErrorContains(t, err, what)
		}
		hang = false
		e, err = saga.Start(cfg)
		require.NoError(t, err)
		defer e.Close()
		require.NoError(t, e.Wait(t.Context(), "1"))
		require.Equal(t, []string{"a", "d"}, s.calls)
	})
}

// Sagas that run together share syncs, and the journal stays short.
func TestManySagas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &countingJournal{}
		steps := make([]saga.Step, 4)
		for i := range steps {
			steps[i] = saga.Step{Name: fmt.Sprint(i), Do: func(context.Context, saga.Call) ([]byte, error) { return nil, nil }}
		}
		e, err := saga.Start(saga.Config{Journal: j, Definitions: []saga.Definition{{Name: "d", Steps: steps}}, Retain: 100})
		require.NoError(t, err)
		defer e.Close()
		var g errgroup.Group
		for i := range 4000 {
			g.Go(func() error { return e.Run(t.Context(), "d", fmt.Sprint(i), nil) })
		}
		require.NoError(t, g.Wait())
		require.Less(t, e.Metrics().Syncs, uint64(2000), "20,000 records")
		require.Less(t, j.held, 20_000)
		require.ErrorIs(t, e.Wait(t.Context(), "no such"), saga.ErrUnknown)
	})
}

type countingJournal struct {
	host.MemoryJournal
	held int
}

func (j *countingJournal) Append(records ...[]byte) error {
	time.Sleep(time.Millisecond)
	j.held += len(records)
	return j.MemoryJournal.Append(records...)
}

func (j *countingJournal) Keep(n int) error {
	j.held = n
	return j.MemoryJournal.Keep(n)
}

func TestBadInput(t *testing.T) {
	s := newServices()
	ok := trip(s, nil)
	do := ok.Steps[0].Do
	for what, d := range map[string]saga.Definition{
		"no name":    {Steps: ok.Steps},
		"no steps":   {Name: "x"},
		"no Do":      {Name: "x", Steps: []saga.Step{{Name: "a"}}},
		"twice":      {Name: "x", Steps: []saga.Step{ok.Steps[0], ok.Steps[0]}},
		"without a":  {Name: "x", Steps: []saga.Step{{Do: do}}},
		"Parallel":   {Name: "x", Steps: []saga.Step{{Name: "a", Do: do, Parallel: ok.Steps}}},
		"within":     {Name: "x", Steps: []saga.Step{{Parallel: []saga.Step{{Name: "b", Do: do, Parallel: []saga.Step{{}}}}}}},
		"negative T": {Name: "x", Steps: []saga.Step{{Name: "a", Do: do, Timeout: -1}}},
	} {
		_, err := saga.Start(saga.Config{Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{d}})
		require.ErrorContains(t, err, what)
	}
	for field, cfg := range map[string]saga.Config{
		"Journal":      {Definitions: []saga.Definition{ok}},
		"Definitions":  {Journal: &host.MemoryJournal{}},
		"MaxOpen":      {Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{ok}, MaxOpen: -1},
		"Retain":       {Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{ok}, Retain: -1},
		"UndoAttempts": {Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{ok}, UndoAttempts: -1},
		"MaxBackoff":   {Journal: &host.MemoryJournal{}, Definitions: []saga.Definition{ok}, MaxBackoff: -1},
	} {
		_, err := saga.Start(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
	inBubble(t, saga.Config{Definitions: []saga.Definition{ok}, MaxOpen: 1}, func(t *testing.T, e *saga.Engine) {
		require.ErrorIs(t, e.Begin(t.Context(), "nothing", "1", nil), saga.ErrUnknown)
		require.ErrorIs(t, e.Begin(t.Context(), "trip", "1", make([]byte, 1<<20+1)), saga.ErrTooLarge)
		_, err := e.Status("1")
		require.ErrorIs(t, err, saga.ErrUnknown)
		s.mu.Lock() // the step waits for it: not a durable block, so the saga stays open
		require.NoError(t, e.Begin(t.Context(), "trip", "1", nil))
		require.ErrorIs(t, e.Begin(t.Context(), "trip", "2", nil), coterie.ErrOverloaded)
		s.mu.Unlock()
	})
}
