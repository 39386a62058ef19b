package quorum

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// view is a Model as a ReadWrite sees it: defaults filled in, nodes by number.
type view struct {
	profiles    []Profile
	shares      []Share // weights sum to 1
	meanReads   float64 // the mean read fraction
	slowest     float64 // the lowest capacity: the scale of loads
	slowLatency float64 // the longest latency in seconds, or 1: the scale of latencies
}

// view validates the model.
func (m Model) view(rw ReadWrite) (*view, error) {
	if err := errors.Join(rw.read.Err(), rw.write.Err()); err != nil {
		return nil, err
	}
	v := &view{slowest: math.Inf(1)}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("quorum: "+format, args...)) }
	for _, id := range rw.read.s.ids {
		p := m.Nodes[id]
		if p.Reads == 0 {
			p.Reads = 1
		}
		if p.Writes == 0 {
			p.Writes = 1
		}
		if !(p.Reads > 0) || !(p.Writes > 0) || math.IsInf(p.Reads+p.Writes, 0) || p.Latency < 0 {
			fault("Model.Nodes[%q] is %+v: capacities must be positive and latency not negative", id, p)
		}
		v.slowest = min(v.slowest, p.Reads, p.Writes)
		v.slowLatency = max(v.slowLatency, p.Latency.Seconds())
		v.profiles = append(v.profiles, p)
	}
	if v.slowLatency == 0 {
		v.slowLatency = 1
	}
	v.shares = slices.Clone(m.Mix)
	if len(v.shares) == 0 {
		v.shares = []Share{{m.ReadFraction, 1}}
	}
	total := 0.0
	for _, s := range v.shares {
		if !(s.ReadFraction >= 0 && s.ReadFraction <= 1) || !(s.Weight >= 0) || math.IsInf(s.Weight, 0) {
			fault("a read fraction of %v with weight %v", s.ReadFraction, s.Weight)
		}
		total += s.Weight
	}
	if !(total > 0) {
		fault("Model.Mix has no weight")
	}
	for i := range v.shares {
		v.shares[i].Weight /= total
		v.meanReads += v.shares[i].Weight * v.shares[i].ReadFraction
	}
	v.shares = slices.DeleteFunc(v.shares, func(s Share) bool { return s.Weight == 0 })
	if m.Optimize > Latency {
		fault("Model.Optimize is %d", m.Optimize)
	}
	if !(m.MaxLoad >= 0) || !(m.MaxNetwork >= 0) || m.MaxLatency < 0 || math.IsInf(m.MaxLoad+m.MaxNetwork, 0) {
		fault("Model has limits of load %v, network %v, latency %v: they must not be negative", m.MaxLoad, m.MaxNetwork, m.MaxLatency)
	}
	return v, errors.Join(faults...)
}

// latency returns the seconds until a quorum of the set has answered, if all of it is asked.
func (v *view) latency(set Set, isQuorum func(Set) bool) float64 {
	var order [MaxNodes]int
	asked := order[:0]
	for i := range set.All() {
		asked = append(asked, i)
	}
	slices.SortStableFunc(asked, func(a, b int) int { return int(v.profiles[a].Latency - v.profiles[b].Latency) })
	var answered Set
	for _, i := range asked {
		if answered = answered.With(i); isQuorum(answered) {
			return v.profiles[i].Latency.Seconds()
		}
	}
	return math.Inf(1) // no quorum: never
}

// nodeLoad returns the load of every node at a read fraction: its share of all requests over its capacity.
func (s Strategy) nodeLoads(v *view, readFraction float64) []float64 {
	loads := make([]float64, len(v.profiles))
	for _, c := range s.reads {
		for i := range c.Set.All() {
			loads[i] += readFraction * c.Probability / v.profiles[i].Reads
		}
	}
	for _, c := range s.writes {
		for i := range c.Set.All() {
			loads[i] += (1 - readFraction) * c.Probability / v.profiles[i].Writes
		}
	}
	return loads
}

// Report is what a strategy costs under a model.
type Report struct {
	Load     float64                    // of the busiest node, in seconds of work for each request; averaged over the mix
	Capacity float64                    // requests per second until a node is saturated: 1/Load; averaged over the mix
	Network  float64                    // nodes asked for each request, on average
	Latency  time.Duration              // until a quorum has answered, on average
	Nodes    map[coterie.NodeID]float64 // the load of each node
}

// Report computes what the strategy costs under a model. Of the model only the workload and the nodes count.
func (s Strategy) Report(m Model) (Report, error) {
	v, err := m.view(s.rw)
	if err != nil {
		return Report{}, err
	}
	r := Report{Nodes: make(map[coterie.NodeID]float64, len(v.profiles))}
	for _, share := range v.shares {
		loads := s.nodeLoads(v, share.ReadFraction)
		busiest := slices.Max(loads)
		r.Load += share.Weight * busiest
		r.Capacity += share.Weight / busiest
		for i, load := range loads {
			r.Nodes[s.rw.read.s.ids[i]] += share.Weight * load
		}
	}
	seconds := 0.0
	for _, c := range s.reads {
		r.Network += v.meanReads * c.Probability * float64(c.Set.Len())
		seconds += v.meanReads * c.Probability * v.latency(c.Set, s.rw.IsRead)
	}
	for _, c := range s.writes {
		r.Network += (1 - v.meanReads) * c.Probability * float64(c.Set.Len())
		seconds += (1 - v.meanReads) * c.Probability * v.latency(c.Set, s.rw.IsWrite)
	}
	r.Latency = time.Duration(math.Round(seconds * float64(time.Second)))
	return r, nil
}

// Analyse finds the best strategy for the model and reports what it costs: the load, capacity, network cost and
// latency of the system itself.
func (rw ReadWrite) Analyse(m Model) (Strategy, Report, error) {
	s, err := rw.Strategy(m)
	if err != nil {
		return Strategy{}, Report{}, err
	}
	r, err := s.Report(m)
	return s, r, err
}

// Load returns the load of the system under the model: that of its best strategy (Naor and Wool 1998).
func (rw ReadWrite) Load(m Model) (float64, error) {
	_, r, err := rw.Analyse(m)
	return r.Load, err
}

// Capacity returns how many requests per second the system can serve under the model.
func (rw ReadWrite) Capacity(m Model) (float64, error) {
	_, r, err := rw.Analyse(m)
	return r.Capacity, err
}
