package main

import (
	"context"
	"strings"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

// rung is one model of the ladder.
type rung struct {
	name  string
	check consistency.Check[string]
}

// settle is how long after the last write the replicas should agree.
const settle = 500 * time.Millisecond

// below is the ladder under linearizability, from the strongest model down: what holds on one rung holds on those
// beneath.
func below(m model) []rung {
	return []rung{
		{"sequential", func(ctx context.Context, h history, _ string) (consistency.Result, error) {
			return consistency.Sequential(ctx, h, m)
		}},
		{"causal", consistency.Causal[string]},
		{"PRAM", consistency.PRAM[string]},
	}
}

// beside is what may still hold where the ladder ends, each for itself.
var beside = []rung{
	{"read your writes", consistency.ReadYourWrites[string]},
	{"monotonic reads", consistency.MonotonicReads[string]},
	{"monotonic writes", consistency.MonotonicWrites[string]},
	{"writes follow reads", consistency.WritesFollowReads[string]},
	{"eventual convergence", func(_ context.Context, h history, initial string) (consistency.Result, error) {
		return consistency.EventualConvergence(h, initial, settle)
	}},
}

// verdict is where a history stands.
type verdict struct {
	strongest string             // the strongest model that holds
	broken    consistency.Result // why the next stronger one does not, shrunk
	undecided []string           // models of which nothing can be said
}

// place finds the strongest model that a history satisfies.
func place(ctx context.Context, h history, m model) (verdict, error) {
	top, err := consistency.Shrink(ctx, h, m)
	if err != nil || top.Verdict == consistency.Holds {
		return verdict{strongest: top.Model}, err
	}
	v := verdict{broken: top}
	for _, r := range below(m) {
		result, err := consistency.ShrinkAccesses(ctx, h, "", r.check)
		switch {
		case err != nil:
			return v, err
		case result.Verdict == consistency.Holds:
			v.strongest = r.name
			return v, nil
		case result.Verdict == consistency.Violated:
			v.broken = result
		case result.Verdict == consistency.Unknown:
			v.undecided = append(v.undecided, r.name)
		}
	}
	var hold []string
	for _, r := range beside {
		result, err := r.check(ctx, h, "")
		if err != nil {
			return v, err
		}
		switch result.Verdict {
		case consistency.Holds:
			hold = append(hold, r.name)
		case consistency.Unknown:
			v.undecided = append(v.undecided, r.name)
		case consistency.Violated:
		}
	}
	if v.strongest = strings.Join(hold, ", "); v.strongest == "" {
		v.strongest = "nothing that was asked"
	}
	return v, nil
}

// indent sets lines in.
func indent(lines string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\n  ") + "\n"
}
