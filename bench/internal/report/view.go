// Package report writes what was measured as Markdown and SVG, and compares artefacts.
package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/bench/internal/stats"
)

// view is a result as it is looked at: runs by point, contestant and round.
type view struct {
	*artefact.Result
	names  []string // contestants that were measured, in the order of the scenario
	points []int64
}

func look(r *artefact.Result) view {
	v := view{Result: r}
	for _, run := range r.Runs {
		if !slices.Contains(v.names, run.Contestant) {
			v.names = append(v.names, run.Contestant)
		}
		if !slices.Contains(v.points, run.Point) {
			v.points = append(v.points, run.Point)
		}
	}
	order := func(name string) int {
		return slices.IndexFunc(r.Scenario.Contestants, func(c scenario.Contestant) bool { return c.Name == v.contestant(name).Name })
	}
	slices.SortStableFunc(v.names, func(a, b string) int { return order(a) - order(b) })
	slices.Sort(v.points)
	return v
}

// runs are those of a contestant at a point, by round.
func (v view) runs(point int64, name string) []artefact.Run {
	var out []artefact.Run
	for _, r := range v.Runs {
		if r.Point == point && r.Contestant == name {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b artefact.Run) int { return a.Round - b.Round })
	return out
}

// of is the spread of a value of each run.
func (v view) of(point int64, name string, value func(artefact.Run) float64) stats.Spread {
	var all []float64
	for _, r := range v.runs(point, name) {
		all = append(all, value(r))
	}
	return stats.Of(all)
}

func wall(r artefact.Run) float64 { return r.Wall }

// metric is the value of a Go benchmark that counts.
func (v view) metric(r artefact.Run) float64 { return r.Metrics[v.Scenario.Go.Metric] }

// contestant finds who runs under a name. Another build of ours has the name of the
// contestant and its own.
func (v view) contestant(name string) scenario.Contestant {
	found := scenario.Contestant{Name: name, Peer: "unknown"}
	for _, c := range v.Scenario.Contestants {
		if c.Name == name {
			return c
		}
		if c.Ours() && strings.HasPrefix(name, c.Name+" ") && (found.Peer != "" || len(c.Name) > len(found.Name)) {
			found = c
		}
	}
	return found
}

// rival reports whether ratios may be taken to a contestant.
func (v view) rival(name string) bool {
	c := v.contestant(name)
	return !c.Ours() && !c.Limit
}

// over returns the paired wall times of a contestant and of what it is compared with:
// another contestant, or the best peer of each round, or, where there is no peer, the
// first contestant.
func (v view) over(point int64, name, other string) stats.Spread {
	return v.paired(point, name, other, wall)
}

// paired takes the ratios of any value.
func (v view) paired(point int64, name, other string, value func(artefact.Run) float64) stats.Spread {
	var a, b []float64
	for _, run := range v.runs(point, name) {
		best := math.Inf(1)
		for _, n := range v.reference(other) {
			for _, r := range v.runs(point, n) {
				if r.Round == run.Round {
					best = min(best, value(r))
				}
			}
		}
		if !math.IsInf(best, 1) {
			a, b = append(a, value(run)), append(b, best)
		}
	}
	return stats.Paired(a, b)
}

// reference are those whose best is compared with.
func (v view) reference(other string) []string {
	if other != "" {
		return []string{other}
	}
	var rivals []string
	for _, n := range v.names {
		if v.rival(n) {
			rivals = append(rivals, n)
		}
	}
	if len(rivals) == 0 && len(v.names) > 0 {
		return v.names[:1]
	}
	return rivals
}

// against says in words what ratios are taken to.
func (v view) against() string {
	switch names := v.reference(""); {
	case len(names) == 1:
		return names[0]
	default:
		return "the best peer"
	}
}

// measured is a target with what was measured.
type measured struct {
	scenario.Target
	value stats.Spread
	unit  string // of a Go benchmark
	known bool
	met   bool
}

// targets measures those of the scenario. Of a series, the largest point counts.
func (v view) targets() []measured {
	var out []measured
	for _, t := range v.Scenario.Targets {
		of := t.Of
		if of == "" {
			of = v.Scenario.Ours()
		}
		m := measured{Target: t, value: v.measure(t, of)}
		m.Of = of
		if v.Scenario.Go != nil {
			m.unit = v.Scenario.Go.Metric
		}
		m.known = m.value.Known()
		m.met = m.known && (t.Most == nil || m.value.Median <= *t.Most) && (t.Least == nil || m.value.Median >= *t.Least)
		out = append(out, m)
	}
	return out
}

func (v view) measure(t scenario.Target, of string) stats.Spread {
	point := int64(0)
	if len(v.points) > 0 {
		point = v.points[len(v.points)-1]
	}
	value := map[scenario.Measure]func(artefact.Run) float64{
		scenario.Wall:        wall,
		scenario.WallTable:   func(r artefact.Run) float64 { return r.Wall * 1000 / float64(max(1, r.Tables)) },
		scenario.CPURow:      func(r artefact.Run) float64 { return r.CPU() / float64(r.Rows) * 1e9 },
		scenario.PeakMB:      func(r artefact.Run) float64 { return r.PeakMB },
		scenario.RowsSecond:  func(r artefact.Run) float64 { return float64(r.Rows) / r.Wall },
		scenario.Connections: func(r artefact.Run) float64 { return float64(r.Conns) },
	}
	switch t.Measure {
	case scenario.WallRatio:
		return v.over(point, of, t.Over)
	case scenario.Metric:
		return v.of(point, of, v.metric)
	case scenario.MetricRatio:
		return v.paired(point, of, t.Over, v.metric)
	case scenario.Slope:
		s, err := v.slope(of)
		if err != nil {
			return stats.Of(nil)
		}
		return stats.Spread{Median: s, Least: s, Most: s}
	case scenario.Wall, scenario.WallTable, scenario.CPURow, scenario.PeakMB, scenario.RowsSecond, scenario.Connections:
		return v.of(point, of, value[t.Measure])
	}
	return stats.Of(nil)
}

// slope is how a contestant's wall time grows with the size of a series.
func (v view) slope(name string) (float64, error) {
	var x, y []float64
	for _, p := range v.points {
		if s := v.of(p, name, wall); s.Known() {
			x, y = append(x, float64(p)), append(y, s.Median)
		}
	}
	return stats.Slope(x, y)
}

// limit writes the bound of a target.
func (m measured) limit() string {
	if m.Most != nil {
		return "<= " + number(*m.Most)
	}
	return ">= " + number(*m.Least)
}

// what says in words what a target is about.
func (m measured) what() string {
	if m.Measure == scenario.WallRatio && m.Over == "" {
		return "wall over the best peer"
	}
	return map[scenario.Measure]string{
		scenario.Wall: "wall, s", scenario.WallTable: "wall per table, ms", scenario.CPURow: "client CPU, ns per row", scenario.PeakMB: "peak of resident memory, MB",
		scenario.RowsSecond: "rows a second", scenario.Connections: "connections", scenario.Slope: "growth, log-log slope", scenario.WallRatio: "wall over " + m.Over,
		scenario.Metric: m.unit, scenario.MetricRatio: m.unit + " over " + m.Over,
	}[m.Measure]
}

// number writes a figure with three digits that say something.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 1e7:
		return fmt.Sprintf("%.1f M", v/1e6)
	case a >= 100:
		return group(int64(math.Round(v)))
	case a >= 10:
		return trim(fmt.Sprintf("%.1f", v))
	case a >= 0.01 || a == 0:
		return trim(fmt.Sprintf("%.2f", v))
	}
	return fmt.Sprintf("%.2g", v)
}

// group puts commas between thousands.
func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func trim(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// spread writes a median with the least and the greatest value.
func spread(s stats.Spread, format string) string {
	if !s.Known() {
		return "-"
	}
	f := func(v float64) string { return fmt.Sprintf(format, v) }
	if f(s.Least) == f(s.Most) {
		return f(s.Median)
	}
	return f(s.Median) + " [" + f(s.Least) + "-" + f(s.Most) + "]"
}
