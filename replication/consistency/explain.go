package consistency

import (
	"fmt"
	"strings"
)

// culprits returns the operations called before the first answer that no order explains: they show the violation.
func (s *search[S, In, Out]) culprits() []int32 {
	return s.ops[:s.known[s.deepest]]
}

// explain says which answer no order explains, and which states were possible before it.
func (s *search[S, In, Out]) explain() string {
	i := s.ops[s.returns[s.deepest]]
	var states []string
	for _, state := range s.stuck[:min(len(s.stuck), stuckStates)] {
		states = append(states, fmt.Sprintf("%.60q", fmt.Sprint(state)))
	}
	if len(s.stuck) > stuckStates {
		states = append(states, "...")
	}
	return fmt.Sprintf("no order of the operations explains %s: before it the state could only be %s",
		sentence(s.h, i, s.m), strings.Join(states, " or "))
}

// sentence names an operation: "operation 3 (client 1, read x = 2)".
func sentence[S, In, Out any](h History[In, Out], i int32, m *Model[S, In, Out]) string {
	op := &h[i]
	return fmt.Sprintf("operation %d (client %d, %s)", i, op.Client, m.Describe(op.In, op.out()))
}

// line lists an operation: "   3  client 1  0s to 1ms  read x=2".
func line[S, In, Out any](h History[In, Out], i int, m *Model[S, In, Out]) string {
	op := &h[i]
	end := "?"
	if !op.Unknown {
		end = op.Return.String()
	}
	return fmt.Sprintf("%6d  client %-3d %s to %s: %s", i, op.Client, op.Call, end, m.Describe(op.In, op.out()))
}
