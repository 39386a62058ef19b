package pbft

import (
	"crypto/sha256"

	"github.com/coterie-go/coterie/internal/wire"
)

// state is what execution makes of the log, apart from the state machine. Its digest is what a checkpoint certifies:
// with the chain it stands for the whole history, and so, the state machine being deterministic, for its state.
type state struct {
	seq     uint64 // the last batch executed
	index   uint64 // the last entry of the log
	chain   digest // of all batches
	since   uint64 // bytes of log since the last snapshot was due
	origins []origin
}

// origin is what has been executed of one replica's requests.
type origin struct {
	life, next uint64 // the request that comes next
}

func newState(replicas int) state {
	s := state{origins: make([]origin, replicas)}
	for i := range s.origins {
		s.origins[i].next = 1
	}
	return s
}

func (s *state) append(b []byte) []byte {
	b = wire.AppendUvarint(b, s.seq)
	b = wire.AppendUvarint(b, s.index)
	b = append(b, s.chain[:]...)
	b = wire.AppendUvarint(b, s.since)
	b = wire.AppendUvarint(b, uint64(len(s.origins)))
	for _, o := range s.origins {
		b = wire.AppendUvarint(b, o.life)
		b = wire.AppendUvarint(b, o.next)
	}
	return b
}

func (s *state) digest() digest { return sha256.Sum256(s.append(nil)) }

func readState(r *wire.Reader) state {
	s := state{seq: r.Uvarint(), index: r.Uvarint()}
	copy(s.chain[:], r.Fixed(sha256.Size))
	s.since = r.Uvarint()
	n := r.Count(2)
	if n > maxReplicas || s.seq > maxSeq {
		r.Fail("a state of %d replicas at %d", n, s.seq)
		return s
	}
	for range n {
		s.origins = append(s.origins, origin{r.Uvarint(), r.Uvarint()})
	}
	return s
}

// admit reports whether a request is the next one of its replica, and then takes it.
func admit(origins []origin, q *request) bool {
	o := &origins[q.from]
	if q.life == o.life && q.num == o.next || q.life > o.life && q.num == 1 {
		o.life, o.next = q.life, q.num+1
		return true
	}
	return false
}
