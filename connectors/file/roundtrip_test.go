package file

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/conntest"
)

// sampleRecord has the types that every format infers back, with nulls.
func sampleRecord(t testing.TB, n int) arrow.RecordBatch {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "ok", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	}, nil))
	defer b.Release()
	for i := range n {
		values := []string{fmt.Sprint(i), fmt.Sprintf("näme \"%d\"", i%50), fmt.Sprint(float64(i) / 8), fmt.Sprint(i%2 == 0)}
		if i%10 == 9 {
			values = []string{array.NullValueStr, array.NullValueStr, array.NullValueStr, array.NullValueStr}
		}
		for c, v := range values {
			require.NoError(t, b.Field(c).AppendValueFromString(v))
		}
	}
	return b.NewRecordBatch()
}

func TestEveryFormatAndCompressionRoundTrips(t *testing.T) {
	rec := sampleRecord(t, 1000)
	defer rec.Release()
	want := conntest.RowTexts(rec)
	for _, c := range []DestinationConfig{
		{Format: FormatCSV, Compression: CompressionNone},
		{Format: FormatCSV, Compression: CompressionGzip},
		{Format: FormatCSV, Compression: CompressionZstd},
		{Format: FormatJSONL, Compression: CompressionNone},
		{Format: FormatJSONL, Compression: CompressionGzip},
		{Format: FormatJSONL, Compression: CompressionZstd},
		{Format: FormatParquet, Compression: CompressionNone},
		{Format: FormatParquet, Compression: CompressionGzip},
		{Format: FormatParquet, Compression: CompressionZstd},
		{Format: FormatParquet, Compression: CompressionSnappy},
		{Format: FormatArrow, Compression: CompressionNone},
		{Format: FormatArrow, Compression: CompressionZstd},
	} {
		name := "x" + suffix(c)
		path := put(t, t.TempDir(), name, string(encodeFile(t, rec, c.Format, c.Compression)))
		got, err := readAll(t, SourceConfig{Path: path, CSV: CSVConfig{NullValues: []string{""}}})
		require.NoError(t, err, name)
		require.Equal(t, "id:int64 name:utf8 score:float64 ok:bool", got.columns(), name)
		require.Equal(t, want, got.texts, "%s %s", name, c.Compression)
	}
}

func naughtyStrings(t testing.TB) []string {
	t.Helper()
	f, err := os.Open("testdata/naughty-strings/blns.json.gz")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var out []string
	require.NoError(t, json.NewDecoder(z).Decode(&out))
	require.Len(t, out, 515)
	return out
}

func TestNaughtyStringsRoundTripByteForByte(t *testing.T) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "first", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "日本, \"x\"", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil))
	defer b.Release()
	for _, s := range naughtyStrings(t) {
		b.Field(0).(*array.StringBuilder).Append(s)
		b.Field(1).(*array.StringBuilder).Append(s + "\r\n" + s)
		b.Field(0).AppendNull()
		b.Field(1).(*array.StringBuilder).Append("")
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	want := conntest.RowTexts(rec)
	for _, format := range []string{FormatCSV, FormatJSONL, FormatParquet, FormatArrow} {
		path := put(t, t.TempDir(), "x."+format, string(encodeFile(t, rec, format, CompressionNone)))
		got, err := readAll(t, SourceConfig{Path: path, CSV: CSVConfig{NullValues: []string{""}}})
		require.NoError(t, err, format)
		require.Equal(t, want, got.texts, format)
		require.Equal(t, rec.Schema().Field(1).Name, got.schema.Field(1).Name)
	}
}

func TestSingleColumnOfNullsAndEmptyTextsRoundTrips(t *testing.T) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true}}, nil))
	defer b.Release()
	for _, s := range []string{"", array.NullValueStr, "x", "", array.NullValueStr} {
		require.NoError(t, b.Field(0).AppendValueFromString(s))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	for _, format := range []string{FormatCSV, FormatJSONL} {
		got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x."+format, string(encodeFile(t, rec, format, CompressionNone))), CSV: CSVConfig{NullValues: []string{""}}})
		require.NoError(t, err)
		require.Equal(t, conntest.RowTexts(rec), got.texts, format)
	}
}

func TestFloatsKeepTheirTypeAndValue(t *testing.T) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.PrimitiveTypes.Float64}}, nil))
	defer b.Release()
	values := []float64{0, -1, 5, 1e21, 1e300, 5e-324, 1.7976931348623157e308, 0.1, 1.0 / 3, 123456789.125, 1e-7, 9007199254740993}
	b.Field(0).(*array.Float64Builder).AppendValues(values, nil)
	rec := b.NewRecordBatch()
	defer rec.Release()
	for _, format := range []string{FormatCSV, FormatJSONL} {
		got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x."+format, string(encodeFile(t, rec, format, CompressionNone)))})
		require.NoError(t, err)
		require.Equal(t, "v:float64", got.columns(), format)
		require.Equal(t, conntest.RowTexts(rec), got.texts, format)
	}
}

func TestJSONColumnsRoundTripUnquoted(t *testing.T) {
	const lines = "{\"a\":{\"x\":[1, 2.50]}}\n{\"a\":\"text\"}\n{\"a\":null}\n{\"a\":12345678901234567890}\n"
	src := SourceConfig{Path: put(t, t.TempDir(), "x.jsonl", lines)}
	s, err := NewSource(src)
	require.NoError(t, err)
	one, err := s.inspector().look(t.Context(), match{path: src.Path})
	require.NoError(t, err)
	schema, _, err := s.streamSchema("s", []inspected{one}, nil)
	require.NoError(t, err)
	require.True(t, isJSON(schema.Field(0)))
	in, err := openInput(src.Path, "", "")
	require.NoError(t, err)
	defer in.close()
	limits := wide
	r, err := newTextReader(split{Path: src.Path, Format: FormatJSONL, fingerprint: in.mark}, schema, in, limits, memory.DefaultAllocator)
	require.NoError(t, err)
	rec, err := r.next()
	require.NoError(t, err)
	defer rec.Release()
	require.Equal(t, strings.SplitAfter(lines, "\n"), strings.SplitAfter(string(encodeFile(t, rec, FormatJSONL, CompressionNone)), "\n"))
}
