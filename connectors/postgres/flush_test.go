package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlushPrecedence(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name   string
		in     flushInput
		bytes  int64
		reason string
	}{
		{"nothing known", flushInput{}, mib, "1mb (adaptive: no row seen yet)"},
		{"pin wins over all", flushInput{Pin: 4 * mib, Autotune: 2 * mib, Config: 8 * mib, MeanRow: 100}, 4 * mib, "4mb (resources.autotune.flush_bytes)"},
		{"then autotune", flushInput{Autotune: 2 * mib, Config: 8 * mib, MeanRow: 100}, 2 * mib, "2mb (autotune)"},
		{"then the connector", flushInput{Config: 8 * mib, MeanRow: 100}, 8 * mib, "8mb (copy_flush_bytes)"},
		{"then the mean row", flushInput{MeanRow: 400}, 400 * 4096, "1600 kb (adaptive: rows of about 400 bytes)"},
		{"small rows: not below 1 MiB", flushInput{MeanRow: 100}, mib, "1024 kb (adaptive: rows of about 100 bytes)"},
		{"large rows: not above 32 MiB", flushInput{MeanRow: 66_000}, 32 * mib, "32768 kb (adaptive: rows of about 66000 bytes)"},
		{"a small pin is clamped", flushInput{Pin: 4096}, mib, "1mb (resources.autotune.flush_bytes, 4kb clamped)"},
		{"a large setting is clamped", flushInput{Config: 1 << 30}, 32 * mib, "32mb (copy_flush_bytes, 1gb clamped)"},
	} {
		bytes, reason := decideFlush(c.in)
		require.Equal(t, c.bytes, bytes, c.name)
		require.Equal(t, c.reason, reason, c.name)
	}
}

func TestFlushFollowsTheRows(t *testing.T) {
	f := flushPolicy{}
	require.EqualValues(t, 1<<20, f.bytes())
	f.saw(2000, 2000*1000)
	require.EqualValues(t, 1000*flushRows, f.bytes())
	f.saw(2000, 2000*3000) // rows grow: decided again once as many have been seen
	require.EqualValues(t, 2000*flushRows, f.bytes())
}
