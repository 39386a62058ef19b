package consistency

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"
)

// Drawing is a history as a picture: a lane for each client, a bar for each operation.
type Drawing struct {
	Title  string // what was judged
	Reason string // what came of it, in a sentence
	Bad    bool   // whether it was violated
	Bars   []Bar
}

// Bar is one operation of a Drawing.
type Bar struct {
	Index        int // in the history
	Client       int
	Call, Return time.Duration
	Unknown      bool   // it has no end
	Marked       bool   // it is one of those that show the violation
	Label        string // a few words
}

// Draw pictures a history with what a checker found. A violated one of many operations is cut to those that show the
// violation and those around them.
func Draw[S, In, Out any](h History[In, Out], m Model[S, In, Out], r Result) Drawing {
	model := m.withDefaults()
	d := Drawing{Title: r.Model + ": " + r.Verdict.String(), Reason: r.Reason, Bad: r.Verdict == Violated}
	marked := make(map[int]bool)
	for _, i := range r.Ops {
		marked[i] = true
	}
	for i := range h {
		op := &h[i]
		d.Bars = append(d.Bars, Bar{
			Index: i, Client: op.Client, Call: op.Call, Return: op.Return, Unknown: op.Unknown,
			Marked: marked[i] && d.Bad, Label: model.Describe(op.In, op.out()),
		})
	}
	return d
}

// DrawTxns pictures a history of transactions with the first anomaly that was found.
func DrawTxns(h TxnHistory, r TxnResult) Drawing {
	d := Drawing{Title: "strongest level: " + r.Strongest.String(), Bad: r.Verdict == Violated}
	marked := make(map[int]bool)
	if len(r.Anomalies) > 0 {
		a := r.Anomalies[0]
		d.Reason = fmt.Sprintf("%s: %s", a.Kind, a.Reason)
		for _, t := range a.Txns {
			marked[t] = true
		}
	}
	for i := range h {
		op := &h[i]
		ops := op.Out.Ops
		if op.Unknown || op.Out.Aborted {
			ops = op.In
		}
		label := fmt.Sprint(ops)
		label = label[1 : len(label)-1]
		if op.Out.Aborted {
			label += " aborted"
		}
		d.Bars = append(d.Bars, Bar{
			Index: i, Client: op.Client, Call: op.Call, Return: op.Return, Unknown: op.Unknown, Marked: marked[i], Label: label,
		})
	}
	return d
}

// The most bars on a page: a browser draws them at once, and an eye still finds its way.
const maxBars = 600

// Sizes in pixels.
const (
	laneHeight = 46
	barHeight  = 30
	laneTop    = 34
	gutter     = 14
	glyph      = 7 // of a label, on average
	minWidth   = 1150
)

//go:embed page.html
var pageSource string

// page is what page.html fills in.
type page struct {
	Drawing
	Width, Height int
	Lanes         []lane
	Rects         []rect
	Ticks         []tick
	Shown, Total  int
	Marked        []rect
}

type lane struct {
	Client, Y, Line int
}

type rect struct {
	Bar
	X, Y, W, H, TextX, TextY int
	Text, From, To           string
}

type tick struct {
	X  int
	At string
}

// WriteHTML writes the drawing as one page that needs nothing else: no script, style or font from elsewhere. Time
// runs to the right; it is stretched so that every bar has room for its words, so only the order of events is to
// scale.
func (d Drawing) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return fmt.Errorf("consistency: page template: %w", err)
	}
	return t.Execute(w, layout(d))
}

// layout places lanes and bars.
func layout(d Drawing) page {
	p := page{Drawing: d, Total: len(d.Bars)}
	bars := focus(d.Bars)
	p.Shown = len(bars)
	lanes := make(map[int]int)
	for _, b := range bars {
		lanes[b.Client] = 0
	}
	for n, client := range sortedKeys(lanes) {
		lanes[client] = n
		y := laneTop + n*laneHeight
		p.Lanes = append(p.Lanes, lane{Client: client, Y: y + laneHeight/2 + 4, Line: y + laneHeight/2})
	}
	x, end := stretch(bars)
	next := make(map[int]int) // where each client's next bar starts
	for _, b := range slices.Backward(bars) {
		r := rect{Bar: b, X: x[b.starts()], H: barHeight, From: b.Call.String(), To: "unknown"}
		right, ok := next[b.Client]
		switch next[b.Client] = r.X; {
		case !b.Unknown:
			right, r.To = x[b.ends()], b.Return.String()
		case !ok:
			right = end
		default:
			right -= 6
		}
		r.W = max(6, right-r.X)
		r.Y = laneTop + lanes[b.Client]*laneHeight + (laneHeight-barHeight)/2
		r.TextX, r.TextY = r.X+8, r.Y+barHeight/2+4
		r.Text = clip(b.Label, (r.W-14)*10/73)
		p.Rects = append(p.Rects, r)
		if b.Marked {
			p.Marked = append(p.Marked, r)
		}
	}
	slices.Reverse(p.Rects)
	slices.Reverse(p.Marked)
	p.Width, p.Height = end+24, laneTop+len(p.Lanes)*laneHeight+14
	last := -200
	for _, b := range bars {
		if at := x[b.starts()]; at-last > 130 {
			p.Ticks = append(p.Ticks, tick{X: at, At: b.Call.Round(precision(b.Call)).String()})
			last = at
		}
	}
	return p
}

// precision is how finely a time is worth writing.
func precision(t time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if t < 10_000*unit {
			return unit
		}
	}
}

// clip shortens a label to n letters.
func clip(s string, n int) string {
	letters := []rune(s)
	switch {
	case len(letters) <= n:
		return s
	case n < 2:
		return ""
	}
	return string(letters[:n-1]) + "…"
}

// focus picks what to draw: all, or the marked bars and those nearest to them in time, sorted by call.
func focus(bars []Bar) []Bar {
	bars = slices.Clone(bars)
	slices.SortStableFunc(bars, func(a, b Bar) int { return cmp.Compare(a.Call, b.Call) })
	if len(bars) <= maxBars {
		return bars
	}
	near := make([]bool, len(bars))
	marked := 0
	for _, b := range bars {
		if b.Marked {
			marked++
		}
	}
	around := maxBars
	if marked > 0 {
		around = max(1, min(maxBars/(2*marked), 20))
	}
	for i, b := range bars {
		if b.Marked || marked == 0 && i < maxBars {
			for j := max(0, i-around); j <= min(len(bars)-1, i+around); j++ {
				near[j] = near[j] || marked > 0 || j < maxBars
			}
		}
	}
	var picked []Bar
	for i, b := range bars {
		if near[i] {
			picked = append(picked, b)
		}
	}
	return picked
}

// event is the start or the end of a bar, in the order in which those at one moment are drawn.
type event struct {
	at   time.Duration
	what int
}

const (
	barEnds      = iota // of a bar that took time: so a client's next one starts after it
	momentStarts        // of a bar that took none
	momentEnds
	barStarts
)

func (b *Bar) starts() event {
	if b.Return == b.Call && !b.Unknown {
		return event{b.Call, momentStarts}
	}
	return event{b.Call, barStarts}
}

func (b *Bar) ends() event {
	if b.Return == b.Call {
		return event{b.Return, momentEnds}
	}
	return event{b.Return, barEnds}
}

// stretch returns a scale from events to pixels on which every bar has room for a few words, and where it ends.
func stretch(bars []Bar) (x map[event]int, right int) {
	var events []event
	ending := make(map[event][]*Bar)
	for i := range bars {
		b := &bars[i]
		events = append(events, b.starts())
		if !b.Unknown {
			events = append(events, b.ends())
			ending[b.ends()] = append(ending[b.ends()], b)
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what, b.what)) })
	x = make(map[event]int, len(events))
	at := gutter
	for _, e := range slices.Compact(events) {
		at += 16
		for _, b := range ending[e] {
			letters := 28
			if b.Marked {
				letters = 60
			}
			at = max(at, x[b.starts()]+min(len(b.Label), letters)*glyph+18)
		}
		x[e] = at
	}
	if at += 120; at < minWidth {
		for e, p := range x {
			x[e] = gutter + (p-gutter)*(minWidth-gutter)/(at-gutter)
		}
		at = minWidth
	}
	return x, at
}
