package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coterie-go/coterie/membership"
)

// story is the demonstration: what is done, and how long each member takes to know of it.
type story struct {
	c     *cluster
	out   io.Writer
	live  bool          // redraw a table in place
	look  time.Duration // how long to linger after each step
	lines int           // of the table that is on the screen
}

// tell runs the whole demonstration.
func tell(ctx context.Context, out io.Writer, live bool, look time.Duration) (err error) {
	s := &story{out: out, live: live, look: look}
	if s.c, err = startCluster(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.c.close()) }()
	return s.run(ctx)
}

func (s *story) run(ctx context.Context) error {
	is := func(other int, states ...membership.State) func(row [size]opinion) bool {
		return func(row [size]opinion) bool {
			for _, state := range states {
				if row[other].Known && row[other].State == state {
					return true
				}
			}
			return false
		}
	}
	allAlive := func(row [size]opinion) bool {
		for _, o := range row {
			if !o.Known || o.State != membership.Alive {
				return false
			}
		}
		return true
	}
	if err := s.step(ctx, "8 members start, m1 and m2 are their seeds", "see all others", nil, func(int) func([size]opinion) bool { return allAlive }); err != nil {
		return err
	}
	err := s.step(ctx, "m8 is killed", "know", func() error { return s.c.kill(7) },
		func(int) func([size]opinion) bool { return is(7, membership.Unreachable) })
	if err != nil {
		return err
	}
	pause := func() error {
		s.c.filter.pause(id(4), true)
		return nil
	}
	if err := s.step(ctx, "m5 stands still", "suspect it", pause, except(4, is(4, membership.Suspect, membership.Unreachable))); err != nil {
		return err
	}
	resume := func() error {
		s.c.filter.pause(id(4), false)
		return nil
	}
	if err := s.step(ctx, "m5 goes on, and refutes it", "trust it again", resume, except(4, is(4, membership.Alive))); err != nil {
		return err
	}
	cut := func() error {
		s.c.filter.partition(id(0), id(1), id(2))
		return nil
	}
	split := func(place int) func(row [size]opinion) bool {
		return func(row [size]opinion) bool {
			for other, o := range row[:7] {
				if (o.State == membership.Alive) != (other < 3 == (place < 3)) {
					return false
				}
			}
			return true
		}
	}
	if err := s.step(ctx, "the network between m1 m2 m3 and the rest is cut", "see their side only", cut, split); err != nil {
		return err
	}
	heal := func() error {
		s.c.filter.partition()
		return nil
	}
	together := func(row [size]opinion) bool { row[7] = row[0]; return allAlive(row) }
	if err := s.step(ctx, "it is joined again; nobody does anything", "see all others", heal, func(int) func([size]opinion) bool { return together }); err != nil {
		return err
	}
	if err := s.step(ctx, "m8 is started again", "see it", func() error { return s.c.start(7) }, except(7, is(7, membership.Alive))); err != nil {
		return err
	}
	return s.step(ctx, "m7 says goodbye", "know that it left", func() error { return s.c.leave(ctx, 6) }, except(6, is(6, membership.Left)))
}

// except asks everyone but one.
func except(place int, holds func([size]opinion) bool) func(int) func([size]opinion) bool {
	return func(viewer int) func([size]opinion) bool {
		if viewer == place {
			return nil
		}
		return holds
	}
}

// step does something and waits until it is known to every member that is up, and says how long each took.
func (s *story) step(ctx context.Context, what, know string, do func() error, holds func(viewer int) func([size]opinion) bool) error {
	begin := time.Now()
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	took := map[int]time.Duration{}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var drawn time.Time
	for {
		table, waiting := s.c.look(), 0
		for place := range s.c.running() {
			if _, known := took[place]; known {
				continue
			}
			switch know := holds(place); {
			case know == nil: // is not asked
			case know(table[place]):
				took[place] = time.Since(begin)
			default:
				waiting++
			}
		}
		if s.live && time.Since(drawn) > 100*time.Millisecond || s.live && waiting == 0 {
			s.draw(table, what, time.Since(begin))
			drawn = time.Now()
		}
		if waiting == 0 {
			break
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("%s: %d members do not %s within a minute", what, waiting, know)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.linger(ctx, what, begin); err != nil {
		return err
	}
	var b strings.Builder
	for place := range size {
		if d, ok := took[place]; ok {
			fmt.Fprintf(&b, "  %s %.2f", id(place), d.Seconds())
		}
	}
	s.erase()
	_, _ = fmt.Fprintf(s.out, "%s. Seconds until members %s:\n %s\n", what, know, b.String())
	if !s.live {
		_, _ = fmt.Fprintln(s.out, render(s.c.look(), s.c.running(), "", false))
	}
	return nil
}

// linger leaves time to look, and the heartbeats time to come.
func (s *story) linger(ctx context.Context, what string, begin time.Time) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(s.look); time.Now().Before(end); {
		if s.live {
			s.draw(s.c.look(), what, time.Since(begin))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// erase goes back to where the table begins.
func (s *story) erase() {
	if s.lines > 0 {
		_, _ = fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
		s.lines = 0
	}
}

// draw shows what each member holds of each, and phi.
func (s *story) draw(table [size][size]opinion, what string, since time.Duration) {
	s.erase()
	text := render(table, s.c.running(), "\n"+fmt.Sprintf("%s (%.1f s)\n", what, since.Seconds()), true)
	_, _ = fmt.Fprint(s.out, text)
	s.lines = strings.Count(text, "\n")
}

// render is the table as text.
func render(table [size][size]opinion, up map[int]*member, title string, colour bool) string {
	colours := [...]string{membership.Alive: "32", membership.Suspect: "33", membership.Unreachable: "31", membership.Dead: "31", membership.Left: "34"}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  sees", title)
	for other := range size {
		fmt.Fprintf(&b, "  %-17s", id(other))
	}
	b.WriteString("\n")
	for place := range size {
		fmt.Fprintf(&b, "  %-4s", id(place))
		if up[place] == nil {
			b.WriteString("  is down\n")
			continue
		}
		for other, o := range table[place] {
			text := fmt.Sprintf("%-11s", o.State)
			if colour {
				text = "\x1b[" + colours[o.State] + "m" + text + "\x1b[0m"
			}
			switch {
			case !o.Known:
				fmt.Fprintf(&b, "  %-17s", "?")
			case place == other:
				fmt.Fprintf(&b, "  %-17s", "itself")
			default:
				fmt.Fprintf(&b, "  %s φ%-4.1f", text, min(o.Phi, 99))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
