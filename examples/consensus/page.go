package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// page writes the comparison as one HTML page that needs nothing else.
func page(out io.Writer, rows []row, o options) error {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Consensus protocols compared</title><style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5d9de; --dim: #626a73; --c0: #2f6fde; --c1: #d9822b; --c2: #23875a; --c3: #8a4bb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #16191d; --line: #3a4048; --dim: #9aa3ad; --c0: #6ea0f5; --c1: #f0a45a; --c2: #57bd8c; --c3: #bd86e3; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p { max-width: 52rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); } th { font-weight: 600; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 11px; } svg .value { font-size: 8.5px; } svg .dim { fill: var(--dim); }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.legend span { margin-right: 1.2rem; } .legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; color: var(--dim); }
</style></head><body>
`)
	fmt.Fprintf(&b, "<h1>Consensus protocols compared</h1>\n<p>Every protocol on the same simulated networks, seed %d: the same links, disks and clients.</p>\n", o.seed)
	names := namesOf(rows)
	b.WriteString(`<p class="legend">`)
	for i, name := range names {
		fmt.Fprintf(&b, `<span><i style="background: var(--c%d)"></i>%s</span>`, i%4, html.EscapeString(name))
	}
	b.WriteString("</p>\n")
	for _, net := range networks {
		fmt.Fprintf(&b, "<h2>%s</h2>\n<div class=\"plots\">\n", net.name)
		for _, p := range plots {
			p.draw(&b, rows, names, net.name)
		}
		b.WriteString("</div>\n")
	}
	b.WriteString("<h2>All numbers</h2>\n<div class=\"scroll\"><table><thead><tr>")
	for _, c := range columns {
		fmt.Fprintf(&b, `<th title="%s">%s</th>`, html.EscapeString(c.help), html.EscapeString(c.title))
	}
	b.WriteString("</tr></thead><tbody>\n")
	for _, r := range rows {
		b.WriteString("<tr>")
		for _, c := range columns {
			fmt.Fprintf(&b, "<td>%s</td>", html.EscapeString(c.cell(r)))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody></table></div>\n<h2>What was measured</h2>\n<dl>\n")
	for _, c := range columns {
		if c.help != "" {
			fmt.Fprintf(&b, "<dt>%s</dt><dd>%s</dd>\n", html.EscapeString(c.title), html.EscapeString(c.help))
		}
	}
	b.WriteString("</dl>\n</body></html>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func namesOf(rows []row) (names []string) {
	for _, r := range rows {
		if !slices.Contains(names, r.protocol) {
			names = append(names, r.protocol)
		}
	}
	return names
}

// plot is one quantity, as bars: groups by number of replicas, a bar for each protocol.
type plot struct {
	title string
	value func(row) float64
	thin  func(row) float64 // a mark above the bar; nil if there is none
}

var plots = []plot{
	{"commit latency, ms: bar p50, mark p99", func(r row) float64 { return inMilliseconds(r.p50) }, func(r row) float64 { return inMilliseconds(r.p99) }},
	{"messages per commit", func(r row) float64 { return r.messages }, nil},
	{"bytes per commit", func(r row) float64 { return r.bytes }, nil},
	{"recovery after a crash of the leader, ms", func(r row) float64 { return inMilliseconds(r.recovery) }, nil},
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

const (
	plotWidth, plotHeight = 420, 210
	plotLeft, plotBottom  = 48, 30
	plotTop               = 16
)

func (p plot) draw(b *strings.Builder, rows []row, names []string, net string) {
	var mine []row
	var sizes []int
	top := 0.0
	for _, r := range rows {
		if r.network != net {
			continue
		}
		mine = append(mine, r)
		if !slices.Contains(sizes, r.nodes) {
			sizes = append(sizes, r.nodes)
		}
		top = max(top, p.value(r))
		if p.thin != nil {
			top = max(top, p.thin(r))
		}
	}
	slices.Sort(sizes)
	step := niceStep(top)
	top = step * math.Max(1, math.Ceil(top/step))
	y := func(v float64) float64 { return plotHeight - plotBottom - (plotHeight-plotBottom-plotTop)*v/top }
	fmt.Fprintf(b, "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s, %s\">\n",
		html.EscapeString(p.title), plotWidth, plotHeight, html.EscapeString(p.title), net)
	for v := 0.0; v <= top*1.001; v += step {
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="var(--line)"/><text class="dim" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, plotWidth, y(v), y(v), plotLeft-6, y(v)+4, trimmed(v))
	}
	group := float64(plotWidth-plotLeft) / float64(max(len(sizes), 1))
	for g, size := range sizes {
		left := plotLeft + group*float64(g)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d replicas</text>`+"\n", left+group/2, plotHeight-10, size)
		var bars []row
		for _, r := range mine {
			if r.nodes == size {
				bars = append(bars, r)
			}
		}
		width := min(group*0.8/float64(len(bars)), 34)
		left += (group - width*float64(len(bars))) / 2
		for i, r := range bars {
			p.bar(b, r, slices.Index(names, r.protocol)%4, left+width*float64(i), width, y)
		}
	}
	b.WriteString("</svg></figure>\n")
}

func (p plot) bar(b *strings.Builder, r row, color int, x, width float64, y func(float64) float64) {
	v := p.value(r)
	fmt.Fprintf(b, `<rect class="c%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s, %d replicas: %s</title></rect>`+"\n",
		color, x+1, y(v), width-2, y(0)-y(v), html.EscapeString(r.protocol), r.nodes, trimmed(v))
	labelled := v
	if p.thin != nil {
		labelled = p.thin(r)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="var(--ink)" stroke-width="2"/>`+"\n", x+3, x+width-3, y(labelled), y(labelled))
	}
	fmt.Fprintf(b, `<text class="value" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x+width/2, y(labelled)-4, trimmed(labelled))
	if y(v)-y(labelled) > 16 {
		fmt.Fprintf(b, `<text class="value" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x+width/2, y(v)-4, trimmed(v))
	}
}

// niceStep divides an axis into about four parts of 1, 2 or 5 times a power of ten.
func niceStep(top float64) float64 {
	if top <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(top/4)))
	for _, m := range []float64{1, 2, 5} {
		if top/(m*power) <= 5 {
			return m * power
		}
	}
	return 10 * power
}

func trimmed(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
