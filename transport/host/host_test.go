package host_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
)

// diary is what happened, in order, as seen by the core, the journal, the transport and the handler.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines
	d.lines = nil
	return lines
}

// script is a core that writes the diary and does what the payload's name is bound to.
type script struct {
	*diary
	coterie.Outbox
	on map[string]func(s *script, now time.Time)
}

func (s *script) Replay(record []byte) error {
	s.add("replay %s", record)
	if string(record) == "torn" {
		return errors.New("torn record")
	}
	return nil
}

func (s *script) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	if string(payload) == "garbage" {
		return errors.New("not of this protocol")
	}
	s.add("step %s %s", from, payload)
	if f := s.on[string(payload)]; f != nil {
		f(s, now)
	}
	return nil
}

func (s *script) Tick(now time.Time) {
	s.add("tick %v", time.Since(start))
	if f := s.on["tick"]; f != nil {
		f(s, now)
	}
}

func (s *script) Ready() coterie.Ready { return s.Take() }

// start is when time begins in a synctest bubble.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// wire is a transport that writes the diary and hands over what deliver says.
type wire struct {
	*diary
	mu     sync.Mutex
	handle func(coterie.NodeID, []byte)
	err    error
}

func (w *wire) LocalID() coterie.NodeID { return "a" }
func (w *wire) Close() error            { return nil }

func (w *wire) Send(to coterie.NodeID, payload []byte) error {
	w.add("send %s %s", to, payload)
	return w.err
}

func (w *wire) Receive(handle func(coterie.NodeID, []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle = handle
}

func (w *wire) deliver(from coterie.NodeID, payloads ...string) {
	w.mu.Lock()
	handle := w.handle
	w.mu.Unlock()
	for _, p := range payloads {
		if handle != nil {
			handle(from, []byte(p))
		}
	}
}

// disk is a journal that writes the diary; hold makes Append wait.
type disk struct {
	*diary
	host.MemoryJournal
	err     error
	entered chan struct{}
	hold    chan struct{}
}

func (d *disk) Append(records ...[]byte) error {
	if d.hold != nil {
		d.entered <- struct{}{}
		<-d.hold
	}
	for _, r := range records {
		d.add("save %s", r)
	}
	d.add("sync")
	if d.err != nil {
		return d.err
	}
	return d.MemoryJournal.Append(records...)
}

func (d *disk) Keep(newest int) error {
	d.add("keep %d", newest)
	return d.MemoryJournal.Keep(newest)
}

type rig struct {
	*diary
	core *script
	wire *wire
	disk *disk
	host *host.Host[*script]
}

func newRig(t *testing.T, cfg host.Config, on map[string]func(*script, time.Time)) *rig {
	t.Helper()
	d := new(diary)
	r := &rig{diary: d, core: &script{diary: d, on: on}, wire: &wire{diary: d}, disk: &disk{diary: d}}
	r.start(t, cfg)
	return r
}

func (r *rig) start(t *testing.T, cfg host.Config) {
	t.Helper()
	cfg.Transport = r.wire
	if cfg.Journal == nil {
		cfg.Journal = r.disk
	}
	if cfg.Handle == nil {
		cfg.Handle = func(_ time.Time, event any) { r.add("event %v", event) }
	}
	var err error
	r.host, err = host.Start(r.core, cfg)
	require.NoError(t, err)
	synctest.Wait()
}

func TestEffectsComeInTheOrderThatIsSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"go": func(s *script, _ time.Time) {
				s.Emit("done")
				s.Send("b", []byte("late"))
				s.Send("a", []byte("mine"))
				s.Save([]byte("r1"))
				s.Save([]byte("r2"))
				s.Keep(2)
				s.SendEarly("b", []byte("early"))
			},
		})
		defer r.host.Close()
		r.take()
		r.wire.deliver("b", "go", "after")
		synctest.Wait()
		require.Equal(t, []string{
			"step b go", "step b after", "send b early", "save r1", "save r2", "sync", "keep 2", "send b late",
			"event done", "step a mine",
		}, r.take())
	})
}

// While a sync is under way nothing that rests on it may be seen: no send, no event, no own mail.
func TestNothingLeavesBeforeTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"vote": func(s *script, _ time.Time) {
				s.Save([]byte("vote"))
				s.Send("b", []byte("granted"))
				s.Send("a", []byte("granted"))
				s.Emit("voted")
			},
		})
		defer r.host.Close()
		r.disk.entered, r.disk.hold = make(chan struct{}, 1), make(chan struct{})
		r.take()
		r.wire.deliver("b", "vote")
		synctest.Wait()
		require.Equal(t, []string{"step b vote"}, r.take())
		r.wire.deliver("b", "x", "y") // waits for the next round
		close(r.disk.hold)
		synctest.Wait()
		require.Equal(t, []string{
			"save vote", "sync", "send b granted", "event voted", "step a granted", "step b x", "step b y",
		}, r.take())
	})
}

func TestOneSyncServesABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		save := func(s *script, _ time.Time) { s.Save([]byte("r")) }
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){"hold": save, "s": save})
		defer r.host.Close()
		r.disk.entered, r.disk.hold = make(chan struct{}, 9), make(chan struct{})
		r.wire.deliver("b", "hold")
		<-r.disk.entered
		for range 100 {
			r.wire.deliver("b", "s")
		}
		close(r.disk.hold)
		synctest.Wait()
		m := r.host.Metrics()
		require.Equal(t, uint64(2), m.Syncs)
		require.Equal(t, uint64(101), m.Records)
	})
}

func TestTickComesOnceAfterReplayThenNotBeforeWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"tick": func(s *script, now time.Time) {
				if now.Sub(start) < 50*time.Millisecond {
					s.Wake(now.Add(13 * time.Millisecond))
				}
			},
		})
		defer r.host.Close()
		time.Sleep(time.Minute)
		require.Equal(t, []string{"tick 0s", "tick 20ms", "tick 40ms", "tick 60ms"}, r.take())
	})
}

// A message that comes when the time has come is not an excuse to forget the tick; one before it may put it off.
func TestWakeIsOfTheLastBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wakeIn := func(d time.Duration) func(*script, time.Time) {
			return func(s *script, now time.Time) { s.Wake(now.Add(d)) }
		}
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"tick": wakeIn(100 * time.Millisecond), "later": wakeIn(500 * time.Millisecond), "sooner": wakeIn(20 * time.Millisecond),
		})
		defer r.host.Close()
		r.take()
		time.Sleep(50 * time.Millisecond)
		r.wire.deliver("b", "later")
		time.Sleep(300 * time.Millisecond)
		require.Equal(t, []string{"step b later"}, r.take())
		r.wire.deliver("b", "sooner")
		time.Sleep(25 * time.Millisecond)
		require.Equal(t, []string{"step b sooner", "tick 370ms"}, r.take())
	})
}

// A process that is paused in the middle of a round, while its own mail is stepped, must not run a call that was made
// meanwhile at a time before it was made.
func TestNothingRunsAtATimeBeforeItWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"begin": func(s *script, _ time.Time) { s.Send("a", []byte("mine")) },
			"mine":  func(*script, time.Time) { time.Sleep(time.Minute) },
		})
		defer r.host.Close()
		r.wire.deliver("b", "begin")
		time.Sleep(time.Second) // within the pause
		asked := time.Now()
		var ran time.Time
		require.NoError(t, r.host.Do(t.Context(), func(now time.Time, _ *script) { ran = now }))
		require.False(t, ran.Before(asked), "asked at %v, run at %v", asked.Sub(start), ran.Sub(start))
	})
}

func TestRestartReplaysWhatWasSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"go": func(s *script, _ time.Time) { s.Save([]byte("r1")); s.Save([]byte("r2")) },
		})
		r.wire.deliver("b", "go")
		synctest.Wait()
		require.NoError(t, r.host.Close())
		r.take()
		r.start(t, host.Config{})
		require.Equal(t, []string{"replay r1", "replay r2", "tick 0s"}, r.take())
		require.NoError(t, r.host.Close())
	})
}

func TestReplayErrorStopsStart(t *testing.T) {
	d := new(diary)
	j := new(host.MemoryJournal)
	require.NoError(t, j.Append([]byte("torn")))
	_, err := host.Start(&script{diary: d}, host.Config{Transport: &wire{diary: d}, Journal: j})
	require.ErrorContains(t, err, "replay on a: torn record")
	require.Equal(t, []string{"replay torn"}, d.take())
}

func TestJournalErrorIsFailStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"go": func(s *script, _ time.Time) {
				s.Save([]byte("r"))
				s.Send("b", []byte("saved"))
				s.Send("a", []byte("saved"))
				s.Emit("saved")
			},
		})
		r.disk.err = errors.New("no space left on device")
		r.take()
		r.wire.deliver("b", "go")
		<-r.host.Done()
		require.ErrorContains(t, r.host.Err(), "no space left")
		require.Equal(t, []string{"step b go", "save r", "sync"}, r.take())
		r.wire.deliver("b", "again")
		err := r.host.Do(t.Context(), func(time.Time, *script) { t.Error("ran") })
		require.ErrorIs(t, err, coterie.ErrClosed)
		require.ErrorContains(t, err, "no space left")
		require.ErrorIs(t, r.host.Post(func(time.Time, *script) { t.Error("ran") }), coterie.ErrClosed)
		require.ErrorContains(t, r.host.Close(), "no space left")
		require.Empty(t, r.take())
	})
}

func TestPanicStopsTheHostWithItsInput(t *testing.T) {
	boom := func(*script, time.Time) { panic("invariant broken") }
	for _, c := range []struct {
		name, input string
		give        func(r *rig)
	}{
		{"step", "a message from b: 626f6f6d", func(r *rig) { r.wire.deliver("b", "boom", "more") }},
		{"call", "a call", func(r *rig) { _ = r.host.Do(context.Background(), func(_ time.Time, s *script) { boom(s, start) }) }},
		{"handler", "an event, in Config.Handle", func(r *rig) { r.wire.deliver("b", "emit") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, host.Config{Handle: func(time.Time, any) { boom(nil, start) }}, map[string]func(*script, time.Time){
					"boom": boom, "emit": func(s *script, _ time.Time) { s.Emit(1) },
				})
				r.take()
				c.give(r)
				<-r.host.Done()
				var p *host.PanicError
				require.ErrorAs(t, r.host.Err(), &p)
				require.Equal(t, "invariant broken", p.Value)
				require.Equal(t, c.input, p.Input)
				require.NotContains(t, r.take(), "step b more")
				require.Error(t, r.host.Close())
			})
		})
	}
}

func TestMalformedMessagesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, nil)
		defer r.host.Close()
		r.take()
		r.wire.deliver("b", "garbage", "fine")
		synctest.Wait()
		require.Equal(t, []string{"step b fine"}, r.take())
		require.Equal(t, uint64(1), r.host.Metrics().Malformed)
		require.NoError(t, r.host.Err())
	})
}

func TestFullInboxDropsTheNewest(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  host.Config
		want []string
	}{
		{"count", host.Config{InboxCount: 2}, []string{"step b 1", "step b 22222"}},
		{"bytes", host.Config{InboxBytes: 4}, []string{"step b 1", "step b 333"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.cfg, map[string]func(*script, time.Time){
					"hold": func(s *script, _ time.Time) { s.Save([]byte("r")) },
				})
				defer r.host.Close()
				r.disk.entered, r.disk.hold = make(chan struct{}, 9), make(chan struct{})
				r.wire.deliver("b", "hold")
				<-r.disk.entered
				r.take()
				r.wire.deliver("b", "1", "22222", "333", "44")
				close(r.disk.hold)
				synctest.Wait()
				require.Equal(t, c.want, slices.DeleteFunc(r.take(), func(s string) bool { return s == "save r" || s == "sync" }))
				require.Equal(t, uint64(2), r.host.Metrics().Dropped)
				r.wire.deliver("b", "a message longer than the bound is taken when it is alone")
				synctest.Wait()
				require.Len(t, r.take(), 1)
			})
		})
	}
}

func TestDoWaitsForAPlaceAndForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{InboxCount: 1}, map[string]func(*script, time.Time){
			"hold": func(s *script, _ time.Time) { s.Save([]byte("r")) },
		})
		defer r.host.Close()
		r.disk.entered, r.disk.hold = make(chan struct{}, 9), make(chan struct{})
		r.wire.deliver("b", "hold")
		<-r.disk.entered
		results := make(chan error, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			results <- r.host.Do(ctx, func(time.Time, *script) { t.Error("ran after its caller had gone") })
		}()
		synctest.Wait() // the first has the place
		go func() { results <- r.host.Do(ctx, func(time.Time, *script) { t.Error("ran without a place") }) }()
		require.ErrorIs(t, <-results, context.DeadlineExceeded)
		require.ErrorIs(t, <-results, context.DeadlineExceeded)
		close(r.disk.hold)
		synctest.Wait()
		ran := false
		require.NoError(t, r.host.Do(t.Context(), func(_ time.Time, core *script) { ran = core == r.core }))
		require.True(t, ran)
	})
}

// Once the call has begun Do waits for it, whatever its ctx says.
func TestDoWaitsForWhatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, nil)
		defer r.host.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		finished := false
		require.NoError(t, r.host.Do(ctx, func(time.Time, *script) { time.Sleep(time.Minute); finished = true }))
		require.True(t, finished)
	})
}

func TestPostRunsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{InboxCount: 1}, nil)
		defer r.host.Close()
		r.take()
		for i := range 5 {
			require.NoError(t, r.host.Post(func(time.Time, *script) { r.add("post %d", i) }))
		}
		synctest.Wait()
		require.Equal(t, []string{"post 0", "post 1", "post 2", "post 3", "post 4"}, r.take())
	})
}

func TestCheckRunsBesideTheCoreAndKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := newRig(t, host.Config{Check: func(from coterie.NodeID, payload []byte) error {
			switch {
			case from == "slow":
				<-gate
			case string(payload) == "forged":
				return errors.New("bad signature")
			case string(payload) == "crash":
				panic("index out of range")
			}
			return nil
		}}, nil)
		defer r.host.Close()
		r.take()
		r.wire.deliver("slow", "1", "2", "3")
		r.wire.deliver("b", "1", "forged", "2", "crash", "3")
		synctest.Wait()
		require.Equal(t, []string{"step b 1", "step b 2", "step b 3"}, r.take())
		require.Equal(t, uint64(2), r.host.Metrics().Refused)
		close(gate)
		synctest.Wait()
		require.Equal(t, []string{"step slow 1", "step slow 2", "step slow 3"}, r.take())
	})
}

func TestCloseDoesNotWaitForAHungSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{CloseTimeout: 3 * time.Second}, map[string]func(*script, time.Time){
			"go": func(s *script, _ time.Time) { s.Save([]byte("r")); s.Send("b", []byte("acknowledged")) },
		})
		r.disk.entered, r.disk.hold = make(chan struct{}, 1), make(chan struct{})
		r.wire.deliver("b", "go")
		<-r.disk.entered
		time.Sleep(2 * time.Second)
		r.take()
		begin := time.Now()
		require.ErrorIs(t, r.host.Close(), host.ErrJournalStuck)
		require.Equal(t, time.Second, time.Since(begin))
		close(r.disk.hold)
		<-r.host.Done()
		require.Equal(t, []string{"save r", "sync"}, r.take(), "it acts no more when the disk wakes")
	})
}

func TestCloseWaitsForTheRoundAndTellsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, host.Config{}, map[string]func(*script, time.Time){
			"go": func(s *script, _ time.Time) { s.Save([]byte("r")); s.Send("b", []byte("acknowledged")) },
		})
		r.disk.entered, r.disk.hold = make(chan struct{}, 1), make(chan struct{})
		r.wire.deliver("b", "go")
		<-r.disk.entered
		called := make(chan error, 1)
		go func() { called <- r.host.Do(context.Background(), func(time.Time, *script) { t.Error("ran") }) }()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(r.disk.hold) })
		require.NoError(t, r.host.Close())
		require.ErrorIs(t, <-called, coterie.ErrClosed)
		require.Contains(t, r.take(), "send b acknowledged")
		require.NoError(t, r.host.Close())
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := host.Start(&script{}, host.Config{})
	require.ErrorContains(t, err, "Config.Transport")
	_, err = host.Start(&script{}, host.Config{Transport: &wire{}, InboxBytes: -1})
	require.ErrorContains(t, err, "Config.InboxBytes")
	_, err = host.Start(&script{}, host.Config{Transport: &wire{}, InboxCount: -1})
	require.ErrorContains(t, err, "Config.InboxCount")
	_, err = host.Start(&script{}, host.Config{Transport: &wire{}, CloseTimeout: -1})
	require.ErrorContains(t, err, "Config.CloseTimeout")
}

func TestSaveWithoutAJournalIsFailStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(diary)
		core := &script{diary: d, on: map[string]func(*script, time.Time){"tick": func(s *script, _ time.Time) { s.Save([]byte("r")) }}}
		h, err := host.Start(core, host.Config{Transport: &wire{diary: d}})
		require.NoError(t, err)
		<-h.Done()
		require.ErrorContains(t, h.Close(), "Config.Journal is nil")
	})
}
