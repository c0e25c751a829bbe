package artefact

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/bench/internal/scenario"
)

func result(name string, day int) *Result {
	server := 0.5
	return &Result{
		Session:  Session{ID: "s", Started: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), Scale: 1, Machine: Machine{CPU: "x <y>", Cores: 2}},
		Scenario: &scenario.Scenario{Name: name, Title: "T", Document: map[string]any{"a": map[string]any{"b": "c"}}},
		Runs:     []Run{{Contestant: "ours", Round: 1, Rows: 10, Wall: 1.5, Server: &server, Digest: "10 7"}, {Contestant: "psql", Round: 1}},
		Failures: []Failure{{Contestant: "other", Why: "lost a row"}}, Discarded: 2, Complete: true,
	}
}

func TestResultsComeBack(t *testing.T) {
	dir := t.TempDir()
	for _, r := range []*Result{result("b", 1), result("a", 1)} {
		_, err := r.Write(dir)
		require.NoError(t, err)
	}
	all, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, []*Result{result("a", 1), result("b", 1)}, all)
	require.True(t, all[0].Failed())
	require.False(t, (&Result{Failures: []Failure{{Unfit: true}}}).Failed())
}

func TestTheYoungerCounts(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	path, err := result("x", 2).Write(a)
	require.NoError(t, err)
	_, err = result("x", 1).Write(b)
	require.NoError(t, err)
	for _, paths := range [][]string{{a, b}, {b, path}} {
		all, err := Read(paths...)
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Equal(t, 2, all[0].Session.Started.Day())
	}
}

func TestInterruptedAndForeignFiles(t *testing.T) {
	r := result("x", 1)
	r.Complete = false
	text, err := r.Encode()
	require.NoError(t, err)
	back, err := Decode(text)
	require.NoError(t, err)
	require.False(t, back.Complete)
	path := filepath.Join(t.TempDir(), "f.jsonl")
	for content, message := range map[string]string{
		"": "expected an artefact", `{"kind":"run"}`: "line 1: found kind", "{}\nx": "line 1", `{"kind":"end","more":1}`: "unknown field",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := Read(path)
		require.ErrorContains(t, err, message)
		require.ErrorContains(t, err, "f.jsonl")
	}
}

func TestHereKnowsTheMachine(t *testing.T) {
	m := Here()
	require.Positive(t, m.Cores)
	require.Positive(t, m.RAMGB)
	require.NotEmpty(t, m.Kernel)
}
