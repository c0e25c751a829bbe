package report

import (
	"fmt"
	"html"
	"math"
	"strings"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/bench/internal/stats"
)

// Sizes of a chart, in pixels.
const (
	chartWidth = 760
	labelWidth = 190
	barHeight  = 18
	barGap     = 10
	chartTop   = 40
	valueWidth = 150
	lineHeight = 320
)

// Colours of ours, of peers, and of the lines of a series.
var (
	oursColour  = "#1f6feb"
	peerColour  = "#8c959f"
	limitColour = "#d0d7de"
	lineColours = []string{"#1f6feb", "#8c959f", "#bf8700", "#8250df", "#1a7f37", "#cf222e", "#0a3069", "#953800"}
)

// Chart draws the medians of a result as bars with their spread, or, of a series, as
// lines over logarithmic axes.
func Chart(r *artefact.Result) string {
	v := look(r)
	if v.Scenario.Series != nil {
		return lines(v)
	}
	return bars(v)
}

// bar is a value with its spread.
type bar struct {
	name, text, colour string
	value              stats.Spread
}

func bars(v view) string {
	var all []bar
	most := 0.0
	for _, name := range v.names {
		b := bar{name: name, colour: peerColour, value: v.of(0, name, wall)}
		if v.Scenario.Kind == scenario.Go {
			b.value = v.of(0, name, v.metric)
			b.text, b.colour = number(b.value.Median)+" "+v.Scenario.Go.Metric, oursColour
		} else {
			c := v.contestant(name)
			b.text = fmt.Sprintf("%.3g s", b.value.Median)
			if ratio := v.over(0, name, ""); ratio.Known() {
				b.text += fmt.Sprintf("  (%.2f x)", ratio.Median)
			}
			if c.Ours() {
				b.colour = oursColour
			} else if c.Limit {
				b.colour = limitColour
			}
		}
		most = max(most, b.value.Most)
		all = append(all, b)
	}
	height := chartTop + len(all)*(barHeight+barGap) + barGap
	var s strings.Builder
	open(&s, height, v.Scenario.Title)
	scale := float64(chartWidth-labelWidth-valueWidth) / max(most, 1e-12)
	for i, b := range all {
		y := chartTop + i*(barHeight+barGap)
		middle := y + barHeight/2
		x := func(value float64) float64 { return labelWidth + value*scale }
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, middle+4, html.EscapeString(b.name))
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, b.value.Median*scale, barHeight, b.colour)
		fmt.Fprintf(&s, `<path d="M%.1f %dH%.1f" stroke="#24292f" stroke-width="2"/>`+"\n", x(b.value.Least), middle, x(b.value.Most))
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", x(b.value.Most)+8, middle+4, html.EscapeString(b.text))
	}
	s.WriteString("</svg>\n")
	return s.String()
}

func open(s *strings.Builder, height int, title string) {
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#24292f">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(s, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	fmt.Fprintf(s, `<text x="12" y="24" font-size="15" font-weight="bold">%s</text>`+"\n", html.EscapeString(title))
}

// lines draws a series: wall time over size.
func lines(v view) string {
	const left, right, bottom = 70, 200, 40
	height := chartTop + lineHeight + bottom
	var s strings.Builder
	open(&s, height, v.Scenario.Title)
	least, most := math.Inf(1), 0.0
	for _, p := range v.points {
		for _, name := range v.names {
			if w := v.of(p, name, wall); w.Known() {
				least, most = min(least, w.Least), max(most, w.Most)
			}
		}
	}
	if most == 0 {
		return s.String() + "</svg>\n"
	}
	axis := func(value, from, to, begin, end float64) float64 {
		if to <= from {
			return (begin + end) / 2
		}
		return begin + (math.Log(value)-math.Log(from))/(math.Log(to)-math.Log(from))*(end-begin)
	}
	first, last := float64(v.points[0]), float64(v.points[len(v.points)-1])
	x := func(p int64) float64 { return axis(float64(p), first, last, left, chartWidth-right) }
	y := func(w float64) float64 { return axis(w, least, most, chartTop+lineHeight-10, chartTop+20) }
	for _, p := range v.points {
		fmt.Fprintf(&s, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(p), chartTop+lineHeight+20, group(p))
	}
	for _, w := range []float64{least, most} {
		fmt.Fprintf(&s, `<text x="%d" y="%.1f" text-anchor="end">%.3g s</text>`+"\n", left-10, y(w)+4, w)
	}
	fmt.Fprintf(&s, `<path d="M%d %dV%dH%d" stroke="#8c959f" fill="none"/>`+"\n", left, chartTop+10, chartTop+lineHeight, chartWidth-right)
	for i, name := range v.names {
		colour := lineColours[i%len(lineColours)]
		command := "M"
		var path, dots strings.Builder
		for _, p := range v.points {
			w := v.of(p, name, wall)
			if !w.Known() {
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, x(p), y(w.Median))
			fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p), y(w.Median), colour)
			command = "L"
		}
		fmt.Fprintf(&s, `<path d="%s" stroke="%s" stroke-width="2" fill="none"/>`+"\n%s", path.String(), colour, dots.String())
		label := name
		if slope, err := v.slope(name); err == nil {
			label += fmt.Sprintf(" (slope %.2f)", slope)
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", chartWidth-right+16, chartTop+24+i*20, colour, html.EscapeString(label))
	}
	s.WriteString("</svg>\n")
	return s.String()
}
