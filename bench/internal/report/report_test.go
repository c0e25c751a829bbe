package report

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/scenario"
)

// golden compares a text with testdata/name.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

func session(id string) artefact.Session {
	return artefact.Session{
		ID: id, Started: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Scale: 1, GOMAXPROCS: 2, Go: "go1.26", Competing: 0.3,
		Machine:  artefact.Machine{CPU: "Some CPU", Cores: 2, RAMGB: 23.5, OS: "Debian", Kernel: "6.1"},
		Programs: map[string]string{"rapidbyte-node": "v1"}, Peers: map[string]string{"psql": "15.1"}, Absent: []string{"sling"},
		Server: artefact.Server{Version: "15.1", Own: true, Transport: "TCP, loopback", Settings: []string{"shared_buffers=2GB"}},
	}
}

// work is a copy of three rounds; factor is how slow ours is.
func work(id string, factor float64) *artefact.Result {
	s := &scenario.Scenario{
		Name: "append-narrow", Title: "Append <narrow>", About: "Some words.", Kind: scenario.Copy, From: "postgres", To: "postgres", Mode: "append", Rows: 1_000_000, Rounds: 3, Tasks: 1,
		Contestants: []scenario.Contestant{{Name: "pipe", Peer: "psql"}, {Name: "text", Peer: "psql"}, {Name: "out", Peer: "psql", Limit: true}, {Name: "ours"}, {Name: "sling", Peer: "sling"}},
		Targets: []scenario.Target{
			{ID: "P10", Of: "ours", Measure: scenario.PeakMB, Most: new(80.0)},
			{ID: "P1", Measure: scenario.WallRatio, Over: "pipe", Most: new(1.05)},
			{ID: "P2", Measure: scenario.RowsSecond, Least: new(1e9)},
			{ID: "P15", Measure: scenario.WallRatio, Over: "sling", Most: new(1.0)},
			{ID: "P3", Measure: scenario.CPURow, Most: new(1000.0)},
		},
	}
	r := &artefact.Result{Session: session(id), Scenario: s, Discarded: 1, Complete: true}
	for round, machine := range []float64{1, 3, 1.1} { // the second round is slow for all
		for name, w := range map[string]float64{"pipe": 1, "text": 2, "out": 0.5, "ours": factor} {
			server := machine
			r.Runs = append(r.Runs, artefact.Run{
				Contestant: name, Round: round + 1, Rows: 1_000_000, Chosen: map[string][]string{"ours": {"lane arrow (why)", "tasks 2 at a time"}}[name], Wall: w * machine, User: 0.1, System: 0.05 * w, Server: &server, PeakMB: 19 + 60*w, AnonMB: 5 * w, Disturbed: round == 1 && name == "ours",
			})
		}
	}
	r.Failures = []artefact.Failure{{Contestant: "thief", Why: "it left 7 rows\nand more"}, {Contestant: "other", Why: "does not do this work", Unfit: true}}
	return r
}

func series() *artefact.Result {
	s := &scenario.Scenario{
		Name: "scale-streams", Title: "Streams", Kind: scenario.Copy, From: "postgres", To: "postgres", Mode: "append", Rows: 100, Rounds: 1, Tasks: 1,
		Series: &scenario.Series{Tables: []int64{1, 10, 100}}, Contestants: []scenario.Contestant{{Name: "ours"}},
		Targets: []scenario.Target{{ID: "P12", Measure: scenario.Slope, Most: new(1.0)}, {ID: "P12", Measure: scenario.WallTable, Most: new(3.0)}},
	}
	r := &artefact.Result{Session: session("s1"), Scenario: s}
	r.Session.Profiled, r.Session.Scale = true, 0.1
	r.Session.Server = artefact.Server{Version: "16.0", Transport: "unix socket in /run"}
	for _, n := range []int64{1, 10, 100} {
		r.Runs = append(r.Runs, artefact.Run{Contestant: "ours", Point: n, Tables: int(n), Round: 1, Rows: 100 * n, Wall: 0.01 * float64(n), PeakMB: 50, Conns: 4})
	}
	return r
}

func goResult(ns float64) *artefact.Result {
	s := &scenario.Scenario{
		Name: "actors", Title: "Actors", Kind: scenario.Go, Rounds: 1, Go: &scenario.GoBench{Package: "p", Metric: "ns/op"},
		Targets: []scenario.Target{{ID: "P13", Of: "B", Measure: scenario.MetricRatio, Over: "A/1", Most: new(1.0)}, {ID: "P5", Of: "B", Measure: scenario.Metric, Most: new(5.0)}},
	}
	return &artefact.Result{Session: session("s1"), Scenario: s, Complete: true, Runs: []artefact.Run{
		{Contestant: "A/1", Round: 1, Metrics: map[string]float64{"ns/op": ns, "batches/s": 99000}}, {Contestant: "B", Round: 1, Metrics: map[string]float64{"ns/op": 7}},
	}}
}

func TestGoldenReport(t *testing.T) {
	dir := t.TempDir()
	results := []*artefact.Result{goResult(1e6), work("s1", 1.04), series()}
	require.NoError(t, Write(dir, results))
	text, err := os.ReadFile(filepath.Join(dir, "report.md"))
	require.NoError(t, err)
	golden(t, "report.golden", string(text))
	for _, r := range results {
		chart, err := os.ReadFile(filepath.Join(dir, r.Scenario.Name+".svg"))
		require.NoError(t, err)
		golden(t, r.Scenario.Name+".svg.golden", string(chart))
		d := xml.NewDecoder(strings.NewReader(string(chart)))
		for err = nil; err == nil; _, err = d.Token() {
		}
		require.ErrorIs(t, err, io.EOF, "the chart is XML")
	}
}

func TestGoldenCompare(t *testing.T) {
	other := work("s2", 0.8)
	other.Session.Machine.Cores = 16
	other.Scenario.Rows = 2_000_000
	only := series()
	text := Compare([]*artefact.Result{goResult(1e6), work("s1", 1.04), only}, []*artefact.Result{goResult(2e6), other})
	golden(t, "compare.golden", text)
	require.Contains(t, Compare([]*artefact.Result{only}, []*artefact.Result{goResult(1)}), "Nothing is in both.")
}

// The machine was three times as slow in one round, and no ratio knows.
func TestPairedRatiosInViews(t *testing.T) {
	v := look(work("s1", 1.04))
	require.InDelta(t, 1.04, v.over(0, "ours", "pipe").Least, 1e-9)
	require.InDelta(t, 1.04, v.over(0, "ours", "").Most, 1e-9, "the best peer, which a limit is not")
	require.InDelta(t, 0.52, v.over(0, "ours", "text").Median, 1e-9)
	require.False(t, v.over(0, "ours", "sling").Known())
	require.Equal(t, []string{"pipe", "text", "out", "ours"}, v.names)
}

// Names of other builds begin with the name of their contestant.
func TestContestantsAreFound(t *testing.T) {
	v := view{Result: &artefact.Result{Scenario: &scenario.Scenario{Contestants: []scenario.Contestant{
		{Name: "ours"}, {Name: "ours arrow", Env: []string{"A"}}, {Name: "ours too", Peer: "psql"},
	}}}}
	for name, want := range map[string]string{"ours": "ours", "ours old": "ours", "ours arrow": "ours arrow", "ours arrow old": "ours arrow", "ours too": "ours too", "x": "x"} {
		require.Equal(t, want, v.contestant(name).Name)
	}
	require.False(t, v.contestant("x").Ours())
}

func TestDocsKeepWhatIsThere(t *testing.T) {
	docs, a, b := t.TempDir(), t.TempDir(), t.TempDir()
	require.ErrorContains(t, Docs(docs), "no artefact is there")
	for dir, r := range map[string]*artefact.Result{a: work("s1", 1), b: series()} {
		_, err := r.Write(dir)
		require.NoError(t, err)
	}
	require.NoError(t, Docs(docs, a))
	require.NoError(t, Docs(docs, b))
	page := filepath.Join(docs, "BENCHMARKS.md")
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, want := range []string{"## Targets", "Append <narrow>", "Streams", "benchmarks/scale-streams.svg", "| sling | append-narrow |"} {
		require.Contains(t, string(text), want)
	}
	require.NoError(t, Docs(docs))
	again, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
	require.FileExists(t, filepath.Join(docs, "benchmarks", "append-narrow.jsonl"))
}

// A peer that was measured is not repeated from elsewhere.
func TestRecordedFiguresGiveWay(t *testing.T) {
	r := work("s1", 1)
	before, err := recordedTable([]*artefact.Result{r})
	require.NoError(t, err)
	require.Contains(t, before, "| sling | append-narrow |")
	r.Runs = append(r.Runs, artefact.Run{Contestant: "sling", Round: 1, Rows: 1, Wall: 1})
	after, err := recordedTable([]*artefact.Result{r})
	require.NoError(t, err)
	require.NotContains(t, after, "| sling | append-narrow |")
	require.Contains(t, after, "| sling | append-wide |")
}

// The page in docs is what its artefacts say.
func TestGoldenPageIsShipped(t *testing.T) {
	const docs = "../../../docs"
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, Docs(docs))
	}
	results, err := artefact.Read(filepath.Join(docs, folder))
	require.NoError(t, err)
	want, err := Page(results)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(docs, "BENCHMARKS.md"))
	require.NoError(t, err)
	require.Equal(t, want, string(got), "go run ./bench report writes it again")
	for _, r := range results {
		chart, err := os.ReadFile(filepath.Join(docs, folder, r.Scenario.Name+".svg"))
		require.NoError(t, err)
		require.Equal(t, Chart(r), string(chart))
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1: "1", 1.05: "1.05", 12.34: "12.3", 99.99: "100", 1234: "1,234", 2_200_000: "2,200,000", 12_345_678: "12.3 M", 0.0012: "0.0012", -1234: "-1,234"} {
		require.Equal(t, want, number(v))
	}
}
