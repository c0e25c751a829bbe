package report

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/bench/internal/stats"
)

// Write writes report.md and a chart per scenario into a folder of artefacts.
func Write(dir string, results []*artefact.Result) error {
	var b strings.Builder
	b.WriteString("# Measurements\n\n" + Targets(results) + Sections(results, "") + Sessions(results))
	if err := charts(dir, results); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.md"), []byte(b.String()), 0o644)
}

func charts(dir string, results []*artefact.Result) error {
	for _, r := range results {
		if err := os.WriteFile(filepath.Join(dir, r.Scenario.Name+".svg"), []byte(Chart(r)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Targets is a table of every target with what was measured.
func Targets(results []*artefact.Result) string {
	type row struct{ id, text string }
	var rows []row
	for _, r := range results {
		v := look(r)
		for _, m := range v.targets() {
			verdict := "**missed**"
			switch {
			case !m.known:
				verdict = "not measured"
			case m.met:
				verdict = "met"
			}
			rows = append(rows, row{m.ID, fmt.Sprintf("| %s | [%s](#%s) | %s: %s | %s | %s | %s |\n", m.ID, r.Scenario.Title, r.Scenario.Name, m.Of, m.what(),
				m.limit(), number(m.value.Median)+between(m.value), verdict)})
		}
	}
	if len(rows) == 0 {
		return ""
	}
	slices.SortStableFunc(rows, func(a, b row) int { return natural(a.id) - natural(b.id) })
	var b strings.Builder
	b.WriteString("| target | scenario | what | limit | measured | |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		b.WriteString(r.text)
	}
	return b.String() + "\n"
}

// natural is the number in P7.
func natural(id string) int {
	n := 0
	for _, c := range id {
		if c >= '0' && c <= '9' {
			n = n*10 + int(c-'0')
		}
	}
	return n
}

func between(s stats.Spread) string {
	if !s.Known() || number(s.Least) == number(s.Most) {
		return ""
	}
	return " [" + number(s.Least) + "-" + number(s.Most) + "]"
}

// Sections is a section per scenario. charts is the folder of the charts, as seen from
// the report.
func Sections(results []*artefact.Result, charts string) string {
	var b strings.Builder
	for _, r := range results {
		b.WriteString(section(look(r), charts))
	}
	return b.String()
}

func section(v view, charts string) string {
	var b strings.Builder
	s := v.Scenario
	fmt.Fprintf(&b, "<a id=\"%s\"></a>\n### %s\n\n", s.Name, s.Title)
	if s.About != "" {
		b.WriteString(strings.TrimSpace(s.About) + "\n\n")
	}
	b.WriteString(facts(v) + "\n\n")
	if s.Kind == scenario.Go {
		b.WriteString(goTable(v))
	} else {
		b.WriteString(table(v))
	}
	b.WriteString(chosen(v))
	for _, f := range v.Failures {
		word := "failed"
		if f.Unfit {
			word = "does not take part"
		}
		first, _, _ := strings.Cut(f.Why, "\n")
		fmt.Fprintf(&b, "%s %s: %s\n\n", f.Contestant, word, first)
	}
	if s.Series != nil {
		b.WriteString(slopes(v))
	}
	fmt.Fprintf(&b, "![%s](%s)\n\n", s.Title, filepath.ToSlash(filepath.Join(charts, s.Name+".svg")))
	return b.String()
}

// facts is a line about what was done.
func facts(v view) string {
	s := v.Scenario
	words := []string{"Scenario `" + s.Name + "`"}
	if s.Kind == scenario.Copy {
		words = append(words, fmt.Sprintf("%s to %s, %s", s.From, s.To, s.Mode))
		if s.Series == nil {
			words = append(words, plural(s.Total(), "row"))
		}
		if s.Workload.Tables > 1 && s.Series == nil {
			words = append(words, plural(int64(s.Workload.Tables), "table"))
		}
		words = append(words, plural(int64(s.Tasks), "task"))
		server := "PostgreSQL " + v.Session.Server.Version + ", " + v.Session.Server.Transport
		if !v.Session.Server.Own {
			server += ", CPU of the server and of others unknown"
		}
		words = append(words, server)
	}
	words = append(words, plural(int64(s.Rounds), "round"), "session "+v.Session.ID)
	disturbed := 0
	for _, r := range v.Runs {
		if r.Disturbed {
			disturbed++
		}
	}
	if v.Discarded > 0 {
		words = append(words, plural(int64(v.Discarded), "disturbed round")+" discarded")
	}
	if disturbed > 0 {
		words = append(words, fmt.Sprintf("**%d of %d runs lost more than %s s of CPU to other programs**", disturbed, len(v.Runs), number(v.Session.Competing)))
	}
	if v.Session.Scale != 1 && v.Session.Scale != 0 {
		words = append(words, "**scaled by "+number(v.Session.Scale)+"**")
	}
	if v.Session.Profiled {
		words = append(words, "**ours was profiled, which takes time**")
	}
	if !v.Complete {
		words = append(words, "**interrupted**")
	}
	return strings.Join(words, "; ") + "."
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return group(n) + " " + word + "s"
}

// table is that of a copy.
func table(v view) string {
	var b strings.Builder
	size, conns := "", false
	if v.Scenario.Series != nil {
		size = " " + v.Scenario.Series.By() + " |"
	}
	for _, r := range v.Runs {
		conns = conns || r.Conns > 0
	}
	head := fmt.Sprintf("|%s | wall s | x %s, paired | rows/s | client CPU s (user + system) | ns/row | server CPU s | client peak MB (without pages of files) |", size, v.against())
	if conns {
		head += " connections |"
	}
	b.WriteString(head + "\n" + strings.Repeat("|---", strings.Count(head, "|")-1) + "|\n")
	for _, p := range v.points {
		for _, name := range v.names {
			if row := row(v, p, name, conns); row != "" {
				if size != "" {
					row = "| " + group(p) + " " + row
				}
				b.WriteString(row)
			}
		}
	}
	return b.String() + "\n"
}

func row(v view, p int64, name string, conns bool) string {
	runs := v.runs(p, name)
	if len(runs) == 0 {
		return ""
	}
	walls := v.of(p, name, wall)
	user := v.of(p, name, func(r artefact.Run) float64 { return r.User })
	system := v.of(p, name, func(r artefact.Run) float64 { return r.System })
	cpu := v.of(p, name, artefact.Run.CPU)
	server := "unknown"
	if runs[0].Server != nil {
		server = spread(v.of(p, name, func(r artefact.Run) float64 { return *r.Server }), "%.2f")
	}
	label := name
	if v.contestant(name).Limit {
		label += " (less than the work)"
	}
	peak := fmt.Sprintf("%.0f", v.of(p, name, func(r artefact.Run) float64 { return r.PeakMB }).Most)
	if anon := v.of(p, name, func(r artefact.Run) float64 { return r.AnonMB }).Most; anon > 0 {
		peak += fmt.Sprintf(" (%.0f)", anon)
	}
	out := fmt.Sprintf("| %s | %s | %s | %s | %.2f + %.2f | %s | %s | %s |", label, spread(walls, "%.3f"), spread(v.over(p, name, ""), "%.2f"),
		number(float64(runs[0].Rows)/walls.Median), user.Median, system.Median, number(cpu.Median/float64(runs[0].Rows)*1e9), server, peak)
	if conns {
		out += fmt.Sprintf(" %.0f |", v.of(p, name, func(r artefact.Run) float64 { return float64(r.Conns) }).Most)
	}
	return out + "\n"
}

// goTable is that of Go benchmarks: a column per unit.
func goTable(v view) string {
	units := map[string]bool{}
	for _, r := range v.Runs {
		for u := range r.Metrics {
			units[u] = true
		}
	}
	var b strings.Builder
	columns := slices.Sorted(maps.Keys(units))
	b.WriteString("| | " + strings.Join(columns, " | ") + " |\n|---" + strings.Repeat("|---", len(columns)) + "|\n")
	for _, name := range v.names {
		b.WriteString("| " + name)
		for _, u := range columns {
			var all []float64
			for _, r := range v.runs(0, name) {
				if x, ok := r.Metrics[u]; ok {
					all = append(all, x)
				}
			}
			s := stats.Of(all)
			b.WriteString(" | " + number(s.Median) + between(s))
		}
		b.WriteString(" |\n")
	}
	return b.String() + "\n"
}

// chosen says what our program chose in the last round of each contestant.
func chosen(v view) string {
	var words []string
	for _, name := range v.names {
		runs := v.runs(v.points[len(v.points)-1], name)
		if len(runs) > 0 && len(runs[len(runs)-1].Chosen) > 0 {
			words = append(words, name+": "+strings.Join(runs[len(runs)-1].Chosen, ", "))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return "Chosen by the program: " + strings.Join(words, "; ") + ".\n\n"
}

func slopes(v view) string {
	var words []string
	for _, name := range v.names {
		if s, err := v.slope(name); err == nil {
			words = append(words, fmt.Sprintf("%s %.2f", name, s))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return fmt.Sprintf("Growth of the wall time with %s (slope of the logarithms; 1 is linear): %s.\n\n", v.Scenario.Series.By(), strings.Join(words, ", "))
}

// Sessions says where and with what everything was measured.
func Sessions(results []*artefact.Result) string {
	var b strings.Builder
	seen := map[string]bool{}
	var order []artefact.Session
	absent := map[string]map[string]bool{}
	peers := map[string]map[string]string{}
	for _, r := range results {
		id := r.Session.ID
		if !seen[id] {
			seen[id], absent[id], peers[id] = true, map[string]bool{}, map[string]string{}
			order = append(order, r.Session)
		}
		maps.Copy(peers[id], r.Session.Peers)
		for _, name := range r.Session.Absent {
			absent[id][name] = true
		}
	}
	slices.SortFunc(order, func(a, b artefact.Session) int { return strings.Compare(a.ID, b.ID) })
	b.WriteString("## Where it was measured\n\n")
	for _, s := range order {
		m := s.Machine
		fmt.Fprintf(&b, "- **%s**: %s, %s, %s GB; %s, Linux %s; %s, GOMAXPROCS %d", s.ID, m.CPU, plural(int64(m.Cores), "core"), number(m.RAMGB), m.OS, m.Kernel,
			s.Go, s.GOMAXPROCS)
		for _, name := range slices.Sorted(maps.Keys(s.Programs)) {
			b.WriteString("; " + name + ": " + s.Programs[name])
		}
		for _, name := range slices.Sorted(maps.Keys(peers[s.ID])) {
			b.WriteString("; " + name + " " + peers[s.ID][name])
		}
		b.WriteString(".")
		if len(absent[s.ID]) > 0 {
			b.WriteString(" Absent: " + strings.Join(slices.Sorted(maps.Keys(absent[s.ID])), ", ") + ".")
		}
		if len(s.Server.Settings) > 0 {
			b.WriteString(" Server: `" + strings.Join(s.Server.Settings, " ") + "`, otherwise defaults.")
		}
		b.WriteString("\n")
	}
	return b.String()
}
