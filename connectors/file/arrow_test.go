package file

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// arrowSample is an IPC file or stream of three batches of 50 rows: a number, a text,
// and a text by dictionary if kind says so.
func arrowSample(t testing.TB, kind string) []byte {
	t.Helper()
	fields := []arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "tags", Type: arrow.ListOf(arrow.PrimitiveTypes.Int16), Nullable: true},
	}
	if kind == "dictionary" {
		fields[1].Type = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	var out bytes.Buffer
	opts := []ipc.Option{ipc.WithSchema(schema)}
	if kind == "zstd" {
		opts = append(opts, ipc.WithZstd())
	}
	w := arrowWriter(t, kind, &out, opts)
	for batch := range 3 {
		for i := range 50 {
			require.NoError(t, b.Field(0).AppendValueFromString(fmt.Sprint(batch*50+i)))
			require.NoError(t, b.Field(1).AppendValueFromString([]string{"red", "green", "blue", array.NullValueStr}[i%4]))
			require.NoError(t, b.Field(2).AppendValueFromString([]string{"[1,2]", "[]", array.NullValueStr}[i%3]))
		}
		rec := b.NewRecordBatch()
		require.NoError(t, w.Write(rec))
		rec.Release()
		if kind == "dictionary" {
			b = array.NewRecordBuilder(memory.DefaultAllocator, schema)
		}
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

type recordWriter interface {
	Write(arrow.RecordBatch) error
	Close() error
}

func arrowWriter(t testing.TB, kind string, out *bytes.Buffer, opts []ipc.Option) recordWriter {
	t.Helper()
	if kind == "stream" {
		return ipc.NewWriter(out, opts...)
	}
	w, err := ipc.NewFileWriter(out, opts...)
	require.NoError(t, err)
	return w
}

func TestArrowFilesStreamsAndDictionariesReadAlike(t *testing.T) {
	var first rows
	for _, kind := range []string{"file", "stream", "dictionary", "zstd"} {
		for _, name := range []string{"x.arrow", "noextension"} {
			path := put(t, t.TempDir(), name, string(arrowSample(t, kind)))
			got, err := readAll(t, SourceConfig{Path: path})
			require.NoError(t, err, kind)
			require.Len(t, got.texts, 150, kind)
			require.Equal(t, "id:int64 name:utf8 tags:list<item: int16, nullable>", got.columns(), kind)
			if first.schema == nil {
				first = got
			}
			require.Equal(t, first.texts, got.texts, kind)
		}
	}
	zipped := put(t, t.TempDir(), "x.arrow.gz", string(gzipped(t, arrowSample(t, "file"))))
	got, err := readAll(t, SourceConfig{Path: zipped})
	require.NoError(t, err, "the file format, compressed, is read as a stream")
	require.Equal(t, first.texts, got.texts)
}

func TestStreamWithoutEndMarkerIsCutOff(t *testing.T) {
	whole := arrowSample(t, "stream")
	path := put(t, t.TempDir(), "x.arrows", string(whole[:len(whole)-8]))
	got, err := readAll(t, SourceConfig{Path: path})
	coded(t, err, messages.CodeFileDamaged, connectors.KindData)
	require.ErrorContains(t, err, "after 150 rows")
	require.Len(t, got.texts, 150)
}

func TestArrowIsReadFromEveryPosition(t *testing.T) {
	for _, kind := range []string{"file", "stream"} {
		path := put(t, t.TempDir(), "x.arrow", string(arrowSample(t, kind)))
		src, err := NewSource(SourceConfig{Path: path})
		require.NoError(t, err)
		part := planOf(t, src, connectors.StreamSpec{Stream: "s"}, connectors.Recovered{}).Loads[0].Parts[0]
		mem := checkedMem(t)
		all, barriers, err := readPart(t, src, part, messages.Position{}, connectors.Limits{BatchRows: 7}, mem)
		require.NoError(t, err)
		for _, b := range barriers {
			at, err := b.Position.At.Int64()
			require.NoError(t, err)
			rest, _, err := readPart(t, src, part, b.Position, wide, mem)
			require.NoError(t, err)
			require.Equal(t, all[at:], append([]string{}, rest...))
		}
	}
}

func TestInvalidTextInColumnarFilesIsABrokenRow(t *testing.T) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String}}, nil))
	defer b.Release()
	b.Field(0).(*array.StringBuilder).AppendValues([]string{"good", "é", "\xc3", "\xa9"}, nil)
	rec := b.NewRecordBatch()
	defer rec.Release()
	for _, format := range []string{FormatParquet, FormatArrow} {
		path := put(t, t.TempDir(), "x."+format, string(encodeFile(t, rec, format, CompressionNone)))
		_, err := readAll(t, SourceConfig{Path: path})
		e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
		require.EqualValues(t, 3, e.Place.Row)
		require.Equal(t, "v", e.Place.Field)
	}
}

func TestFilesOfOneStreamMustAgreeOnTypes(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.arrow", string(arrowSample(t, "file")))
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int32}}, nil))
	defer b.Release()
	b.Field(0).(*array.Int32Builder).Append(1)
	rec := b.NewRecordBatch()
	defer rec.Release()
	put(t, dir, "b.parquet", string(encodeFile(t, rec, FormatParquet, CompressionNone)))
	_, err := readAll(t, SourceConfig{Path: dir})
	e := coded(t, err, messages.CodeSchemaType, connectors.KindSchema)
	require.Equal(t, "id", e.Place.Field)
	require.Contains(t, e.Place.File, "b.parquet")
	require.NoError(t, os.Remove(dir+"/b.parquet"))
	_, err = readAll(t, SourceConfig{Path: dir})
	require.NoError(t, err)
}
