package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
)

const writing = `version: "1.0"
pipeline: p
source: {use: generator, streams: [{name: a}]}
destination:
  use: postgres
  config: {host: h, user: u, database: d}
  write_mode: append
`

func TestThePolicyIsThatOfTheDocument(t *testing.T) {
	parse := func(more string) *config.Document {
		doc, err := config.Parse("p.yaml", []byte(writing+more), plugin.Builtins(), config.OS())
		require.NoError(t, err)
		return doc
	}
	require.Equal(t, connectors.WritePolicy{OnDataError: connectors.DataFail, NewColumn: connectors.ColumnAdd}, node.WritePolicy(parse("")))
	rows, ratio := int64(10), 0.5
	require.Equal(t, connectors.WritePolicy{
		OnDataError: connectors.DataDLQ, DeadRowsMax: &rows, DeadRatioMax: &ratio, NewColumn: connectors.ColumnFail, Metadata: true, FlushBytes: 4 << 20,
	}, node.WritePolicy(parse("  on_data_error: dlq\n  max_dlq_rows: 10\n  max_dlq_ratio: 0.5\n  metadata_columns: true\n"+
		"  schema_evolution: {new_column: fail}\nresources: {autotune: {flush_bytes: 4mb}}\n")))
}
