package pbft

import (
	"crypto/sha256"
	"fmt"

	"github.com/coterie-go/coterie/internal/wire"
)

// Every message is: format byte | kind | body. What is signed ends with the signer's signature of all before it and of
// the group it belongs to, so that it proves itself wherever it is repeated.
const format = 1

// kind says what a message or a record is.
type kind byte

const (
	kindRequest    kind = iota + 1 // commands that a replica wants executed
	kindPrePrepare                 // §4.2, with the batch behind it
	kindPrepare                    // §4.2
	kindCommit                     // §4.2
	kindCheckpoint                 // §4.3
	kindViewChange                 // §4.4
	kindNewView                    // §4.4
	kindStatus                     // how far a replica is
	kindDecided                    // batches with proof that they are committed
	kindStable                     // proof of a stable checkpoint
	kindVouch                      // a replica's word for a snapshot
	kindOffer                      // a snapshot that f+1 vouch for
	kindAskChunk
	kindChunk

	// Records only.
	kindBase
	kindView
	kindLife
	kindAccepted
	kindPrepared
	kindCommitted
)

var kindNames = [...]string{
	"?", "Request", "PrePrepare", "Prepare", "Commit", "Checkpoint", "ViewChange", "NewView", "Status", "Decided", "Stable",
	"Vouch", "Offer", "AskChunk", "Chunk", "Base", "View", "Life", "Accepted", "Prepared", "Committed",
}

func (k kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

type digest [sha256.Size]byte

const signatureSize = 64

// vote is one signed statement of a replica on one sequence number: a pre-prepare, prepare, commit or checkpoint.
type vote struct {
	kind      kind
	view, seq uint64
	digest    digest // of the batch; of a checkpoint, of the state
	from      int
	sig       []byte // part of what it was read from
}

// minVote is the least bytes of a vote.
const minVote = 1 + 1 + 1 + sha256.Size + 1 + signatureSize

func (v *vote) appendUnsigned(b []byte) []byte {
	b = append(b, byte(v.kind))
	b = wire.AppendUvarint(b, v.view)
	b = wire.AppendUvarint(b, v.seq)
	b = append(b, v.digest[:]...)
	return wire.AppendUvarint(b, uint64(v.from))
}

func (v *vote) append(b []byte) []byte { return append(v.appendUnsigned(b), v.sig...) }

// agrees reports whether two votes are on the same batch, or the same state.
func (v *vote) agrees(w *vote) bool {
	return v.view == w.view && v.seq == w.seq && v.digest == w.digest
}

func readVote(r *wire.Reader) vote {
	v := vote{kind: kind(r.Byte()), view: r.Uvarint(), seq: r.Uvarint()}
	copy(v.digest[:], r.Fixed(sha256.Size))
	v.from = r.Int(maxReplicas - 1)
	v.sig = r.Fixed(signatureSize)
	if v.kind < kindPrePrepare || v.kind > kindCheckpoint {
		r.Fail("a vote of %v", v.kind)
	}
	if v.seq == 0 || v.seq > maxSeq || v.view > maxSeq {
		r.Fail("sequence number %d of view %d", v.seq, v.view)
	}
	return v
}

// maxSeq bounds sequence numbers and views, so that sums of them do not overflow.
const maxSeq = 1 << 60

// certificate is votes of different replicas that agree.
type certificate []vote

func (c certificate) append(b []byte) []byte {
	b = wire.AppendUvarint(b, uint64(len(c)))
	for i := range c {
		b = c[i].append(b)
	}
	return b
}

func readCertificate(r *wire.Reader) certificate {
	n := r.Count(minVote)
	if n > maxReplicas {
		r.Fail("a certificate of %d votes", n)
		return nil
	}
	c := make(certificate, 0, n)
	for range n {
		c = append(c, readVote(r))
	}
	return c
}

// request is commands of one replica, for its own clients, that are executed together: the paper's REQUEST. A replica
// numbers its requests within its life, which is another after each restart, and they are executed in that order, each
// once. One without commands marks a point in the log, for reads.
type request struct {
	from      int
	life, num uint64
	commands  [][]byte
	bytes     int    // of commands
	signed    int    // length of raw without the signature
	raw       []byte // from the kind byte to the signature
}

func (q *request) appendUnsigned(b []byte) []byte {
	b = append(b, byte(kindRequest))
	b = wire.AppendUvarint(b, uint64(q.from))
	b = wire.AppendUvarint(b, q.life)
	b = wire.AppendUvarint(b, q.num)
	b = wire.AppendUvarint(b, uint64(len(q.commands)))
	for _, c := range q.commands {
		b = wire.AppendBytes(b, c)
	}
	return b
}

// readRequest takes one that is all of raw.
func readRequest(raw []byte) (*request, error) {
	r := wire.NewReader(raw)
	if k := kind(r.Byte()); k != kindRequest {
		r.Fail("%v where a request was expected", k)
	}
	q := &request{from: r.Int(maxReplicas - 1), life: r.Uvarint(), num: r.Uvarint(), raw: raw}
	if q.life == 0 || q.life > maxSeq || q.num == 0 || q.num > maxSeq {
		r.Fail("request %d of life %d", q.num, q.life)
	}
	n := r.Count(1)
	q.commands = make([][]byte, 0, n)
	for range n {
		c := r.Bytes()
		q.bytes += len(c)
		q.commands = append(q.commands, c)
	}
	q.signed = len(raw) - r.Len()
	r.Fixed(signatureSize)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("pbft: request: %w", err)
	}
	return q, nil
}

// batch is the requests of one sequence number. The empty one is the paper's null request (§4.4).
type batch struct {
	digest   digest
	requests []*request
	bytes    int // of commands
	raw      []byte
}

func newBatch(requests []*request) *batch {
	size := 0
	for _, q := range requests {
		size += len(q.raw) + 4
	}
	raw := make([]byte, 0, size)
	b := &batch{requests: requests}
	for _, q := range requests {
		raw = wire.AppendBytes(raw, q.raw)
		b.bytes += q.bytes
	}
	b.raw, b.digest = raw, sha256.Sum256(raw)
	return b
}

// readBatch takes one that is all of raw.
func readBatch(raw []byte) (*batch, error) {
	b := &batch{raw: raw, digest: sha256.Sum256(raw)}
	r := wire.NewReader(raw)
	for r.Err() == nil && r.Len() > 0 {
		p := r.Bytes()
		if r.Err() != nil {
			break
		}
		q, err := readRequest(p)
		if err != nil {
			return nil, err
		}
		b.requests = append(b.requests, q)
		b.bytes += q.bytes
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("pbft: batch: %w", err)
	}
	return b, nil
}

// viewChange is the paper's VIEW-CHANGE: what a replica brings into the next view (§4.4).
type viewChange struct {
	view     uint64
	from     int
	stable   uint64        // sequence number of its last stable checkpoint
	proof    certificate   // of that checkpoint; empty if it is 0
	prepared []certificate // one for each number above stable that has prepared here, in order
	signed   int
	raw      []byte // from the kind byte to the signature
}

func (vc *viewChange) unsigned() []byte {
	b := []byte{byte(kindViewChange)}
	b = wire.AppendUvarint(b, vc.view)
	b = wire.AppendUvarint(b, uint64(vc.from))
	b = wire.AppendUvarint(b, vc.stable)
	b = vc.proof.append(b)
	b = wire.AppendUvarint(b, uint64(len(vc.prepared)))
	for _, c := range vc.prepared {
		b = c.append(b)
	}
	return b
}

func readViewChange(raw []byte) (*viewChange, error) {
	r := wire.NewReader(raw)
	if k := kind(r.Byte()); k != kindViewChange {
		r.Fail("%v where a view change was expected", k)
	}
	vc := &viewChange{view: r.Uvarint(), from: r.Int(maxReplicas - 1), stable: r.Uvarint(), raw: raw}
	if vc.view == 0 || vc.view > maxSeq || vc.stable > maxSeq {
		r.Fail("view %d after checkpoint %d", vc.view, vc.stable)
	}
	vc.proof = readCertificate(&r)
	for range r.Count(1 + minVote) {
		c := readCertificate(&r)
		if len(c) == 0 {
			r.Fail("an empty certificate")
		}
		vc.prepared = append(vc.prepared, c)
	}
	vc.signed = len(raw) - r.Len()
	r.Fixed(signatureSize)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("pbft: view change: %w", err)
	}
	return vc, nil
}

// newView is the paper's NEW-VIEW: the view changes of a quorum, V, and the pre-prepares that follow from them, O.
type newView struct {
	view        uint64
	from        int
	changes     []*viewChange
	prePrepares []vote
	signed      int
	raw         []byte
}

func (nv *newView) appendUnsigned(b []byte) []byte {
	b = append(b, byte(kindNewView))
	b = wire.AppendUvarint(b, nv.view)
	b = wire.AppendUvarint(b, uint64(nv.from))
	b = wire.AppendUvarint(b, uint64(len(nv.changes)))
	for _, vc := range nv.changes {
		b = wire.AppendBytes(b, vc.raw)
	}
	return certificate(nv.prePrepares).append(b)
}

func readNewView(raw []byte) (*newView, error) {
	r := wire.NewReader(raw)
	if k := kind(r.Byte()); k != kindNewView {
		r.Fail("%v where a new view was expected", k)
	}
	nv := &newView{view: r.Uvarint(), from: r.Int(maxReplicas - 1), raw: raw}
	n := r.Count(signatureSize)
	if n > maxReplicas {
		r.Fail("%d view changes", n)
		n = 0
	}
	for range n {
		p := r.Bytes()
		if r.Err() != nil {
			break
		}
		vc, err := readViewChange(p)
		if err != nil {
			return nil, err
		}
		nv.changes = append(nv.changes, vc)
	}
	for range r.Count(minVote) {
		nv.prePrepares = append(nv.prePrepares, readVote(&r))
	}
	nv.signed = len(raw) - r.Len()
	r.Fixed(signatureSize)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("pbft: new view: %w", err)
	}
	return nv, nil
}

// vouch is a replica's word that a snapshot with this content holds the state with this digest.
type vouch struct {
	seq      uint64
	state    digest
	size     int64
	checksum uint64 // xxhash64, which the driver compares
	content  digest
	from     int
	sig      []byte
}

func (v *vouch) appendUnsigned(b []byte) []byte {
	b = append(b, byte(kindVouch))
	b = wire.AppendUvarint(b, v.seq)
	b = append(b, v.state[:]...)
	b = wire.AppendUvarint(b, uint64(v.size))
	b = wire.AppendUint64(b, v.checksum)
	b = append(b, v.content[:]...)
	return wire.AppendUvarint(b, uint64(v.from))
}

func (v *vouch) append(b []byte) []byte { return append(v.appendUnsigned(b), v.sig...) }

func (v *vouch) agrees(w *vouch) bool {
	return v.seq == w.seq && v.state == w.state && v.size == w.size && v.checksum == w.checksum && v.content == w.content
}

const minVouch = 1 + 1 + 32 + 1 + 8 + 32 + 1 + signatureSize

func readVouch(r *wire.Reader) vouch {
	if k := kind(r.Byte()); k != kindVouch {
		r.Fail("%v where a vouch was expected", k)
	}
	v := vouch{seq: r.Uvarint()}
	copy(v.state[:], r.Fixed(sha256.Size))
	v.size = int64(r.Int(1 << 50))
	v.checksum = r.Uint64()
	copy(v.content[:], r.Fixed(sha256.Size))
	v.from = r.Int(maxReplicas - 1)
	v.sig = r.Fixed(signatureSize)
	if v.seq == 0 || v.seq > maxSeq || v.size == 0 {
		r.Fail("a snapshot of %d bytes at %d", v.size, v.seq)
	}
	return v
}

// status tells how far a replica is. It is not signed: it promises nothing, and only makes others repeat themselves.
type status struct {
	view     uint64
	active   bool
	executed uint64
	stable   uint64
	vouched  uint64   // the newest snapshot it could give to others
	helper   int      // who should send what is long
	missing  []digest // batches that it must have and has not
}

func (s *status) encode() []byte {
	b := []byte{byte(kindStatus)}
	b = wire.AppendUvarint(b, s.view)
	b = wire.AppendBool(b, s.active)
	b = wire.AppendUvarint(b, s.executed)
	b = wire.AppendUvarint(b, s.stable)
	b = wire.AppendUvarint(b, s.vouched)
	b = wire.AppendUvarint(b, uint64(s.helper))
	b = wire.AppendUvarint(b, uint64(len(s.missing)))
	for i := range s.missing {
		b = append(b, s.missing[i][:]...)
	}
	return b
}

func readStatus(r *wire.Reader) status {
	s := status{
		view: r.Uvarint(), active: r.Bool(), executed: r.Uvarint(), stable: r.Uvarint(), vouched: r.Uvarint(),
		helper: r.Int(maxReplicas - 1),
	}
	if max(s.view, s.executed, s.stable, s.vouched) > maxSeq {
		r.Fail("a status out of range")
	}
	n := r.Count(sha256.Size)
	if n > maxMissing {
		r.Fail("%d batches missing", n)
		return s
	}
	for range n {
		s.missing = append(s.missing, digest(r.Fixed(sha256.Size)))
	}
	return s
}

// maxMissing is how many batches one status asks for.
const maxMissing = 16

// decided is one batch and the commits of a quorum on it.
type decided struct {
	batch *batch
	proof certificate
}
