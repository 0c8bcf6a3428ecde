package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A plot of stacked panels that share the time axis.
const (
	plotWidth, panelHeight, panelGap = 900, 130, 34
	plotLeft, plotTop                = 70, 30
)

// panel is one of them: points, lines, or both.
type panel struct {
	title  string
	unit   string
	dots   [][2]float64 // seconds, value
	line   [][2]float64
	mark   float64 // a horizontal line; 0 for none
	log    bool    // logarithmic, from 1 ms
	bottom float64
}

// plot draws the report as SVG.
func (r *report) plot() string {
	total := r.cmd.Duration.Seconds()
	line := func(value func(sample) float64) (out [][2]float64) {
		for _, s := range r.samples {
			out = append(out, [2]float64{s.At.Seconds(), value(s)})
		}
		return out
	}
	var dots [][2]float64
	for _, h := range r.handoffs {
		dots = append(dots, [2]float64{h.at.Seconds(), max(h.took.Seconds(), 0.001)})
	}
	var cpu [][2]float64
	for i := 1; i < len(r.samples); i++ {
		a, b := r.samples[i-1], r.samples[i]
		if span := (b.At - a.At).Seconds(); span > 0 {
			cpu = append(cpu, [2]float64{b.At.Seconds(), 100 * (b.CPU - a.CPU).Seconds() / span})
		}
	}
	panels := []panel{
		{title: fmt.Sprintf("hand-off of each code; p95 %v, objective %v", r.quantile(0.95).Round(time.Millisecond), objective),
			unit: "s", dots: dots, mark: objective.Seconds(), log: true, bottom: 0.001},
		{title: "modems in service", unit: "", line: line(func(s sample) float64 { return float64(s.Ready) })},
		{title: "codes waiting", unit: "", line: line(func(s sample) float64 { return float64(s.Codes) })},
		{title: "goroutines", unit: "", line: line(func(s sample) float64 { return float64(s.Goroutines) })},
		{title: "descriptors", unit: "", line: line(func(s sample) float64 { return float64(s.Descriptors) })},
		{title: "resident memory", unit: "MB", line: line(func(s sample) float64 { return float64(s.RSS) / 1024 })},
		{title: "processor", unit: "%", line: cpu},
	}
	height := plotTop + len(panels)*(panelHeight+panelGap)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", plotWidth+plotLeft+20, height)
	for i, p := range panels {
		p.draw(&b, plotTop+i*(panelHeight+panelGap), total)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder, top int, total float64) {
	most := p.mark
	for _, list := range [][][2]float64{p.dots, p.line} {
		for _, v := range list {
			most = max(most, v[1])
		}
	}
	most = max(most*1.1, 1e-3)
	x := func(t float64) float64 { return plotLeft + t/total*plotWidth }
	y := func(v float64) float64 {
		share := v / most
		if p.log {
			share = math.Log(max(v, p.bottom)/p.bottom) / math.Log(most/p.bottom)
		}
		return float64(top+panelHeight) - share*panelHeight
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", plotLeft, top-6, p.title)
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>`+"\n", plotLeft, top, plotWidth, panelHeight)
	ticks := []float64{0, most / 2, most / 1.1}
	if p.log {
		ticks = nil
		for v := p.bottom; v <= most; v *= 10 {
			ticks = append(ticks, v)
		}
	}
	for _, v := range ticks {
		fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end">%.4g %s</text>`+"\n", plotLeft-6, y(v)+4, v, p.unit)
	}
	for i := range 7 {
		t := total * float64(i) / 6
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#666">%s</text>`+"\n", x(t), top+panelHeight+14,
			time.Duration(t*float64(time.Second)).Round(time.Second))
	}
	if p.mark > 0 {
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#c00" stroke-dasharray="5 4"/>`+"\n", plotLeft, plotLeft+plotWidth, y(p.mark), y(p.mark))
	}
	if len(p.line) > 0 {
		b.WriteString(`<polyline fill="none" stroke="#06c" stroke-width="1" points="`)
		for _, v := range p.line {
			fmt.Fprintf(b, "%.1f,%.1f ", x(v[0]), y(v[1]))
		}
		b.WriteString(`"/>` + "\n")
	}
	for _, v := range p.dots {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="1.6" fill="#06c" fill-opacity="0.6"/>`+"\n", x(v[0]), y(v[1]))
	}
}
