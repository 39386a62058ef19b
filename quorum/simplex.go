package quorum

import (
	"errors"
	"math"
)

var errInfeasible = errors.New("no solution")

// program is a linear program: minimize cost·x with x >= 0, rows·x <= limit for the first rows and rows·x = limit for
// the last equal of them; limits are not negative.
type program struct {
	cost   []float64
	rows   [][]float64
	limits []float64
	equal  int
}

// epsilon is what counts as zero. The coefficients are scaled to about 1 by the caller.
const epsilon = 1e-11

// solve is the simplex method (Dantzig 1947) on a dense tableau, in two phases. It enters the column of the steepest
// descent, and after a while without progress the first one that descends, by Bland's rule (1977), which cannot cycle.
func (p *program) solve() ([]float64, error) {
	m, n := len(p.rows), len(p.cost)
	slacks := m - p.equal
	t := tableau{width: n + slacks + p.equal, basis: make([]int, m)}
	for i, row := range p.rows {
		r := make([]float64, t.width+1)
		copy(r, row)
		r[n+i] = 1 // the slack of an inequality, the artificial variable of an equation
		r[t.width] = p.limits[i]
		t.basis[i] = n + i
		t.rows = append(t.rows, r)
	}
	phase1 := make([]float64, t.width+1)
	for j := n + slacks; j < t.width; j++ {
		phase1[j] = 1
	}
	if t.minimize(phase1, t.width) > 1e-9 {
		return nil, errInfeasible
	}
	t.expel(n + slacks)
	phase2 := make([]float64, t.width+1)
	copy(phase2, p.cost)
	t.minimize(phase2, n+slacks)
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

// minimize moves to the best vertex by the first usable columns and returns its cost.
func (t *tableau) minimize(cost []float64, usable int) float64 {
	for i, j := range t.basis { // price out the basic variables
		subtract(cost, t.rows[i], cost[j])
	}
	stalled, last := 0, math.Inf(1)
	for {
		value := -cost[t.width]
		if value < last-epsilon {
			stalled, last = 0, value
		} else {
			stalled++
		}
		enter := t.entering(cost[:usable], stalled > 2*len(t.rows))
		if enter < 0 {
			return value
		}
		leave := t.leaving(enter)
		if leave < 0 {
			return math.Inf(-1) // unbounded: the callers' programs are not
		}
		t.pivot(leave, enter)
		subtract(cost, t.rows[leave], cost[enter])
	}
}

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

// leaving returns the row that limits the entering variable first; of several the one of the lowest variable.
func (t *tableau) leaving(enter int) int {
	best, leave := math.Inf(1), -1
	for i, r := range t.rows {
		if r[enter] <= 1e-9 {
			continue
		}
		ratio := r[t.width] / r[enter]
		if ratio < best-epsilon || ratio < best+epsilon && leave >= 0 && t.basis[i] < t.basis[leave] {
			best, leave = min(ratio, best), i
		}
	}
	return leave
}

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

// expel takes the artificial variables, those from the given one on, out of the basis, where they are zero. A row in
// which nothing else stands says nothing and is cleared.
func (t *tableau) expel(from int) {
	for i, j := range t.basis {
		if j < from {
			continue
		}
		for k := range from {
			if math.Abs(t.rows[i][k]) > 1e-9 {
				t.pivot(i, k)
				break
			}
		}
		if t.basis[i] >= from {
			clear(t.rows[i])
		}
	}
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
