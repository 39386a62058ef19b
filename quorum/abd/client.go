package abd

import (
	"bytes"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
)

// query begins the first round: ask a read quorum for what it has.
func (c *Core) query(now time.Time, op *operation) {
	c.begin(op, c.cfg.System.Read())
	op.request = message{kind: msgQuery, round: c.round, key: op.key, wantValue: !op.write}.encode()
	c.ask(now, op)
}

// writeBack begins the second round: have a write quorum store what was chosen.
func (c *Core) writeBack(now time.Time, op *operation) {
	c.begin(op, c.cfg.System.Write())
	op.storing = true
	op.request = message{kind: msgStore, round: c.round, key: op.key, register: op.chosen}.encode()
	c.ask(now, op)
}

// begin gives the operation a new round, to which alone answers count.
func (c *Core) begin(op *operation, answers quorum.System) {
	delete(c.rounds, op.tally.Ballot())
	c.round++
	op.tally, op.asked = quorum.NewTally(answers, c.round), 0
	c.rounds[c.round] = op
}

// end forgets the operation.
func (c *Core) end(op *operation) {
	delete(c.rounds, op.tally.Ballot())
	delete(c.pending, op.id)
}

// ask sends the request of the present round to all servers that have not answered it; at first, with Config.Hedge, to
// no more than a quorum.
func (c *Core) ask(now time.Time, op *operation) {
	if c.cfg.Hedge > 0 && op.asked == 0 {
		c.askFew(op)
		c.resendAt(now.Add(c.cfg.Hedge), op)
		return
	}
	if op.asked != 0 {
		c.demote(op)
	}
	for _, id := range c.nodes {
		if _, answered := op.tally.Answered(id); !answered {
			c.out.SendEarly(id, op.request)
		}
	}
	c.resendAt(now.Add(c.cfg.Resend), op)
}

// askFew asks the first servers that are a quorum.
func (c *Core) askFew(op *operation) {
	system := c.cfg.System.Read()
	if op.storing {
		system = c.cfg.System.Write()
	}
	for _, id := range c.nodes {
		c.out.SendEarly(id, op.request)
		if op.asked |= system.Set(id); system.IsQuorum(op.asked) {
			return
		}
	}
}

// demote lets those who were asked first and have not answered be asked last from now on.
func (c *Core) demote(op *operation) {
	var late []coterie.NodeID
	prompt := c.nodes[:0]
	for _, id := range c.nodes {
		_, answered := op.tally.Answered(id)
		if !answered && op.asked&c.cfg.System.Set(id) != 0 {
			late = append(late, id)
		} else {
			prompt = append(prompt, id)
		}
	}
	c.nodes = append(prompt, late...)
}

// resendAt notes when to ask again. With two intervals in use a later note may be of an earlier time.
func (c *Core) resendAt(at time.Time, op *operation) {
	c.resends = append(c.resends, resend{at, op.tally.Ballot()})
	for i := len(c.resends) - 1; i > 0 && c.resends[i-1].at.After(at); i-- {
		c.resends[i-1], c.resends[i] = c.resends[i], c.resends[i-1]
	}
}

// reported takes a server's answer to the first round.
func (c *Core) reported(now time.Time, from coterie.NodeID, m message) {
	op := c.rounds[m.round]
	if op == nil || op.storing {
		return
	}
	if _, again := op.tally.Answered(from); again || !c.cfg.System.Read().Has(from) {
		return
	}
	op.reports = append(op.reports, report{from, m.register})
	if op.tally.Add(from, true) != quorum.Won {
		return
	}
	if op.write {
		c.chooseTimestamp(op)
		c.writeBack(now, op)
		return
	}
	c.chooseValue(now, op)
}

// chooseTimestamp picks one above that of every write that has returned. Each of those is at Faulty+1 honest servers of
// this quorum at least, so the highest that so many report is high enough, and not higher than an honest server's:
// liars cannot use up the numbers.
func (c *Core) chooseTimestamp(op *operation) {
	slices.SortFunc(op.reports, func(a, b report) int { return b.at.compare(a.at) })
	seq := op.reports[min(c.cfg.Faulty, len(op.reports)-1)].at.seq
	c.lastSeq = max(c.lastSeq, seq) + 1
	op.chosen.at = timestamp{seq: c.lastSeq, writer: c.cfg.ID, nonce: c.nonce}
}

// chooseValue picks the newest register that more than Faulty servers report alike, at least one of them honest. An
// atomic read has a write quorum store it first, so that no later read finds an older one; without that second round a
// read can return a value that only a minority holds, and the next read the value before it (CASSANDRA-12126).
func (c *Core) chooseValue(now time.Time, op *operation) {
	found, vouched := register{}, false
	for _, r := range op.reports {
		if alike(op.reports, r.register) > c.cfg.Faulty && (!vouched || r.at.after(found.at)) {
			found, vouched = r.register, true
		}
	}
	if !vouched {
		c.end(op)
		c.out.Emit(ReadDone{ID: op.id, Rounds: 1, Err: ErrConcurrent})
		return
	}
	op.chosen = found
	if c.cfg.Form == Atomic && !c.atRest(op) {
		c.writeBack(now, op)
		return
	}
	c.end(op)
	c.out.Emit(ReadDone{ID: op.id, Value: found.value, Rounds: 1})
}

// atRest reports whether a write quorum holds what was chosen: then there is nothing to write back. A register that was
// never written is at rest everywhere.
func (c *Core) atRest(op *operation) bool {
	write := c.cfg.System.Write()
	var holders quorum.Set
	for _, r := range op.reports {
		if r.at == op.chosen.at {
			holders |= write.Set(r.from)
		}
	}
	return op.chosen.at == timestamp{} || write.IsQuorum(holders)
}

func alike(reports []report, r register) (n int) {
	for _, other := range reports {
		if other.at == r.at && bytes.Equal(other.value, r.value) {
			n++
		}
	}
	return n
}

// stored takes a server's answer to the second round.
func (c *Core) stored(_ time.Time, from coterie.NodeID, m message) {
	op := c.rounds[m.round]
	if op == nil || !op.storing || op.tally.Add(from, true) != quorum.Won {
		return
	}
	c.end(op)
	if op.write {
		c.out.Emit(WriteDone{ID: op.id})
		return
	}
	c.out.Emit(ReadDone{ID: op.id, Value: op.chosen.value, Rounds: 2})
}
