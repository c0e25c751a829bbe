package duckdb

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const benchBatch = 16384

func narrowBatch(from int) messages.ArrowRows {
	b := array.NewRecordBuilder(memory.DefaultAllocator, narrow.Schema)
	defer b.Release()
	for i := from; i < from+benchBatch; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Int32Builder).Append(int32(i % 100))
		b.Field(2).(*array.Float64Builder).Append(float64(i) / 3)
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(i) * 1e6)
		b.Field(4).(*array.StringBuilder).Append(fmt.Sprintf("note number %08d", i))
	}
	return messages.ArrowRows{Record: b.NewRecordBatch()}
}

var narrow = connectors.StreamPlan{Stream: "narrow", Target: "narrow", Key: []string{"id"}, Schema: arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true},
	{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)}

// BenchmarkWrite writes commits of 61 batches, about a million rows.
func BenchmarkWrite(b *testing.B) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
		b.Run(string(mode), func(b *testing.B) {
			d, err := NewDestination(DestinationConfig{Path: filepath.Join(b.TempDir(), "x.duckdb")})
			require.NoError(b, err)
			s, err := d.Open(b.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
			require.NoError(b, err)
			defer s.Close(context.Background())
			l := load(mode, 1, narrow, "narrow")
			require.NoError(b, s.Begin(b.Context(), l))
			w, _, err := s.OpenWriter(b.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
			require.NoError(b, err)
			const batches = 61
			var rows []messages.ArrowRows
			for i := range batches {
				rows = append(rows, narrowBatch(i*benchBatch))
			}
			for b.Loop() {
				for _, r := range rows {
					r.Retain()
					require.NoError(b, w.Write(b.Context(), messages.Batch{Stream: "narrow", Rows: r}))
				}
				_, err := w.Commit(b.Context(), barrier(messages.BarrierPeriodic, 1, batches*benchBatch))
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(batches*benchBatch), "ns/row")
		})
	}
}

// BenchmarkCommit commits one row at a time.
func BenchmarkCommit(b *testing.B) {
	d, err := NewDestination(DestinationConfig{Path: filepath.Join(b.TempDir(), "x.duckdb")})
	require.NoError(b, err)
	s, err := d.Open(b.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
	require.NoError(b, err)
	defer s.Close(context.Background())
	l := load(connectors.ModeAppend, 1, narrow, "narrow")
	require.NoError(b, s.Begin(b.Context(), l))
	w, _, err := s.OpenWriter(b.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(b, err)
	r := narrowBatch(0)
	for b.Loop() {
		require.NoError(b, w.Write(b.Context(), messages.Batch{Stream: "narrow", Rows: r.Slice(0, 1)}))
		_, err := w.Commit(b.Context(), barrier(messages.BarrierPeriodic, 1, 1))
		require.NoError(b, err)
	}
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.duckdb")
	d, err := NewDestination(DestinationConfig{Path: path})
	require.NoError(b, err)
	s, err := d.Open(b.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
	require.NoError(b, err)
	l := load(connectors.ModeAppend, 1, narrow, "narrow")
	require.NoError(b, s.Begin(b.Context(), l))
	w, _, err := s.OpenWriter(b.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(b, err)
	const batches = 61
	for i := range batches {
		require.NoError(b, w.Write(b.Context(), messages.Batch{Stream: "narrow", Rows: narrowBatch(i * benchBatch)}))
	}
	_, err = w.Commit(b.Context(), barrier(messages.BarrierEnd, 1, 1))
	require.NoError(b, err)
	require.NoError(b, s.Close(b.Context()))
	src, err := NewSource(SourceConfig{Path: path})
	require.NoError(b, err)
	sc, err := src.Scan(b.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "narrow"}}, Splits: 1})
	require.NoError(b, err)
	for b.Loop() {
		r, err := src.Open(b.Context(), connectors.ReadRequest{
			Part: sc.Plan().Loads[0].Parts[0], Mem: memory.DefaultAllocator, Limits: connectors.Limits{BatchRows: benchBatch, BatchBytes: 8 << 20},
		})
		require.NoError(b, err)
		require.NoError(b, r.Read(b.Context(), discard{}))
		require.NoError(b, r.Close(b.Context()))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(batches*benchBatch), "ns/row")
}

// discard is an emitter without an engine.
type discard struct{}

func (discard) Emit(_ context.Context, d messages.Data) error {
	if b, ok := d.(messages.Batch); ok {
		b.Rows.Release()
	}
	return nil
}

func (discard) Due() bool { return false }

func (discard) Barrier(context.Context, messages.BarrierKind, messages.Position) error { return nil }
