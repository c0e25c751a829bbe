package report

import (
	_ "embed" // the template and the recorded figures
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/bench/internal/artefact"
)

// page is docs/BENCHMARKS.md without its figures.
//
//go:embed BENCHMARKS.md.tmpl
var page string

//go:embed recorded.yaml
var recordedYAML []byte

// recorded is a figure of a peer that was measured elsewhere.
type recorded struct {
	Peer     string  `yaml:"peer"`
	Scenario string  `yaml:"scenario"`
	What     string  `yaml:"what"`
	Where    string  `yaml:"where"`
	CPU      float64 `yaml:"cpu_s_per_m_rows"`
	PeakMB   float64 `yaml:"peak_mb"`
}

// folder is where charts and artefacts are, beside the page.
const folder = "benchmarks"

// Docs writes the page, the charts and the artefacts into a folder of documents. What it
// holds already stays, unless there is a younger result.
func Docs(dir string, artefacts ...string) error {
	below := filepath.Join(dir, folder)
	if err := os.MkdirAll(below, 0o755); err != nil {
		return err
	}
	results, err := artefact.Read(append([]string{below}, artefacts...)...)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return errors.New("no artefact is there: name the folders of bench run")
	}
	for _, r := range results {
		if _, err := r.Write(below); err != nil {
			return err
		}
	}
	if err := charts(below, results); err != nil {
		return err
	}
	text, err := Page(results)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "BENCHMARKS.md"), []byte(text), 0o644)
}

// Page is the text of docs/BENCHMARKS.md.
func Page(results []*artefact.Result) (string, error) {
	t, err := template.New("page").Option("missingkey=error").Parse(page)
	if err != nil {
		return "", err
	}
	elsewhere, err := recordedTable(results)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, map[string]string{
		"Targets": Targets(results), "Scenarios": Sections(results, folder), "Recorded": elsewhere, "Sessions": Sessions(results),
	})
	return b.String(), err
}

// recordedTable lists the figures of peers that no result has measured.
func recordedTable(results []*artefact.Result) (string, error) {
	var all []recorded
	if err := yaml.Unmarshal(recordedYAML, &all); err != nil {
		return "", fmt.Errorf("recorded.yaml: %w", err)
	}
	var b strings.Builder
	b.WriteString("| peer | scenario | recorded | client CPU s per M rows | client peak MB | where |\n|---|---|---|---|---|---|\n")
	for _, r := range all {
		if measuredHere(results, r) {
			continue
		}
		cpu, peak := "-", "-"
		if r.CPU > 0 {
			cpu = number(r.CPU)
		}
		if r.PeakMB > 0 {
			peak = number(r.PeakMB)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.Peer, r.Scenario, r.What, cpu, peak, r.Where)
	}
	return b.String(), nil
}

// measuredHere reports whether a result has the peer in that scenario.
func measuredHere(results []*artefact.Result, r recorded) bool {
	return slices.ContainsFunc(results, func(res *artefact.Result) bool {
		v := look(res)
		return res.Scenario.Name == r.Scenario && slices.ContainsFunc(v.names, func(n string) bool { return v.contestant(n).Peer == r.Peer })
	})
}
