package node_test

import (
	"bytes"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
)

// row is an Arrow IPC stream of texts, as a dead letter holds it.
func row(t testing.TB, rows int, fields []arrow.Field, values ...string) []byte {
	t.Helper()
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for range rows {
		for i, v := range values {
			require.NoError(t, b.Field(i).AppendValueFromString(v))
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestTheRowOfADeadLetterIsShownInTheOrderOfItsColumns(t *testing.T) {
	fields := []arrow.Field{
		{Name: "z", Type: arrow.PrimitiveTypes.Int64},
		{Name: "a", Type: arrow.BinaryTypes.String},
		{Name: "d", Type: &arrow.Decimal128Type{Precision: 10, Scale: 2}},
		{Name: "f", Type: arrow.PrimitiveTypes.Float64},
		{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_us},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64)},
		{Name: "n", Type: arrow.BinaryTypes.String, Nullable: true},
	}
	got, err := node.RowJSON(connectors.DeadLetter{Row: row(t, 1, fields, "9223372036854775807", "<a & b>", "1.10", "NaN", "2024-02-29T12:34:56.789012Z", "[1,null]", "(null)")})
	require.NoError(t, err)
	require.Equal(t, `{"z":9223372036854775807,"a":"<a & b>","d":"1.1","f":"NaN","t":"2024-02-29T12:34:56.789012Z","l":[1,null],"n":null}`, string(got)) //nolint:testifylint // the order of the columns is the point
}

// Whatever type a row has, it can be shown.
func TestEveryTypeOfADeadLetterIsShown(t *testing.T) {
	for _, c := range conntest.TypeCases() {
		for _, v := range c.Values {
			fields := []arrow.Field{{Name: "v", Type: c.Type, Nullable: true}}
			got, err := node.RowJSON(connectors.DeadLetter{Row: row(t, 1, fields, v)})
			require.NoError(t, err, "%s %s", c.Name, v)
			require.Contains(t, string(got), `{"v":`)
		}
	}
}

func TestADamagedDeadLetterIsAnError(t *testing.T) {
	fields := []arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String}}
	whole := row(t, 1, fields, "x")
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte("not arrow at all"), "cut": whole[:len(whole)/2], "two rows": row(t, 2, fields, "x"), "none": row(t, 0, fields),
	} {
		_, err := node.RowJSON(connectors.DeadLetter{ID: "7", Stream: "orders", Row: b})
		var e *connectors.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, messages.CodeFileDamaged, e.Code)
		require.Contains(t, e.Op, "dead letter 7")
	}
}

func TestADestinationWithoutDeadLettersSaysSo(t *testing.T) {
	doc, err := config.Parse("p.yaml", []byte(`{version: "1.0", pipeline: p, source: {use: generator, streams: [{name: a}]}, destination: {use: blackhole, write_mode: append}}`), plugin.Builtins(), config.OS())
	require.NoError(t, err)
	_, err = node.DeadLetters(doc)
	var f messages.Failure
	require.ErrorAs(t, err, &f)
	require.Equal(t, messages.CodeNotAvailable, f.Code)
	require.Equal(t, "the destination blackhole keeps none", f.Why)
	require.Equal(t, "p.yaml", f.Where.File)
}
