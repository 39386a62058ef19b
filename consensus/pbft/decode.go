package pbft

import (
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// message is a decoded payload, or a record. Only the fields of its kind are set.
type message struct {
	kind    kind
	vote    vote
	batch   *batch // behind a pre-prepare, in a record of one
	request *request
	change  *viewChange
	newView *newView
	status  status
	decided []decided
	proof   certificate
	vouches []vouch
	state   state
	snap    consensus.Snapshot // of a base
	seq     uint64             // of chunks, and the view or life of a record
	offset  int64
	active  bool
	data    []byte
}

// decode takes a payload or record apart, or returns an error.
func (m *message) decode(payload []byte) error {
	*m = message{}
	if len(payload) < 2 {
		return fmt.Errorf("pbft: %w", wire.ErrMalformed)
	}
	if payload[0] > format {
		return &coterie.FormatError{What: "pbft message", Got: payload[0], Max: format}
	}
	if payload[0] == 0 {
		return fmt.Errorf("pbft: format 0: %w", wire.ErrMalformed)
	}
	body := payload[1:]
	r := wire.NewReader(body)
	m.kind = kind(r.Byte())
	var err error
	switch m.kind {
	case kindRequest:
		m.request, err = readRequest(body)
		return err
	case kindViewChange:
		m.change, err = readViewChange(body)
		return err
	case kindNewView:
		m.newView, err = readNewView(body)
		return err
	case kindPrePrepare, kindPrepare, kindCommit, kindCheckpoint:
		r = wire.NewReader(body)
		m.vote = readVote(&r)
		if m.kind == kindPrePrepare {
			err = m.readBatch(&r, r.Rest())
		}
	case kindVouch:
		r = wire.NewReader(body)
		m.vouches = []vouch{readVouch(&r)}
	default:
		err = m.decodeUnsigned(&r)
	}
	if err != nil {
		return err
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("pbft: %v: %w", m.kind, err)
	}
	return nil
}

// readBatch takes the batch behind a pre-prepare, which must be the one it names.
func (m *message) readBatch(r *wire.Reader, raw []byte) error {
	if r.Err() != nil {
		return nil // Done tells
	}
	b, err := readBatch(raw)
	if err != nil {
		return err
	}
	if b.digest != m.vote.digest {
		return fmt.Errorf("pbft: the batch of %d is not the one that is signed: %w", m.vote.seq, wire.ErrMalformed)
	}
	m.batch = b
	return nil
}

func (m *message) decodeUnsigned(r *wire.Reader) error {
	switch m.kind {
	case kindStatus:
		m.status = readStatus(r)
	case kindDecided:
		for range r.Count(2 + minVote) {
			raw, proof := r.Bytes(), readCertificate(r)
			if r.Err() != nil {
				break
			}
			b, err := readBatch(raw)
			if err != nil {
				return err
			}
			if len(proof) == 0 || proof[0].digest != b.digest {
				return fmt.Errorf("pbft: a batch without proof: %w", wire.ErrMalformed)
			}
			m.decided = append(m.decided, decided{b, proof})
		}
	case kindStable, kindPrepared, kindCommitted:
		if m.proof = readCertificate(r); len(m.proof) == 0 {
			r.Fail("an empty certificate")
		}
	case kindOffer:
		m.state = readState(r)
		for range r.Count(minVouch) {
			m.vouches = append(m.vouches, readVouch(r))
		}
	case kindAskChunk:
		m.seq, m.offset = r.Uvarint(), int64(r.Int(1<<50))
	case kindChunk:
		m.seq, m.offset, m.data = r.Uvarint(), int64(r.Int(1<<50)), r.Rest()
	case kindBase:
		m.state = readState(r)
		m.snap = consensus.Snapshot{Name: r.String(), Size: int64(r.Int(1 << 50)), Checksum: r.Uint64()}
	case kindView:
		m.seq, m.active = r.Uvarint(), r.Bool()
	case kindLife:
		m.seq = r.Uvarint()
	case kindAccepted:
		m.vote = readVote(r)
		if r.Bool() {
			return m.readBatch(r, r.Rest())
		}
	default:
		r.Fail("a message of %v", m.kind)
	}
	return nil
}
