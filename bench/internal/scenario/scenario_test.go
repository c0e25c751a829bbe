package scenario

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

var shapes = map[string]string{"narrow": "SELECT g AS id FROM generate_series(1, {rows}) g"}

const good = `
name: some-work
title: Some work
suites: {quick: {rows: 100, rounds: 2}, full: {}}
rows: 1000
workload: {shape: narrow}
contestants:
  - {peer: psql}
  - {peer: psql, method: text}
  - name: ours
    document: {resources: {parallelism: 2}}
targets:
  - {id: P1, measure: wall_ratio, over: psql, most: 1.05}
`

func TestScenariosAreCompleted(t *testing.T) {
	s, err := Parse("a.yaml", []byte(good), shapes)
	require.NoError(t, err)
	require.Equal(t, []any{Copy, Postgres, Postgres, Append, 5, 1}, []any{s.Kind, s.From, s.To, s.Mode, s.Rounds, s.Tasks})
	require.Equal(t, []string{"narrow"}, s.Tables())
	require.Equal(t, "psql text", s.Contestants[1].Name)
	require.Equal(t, "ours", s.Ours())
	require.Equal(t, "SELECT g AS id FROM generate_series(1, 1000) g", s.Query())
	require.Equal(t, "TABLE bench.t, 1000 of ("+s.Query()+") {other}", s.Expand("TABLE {table}, {rows} of {sql} {other}", "t"))
}

func TestSuitesAndScalesSize(t *testing.T) {
	s, err := Parse("a.yaml", []byte(good), shapes)
	require.NoError(t, err)
	quick := s.Sized("quick", 1)
	require.Equal(t, []any{int64(100), 2}, []any{quick.Rows, quick.Rounds})
	require.Equal(t, int64(1000), s.Sized("full", 1).Rows)
	require.Equal(t, int64(50), s.Sized("quick", 0.5).Rows)
	require.Equal(t, int64(10), s.Sized("quick", 0.001).Rows, "ten rows say something, none do not")
	s.Workload.Tables = 1000
	many := s.Sized("", 0.05)
	require.Equal(t, []int64{50, 1000, 50_000}, []int64{int64(len(many.Tables())), many.Rows, many.Total()})
	require.Equal(t, "t0049", many.Tables()[49])
	s.Workload.Tables, s.Series = 0, &Series{Tables: []int64{1, 10, 1000}}
	require.Equal(t, []int64{1, 100}, s.Sized("", 0.1).Series.Points())
	require.Equal(t, 10, s.At(10).Workload.Tables)
	s.Series = &Series{Rows: []int64{100, 1000}}
	require.Equal(t, []int64{10, 100}, s.Sized("", 0.1).Series.Points())
	require.Equal(t, int64(100), s.At(100).Rows)
}

func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ old, instead, message string }{
		{"rows: 1000", "rowz: 1000", "field rowz not found"},
		{"rows: 1000", "rows: many", "cannot unmarshal"},
		{"rows: 1000", "", "found rows 0"},
		{"name: some-work", "name: Some Work", `found name "Some Work"`},
		{"title: Some work", "", "title is missing"},
		{"suites: {quick: {rows: 100, rounds: 2}, full: {}}", "", "suites is missing"},
		{"full: {}", "slow: {}", `found suite "slow"`},
		{"shape: narrow", "shape: broad", `found shape "broad", expected one of narrow`},
		{"shape: narrow", "shape: narrow, sql: SELECT 1", "name one"},
		{"shape: narrow", "sql: SELECT 1", "does not use {rows}"},
		{"shape: narrow", "table: t", "needs one of shape, sql, statements"},
		{"rows: 1000", "rows: 1000\nmode: merge", `found mode "merge"`},
		{"rows: 1000", "rows: 1000\nmode: upsert", "mode upsert needs a key"},
		{"rows: 1000", "rows: 1000\nmode: incremental", "needs a cursor and first"},
		{"rows: 1000", "rows: 1000\nfrom: mysql", `found from "mysql"`},
		{"rows: 1000", "rows: 1000\nkill_at: 1.5", "found kill_at 1.5"},
		{"rows: 1000", "rows: 1000\nkind: rust", `found kind "rust"`},
		{"rows: 1000", "rows: 1000\nseries: {}", "series needs one of rows, tables"},
		{"{peer: psql}", "{peer: psql, document: {a: 1}}", "is not ours and has a document"},
		{"{peer: psql}", "{peer: psql, command: [x]}", "has a peer and a command"},
		{"method: text", "method: ''", `contestant "psql" is there twice`},
		{"- {peer: psql}", "- {}", "contestant 1 has no name"},
		{"over: psql", "over: nobody", `no contestant is called "nobody"`},
		{"measure: wall_ratio", "measure: speed", `found measure "speed"`},
		{"measure: wall_ratio", "measure: wall_s", "over is for wall_ratio"},
		{"measure: wall_ratio", "measure: metric", "is for kind go"},
		{"most: 1.05", "most: 1, least: 1", "needs one of most, least"},
		{"over: psql, most", "most", ""},
		{"name: some-work", "---\nname: a\n---\nname: some-work", "second document"},
	} {
		require.Contains(t, good, c.old)
		_, err := Parse("a.yaml", []byte(strings.Replace(good, c.old, c.instead, 1)), shapes)
		if c.message == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, c.message, c.instead)
		require.ErrorContains(t, err, "a.yaml", c.instead)
	}
	_, err := Parse("a.yaml", nil, shapes)
	require.ErrorContains(t, err, "the file is empty")
}

func TestGoBenchmarks(t *testing.T) {
	const text = "name: a\ntitle: A\nsuites: {lab: {}}\nkind: go\ngo: {package: p, bench: ., metric: ns/op, steps: 500}\n" +
		"targets: [{id: P13, of: save, measure: metric_ratio, over: sync, most: 1.2}]\n"
	s, err := Parse("a.yaml", []byte(text), nil)
	require.NoError(t, err)
	require.Equal(t, 5, s.Sized("lab", 0.01).Go.Scaled)
	require.Equal(t, 500, s.Go.Scaled)
	for _, c := range [][3]string{
		{"metric: ns/op, ", "", "needs go: {package, bench, metric}"},
		{"over: sync, ", "", "which needs it"},
		{"of: save, ", "", "with of is for kind go"},
		{"metric_ratio, over: sync", "wall_s", "takes no other"},
		{"kind: go", "kind: go\ncontestants: [{name: x}]", "has no contestants"},
	} {
		_, err := Parse("a.yaml", []byte(strings.Replace(text, c[0], c[1], 1)), nil)
		require.ErrorContains(t, err, c[2])
	}
}

func TestFoldersOfOnesOwn(t *testing.T) {
	behind := fstest.MapFS{"shapes/narrow.sql": {Data: []byte(shapes["narrow"])}}
	mine := fstest.MapFS{
		"b.yaml": {Data: []byte(good)},
		"a.yaml": {Data: []byte(strings.NewReplacer("some-work", "a-work", "shape: narrow", "shape: mine").Replace(good))}, "shapes/mine.sql": {Data: []byte("SELECT {rows}\n")},
	}
	all, err := Load(mine, behind)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, []string{"a-work", "some-work"}, []string{all[0].Name, all[1].Name})
	require.Equal(t, "SELECT {rows}", all[0].Workload.SQL)
	_, err = Load(mine)
	require.ErrorContains(t, err, `found shape "narrow", expected one of mine`)
	mine["c.yaml"] = mine["b.yaml"]
	_, err = Load(mine, behind)
	require.ErrorContains(t, err, "c.yaml: name some-work is that of b.yaml too")
	_, err = Load(fstest.MapFS{})
	require.ErrorContains(t, err, "no scenario")
}

func TestFragmentsAreMerged(t *testing.T) {
	base := map[string]any{"a": 1, "resources": map[string]any{"x": 1, "y": 2}, "list": []any{1}}
	over := map[string]any{"resources": map[string]any{"y": 3}, "list": []any{"{dir}/f"}}
	got := Merge(base, over)
	require.Equal(t, map[string]any{"a": 1, "resources": map[string]any{"x": 1, "y": 3}, "list": []any{"{dir}/f"}}, got)
	require.Equal(t, map[string]any{"x": 1, "y": 2}, base["resources"], "the base is as it was")
	require.Equal(t, []any{"/tmp/f"}, FillAll(got, map[string]string{"dir": "/tmp"}).(map[string]any)["list"])
}
