package report

import (
	"fmt"
	"strings"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/bench/internal/stats"
)

// Compare writes what has changed from a to b. Two artefacts were measured at different
// times: where both have a peer, the ratios to it are compared, which what the machine
// did meanwhile does not change; otherwise the figures themselves are.
func Compare(a, b []*artefact.Result) string {
	var out strings.Builder
	after := map[string]*artefact.Result{}
	for _, r := range b {
		after[r.Scenario.Name] = r
	}
	both := false
	for _, r := range a {
		other := after[r.Scenario.Name]
		if other == nil {
			fmt.Fprintf(&out, "%s is only in the first.\n\n", r.Scenario.Name)
			continue
		}
		delete(after, r.Scenario.Name)
		both = true
		out.WriteString(compare(look(r), look(other)))
	}
	for _, r := range b {
		if after[r.Scenario.Name] != nil {
			fmt.Fprintf(&out, "%s is only in the second.\n\n", r.Scenario.Name)
		}
	}
	if !both {
		out.WriteString("Nothing is in both.\n")
	}
	return out.String()
}

func compare(a, b view) string {
	var out strings.Builder
	fmt.Fprintf(&out, "## %s\n\n%s; %s against %s.\n\n", a.Scenario.Name, a.Scenario.Title, a.Session.ID, b.Session.ID)
	for _, d := range differences(a, b) {
		out.WriteString("Note: " + d + "\n\n")
	}
	out.WriteString("| | what | first | second | second / first | |\n|---|---|---|---|---|---|\n")
	for _, p := range a.points {
		for _, name := range a.names {
			out.WriteString(change(a, b, p, name))
		}
	}
	return out.String() + "\n"
}

// differences are what makes figures hard to compare.
func differences(a, b view) []string {
	var out []string
	differ := func(what string, x, y any) {
		if x != y {
			out = append(out, fmt.Sprintf("%s differ: %v, then %v.", what, x, y))
		}
	}
	differ("rows", a.Scenario.Total(), b.Scenario.Total())
	differ("machines", a.Session.Machine, b.Session.Machine)
	differ("GOMAXPROCS", a.Session.GOMAXPROCS, b.Session.GOMAXPROCS)
	differ("servers", a.Session.Server.Version, b.Session.Server.Version)
	differ("transports", a.Session.Server.Transport, b.Session.Server.Transport)
	return out
}

func change(a, b view, p int64, name string) string {
	label := name
	if p > 0 {
		label = fmt.Sprintf("%s, %s %s", name, group(p), a.Scenario.Series.By())
	}
	if len(b.runs(p, name)) == 0 {
		return fmt.Sprintf("| %s | | measured | not measured | | |\n", label)
	}
	alone := len(a.runs(p, name)) < 2 || len(b.runs(p, name)) < 2
	changed := func(label, what string, x, y stats.Spread) string { return changed(label, what, x, y, alone) }
	if a.Scenario.Kind == scenario.Go {
		return changed(label, a.Scenario.Go.Metric, a.of(p, name, a.metric), b.of(p, name, b.metric))
	}
	out := ""
	against := a.against()
	if against != name && against == b.against() && a.over(p, name, "").Known() && b.over(p, name, "").Known() {
		out += changed(label, "wall, x "+against+", paired", a.over(p, name, ""), b.over(p, name, ""))
	} else {
		out += changed(label, "wall s", a.of(p, name, wall), b.of(p, name, wall))
	}
	cpu := func(r artefact.Run) float64 { return r.CPU() / float64(r.Rows) * 1e9 }
	out += changed(label, "client CPU ns/row", a.of(p, name, cpu), b.of(p, name, cpu))
	peak := func(r artefact.Run) float64 { return r.PeakMB }
	out += changed(label, "client peak MB", a.of(p, name, peak), b.of(p, name, peak))
	anon := func(r artefact.Run) float64 { return r.AnonMB }
	if a.of(p, name, anon).Least > 0 && b.of(p, name, anon).Least > 0 {
		out += changed(label, "without pages of files", a.of(p, name, anon), b.of(p, name, anon))
	}
	return out
}

// changed is a line of the comparison. Of one round alone the spread is not known, and
// nothing can be said.
func changed(label, what string, a, b stats.Spread, alone bool) string {
	ratio, verdict := stats.Spread{Median: b.Median / a.Median, Least: b.Least / a.Most, Most: b.Most / a.Least}, "the same within the spread"
	switch {
	case alone:
		verdict = "one round says nothing"
	case a.Apart(b):
		verdict = "**better**"
		if b.Median > a.Median {
			verdict = "**worse**"
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", label, what, number(a.Median)+between(a), number(b.Median)+between(b), spread(ratio, "%.2f"), verdict)
}
