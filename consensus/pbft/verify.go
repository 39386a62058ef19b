package pbft

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// ErrProof is what Verify returns, wrapped, for a message whose signature or proof does not hold: whoever sent it, or
// repeated it, lies.
var ErrProof = errors.New("pbft: proof does not hold")

// group is what all replicas know of each other.
type group struct {
	ids      []coterie.NodeID // sorted: the primary of view v is that of index v mod n (§4)
	keys     []ed25519.PublicKey
	domain   digest // stands before all that is signed, so that nothing counts in another group
	faulty   int    // f, how many replicas may lie
	quorum   int    // any two quorums share a replica that does not lie
	interval uint64 // K
	window   uint64 // L
	command  int    // most bytes of a command
	commands int    // most bytes of commands in a batch
	hashed   bool   // signatures are hashes
}

func newGroup(cfg *Config) *group {
	n := len(cfg.Voters)
	g := &group{
		ids: slices.Sorted(maps.Keys(cfg.Voters)), faulty: (n - 1) / 3,
		hashed: cfg.hashed, interval: uint64(cfg.CheckpointInterval), window: 2 * uint64(cfg.CheckpointInterval),
		command: cfg.MaxCommandBytes, commands: max(cfg.MaxBatchBytes, cfg.MaxCommandBytes),
	}
	g.quorum = (n+g.faulty)/2 + 1 // 2f+1 of 3f+1
	b := []byte("coterie pbft 1\x00")
	for _, id := range g.ids {
		g.keys = append(g.keys, cfg.Keys[id])
		b = wire.AppendString(b, id)
		b = wire.AppendBytes(b, cfg.Keys[id])
	}
	g.domain = sha256.Sum256(b)
	return g
}

func (g *group) primary(view uint64) int { return int(view % uint64(len(g.ids))) }

func (g *group) find(id coterie.NodeID) (int, bool) { return slices.BinarySearch(g.ids, id) }

func (g *group) sign(key ed25519.PrivateKey, text []byte) []byte {
	if g.hashed {
		return g.hash(key.Public().(ed25519.PublicKey), text)
	}
	return ed25519.Sign(key, append(slices.Clip(g.domain[:]), text...))
}

func (g *group) verify(from int, text, sig []byte) error {
	if from >= len(g.ids) {
		return fmt.Errorf("%w: replica %d of %d", ErrProof, from, len(g.ids))
	}
	if g.hashed {
		if !bytes.Equal(sig, g.hash(g.keys[from], text)) {
			return fmt.Errorf("%w: not the hash of %s", ErrProof, g.ids[from])
		}
		return nil
	}
	b := make([]byte, 0, 512)
	b = append(append(b, g.domain[:]...), text...)
	if !ed25519.Verify(g.keys[from], b, sig) {
		return fmt.Errorf("%w: not the signature of %s", ErrProof, g.ids[from])
	}
	return nil
}

func (g *group) hash(key ed25519.PublicKey, text []byte) []byte {
	sum := sha256.Sum256(append(append(g.domain[:], key...), text...))
	return append(sum[:], sum[:]...)
}

// Verifier checks messages before a Core sees them. It is safe for concurrent use.
type Verifier struct{ group *group }

// NewVerifier returns the Verifier of a group, of which it needs what is the same on every replica. The error names
// what is wrong in Config.
func NewVerifier(cfg Config) (*Verifier, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validateGroup(); err != nil {
		return nil, err
	}
	return &Verifier{newGroup(&cfg)}, nil
}

// Verify returns an error unless the message is well formed, comes from a replica of the group, and every signature and
// every proof in it holds; a Core trusts what has passed. Commands that no driver proposes, which would stop the
// replicas that apply them, are refused too. It is meant as host.Config.Check and sim.Node.Check, so that signatures
// are verified beside the core and not within it. A message that lies gives ErrProof.
func (v *Verifier) Verify(from coterie.NodeID, payload []byte) error {
	if _, ok := v.group.find(from); !ok {
		return fmt.Errorf("pbft: %q is not a replica", from)
	}
	var m message
	if err := m.decode(payload); err != nil {
		return err
	}
	return v.group.check(&m)
}

func (g *group) check(m *message) error {
	switch m.kind {
	case kindRequest:
		return g.checkRequest(m.request)
	case kindPrePrepare, kindPrepare, kindCommit, kindCheckpoint:
		if err := g.checkVote(&m.vote); err != nil {
			return err
		}
		return g.checkBatch(m.batch)
	case kindViewChange:
		return g.checkViewChange(m.change)
	case kindNewView:
		return g.checkNewView(m.newView)
	case kindDecided:
		for i := range m.decided {
			if err := errors.Join(g.checkVotes(m.decided[i].proof, kindCommit), g.checkBatch(m.decided[i].batch)); err != nil {
				return err
			}
		}
		return nil
	case kindStable:
		return g.checkVotes(m.proof, kindCheckpoint)
	case kindVouch:
		return g.checkVouch(&m.vouches[0])
	case kindOffer:
		return g.checkOffer(m)
	case kindStatus, kindAskChunk, kindChunk:
		return nil
	default:
		return fmt.Errorf("pbft: %v is no message", m.kind)
	}
}

// checkRequest also refuses the commands that no replica could apply.
func (g *group) checkRequest(q *request) error {
	if q.bytes > g.commands {
		return fmt.Errorf("%w: a request of %d bytes", ErrProof, q.bytes)
	}
	for _, c := range q.commands {
		if len(c) > g.command {
			return fmt.Errorf("%w: a command of %d bytes", ErrProof, len(c))
		}
		if err := consensus.CheckCommand(c); err != nil {
			return fmt.Errorf("%w: command: %w", ErrProof, err)
		}
	}
	return g.verify(q.from, q.raw[:q.signed], q.raw[q.signed:])
}

func (g *group) checkBatch(b *batch) error {
	if b == nil {
		return nil
	}
	if b.bytes > g.commands {
		return fmt.Errorf("%w: a batch of %d bytes", ErrProof, b.bytes)
	}
	for _, q := range b.requests {
		if err := g.checkRequest(q); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) checkVote(v *vote) error {
	switch {
	case v.from >= len(g.ids):
		return fmt.Errorf("%w: replica %d of %d", ErrProof, v.from, len(g.ids))
	case v.kind == kindPrePrepare && v.from != g.primary(v.view):
		return fmt.Errorf("%w: %s pre-prepares in view %d", ErrProof, g.ids[v.from], v.view)
	case v.kind == kindPrepare && v.from == g.primary(v.view):
		return fmt.Errorf("%w: the primary prepares in view %d", ErrProof, v.view)
	case v.kind == kindCheckpoint && (v.view != 0 || v.seq%g.interval != 0):
		return fmt.Errorf("%w: a checkpoint at %d", ErrProof, v.seq)
	}
	return g.verify(v.from, v.appendUnsigned(make([]byte, 0, minVote+24)), v.sig)
}

// checkVotes checks that a quorum of different replicas agree.
func (g *group) checkVotes(c certificate, k kind) error {
	if len(c) < g.quorum {
		return fmt.Errorf("%w: %d votes of %d", ErrProof, len(c), g.quorum)
	}
	var seen [maxReplicas]bool
	for i := range c {
		v := &c[i]
		rightKind := v.kind == k || k == kindPrepare && v.kind == kindPrePrepare
		if !rightKind || !v.agrees(&c[0]) || seen[v.from] {
			return fmt.Errorf("%w: votes that do not agree", ErrProof)
		}
		seen[v.from] = true
		if err := g.checkVote(v); err != nil {
			return err
		}
	}
	return nil
}

// checkPrepared checks the paper's prepared(m, v, n, i): the pre-prepare first, then prepares.
func (g *group) checkPrepared(c certificate) error {
	if c[0].kind != kindPrePrepare {
		return fmt.Errorf("%w: prepared without a pre-prepare", ErrProof)
	}
	return g.checkVotes(c, kindPrepare)
}

func (g *group) checkViewChange(vc *viewChange) error {
	if err := g.verify(vc.from, vc.raw[:vc.signed], vc.raw[vc.signed:]); err != nil {
		return err
	}
	if vc.stable > 0 || len(vc.proof) > 0 {
		if err := g.checkVotes(vc.proof, kindCheckpoint); err != nil {
			return err
		}
		if vc.proof[0].seq != vc.stable {
			return fmt.Errorf("%w: proof of another checkpoint", ErrProof)
		}
	}
	last := vc.stable
	for _, c := range vc.prepared {
		if c[0].seq <= last || c[0].seq > vc.stable+g.window || c[0].view >= vc.view {
			return fmt.Errorf("%w: %d prepared in view %d", ErrProof, c[0].seq, c[0].view)
		}
		last = c[0].seq
		if err := g.checkPrepared(c); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) checkNewView(nv *newView) error {
	if nv.from != g.primary(nv.view) {
		return fmt.Errorf("%w: %d begins view %d", ErrProof, nv.from, nv.view)
	}
	if err := g.verify(nv.from, nv.raw[:nv.signed], nv.raw[nv.signed:]); err != nil {
		return err
	}
	if len(nv.changes) < g.quorum {
		return fmt.Errorf("%w: %d view changes of %d", ErrProof, len(nv.changes), g.quorum)
	}
	var seen [maxReplicas]bool
	for _, vc := range nv.changes {
		if vc.view != nv.view || seen[vc.from] {
			return fmt.Errorf("%w: view changes that do not agree", ErrProof)
		}
		seen[vc.from] = true
		if err := g.checkViewChange(vc); err != nil {
			return err
		}
	}
	want := prePreparesOf(nv.changes, nv.view)
	if len(want) != len(nv.prePrepares) {
		return fmt.Errorf("%w: %d pre-prepares, not %d", ErrProof, len(nv.prePrepares), len(want))
	}
	for i := range want {
		v := &nv.prePrepares[i]
		if v.kind != kindPrePrepare || !v.agrees(&want[i]) {
			return fmt.Errorf("%w: a pre-prepare of %d that does not follow", ErrProof, want[i].seq)
		}
		if err := g.checkVote(v); err != nil {
			return err
		}
	}
	return nil
}

// prePreparesOf is O, unsigned: for each number above the newest stable checkpoint the batch that prepared in the
// highest view, or the null request (§4.4).
func prePreparesOf(changes []*viewChange, view uint64) []vote {
	var low, high uint64
	for _, vc := range changes {
		low = max(low, vc.stable)
		if n := len(vc.prepared); n > 0 {
			high = max(high, vc.prepared[n-1][0].seq)
		}
	}
	if high <= low {
		return nil
	}
	votes := make([]vote, high-low)
	found := make([]*vote, high-low)
	for _, vc := range changes {
		for _, c := range vc.prepared {
			if v := &c[0]; v.seq > low && (found[v.seq-low-1] == nil || found[v.seq-low-1].view < v.view) {
				found[v.seq-low-1] = v
			}
		}
	}
	for i := range votes {
		votes[i] = vote{kind: kindPrePrepare, view: view, seq: low + 1 + uint64(i), digest: nullDigest}
		if found[i] != nil {
			votes[i].digest = found[i].digest
		}
	}
	return votes
}

// nullDigest is that of the empty batch.
var nullDigest = digest(sha256.Sum256(nil))

func (g *group) checkVouch(v *vouch) error {
	return g.verify(v.from, v.appendUnsigned(make([]byte, 0, minVouch+32)), v.sig)
}

// checkOffer checks that f+1 replicas, so one that does not lie, vouch for the state and the content.
func (g *group) checkOffer(m *message) error {
	if len(m.vouches) < g.faulty+1 || len(m.state.origins) != len(g.ids) {
		return fmt.Errorf("%w: %d vouch for a snapshot", ErrProof, len(m.vouches))
	}
	var seen [maxReplicas]bool
	for i := range m.vouches {
		v := &m.vouches[i]
		if !v.agrees(&m.vouches[0]) || seen[v.from] {
			return fmt.Errorf("%w: vouches that do not agree", ErrProof)
		}
		seen[v.from] = true
		if err := g.checkVouch(v); err != nil {
			return err
		}
	}
	if m.vouches[0].state != m.state.digest() || m.vouches[0].seq != m.state.seq {
		return fmt.Errorf("%w: another state is vouched for", ErrProof)
	}
	return nil
}
