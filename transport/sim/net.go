package sim

import (
	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
)

// link is one direction between two nodes.
type link struct {
	set           Link // by Config or SetLink
	override      Link // by a fault, until overrideUntil
	overrideUntil int64
	cutUntil      int64
	src           source
	free          int64 // when the bandwidth is free again
	stats         linkCounts
}

// link returns the link from n to another node, made when it is first used.
func (n *node) link(to int32) *link {
	if int(to) >= len(n.links) {
		n.links = append(n.links, make([]*link, len(n.w.nodes)-len(n.links))...)
	}
	if l := n.links[to]; l != nil {
		return l
	}
	l := &link{set: n.w.cfg.Link, src: newSource(n.w.cfg.Seed, "link", n.id, n.w.nodes[to].id)}
	l.stats.percentiles = len(n.w.nodes) <= maxPercentileNodes
	n.links[to] = l
	return l
}

func (l *link) current(now int64) *Link {
	if now < l.overrideUntil {
		return &l.override
	}
	return &l.set
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
	cfg := l.current(w.now)
	w.stats.Sent++
	w.stats.Bytes += uint64(len(env.Payload))
	l.stats.sent++
	l.stats.bytes += uint64(len(env.Payload))
	queued := l.wait(cfg, w.now, len(env.Payload))
	reason := ""
	switch {
	case w.now < l.cutUntil:
		reason = "cut"
	case queued < 0:
		reason = "link full"
	case l.src.chance(cfg.Loss):
		reason = "lost"
	}
	if reason != "" {
		l.lose(w)
		if w.trace != nil {
			w.trace.add(entry{at: w.now, kind: traceLost, node: n.index, peer: to, id: id, text: reason})
		}
		return
	}
	arrival := w.now + queued + l.latency(cfg)
	n.dispatch(to, arrival, id, env.Payload)
	if l.src.chance(cfg.Duplicate) {
		l.stats.duplicated++
		w.stats.Duplicated++
		n.dispatch(to, arrival+l.latency(cfg), id, env.Payload)
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
