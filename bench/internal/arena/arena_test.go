package arena

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/report"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const tiny = `
name: tiny
title: A few rows
suites: {quick: {}}
rows: 3000
rounds: 1
mode: MODE
key: [id]
workload: {shape: narrow, base: "SELECT id + 10, v || 'x', d FROM {sql} s"}
contestants:
  - {peer: psql, method: METHOD}
  - name: ours
    document: {resources: {checkpoint_interval_rows: 1000}}
  - {name: thief, command: [sh, -c, "psql -X -q -d '{source}' -c 'COPY (SELECT * FROM {table} WHERE id <> 7) TO STDOUT' | psql -X -q -d '{target}' -c 'COPY {table} FROM STDIN'"]}
  - {name: forger, command: [sh, -c, "psql -X -q -d '{source}' -c \"COPY (SELECT id, CASE id WHEN 7 THEN '' ELSE v END, d FROM {table}) TO STDOUT\" | psql -X -q -d '{target}' -c 'COPY {table} FROM STDIN'"]}
  - {name: quitter, command: [sh, -c, "echo no >&2; exit 3"]}
  - {name: sling, peer: sling}
`

var shapes = map[string]string{
	"narrow": "SELECT g AS id, 'value ' || g AS v, (g / 7)::numeric(12,4) AS d FROM generate_series(1, {rows}::int8) g",
}

func parse(t *testing.T, text string, replace ...string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("tiny.yaml", []byte(strings.NewReplacer(replace...).Replace(text)), shapes)
	require.NoError(t, err)
	return s
}

// small starts what is enough for few rows, with this program.
func small(t *testing.T) *Arena {
	t.Helper()
	a, err := New(t.Context(), Options{
		Programs: map[string]string{"": program(t)}, Competing: 1e9, Log: t.Output(), Scale: 1,
		Settings: []string{"shared_buffers=16MB", "fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// program is the path of a rapidbyte-node, built once.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rapidbyte-node")
	out, err := exec.Command("go", "build", "-o", path, "rapidbyte.io/node/cmd/rapidbyte-node").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

func why(r *artefact.Result) map[string]string {
	out := map[string]string{}
	for _, f := range r.Failures {
		out[f.Contestant] = f.Why
	}
	return out
}

// TestPGTinyScenarios runs the whole way: server, data, contestants, verification,
// artefact, report. Whoever loses or changes a row, or fails, has no figures.
func TestPGTinyScenarios(t *testing.T) {
	a := small(t)
	s := parse(t, tiny, "MODE", "append", "key: [id]\n", "", ", method: METHOD", "", `, base: "SELECT id + 10, v || 'x', d FROM {sql} s"`, "")
	r, err := a.Measure(t.Context(), s)
	require.NoError(t, err)
	require.True(t, r.Failed())
	require.True(t, r.Complete)
	failures := why(r)
	require.Contains(t, failures["thief"], "it left 2999 rows")
	require.Contains(t, failures["forger"], "it left 3000 rows with hash")
	require.Contains(t, failures["quitter"], "no")
	require.Equal(t, []string{"sling"}, r.Session.Absent)
	require.Len(t, r.Runs, 2, "psql and ours, one round that counts")
	for _, run := range r.Runs {
		require.Contains(t, []string{"psql", "ours"}, run.Contestant)
		require.Positive(t, run.Wall)
		require.Positive(t, run.CPU())
		require.NotNil(t, run.Server, "in steps of ten milliseconds, of which few rows need none")
		require.NotNil(t, run.Competing)
		require.Positive(t, run.PeakMB)
		require.True(t, strings.HasPrefix(run.Digest, "3000 "), run.Digest)
		require.Equal(t, run.Contestant == "ours", slices.Contains(run.Chosen, "lane passthrough"), run.Chosen)
	}
	dir := t.TempDir()
	_, err = r.Write(dir)
	require.NoError(t, err)
	back, err := artefact.Read(dir)
	require.NoError(t, err)
	require.NoError(t, report.Write(dir, back))
	text, err := os.ReadFile(filepath.Join(dir, "report.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), "thief failed: it left 2999 rows")
	require.FileExists(t, filepath.Join(dir, "tiny.svg"))

	for _, c := range [][]string{{"upsert", "merge"}, {"replace", "''"}} {
		s := parse(t, tiny, "MODE", c[0], "METHOD", c[1])
		s.Contestants = s.Contestants[:2]
		r, err := a.Measure(t.Context(), s)
		require.NoError(t, err)
		require.Empty(t, r.Failures, c)
		require.Len(t, r.Runs, 2)
		require.Equal(t, r.Runs[0].Digest, r.Runs[1].Digest)
	}
	rows, err := a.servers[""].query(t.Context(), adminDB, "SELECT count(*) FROM pg_database WHERE datname LIKE 'rb\\_bench\\_%'")
	require.NoError(t, err)
	require.Equal(t, "0", rows[0][0], "databases of scenarios are dropped")

	crash := parse(t, tiny, "MODE", "append", "key: [id]\n", "kill_at: 0.5\n", "rows: 3000", "rows: 100000", ", method: METHOD", "", `, base: "SELECT id + 10, v || 'x', d FROM {sql} s"`, "")
	crash.Contestants = crash.Contestants[:2]
	r, err = a.Measure(t.Context(), crash)
	require.NoError(t, err)
	require.Empty(t, r.Failures)
	for _, run := range r.Runs {
		require.Positive(t, run.Killed)
	}
}

// A server that is there is used as it is; its CPU and that of others is unknown.
func TestPGServerThatIsThere(t *testing.T) {
	there := pgtest.Start(t, "shared_buffers=16MB", "fsync=off")
	a, err := New(t.Context(), Options{Programs: map[string]string{"": "/bin/true"}, Server: there.URL("postgres"), Competing: 0.3, Log: t.Output(), Scale: 1})
	require.NoError(t, err)
	s := parse(t, tiny, "MODE", "append", "key: [id]\n", "", ", method: METHOD", "", `, base: "SELECT id + 10, v || 'x', d FROM {sql} s"`, "")
	s.Contestants = s.Contestants[:1]
	r, err := a.Measure(t.Context(), s)
	require.NoError(t, err)
	require.Len(t, r.Runs, 1)
	require.Nil(t, r.Runs[0].Server)
	require.Nil(t, r.Runs[0].Competing)
	require.False(t, r.Session.Server.Own)
	s.Settings = []string{"wal_level=logical"}
	_, err = a.Measure(t.Context(), s)
	require.ErrorContains(t, err, "needs a server with wal_level=logical")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Settings = nil
	r, err = a.Measure(ctx, s)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, r.Complete)
	require.NoError(t, a.Close())
	require.Equal(t, [][]string{{"0"}}, there.Query(t, "postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'rb\\_bench\\_%'"))
}
