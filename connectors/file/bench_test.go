package file

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// narrowRecord is the narrow workload: int8, int4, float8, timestamptz, text of 20 bytes.
func narrowRecord(b testing.TB, n int) arrow.RecordBatch {
	b.Helper()
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		{Name: "v", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil))
	defer rb.Release()
	for i := range n {
		rb.Field(0).(*array.Int64Builder).Append(int64(i))
		rb.Field(1).(*array.Int32Builder).Append(int32(i * 7919 % 100_003))
		rb.Field(2).(*array.Float64Builder).Append(float64(i*104_729%1_000_003) / 1000)
		rb.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(1_700_000_000_000_000 + int64(i)*1_234_567))
		rb.Field(4).(*array.StringBuilder).Append(fmt.Sprintf("name-%015d", i*7919%1_000_003))
	}
	return rb.NewRecordBatch()
}

func BenchmarkEncode(b *testing.B) {
	rec := narrowRecord(b, 8192)
	defer rec.Release()
	for _, format := range []string{FormatParquet, FormatArrow, FormatCSV, FormatJSONL} {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			c := DestinationConfig{Format: format}.withDefaults()
			f := &openFile{schema: rec.Schema(), buf: newDiscard(io.Discard)}
			require.NoError(b, f.start(c))
			for b.Loop() {
				require.NoError(b, f.enc.write(rec))
			}
			require.NoError(b, f.end())
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8192, "ns/row")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const n = 400_000
	rec := narrowRecord(b, n)
	defer rec.Release()
	for _, format := range []string{FormatCSV, FormatJSONL, FormatParquet, FormatArrow} {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			path := filepath.Join(b.TempDir(), "x."+format)
			content := encodeBench(b, rec, format)
			require.NoError(b, os.WriteFile(path, content, 0o600))
			src, err := NewSource(SourceConfig{Path: path})
			require.NoError(b, err)
			part := planOf(b, src, connectors.StreamSpec{Stream: "s"}, connectors.Recovered{}).Loads[0].Parts[0]
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				require.EqualValues(b, n, countRows(b, src, part))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
		})
	}
}

func BenchmarkInferCSV(b *testing.B) {
	content := encodeBench(b, narrowRecord(b, 200_000), FormatCSV)
	path := filepath.Join(b.TempDir(), "x.csv")
	require.NoError(b, os.WriteFile(path, content, 0o600))
	src, err := NewSource(SourceConfig{Path: path})
	require.NoError(b, err)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		planOf(b, src, connectors.StreamSpec{Stream: "s"}, connectors.Recovered{})
	}
}

func BenchmarkScanCSV(b *testing.B) {
	content := encodeBench(b, narrowRecord(b, 20_000), FormatCSV)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		t := table{raw: content, width: 5}
		s := csvScanner{dialect: dialect{Delimiter: ',', Quote: '"'}, fields: 5, dest: []int{0, 1, 2, 3, 4}}
		for at := 0; at < len(content); {
			s.base = at
			n, err := s.next(content[at:], true, &t)
			if err != nil || n == 0 {
				b.Fatal(err)
			}
			at += n
			t.rows++
		}
	}
}

// BenchmarkCommit is a commit of one small batch, with all its fsyncs.
func BenchmarkCommit(b *testing.B) {
	d := destAt(b, DestinationConfig{Path: filepath.Join(b.TempDir(), "out"), Format: FormatArrow})
	s, err := d.Open(b.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 1, Store: store})
	require.NoError(b, err)
	l := idLoad(1, connectors.ModeAppend, 1)
	require.NoError(b, s.Begin(b.Context(), l))
	w, _, err := s.OpenWriter(b.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(b, err)
	i := int64(0)
	for b.Loop() {
		require.NoError(b, w.Write(b.Context(), ids(b, 0, 10)))
		i += 10
		_, err := w.Commit(b.Context(), at(messages.BarrierPeriodic, i, 10))
		require.NoError(b, err)
	}
	require.NoError(b, w.Close(b.Context()))
	require.NoError(b, s.Close(b.Context()))
}

func countRows(b testing.TB, src *Source, part connectors.Part) (n int64) {
	b.Helper()
	r, err := src.Open(b.Context(), connectors.ReadRequest{Part: part, Limits: wide, Mem: memory.DefaultAllocator})
	require.NoError(b, err)
	e := &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
		if batch, ok := it.(messages.Batch); ok {
			n += batch.Rows.Len()
			batch.Rows.Release()
		}
		return nil
	}}
	require.NoError(b, r.Read(b.Context(), e))
	require.NoError(b, r.Close(b.Context()))
	return n
}

// encodeBench writes rec in batches of 8192 rows.
func encodeBench(b testing.TB, rec arrow.RecordBatch, format string) []byte {
	b.Helper()
	var out bytes.Buffer
	f := &openFile{schema: rec.Schema(), buf: newDiscard(&out)}
	require.NoError(b, f.start(DestinationConfig{Format: format}.withDefaults()))
	for at := int64(0); at < rec.NumRows(); at += 8192 {
		part := rec.NewSlice(at, min(at+8192, rec.NumRows()))
		require.NoError(b, f.enc.write(part))
		part.Release()
	}
	require.NoError(b, f.end())
	return out.Bytes()
}

func newDiscard(w io.Writer) *bufio.Writer { return bufio.NewWriterSize(w, writeBuffer) }
