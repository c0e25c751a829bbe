package sqltransform

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

var narrow = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

func narrowBatch(rows int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, narrow)
	defer b.Release()
	for i := range rows {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Int32Builder).Append(int32(i % 100))
		b.Field(2).(*array.Float64Builder).Append(float64(i) / 3)
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(i) * 1e6)
		b.Field(4).(*array.StringBuilder).Append(fmt.Sprintf("note number %08d", i))
	}
	return b.NewRecordBatch()
}

func BenchmarkApply(b *testing.B) {
	for _, q := range []struct{ name, query string }{
		{"pass", "FROM narrow"},
		{"project", "SELECT id, x FROM narrow"},
		{"filter", "SELECT * FROM narrow WHERE n < 10"},
		{"expressions", "SELECT id, upper(note) AS note, x * 2 AS y FROM narrow"},
	} {
		for _, rows := range []int{1, 4096, 16384} {
			b.Run(fmt.Sprintf("%s/%d", q.name, rows), func(b *testing.B) {
				tr, err := New(Config{Query: q.query})
				require.NoError(b, err)
				b.Cleanup(tr.dbs.close)
				st, err := tr.Open(b.Context(), connectors.StageRequest{
					Streams: []connectors.StreamPlan{{Stream: "narrow", Schema: narrow}},
					Limits:  connectors.Limits{BatchRows: 16384, BatchBytes: 8 << 20}, Mem: memory.DefaultAllocator,
				})
				require.NoError(b, err)
				defer st.Close(context.Background())
				rec := narrowBatch(rows)
				defer rec.Release()
				b.ReportAllocs()
				for b.Loop() {
					rec.Retain()
					err := st.Apply(b.Context(), messages.Batch{Stream: "narrow", Rows: messages.ArrowRows{Record: rec}},
						func(_ context.Context, d messages.Data) error {
							d.(messages.Batch).Rows.Release()
							return nil
						})
					require.NoError(b, err)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
			})
		}
	}
}

func BenchmarkSchema(b *testing.B) {
	tr, err := New(Config{Query: "SELECT id, upper(note) AS note FROM narrow WHERE n < 10"})
	require.NoError(b, err)
	b.Cleanup(tr.dbs.close)
	for b.Loop() {
		_, err := tr.Schema("narrow", narrow)
		require.NoError(b, err)
	}
}
