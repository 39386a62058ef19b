package quorum

import (
	"errors"
	"math"
)

var errInfeasible = errors.New("no solution")

// program is a linear program: minimize cost·x with x >= 0. The first rows are equations, the others inequalities, row·x
// <= limit; caps are more inequalities. begin lists pivots that lead to a vertex of all but the caps: no artificial
// variables are needed, whose removal would cost digits.
type program struct {
	cost      []float64
	rows      [][]float64
	limits    []float64
	equations int
	caps      []limit
	begin     func(t *tableau)
}

// limit is an inequality that the vertex to begin with may violate.
type limit struct {
	row []float64
	at  float64
}

// epsilon is what counts as zero. The coefficients are scaled to about 1 by the caller.
const epsilon = 1e-11

// pivotable is what an element must exceed to be no rounding error.
const pivotable = 1e-13

// solve is the simplex method (Dantzig 1947) on a dense tableau. It enters the column of the steepest descent, and after
// a while without progress the first one that descends, by Bland's rule (1977), which cannot cycle. The caps come in
// one after the other, each once what it limits has been minimized.
func (p *program) solve() ([]float64, error) {
	m, n := len(p.rows), len(p.cost)
	t := tableau{width: n + m - p.equations + len(p.caps), basis: make([]int, m)}
	for i, row := range p.rows {
		r := append(make([]float64, 0, t.width+1), row...)[:t.width+1]
		if i >= p.equations {
			t.basis[i] = n + i - p.equations
			r[t.basis[i]] = 1
		}
		r[t.width] = p.limits[i]
		t.rows = append(t.rows, r)
	}
	p.begin(&t)
	usable := n + m - p.equations
	for _, c := range p.caps {
		value, err := t.minimize(t.priced(c.row), usable)
		if err != nil || value > c.at {
			return nil, errInfeasible
		}
		r := t.priced(c.row)
		r[usable] = 1
		r[t.width] += c.at // so far it is minus the value
		t.rows, t.basis = append(t.rows, r), append(t.basis, usable)
		usable++
	}
	if _, err := t.minimize(t.priced(p.cost), usable); err != nil {
		return nil, err
	}
	x := make([]float64, n)
	for i, j := range t.basis {
		if j < n {
			x[j] = max(t.rows[i][t.width], 0)
		}
	}
	return x, nil
}

// tableau has a row for each constraint, solved for its basic variable; the last column is that variable's value.
type tableau struct {
	rows  [][]float64
	basis []int // the basic variable of each row
	width int   // variables
}

// priced returns a row of coefficients in terms of the variables that are not basic; its last element is minus the
// value at the present vertex.
func (t *tableau) priced(row []float64) []float64 {
	r := append(make([]float64, 0, t.width+1), row...)[:t.width+1]
	for i, j := range t.basis {
		subtract(r, t.rows[i], r[j])
	}
	return r
}

// minimize moves to the best vertex for a priced cost, by the first usable columns, and returns what it costs there.
func (t *tableau) minimize(cost []float64, usable int) (float64, error) {
	stalled, last := 0, math.Inf(1)
	for {
		value := -cost[t.width]
		if value < last-epsilon {
			stalled, last = 0, value
		} else {
			stalled++
		}
		bland := stalled > 2*len(t.rows)
		enter := t.entering(cost[:usable], bland)
		if enter < 0 {
			return value, nil
		}
		leave := t.leaving(enter, bland)
		if leave < 0 {
			return 0, errors.New("quorum: the linear program has no bound")
		}
		t.pivot(leave, enter)
		subtract(cost, t.rows[leave], cost[enter])
	}
}

// entering returns a column that lowers the cost, or -1.
func (t *tableau) entering(cost []float64, bland bool) int {
	best, enter := -epsilon, -1
	for j, c := range cost {
		if c < best {
			if bland {
				return j
			}
			best, enter = c, j
		}
	}
	return enter
}

// leaving returns the row whose variable leaves, or -1. Of the rows that limit the entering variable to within rounding
// (Harris 1973) it is the one of the lowest variable for Bland's rule, else that of the largest pivot, which loses the
// fewest digits.
func (t *tableau) leaving(enter int, bland bool) int {
	step := math.Inf(1)
	for _, r := range t.rows {
		if r[enter] > pivotable {
			step = min(step, (max(r[t.width], 0)+epsilon)/r[enter])
		}
	}
	leave := -1
	for i, r := range t.rows {
		if r[enter] <= pivotable || r[t.width]/r[enter] > step {
			continue
		}
		if leave < 0 || bland && t.basis[i] < t.basis[leave] || !bland && r[enter] > t.rows[leave][enter] {
			leave = i
		}
	}
	return leave
}

// pivot solves the row for the variable of the column, which becomes basic.
func (t *tableau) pivot(row, column int) {
	r := t.rows[row]
	scale := 1 / r[column]
	for j := range r {
		r[j] *= scale
	}
	r[column] = 1
	for i := range t.rows {
		if i != row {
			subtract(t.rows[i], r, t.rows[i][column])
		}
	}
	t.basis[row] = column
}

// subtract takes factor times r from row.
func subtract(row, r []float64, factor float64) {
	if factor == 0 {
		return
	}
	r = r[:len(row)]
	for j := range row {
		row[j] -= factor * r[j]
	}
}
