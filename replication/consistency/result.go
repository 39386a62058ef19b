package consistency

import "fmt"

// Verdict is what a checker found.
type Verdict uint8

// The verdicts.
const (
	Unknown  Verdict = iota // not decided: the context ended first
	Holds                   // the history is as the model allows
	Violated                // no execution that the model allows shows this history
)

// String returns "unknown", "holds" or "violated".
func (v Verdict) String() string {
	switch v {
	case Unknown:
		return "unknown"
	case Holds:
		return "holds"
	case Violated:
		return "violated"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Result is a checker's verdict and, if the history is violated, why.
type Result struct {
	Model   string  // what was asked, "linearizable register"
	Verdict Verdict // what was found
	Ops     []int   // if violated: operations that show it, as indices into the history; Shrink finds fewest
	Reason  string  // if violated or unknown: one sentence
}

// String returns the verdict with its reason.
func (r Result) String() string {
	if r.Reason == "" {
		return fmt.Sprintf("%s: %v", r.Model, r.Verdict)
	}
	return fmt.Sprintf("%s: %v: %s", r.Model, r.Verdict, r.Reason)
}

// finding is a Result in the making: indices are of the history.
type finding struct {
	verdict Verdict
	ops     []int32
	reason  string
}

func (f finding) result(model string) Result {
	r := Result{Model: model, Verdict: f.verdict, Reason: f.reason}
	for _, op := range f.ops {
		r.Ops = append(r.Ops, int(op))
	}
	return r
}
