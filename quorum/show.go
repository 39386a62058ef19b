package quorum

import (
	"fmt"
	"strconv"
	"strings"
)

// String shows the expression: "a & b" for And, "a | b" for Or, "2 of (a, b, c)" for Choose, "3*a" for a node that
// counts three times.
func (q System) String() string {
	if err := q.Err(); err != nil {
		return "invalid (" + err.Error() + ")"
	}
	return q.s.show(&q.s.root, false)
}

func (s *system) show(g *gate, nested bool) string {
	var parts []string
	for _, t := range g.terms {
		for i := range t.nodes.All() {
			name := string(s.ids[i])
			if t.weight > 1 && g.inputs() > 1 {
				name = strconv.Itoa(t.weight) + "*" + name
			}
			parts = append(parts, name)
		}
	}
	for i := range g.gates {
		parts = append(parts, s.show(&g.gates[i], true))
	}
	switch total := g.total(); {
	case len(parts) == 1:
		return parts[0]
	case g.need == 1:
		return wrap(strings.Join(parts, " | "), nested)
	case g.need == total:
		return wrap(strings.Join(parts, " & "), nested)
	default:
		return fmt.Sprintf("%d of (%s)", g.need, strings.Join(parts, ", "))
	}
}

func wrap(s string, nested bool) string {
	if nested {
		return "(" + s + ")"
	}
	return s
}

// inputs returns how many nodes and gates the gate weighs.
func (g *gate) inputs() int {
	n := len(g.gates)
	for _, t := range g.terms {
		n += t.nodes.Len()
	}
	return n
}
