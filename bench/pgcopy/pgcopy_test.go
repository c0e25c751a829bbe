package main

import (
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDocumentsAreValid(t *testing.T) {
	for _, mode := range []string{"append", "upsert", "replace"} {
		for _, streams := range []string{"narrow", "bench.*"} {
			text := document{streams: streams, mode: mode, tasks: 2}.text("postgres://me@127.0.0.1:1/db", "ours", "state.db", "pgcopy_1")
			doc, err := config.Parse("bench.yaml", []byte(text), plugin.Builtins(), config.OS())
			require.NoError(t, err)
			require.Equal(t, "bench."+strings.TrimPrefix(streams, "bench."), doc.Source.Streams[0].Name)
		}
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	c := contest{contestants: []contestant{{peer: true}, {peer: true}, {}}}
	round := func(walls ...float64) []run {
		out := make([]run, len(walls))
		for i, w := range walls {
			out[i].Wall = w
		}
		return out
	}
	rounds := [][]run{round(2, 1, 3), round(4, 8, 4), round(10, 10, 20)}
	ratio := over(rounds, func(r []run) float64 { return r[2].Wall / fastest(c, r) })
	require.Equal(t, spread{median: 2, least: 1, most: 3}, ratio)
	require.InDelta(t, 3.5, over(rounds[:2], func(r []run) float64 { return r[2].Wall }).median, 0)
	require.True(t, math.IsInf(fastest(contest{contestants: c.contestants[2:]}, round(1)), 1))
}

func TestChainsMeasureAllOfTheirPrograms(t *testing.T) {
	u, err := chain{exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done"), exec.Command("grep", "-q", "done")}.run(1, nil)
	require.NoError(t, err)
	require.Positive(t, u.cpu())
	require.GreaterOrEqual(t, u.Wall, 0.001)
	_, err = chain{exec.Command("echo", "x"), exec.Command("sh", "-c", "echo why >&2; exit 3")}.run(1, nil)
	require.ErrorContains(t, err, "why")
}

func TestFlagsAreChecked(t *testing.T) {
	o, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, int64(3_000_000), o.rows)
	for _, args := range []string{"-mode x", "-workload x", "-match 101", "-match x", "-rounds 0", "-tasks 0", "-rows -1", "-mode upsert -workload wide"} {
		_, err := parse(strings.Fields(args))
		require.Error(t, err, args)
	}
}
