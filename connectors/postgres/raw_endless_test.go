package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/internal/codec"
)

// A server before version 17 would take an infinite interval for one of many years.
func TestAnOlderServerTakesNoRawIntervalsOfANewerOne(t *testing.T) {
	of := func(name string, endless bool, version int) string {
		c := codec.Column{Name: "v", Type: builtinType(name, name)}
		format, why := (&readSplit{Columns: []splitColumn{{Name: c.Name, Type: c.Type}}, Visible: 1, Endless: endless}).rawFormat()
		require.Empty(t, why)
		return goal{}.refusesRaw(format, []rawColumn{{name: c.Name, want: c.Type, has: c.Type}}, version)
	}
	require.Equal(t, "column v is an interval, and the server is older than version 17, the source is not", of("interval", true, 16))
	require.Empty(t, of("interval", true, 17))
	require.Empty(t, of("interval", false, 16))
	require.Empty(t, of("interval", false, 18))
	require.Empty(t, of("text", true, 15))
}
