package sqltransform

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// exact are the types that pass unchanged, with values as JSON.
var exact = []struct {
	dt   arrow.DataType
	json string
}{
	{arrow.FixedWidthTypes.Boolean, `[true,false,null]`},
	{arrow.PrimitiveTypes.Int8, `[-128,127,null,0]`},
	{arrow.PrimitiveTypes.Int16, `[-32768,32767,null]`},
	{arrow.PrimitiveTypes.Int32, `[-2147483648,2147483647,null]`},
	{arrow.PrimitiveTypes.Int64, `[-9223372036854775808,9223372036854775807,null]`},
	{arrow.PrimitiveTypes.Uint8, `[0,255,null]`},
	{arrow.PrimitiveTypes.Uint16, `[65535,null]`},
	{arrow.PrimitiveTypes.Uint32, `[4294967295,null]`},
	{arrow.PrimitiveTypes.Uint64, `[18446744073709551615,null]`},
	{arrow.PrimitiveTypes.Float32, `[3.4028235e38,-0.0,1e-45,null]`},
	{arrow.PrimitiveTypes.Float64, `[1.7976931348623157e308,5e-324,-0.0,null]`},
	{&arrow.Decimal128Type{Precision: 38, Scale: 10}, `["1234567890123456789012345678.0123456789","-0.0000000001",null]`},
	{&arrow.Decimal128Type{Precision: 38, Scale: 0}, `["99999999999999999999999999999999999999","-99999999999999999999999999999999999999",null]`},
	{&arrow.Decimal128Type{Precision: 4, Scale: 1}, `["999.9","-999.9",null]`},
	{&arrow.Decimal128Type{Precision: 9, Scale: 2}, `["1234567.89",null]`},
	{&arrow.Decimal128Type{Precision: 18, Scale: 18}, `["0.123456789012345678",null]`},
	{arrow.BinaryTypes.String, `["","a","ü💥",null]`},
	{arrow.BinaryTypes.Binary, `["","AAEC/w==",null]`},
	{arrow.FixedWidthTypes.Date32, `["0001-01-01","9999-12-31",null]`},
	{arrow.FixedWidthTypes.Time64us, `["00:00:00","23:59:59.999999",null]`},
	{arrow.FixedWidthTypes.Time64ns, `["23:59:59.999999999",null]`},
	{&arrow.TimestampType{Unit: arrow.Second}, `["2020-01-01 00:00:01",null]`},
	{&arrow.TimestampType{Unit: arrow.Millisecond}, `["2020-01-01 00:00:01.123",null]`},
	{&arrow.TimestampType{Unit: arrow.Microsecond}, `["0001-01-01 00:00:01.123456","9999-12-31 23:59:59.999999",null]`},
	{&arrow.TimestampType{Unit: arrow.Nanosecond}, `["2020-01-01 00:00:01.123456789",null]`},
	{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, `["2020-01-01T00:00:01.123456Z",null]`},
	{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "Europe/Berlin"}, `["2020-01-01T00:00:01.123456Z",null]`},
	{arrow.ListOf(arrow.PrimitiveTypes.Int32), `[[1,null,3],[],null]`},
	{arrow.ListOfNonNullable(arrow.BinaryTypes.String), `[["a","b"],[],null]`},
	{arrow.ListOf(arrow.ListOf(arrow.BinaryTypes.String)), `[[["a",null],[]],null,[null]]`},
	{arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int32), `[[1,null],null,[3,4]]`},
	{arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32), `[[{"key":"a","value":1},{"key":"b","value":null}],[],null]`},
	{
		arrow.StructOf(arrow.Field{Name: "a b", Type: arrow.PrimitiveTypes.Int32, Nullable: true}, arrow.Field{Name: `"q`, Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}),
		`[{"a b":1,"\"q":["x",null]},{"a b":null,"\"q":null},null]`,
	},
	{extensions.NewUUIDType(), `["f81d4fae-7dec-11d0-a765-00a0c91e6bf6","00000000-0000-0000-0000-000000000000","ffffffff-ffff-ffff-ffff-ffffffffffff",null]`},
}

func jsonColumn(t *testing.T, mem memory.Allocator, dt arrow.DataType, values string) messages.Batch {
	t.Helper()
	arr, _, err := array.FromJSON(mem, dt, strings.NewReader(values))
	require.NoError(t, err)
	defer arr.Release()
	rec := array.NewRecordBatch(schemaOf(dt), []arrow.Array{arr}, int64(arr.Len()))
	return messages.Batch{Stream: "t", Rows: messages.ArrowRows{Record: rec}}
}

func schemaOf(dt arrow.DataType) *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{{Name: "v", Type: dt, Nullable: true}}, nil)
}

func TestTypesPassExactly(t *testing.T) {
	tr := make1(t, "SELECT v FROM t WHERE true")
	for _, c := range exact {
		t.Run(c.dt.String(), func(t *testing.T) {
			schema := schemaOf(c.dt)
			s := openStage(t, tr, "t", schema, connectors.Limits{})
			in := jsonColumn(t, s.mem, c.dt, c.json)
			in.Rows.Retain()
			defer in.Rows.Release()
			require.NoError(t, s.Apply(t.Context(), in, s.take))
			require.Len(t, s.items, 1)
			got := s.items[0].(messages.Batch).Rows.(messages.ArrowRows).Record
			want := in.Rows.(messages.ArrowRows).Record
			require.True(t, got.Schema().Equal(schema), "%s", got.Schema())
			require.True(t, array.RecordEqual(want, got), "want %v, got %v", want, got)

			// A slice has offsets into its buffers; one row and no row are borders too.
			sliced := want.NewSlice(1, want.NumRows())
			require.NoError(t, s.Apply(t.Context(), messages.Batch{Stream: "t", Rows: messages.ArrowRows{Record: sliced}}, s.take))
			rest := s.items[1].(messages.Batch).Rows.(messages.ArrowRows).Record
			expect := want.NewSlice(1, want.NumRows())
			defer expect.Release()
			require.Equal(t, conntest.RowTexts(expect), conntest.RowTexts(rest))
			require.NoError(t, s.Apply(t.Context(), messages.Batch{Stream: "t", Rows: messages.ArrowRows{Record: want.NewSlice(0, 0)}}, s.take))
			require.Len(t, s.items, 2)
		})
	}
}

// A long slice crosses DuckDB's chunks and begins inside a byte of each bitmap.
func TestLongSlicesPassExactly(t *testing.T) {
	tr := make1(t, "SELECT v FROM t WHERE true")
	for _, c := range exact {
		t.Run(c.dt.String(), func(t *testing.T) {
			schema := schemaOf(c.dt)
			s := openStage(t, tr, "t", schema, connectors.Limits{BatchRows: 3000})
			short := jsonColumn(t, s.mem, c.dt, c.json)
			defer short.Rows.Release()
			arr := short.Rows.(messages.ArrowRows).Record.Column(0)
			long, err := array.Concatenate(slices.Repeat([]arrow.Array{arr}, 3000), s.mem)
			require.NoError(t, err)
			defer long.Release()
			rec := array.NewRecordBatch(schema, []arrow.Array{long}, int64(long.Len()))
			defer rec.Release()
			for _, from := range []int64{1, 2051} {
				in := rec.NewSlice(from, rec.NumRows()-5)
				defer in.Release()
				in.Retain()
				require.NoError(t, s.Apply(t.Context(), messages.Batch{Stream: "t", Rows: messages.ArrowRows{Record: in}}, s.take))
				require.Equal(t, conntest.RowTexts(in), s.rows())
				for _, d := range s.items {
					conntest.Release(d)
				}
				s.items = nil
			}
		})
	}
}

func TestTypesThatComeOutEqualUnderAnotherType(t *testing.T) {
	tr := make1(t, "SELECT v FROM t")
	for _, c := range []struct {
		dt   arrow.DataType
		json string
		want arrow.DataType
	}{
		{arrow.BinaryTypes.LargeString, `["a",null]`, arrow.BinaryTypes.String},
		{arrow.BinaryTypes.StringView, `["a",null]`, arrow.BinaryTypes.String},
		{arrow.BinaryTypes.LargeBinary, `["AAE=",null]`, arrow.BinaryTypes.Binary},
		{&arrow.FixedSizeBinaryType{ByteWidth: 3}, `["YWJj",null]`, arrow.BinaryTypes.Binary},
		{arrow.FixedWidthTypes.Date64, `["2020-01-01",null]`, arrow.FixedWidthTypes.Date32},
		{arrow.FixedWidthTypes.Time32ms, `["12:00:01.123",null]`, arrow.FixedWidthTypes.Time64us},
		{&arrow.Decimal32Type{Precision: 9, Scale: 2}, `["1234567.01",null]`, &arrow.Decimal128Type{Precision: 9, Scale: 2}},
		{arrow.LargeListOf(arrow.PrimitiveTypes.Int32), `[[1,null],[],null]`, arrow.ListOf(arrow.PrimitiveTypes.Int32)},
		{&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, `["a","b",null]`, arrow.BinaryTypes.String},
		{&arrow.TimestampType{Unit: arrow.Second, TimeZone: "UTC"}, `["2020-01-01T00:00:01Z",null]`, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
	} {
		t.Run(c.dt.String(), func(t *testing.T) {
			s := openStage(t, tr, "t", schemaOf(c.dt), connectors.Limits{})
			in := jsonColumn(t, s.mem, c.dt, c.json)
			in.Rows.Retain()
			defer in.Rows.Release()
			require.NoError(t, s.Apply(t.Context(), in, s.take))
			got := s.items[0].(messages.Batch).Rows.(messages.ArrowRows).Record
			require.True(t, arrow.TypeEqual(c.want, got.Column(0).DataType()), "%s", got.Schema())
			require.Equal(t, conntest.RowTexts(in.Rows.(messages.ArrowRows).Record), conntest.RowTexts(got))
		})
	}
}

func TestTypesThatWouldChangeAreRefusedByName(t *testing.T) {
	for _, dt := range []arrow.DataType{
		arrow.FixedWidthTypes.Float16, &arrow.Decimal256Type{Precision: 50, Scale: 2},
		&arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}, arrow.FixedWidthTypes.Duration_us,
		arrow.FixedWidthTypes.DayTimeInterval, arrow.FixedWidthTypes.MonthDayNanoInterval,
		arrow.ListOf(arrow.FixedWidthTypes.Float16), arrow.StructOf(),
	} {
		t.Run(dt.String(), func(t *testing.T) {
			schema := arrow.NewSchema([]arrow.Field{{Name: "odd", Type: dt, Nullable: true}, {Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil)
			for _, query := range []string{"SELECT odd FROM t", "FROM t", "SELECT id FROM t WHERE odd IS NULL", "SELECT t FROM t"} {
				_, err := make1(t, query).Schema("t", schema)
				_, code := codeOf(t, err)
				require.Equal(t, messages.CodeSchemaType, code, query)
				require.ErrorContains(t, err, "column odd")
			}
			for _, query := range []string{"SELECT id FROM t", "SELECT * EXCLUDE (odd) FROM t"} { // what is not touched does no harm
				s := openStage(t, make1(t, query), "t", schema, connectors.Limits{})
				b := array.NewRecordBuilder(s.mem, schema)
				b.Field(0).AppendNull()
				b.Field(1).(*array.Int64Builder).Append(9)
				rec := b.NewRecordBatch()
				b.Release()
				require.NoError(t, s.Apply(t.Context(), messages.Batch{Stream: "t", Rows: messages.ArrowRows{Record: rec}}, s.take))
				require.Equal(t, []string{"9"}, s.rows())
			}
		})
	}
}

func TestHugeResultIsExactOrRefused(t *testing.T) {
	s := openStage(t, make1(t, "SELECT v::HUGEINT * 10 AS h FROM t"), "t", schemaOf(arrow.BinaryTypes.String), connectors.Limits{})
	require.NoError(t, s.Apply(t.Context(), jsonColumn(t, s.mem, arrow.BinaryTypes.String, `["9999999999999999999999999999999999999"]`), s.take))
	require.Equal(t, []string{"99999999999999999999999999999999999990"}, s.rows())
	err := s.Apply(t.Context(), jsonColumn(t, s.mem, arrow.BinaryTypes.String, `["12345678901234567890123456789012345678"]`), s.take)
	kind, _ := codeOf(t, err)
	require.Equal(t, connectors.KindData, kind)
	require.ErrorContains(t, err, "more than 38 digits")
}

func TestNaughtyStringsPass(t *testing.T) {
	f, err := os.Open("testdata/naughty-strings/blns.json.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var texts []string
	require.NoError(t, json.NewDecoder(z).Decode(&texts))
	texts = append(texts, "nul \x00 inside", "\x00", strings.Repeat("long ", 100_000), "exactly12345", "exactly123456")
	require.Greater(t, len(texts), 500)
	schema := schemaOf(arrow.BinaryTypes.String)
	s := openStage(t, make1(t, "SELECT v, v || '' AS w FROM t"), "t", schema, connectors.Limits{})
	var rows [][]any
	for _, v := range texts {
		rows = append(rows, []any{v})
	}
	b := batchOf(t, s.mem, schema, rows...)
	b.Stream = "t"
	require.NoError(t, s.Apply(t.Context(), b, s.take))
	got := s.items[0].(messages.Batch).Rows.(messages.ArrowRows).Record
	for i, v := range texts {
		require.Equal(t, v, got.Column(0).(*array.String).Value(i))
		require.Equal(t, v, got.Column(1).(*array.String).Value(i))
	}
}
