package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// What the driver's other goroutines put among the core's events.
type (
	hostDone        struct{} // nothing more will come
	tickDue         struct{}
	tickAnswered    struct{}
	snapshotWanted  struct{ done chan error }
	snapshotWritten struct {
		index    uint64
		snapshot Snapshot
		err      error
		done     chan error // nil if nobody waits
	}
)

// answered is an answer on its way to who waits for it.
type answered struct {
	who     *waiter
	outcome Outcome
}

// apply is the applying goroutine.
func (d *Driver[C]) apply() {
	var taken []any
	for {
		taken = d.events.take(taken)
		for _, event := range taken {
			switch done, err := d.applyEvent(event); {
			case err != nil:
				d.cfg.Log.Error("replica stopped", "node", d.id, "err", err)
				d.stop(err)
				return
			case done:
				d.stop(d.host.Err())
				return
			}
		}
		d.machine.Readable(d.readable)
		d.capture(nil)
		d.tick()
	}
}

func (d *Driver[C]) applyEvent(event any) (done bool, err error) {
	switch e := event.(type) {
	case Committed:
		return false, d.applyCommitted(e)
	case ReadAt:
		d.machine.ReadAt(e)
	case Installed:
		if err := load(d.cfg.Snapshots, d.machine, e); err != nil {
			return false, err
		}
		d.restored(e)
	case SnapshotDue:
		if !d.capturing {
			d.machine.due = true
			d.capture(nil)
		}
	case Superseded:
		// Through here, for an Installed that came before must have been read.
		d.files.put(event)
	case snapshotWanted:
		d.capture(e.done)
	case snapshotWritten:
		d.written(e)
	case tickDue:
		d.armed = time.Time{}
	case tickAnswered:
		d.ticking = false
	case hostDone:
		return true, nil
	}
	return false, nil
}

func (d *Driver[C]) applyCommitted(c Committed) error {
	outcomes, err := d.machine.Apply(c)
	if err != nil {
		return err
	}
	d.tellCore()
	if len(outcomes) == 0 {
		return nil
	}
	d.answers = d.answers[:0]
	d.mu.Lock()
	for i := range outcomes {
		if who, ok := d.desk.answered(outcomes[i].ID); ok {
			d.answers = append(d.answers, answered{who, outcomes[i]})
		}
	}
	d.mu.Unlock()
	for i := range d.answers {
		d.answer(d.answers[i].who, d.answers[i].outcome)
	}
	clear(d.answers)
	return nil
}

// tellCore tells the core what has been applied; one call on its way tells all.
func (d *Driver[C]) tellCore() {
	d.applied.Store(d.machine.Index())
	if !d.telling.Swap(true) {
		_ = d.host.Post(d.tell) // if it has ended, nobody needs to know
	}
}

// restored notes that the state is that of a snapshot.
func (d *Driver[C]) restored(in Installed) {
	d.newest = in.Index
	d.tellCore()
}

// answerRead answers the reads that a read of the core serves.
func (d *Driver[C]) answerRead(id uint64) {
	d.mu.Lock()
	reads := d.desk.answeredRead(id)
	d.mu.Unlock()
	for _, r := range reads {
		result, err := d.machine.Query(r.query)
		r.who.answer <- Outcome{Result: result, Err: err}
	}
}

// capture starts to write a snapshot if one is due, or if it is asked for.
func (d *Driver[C]) capture(done chan error) {
	asked := done != nil
	switch {
	case !asked && (d.capturing || !d.machine.SnapshotDue()):
		return
	case asked && d.machine.Index() == d.newest && !d.capturing:
		done <- nil
		return
	case asked && d.capturing:
		done <- fmt.Errorf("%w: a snapshot is being written", coterie.ErrOverloaded)
		return
	}
	c, err := d.machine.Capture()
	if err != nil {
		d.cfg.Log.Error("no snapshot", "node", d.id, "err", err)
		if asked {
			done <- err
		}
		return
	}
	d.capturing = true
	d.wg.Go(func() {
		s, err := save(d.cfg.Snapshots, snapshotName(d.id, c.Index), c, &d.stopping)
		d.events.put(snapshotWritten{c.Index, s, err, done})
	})
}

func (d *Driver[C]) written(e snapshotWritten) {
	d.capturing = false
	answer := func() {
		if e.done != nil {
			e.done <- e.err
		}
	}
	switch {
	case e.err != nil:
		d.cfg.Log.Error("no snapshot", "node", d.id, "err", e.err)
		answer()
	case e.index <= d.newest:
		// A newer one was installed meanwhile.
		d.files.put(Superseded{e.snapshot.Name})
		answer()
	default:
		d.newest = e.index
		d.machine.Written(e.snapshot.Size)
		_ = d.host.Post(func(now time.Time, core C) { // ended: it is an orphan
			core.Compact(now, e.index, e.snapshot)
			answer() // a Close that follows does not prevent what this round saves
		})
	}
}

// Snapshot writes a snapshot of all that has been applied and gives it to the core, which may then compact its log.
// The driver does so by itself as Config says. ErrOverloaded says that one is being written.
func (d *Driver[C]) Snapshot(ctx context.Context) error {
	done := make(chan error, 1)
	d.events.put(snapshotWanted{done})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ended:
		return errStopped
	}
}

// longestTimer is when a timer is looked at again at the latest, for the wall clock may have jumped.
const longestTimer = 10 * time.Second

// tick proposes a tick if this node leads and one is due, or sets the timer for it.
func (d *Driver[C]) tick() {
	at := d.machine.TickAt(d.ticked)
	if at.IsZero() || d.ticking || d.Status().Leader != d.id {
		return
	}
	if at.Equal(d.armed) {
		return
	}
	now := d.cfg.Clock()
	if wait := at.Sub(now); wait > 0 {
		d.armed = at
		wait = min(wait, longestTimer)
		if d.timer == nil {
			d.timer = time.AfterFunc(wait, func() { d.events.put(tickDue{}) })
		} else {
			d.timer.Reset(wait)
		}
		return
	}
	d.ticked = now
	_, err := d.ask(&envelope{kind: kindTick}, &waiter{tick: true})
	d.ticking = err == nil
}

// stop ends the applying goroutine and tells everyone who waits.
func (d *Driver[C]) stop(err error) {
	d.stopping.Store(true)
	cause := errStopped
	if err != nil {
		cause = fmt.Errorf("%w: %w", coterie.ErrClosed, err)
	}
	d.refuse(cause)
	d.failure = err
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Lock()
	cause = d.refusal
	unknown := fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, cause)
	d.desk.clear(func(who *waiter, handed bool) {
		if who.tick {
			return
		}
		if handed {
			who.answer <- Outcome{Err: unknown}
		} else {
			who.answer <- Outcome{Err: cause}
		}
	}, func(who *waiter) { who.answer <- Outcome{Err: cause} })
	d.mu.Unlock()
	d.files.put(hostDone{})
	close(d.ended)
	if err != nil {
		_ = d.host.Close() // err is why
	}
}

// serveFiles is the goroutine that serves chunks of snapshots.
func (d *Driver[C]) serveFiles() {
	defer d.clerk.close()
	var taken []any
	for {
		taken = d.files.take(taken)
		for _, event := range taken {
			switch e := event.(type) {
			case ReadChunk:
				data, err := d.clerk.read(e)
				_ = d.host.Post(func(now time.Time, core C) { core.ChunkRead(now, e.ID, data, err) }) // ended: nobody asks
			case WriteChunk:
				err := d.clerk.write(e)
				_ = d.host.Post(func(now time.Time, core C) { core.ChunkWritten(now, e.ID, err) })
			case Superseded:
				if err := d.clerk.remove(e.Name); err != nil {
					d.cfg.Log.Warn("superseded snapshot stays", "node", d.id, "err", err)
				}
			case hostDone:
				return
			}
		}
	}
}
