package twophase_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/coterie-go/coterie/txn"
	"github.com/coterie-go/coterie/txn/twophase"
	"github.com/stretchr/testify/require"
)

const (
	accounts = 4
	opening  = 100
)

// bankWorld is four banks in the simulator, each of which coordinates transfers between any two and audits of all.
type bankWorld struct {
	*sim.World
	ids    []coterie.NodeID
	banks  map[coterie.NodeID]*bank
	under  map[coterie.NodeID]*order
	fates  map[txn.ID]bool
	broken error
	stop   bool

	committed, aborted, audits int
}

// order is a transaction under way at its coordinator.
type order struct {
	id    txn.ID
	audit bool
	sum   int
}

func newBankWorld(tb testing.TB, cfg sim.Config) *bankWorld {
	tb.Helper()
	w, err := sim.New(cfg)
	require.NoError(tb, err)
	b := &bankWorld{World: w, banks: map[coterie.NodeID]*bank{}, under: map[coterie.NodeID]*order{}, fates: map[txn.ID]bool{}}
	for i := range 4 {
		id := coterie.NodeID(rune('a' + i))
		balances := map[string]int{}
		for k := range accounts {
			balances[fmt.Sprint(k)] = opening
		}
		b.ids = append(b.ids, id)
		b.banks[id] = newBank(balances)
		b.banks[id].history = b.fate
	}
	for _, id := range b.ids {
		require.NoError(tb, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := twophase.NewCore(twophase.Config{ID: id, PrepareTimeout: time.Second})
			require.NoError(tb, err)
			b.banks[id].crash()
			b.under[id] = nil
			b.After(time.Millisecond, func() { b.alive(id, incarnation, func() { b.begin(id, incarnation) }) })
			b.After(2*time.Millisecond, func() { b.recover(id, incarnation) })
			return core, sim.EventFunc(func(_ time.Time, event any) { b.event(id, incarnation, event) })
		}}))
	}
	w.Invariant("banks", func(*sim.World) error { return b.broken })
	return b
}

// fate checks that a transaction ends alike everywhere.
func (b *bankWorld) fate(id txn.ID, committed bool) {
	if before, known := b.fates[id]; known && before != committed && b.broken == nil {
		b.broken = fmt.Errorf("%s is committed at one bank and aborted at another", id)
	}
	b.fates[id] = committed
}

// alive calls f if the node still is in that life.
func (b *bankWorld) alive(id coterie.NodeID, incarnation uint64, f func()) {
	if b.Up(id) && b.Incarnation(id) == incarnation {
		f()
	}
}

func (b *bankWorld) call(id coterie.NodeID, f func(now time.Time, core *twophase.Core)) {
	_ = b.Do(id, func(now time.Time, core coterie.Core) { f(now, core.(*twophase.Core)) })
}

func (b *bankWorld) recover(id coterie.NodeID, incarnation uint64) {
	b.alive(id, incarnation, func() {
		prepared, _ := b.banks[id].Prepared(context.Background())
		b.call(id, func(now time.Time, core *twophase.Core) { core.Recover(now, prepared) })
	})
}

// begin starts the node's next transaction: a transfer, or each fourth time an audit.
func (b *bankWorld) begin(id coterie.NodeID, incarnation uint64) {
	if b.stop {
		return
	}
	again := func(d time.Duration) {
		b.After(d, func() { b.alive(id, incarnation, func() { b.begin(id, incarnation) }) })
	}
	if b.under[id] != nil {
		return
	}
	r := b.Rand()
	o := &order{audit: r.IntN(4) == 0}
	from, to := b.ids[r.IntN(4)], b.ids[r.IntN(4)]
	members := []coterie.NodeID{from, to}
	if o.audit {
		members = b.ids
	} else if from == to {
		members = members[:1]
	}
	members = slices.Clone(members)
	amount, account, other := 1+r.IntN(60), fmt.Sprint(r.IntN(accounts)), fmt.Sprint(r.IntN(accounts))
	b.call(id, func(now time.Time, core *twophase.Core) {
		var err error
		if o.id, err = core.Begin(now, members); err != nil {
			again(10 * time.Millisecond)
			return
		}
		b.under[id] = o
		b.After(time.Duration(r.Int64N(int64(5*time.Millisecond))), func() {
			b.alive(id, incarnation, func() { b.work(id, o, members, from, to, account, other, amount) })
		})
	})
}

// work does a transaction's work at the banks, as calls to them would.
func (b *bankWorld) work(id coterie.NodeID, o *order, members []coterie.NodeID, from, to coterie.NodeID, account, other string, amount int) {
	var err error
	for _, m := range members {
		if !b.Up(m) {
			err = errors.Join(err, coterie.ErrClosed)
			continue
		}
		b.call(m, func(now time.Time, core *twophase.Core) { _ = core.Enlist(now, o.id) })
		if o.audit {
			sum, e := b.banks[m].Sum(o.id)
			o.sum += sum
			err = errors.Join(err, e)
		}
	}
	if !o.audit && err == nil {
		err = errors.Join(b.banks[from].Add(o.id, account, -amount), b.banks[to].Add(o.id, other, amount))
	}
	b.call(id, func(now time.Time, core *twophase.Core) {
		if err != nil {
			_ = core.Abort(now, o.id, err.Error())
		} else {
			_ = core.Prepare(now, o.id)
		}
	})
}

// event does what Node does, after a while.
func (b *bankWorld) event(id coterie.NodeID, incarnation uint64, event any) {
	after := func(f func()) {
		b.After(time.Duration(b.Rand().Int64N(int64(2*time.Millisecond))), func() { b.alive(id, incarnation, f) })
	}
	r, ctx := b.banks[id], context.Background()
	switch e := event.(type) {
	case twophase.PrepareAsked:
		after(func() {
			v, _ := r.Prepare(ctx, e.ID)
			b.call(id, func(now time.Time, core *twophase.Core) { _ = core.Voted(now, e.ID, v, "") })
		})
	case twophase.CommitAsked:
		after(func() {
			_ = r.Commit(ctx, e.ID)
			b.call(id, func(now time.Time, core *twophase.Core) { _ = core.Settled(now, e.ID) })
		})
	case twophase.AbortAsked:
		after(func() {
			_ = r.Abort(ctx, e.ID)
			b.call(id, func(now time.Time, core *twophase.Core) { _ = core.Settled(now, e.ID) })
		})
	case twophase.Decided:
		b.decided(id, e)
		b.After(time.Duration(b.Rand().Int64N(int64(100*time.Millisecond))), func() {
			b.alive(id, incarnation, func() { b.begin(id, incarnation) })
		})
	}
}

func (b *bankWorld) decided(id coterie.NodeID, e twophase.Decided) {
	o := b.under[id]
	b.under[id] = nil
	if !e.Committed {
		b.aborted++
		return
	}
	b.committed++
	if o != nil && o.id == e.ID && o.audit {
		b.audits++
		if want := 4 * accounts * opening; o.sum != want && b.broken == nil {
			b.broken = fmt.Errorf("the audit %s saw a sum of %d, want %d", o.id, o.sum, want)
		}
	}
}

// settle ends the faults and requires that everything comes to its end.
func (b *bankWorld) settle(tb testing.TB) {
	tb.Helper()
	b.HealAll()
	before := b.committed
	require.NoError(tb, b.RunUntil(func() bool { return b.committed > before+8 }, time.Minute))
	b.stop = true
	require.NoError(tb, b.RunUntil(func() bool {
		for _, id := range b.ids {
			if !b.Up(id) || b.banks[id].held() > 0 {
				return false
			}
			if s := b.Core(id).(*twophase.Core).Status(); len(s.Coordinating)+len(s.Taking) > 0 {
				return false
			}
		}
		return true
	}, 2*time.Minute))
	sum := 0
	for _, id := range b.ids {
		sum += b.banks[id].total()
	}
	require.Equal(tb, 4*accounts*opening, sum)
}

func TestBanksKeepTheirSum(t *testing.T) {
	var committed, aborted, audits int
	simtest.Seeds(t, testsize.N(60, 3000), func(t *testing.T, seed uint64) {
		t.Helper()
		b := newBankWorld(t, sim.Config{Seed: seed, Link: sim.Link{Loss: 0.02, Duplicate: 0.1, Reorder: 0.2}, Disk: sim.Disk{Crash: 0.003, Slow: 0.2}})
		require.NoError(t, b.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: b.ids, Length: 10 * time.Second, MaxRate: 2})))
		b.settle(t)
		committed, aborted, audits = committed+b.committed, aborted+b.aborted, audits+b.audits
	})
	t.Logf("%d committed, %d of them audits, %d aborted", committed, audits, aborted)
	if !t.Failed() && (committed < 100 || audits == 0 || aborted == 0) {
		t.Error("too little happened")
	}
}

func TestSameSeedSameRun(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		b := newBankWorld(t, sim.Config{Seed: 7, Trace: trace, Link: sim.Link{Duplicate: 0.1, Reorder: 0.2}, Disk: sim.Disk{Crash: 0.01}})
		require.NoError(t, b.Run(3*time.Second))
		b.settle(t)
	})
}
