package pbft

import "fmt"

// Describe says what a payload or a record is, for traces: "Prepare view=1 seq=7 by 2".
func (c *Core) Describe(payload []byte) string {
	var m message
	if err := m.decode(payload); err != nil {
		return err.Error()
	}
	switch m.kind {
	case kindRequest:
		return fmt.Sprintf("Request %d of %d, commands=%d", m.request.num, m.request.from, len(m.request.commands))
	case kindPrePrepare:
		return fmt.Sprintf("PrePrepare view=%d seq=%d requests=%d", m.vote.view, m.vote.seq, len(m.batch.requests))
	case kindPrepare, kindCommit, kindAccepted:
		return fmt.Sprintf("%v view=%d seq=%d by %d", m.kind, m.vote.view, m.vote.seq, m.vote.from)
	case kindCheckpoint:
		return fmt.Sprintf("Checkpoint seq=%d by %d", m.vote.seq, m.vote.from)
	case kindViewChange:
		return fmt.Sprintf("ViewChange view=%d stable=%d prepared=%d by %d", m.change.view, m.change.stable, len(m.change.prepared), m.change.from)
	case kindNewView:
		return fmt.Sprintf("NewView view=%d pre-prepares=%d", m.newView.view, len(m.newView.prePrepares))
	case kindStatus:
		return fmt.Sprintf("Status view=%d active=%v executed=%d stable=%d", m.status.view, m.status.active, m.status.executed, m.status.stable)
	case kindStable, kindPrepared, kindCommitted:
		return fmt.Sprintf("%v seq=%d", m.kind, m.proof[0].seq)
	default:
		return m.kind.String()
	}
}
