package run

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

func TestDecideTasks(t *testing.T) {
	for name, tc := range map[string]struct {
		facts taskFacts
		n     int
		why   string
	}{
		"cores":                   {taskFacts{Asked: 4, Tune: true, Parts: 9, Fit: 9}, 4, "one per core"},
		"off":                     {taskFacts{Asked: 2, Parts: 99, Fit: 9, Room: 2}, 2, "one per core, autotune is off"},
		"pinned":                  {taskFacts{Asked: 1, Pinned: "resources.parallelism", Tune: true, Parts: 99, Fit: 9, Room: 1}, 1, "resources.parallelism"},
		"pinned high":             {taskFacts{Asked: 8, Pinned: "resources.autotune.parallelism", Tune: true, Parts: 99, Fit: 9, Room: 4}, 8, "resources.autotune.parallelism"},
		"many parts on two cores": {taskFacts{Asked: 2, Tune: true, Parts: 16, Fit: 9}, 3, "16 parts: some work while others wait for a commit"},
		"a few parts":             {taskFacts{Asked: 2, Tune: true, Parts: 15, Fit: 9}, 2, "one per core"},
		"many parts, many cores":  {taskFacts{Asked: 16, Tune: true, Parts: 1000, Fit: 99}, 16, "one per core"},
		"few parts":               {taskFacts{Asked: 8, Tune: true, Parts: 3, Fit: 9}, 3, "no more parts than that"},
		"few parts, pinned":       {taskFacts{Asked: 8, Pinned: "resources.parallelism", Tune: true, Parts: 1, Fit: 9}, 1, "no more parts than that"},
		"few connections":         {taskFacts{Asked: 8, Tune: true, Parts: 99, Fit: 9, Room: 7}, 3, "connections left at the server: 7, half of them for others"},
		"one connection":          {taskFacts{Asked: 8, Tune: true, Parts: 99, Fit: 9, Room: 1}, 1, "connections left at the server: 1, half of them for others"},
		"little memory":           {taskFacts{Asked: 8, Tune: true, Parts: 99, Fit: 2, Room: 99}, 2, "max_memory has no room for more"},
		"no memory":               {taskFacts{Asked: 8, Pinned: "resources.parallelism", Parts: 99, Fit: 0}, 1, "max_memory has no room for more"},
		"nothing":                 {taskFacts{Fit: 1}, 1, "one per core, autotune is off"},
	} {
		n, why := decideTasks(tc.facts)
		require.Equal(t, tc.n, n, name)
		require.Equal(t, tc.why, why, name)
	}
}

func TestDecideRows(t *testing.T) {
	for width, want := range map[int64]int64{1: 8192, 50: 8192, 512: 8192, 513: 8176, 800: 5242, 1024: 4096, 1 << 20: 4096} {
		n, why := decideRows(width, true)
		require.Equal(t, want, n, "%d bytes", width)
		require.Contains(t, why, "rows of about")
		n, why = decideRows(width, false)
		require.Equal(t, int64(8192), n)
		require.Equal(t, "autotune is off", why)
	}
	require.Equal(t, int64(8+1+24), widthOf(arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Int64}, {Name: "b", Type: arrow.FixedWidthTypes.Boolean}, {Name: "c", Type: arrow.BinaryTypes.String},
	}, nil)))
	require.Equal(t, int64(1), widthOf(arrow.NewSchema(nil, nil)))
}
