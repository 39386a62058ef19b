package sim

import (
	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
)

// link is one direction between two nodes. It is made when it is first used, and small: a thousand nodes may have a
// million.
type link struct {
	set           *Link // by SetLink; nil is Config.Link
	override      *Link // by a fault, until overrideUntil
	overrideUntil int64
	cutUntil      int64
	src           source
	free          int64 // when the bandwidth is free again
	stats         linkCounts
}

// split is a partition: links between nodes of different groups are cut.
type split struct {
	until int64
	group []int32 // by node; nodes added later are in group 0
}

func (s *split) between(a, b int32) bool {
	of := func(n int32) int32 {
		if int(n) < len(s.group) {
			return s.group[n]
		}
		return 0
	}
	return of(a) != of(b)
}

// link returns the link from n to another node.
func (n *node) link(to int32) *link {
	if int(to) >= len(n.links) {
		n.links = append(n.links, make([]*link, len(n.w.nodes)-len(n.links))...)
	}
	if l := n.links[to]; l != nil {
		return l
	}
	l := &link{src: newSource(n.w.cfg.Seed, "link", n.id, n.w.nodes[to].id)}
	if len(n.w.nodes) <= maxPercentileNodes {
		l.stats.delays = &histogram{}
	}
	n.links[to] = l
	return l
}

func (l *link) current(w *World) *Link {
	switch {
	case w.now < l.overrideUntil:
		return l.override
	case l.set != nil:
		return l.set
	}
	return &w.cfg.Link
}

// isCut reports whether what is sent or arrives on the link from a to b is lost now.
func (w *World) isCut(l *link, a, b int32) bool {
	if w.now < l.cutUntil {
		return true
	}
	for i := range w.splits {
		if s := &w.splits[i]; w.now < s.until && s.between(a, b) {
			return true
		}
	}
	return false
}

// checksumWhole is the size up to which a payload's checksum covers all of it; of a larger one it covers both ends.
const checksumWhole = 4096

// checksum guards the rule that payloads and records never change.
func checksum(p []byte) uint64 {
	if len(p) <= checksumWhole {
		return xxhash.Sum64(p)
	}
	return xxhash.Sum64(p[:checksumWhole/2]) ^ xxhash.Sum64(p[len(p)-checksumWhole/2:])
}

// send puts one message on its link, or at the front of the node's next batch if it is to the node itself.
func (n *node) send(env *coterie.Envelope) {
	w := n.w
	to, ok := w.index[env.To]
	if !ok {
		w.stats.Unknown++
		return
	}
	w.messages++
	id := w.messages
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: traceSend, node: n.index, peer: to, id: id, payload: env.Payload})
	}
	if to == n.index {
		n.self = append(n.self, mail{from: n.index, payload: env.Payload, id: id})
		return
	}
	l := n.link(to)
	cfg := l.current(w)
	w.stats.Sent++
	w.stats.Bytes += uint64(len(env.Payload))
	l.stats.sent++
	l.stats.bytes += uint64(len(env.Payload))
	// All is drawn whatever comes of it, so that the messages that follow meet the same luck with and without a cut.
	queued, lost := l.wait(cfg, w.now, len(env.Payload)), l.src.chance(cfg.Loss)
	arrival := w.now + queued + l.latency(cfg)
	again := l.src.chance(cfg.Duplicate)
	reason := ""
	switch {
	case w.isCut(l, n.index, to):
		reason = "cut"
	case queued < 0:
		reason = "link full"
	case lost:
		reason = "lost"
	}
	if reason != "" {
		w.lose(l, n.index, to, id, reason)
		return
	}
	n.dispatch(to, arrival, id, env.Payload)
	if again {
		l.stats.duplicated++
		w.stats.Duplicated++
		n.dispatch(to, arrival+l.latency(cfg), id, env.Payload)
	}
}

func (w *World) lose(l *link, from, to int32, id uint64, reason string) {
	l.stats.lost++
	w.stats.Lost++
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: traceLost, node: from, peer: to, id: id, text: reason})
	}
}

func (n *node) dispatch(to int32, at int64, id uint64, payload []byte) {
	ev := n.w.queue.push(at)
	ev.kind, ev.node, ev.from, ev.sent, ev.id = evMessage, to, n.index, n.w.now, id
	ev.payload, ev.sum = payload, checksum(payload)
}

// reorderTimes is how many latencies a message that is held back waits at most.
const reorderTimes = 10

func (l *link) latency(cfg *Link) int64 {
	d := cfg.Latency.draw(&l.src)
	if l.src.chance(cfg.Reorder) {
		for range 1 + l.src.below(reorderTimes) {
			d += cfg.Latency.draw(&l.src)
		}
	}
	return d
}

// wait is how long the message waits for bandwidth and is then under way on the wire, or negative if that is too long.
func (l *link) wait(cfg *Link, now int64, size int) int64 {
	if cfg.Bandwidth == 0 {
		return 0
	}
	begin := max(l.free, now)
	if begin-now > int64(cfg.MaxWait) {
		return -1
	}
	l.free = begin + int64(float64(size)/float64(cfg.Bandwidth)*1e9)
	return l.free - now
}
