package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench runs the command and returns what it writes to stdout.
func bench(args ...string) (string, error) {
	cmd := command()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestScenariosAreSound(t *testing.T) {
	all, err := (&choice{}).load()
	require.NoError(t, err)
	var ids []string
	for _, s := range all {
		for _, c := range s.Contestants {
			if c.Peer != "" {
				require.Contains(t, peer.Names(), c.Peer, s.Name)
			}
		}
		if s.Kind == scenario.Copy {
			require.NotEmpty(t, s.Ours(), s.Name)
		}
		for _, target := range s.Targets {
			ids = append(ids, target.ID)
		}
	}
	for _, id := range []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P11", "P12", "P13", "P14", "P15"} {
		require.Contains(t, ids, id, "a target without a scenario")
	}
	for _, suite := range scenario.Suites {
		some, err := (&choice{suite: suite}).load()
		require.NoError(t, err)
		require.NotEmpty(t, some)
	}
}

func TestScenariosAreChosen(t *testing.T) {
	pick := func(c choice) []string {
		all, err := c.load()
		require.NoError(t, err)
		var out []string
		for _, s := range all {
			out = append(out, s.Name)
		}
		return out
	}
	require.Equal(t, []string{"upsert-all", "upsert-half", "upsert-none", "upsert-unchanged"}, pick(choice{glob: "upsert-*"}))
	require.Equal(t, []string{"start-up", "upsert-half"}, pick(choice{glob: "upsert-*,start-up", suite: "quick"}))
	for _, c := range []choice{{glob: "nothing"}, {glob: "["}, {suite: "slow"}, {folder: t.TempDir()}} {
		_, err := c.load()
		require.Error(t, err)
	}
	dir := t.TempDir()
	mine := "name: mine\ntitle: Mine\nsuites: {lab: {}}\nrows: 5\nworkload: {shape: narrow}\ncontestants: [{name: ours}]\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine.yaml"), []byte(mine), 0o600))
	require.Equal(t, []string{"mine"}, pick(choice{folder: dir}), "shapes of ours serve scenarios of others")
	out, err := bench("list", "--scenarios", dir)
	require.NoError(t, err)
	require.Contains(t, out, "mine                     lab                          Mine\n")
	for _, name := range peer.Names() {
		require.Contains(t, out, "\n"+name+" ")
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for message, args := range map[string][]string{
		"found --suite":      {"run", "--suite", "slow"},
		"found peer \"rsync": {"run", "--peers", "psql,rsync"},
		"found --with":       {"run", "--with", "old"},
		"--scale is above 0": {"run", "--scale", "0"},
		"is in suite":        {"run", "--scenario", "nothing"},
		"accepts 2 arg":      {"compare", "a"},
		"no such file":       {"compare", "nowhere", "nowhere"},
		"unknown command":    {"measure"},
	} {
		_, err := bench(args...)
		require.ErrorContains(t, err, message)
	}
}

func TestArtefactsAreComparedAndReported(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	for i, dir := range dirs {
		r := &artefact.Result{
			Session: artefact.Session{ID: []string{"first", "second"}[i], Started: time.Unix(int64(i), 0)},
			Scenario: &scenario.Scenario{
				Name: "x", Title: "X", Kind: scenario.Copy, Rows: 10, Rounds: 1, Contestants: []scenario.Contestant{{Name: "pipe", Peer: "psql"}, {Name: "ours"}},
			},
			Runs: []artefact.Run{{Contestant: "pipe", Round: 1, Rows: 10, Wall: 1}, {Contestant: "ours", Round: 1, Rows: 10, Wall: float64(i + 1)}}, Complete: true,
		}
		_, err := r.Write(dir)
		require.NoError(t, err)
	}
	out, err := bench("compare", dirs[0], filepath.Join(dirs[1], "x.jsonl"))
	require.NoError(t, err)
	require.Contains(t, out, "| ours | wall, x pipe, paired | 1 | 2 | 2.00 | one round says nothing |")
	docs := t.TempDir()
	_, err = bench(slices.Concat([]string{"report", "--docs", docs}, dirs)...)
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(docs, "BENCHMARKS.md"))
	require.NoError(t, err)
	require.Contains(t, string(page), "session second")
}
