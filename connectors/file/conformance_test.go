package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestDestinationConformance(t *testing.T) {
	for _, format := range []string{FormatParquet, FormatArrow, FormatCSV, FormatJSONL} {
		t.Run(format, func(t *testing.T) {
			f := conntest.DestinationFactory{
				Modes: []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace},
				New: func(t conntest.T) conntest.Target {
					dir := filepath.Join(t.TempDir(), "out")
					open := func(t conntest.T) connectors.Destination {
						d, err := NewDestination(DestinationConfig{Path: dir, Format: format})
						require.NoError(t, err)
						d.flush = atOnce
						return d
					}
					return conntest.Target{
						Destination: open(t), Reopen: open,
						Rows: func(t conntest.T, target string) []string {
							if _, err := os.Stat(dir); err != nil {
								return nil
							}
							return rowsOfAnyPipeline(t, dir, target, format)
						},
					}
				},
			}
			differences(format, &f)
			conntest.Destination(t, f)
		})
	}
}

// rowsOfAnyPipeline reads a target as all pipelines of the folder have filled it.
func rowsOfAnyPipeline(t conntest.T, dir, target, format string) []string {
	var out []string
	entries, err := os.ReadDir(filepath.Join(dir, bookkeeping))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		out = append(out, committedRows(t, dir, messages.PipelineID(e.Name()), target, format)...)
	}
	return out
}

// differences says what the text formats show in another way: they have no types,
// so what CSV and JSON Lines cannot name reads back as the text that was written.
func differences(format string, f *conntest.DestinationFactory) {
	switch format {
	case FormatArrow:
		return
	case FormatParquet:
		f.Refuses = []string{"duration_us"}
		return
	}
	f.Shows = map[string][]string{
		"duration_us": {"1|PT90S", "2|-PT0.000001S", `3|\N`},
		"list":        {"1|[1,2,3]", "2|[]", "3|[null]", `4|\N`},
		"struct":      {`1|{"a":1,"b":"x"}`, `2|{"a":null,"b":"y"}`, `3|\N`},
		"map":         {`1|[{"key":"a","value":1}]`, `2|\N`},
		"decimal256":  {"1|1234567890123456789012345678901234567890.12345678901234567890", "2|-1.00000000000000000000", `3|\N`},
	}
}

func TestSourceConformance(t *testing.T) {
	for _, kind := range []string{"csv", "csv.gz", "jsonl", "jsonl.zst", "parquet", "arrow"} {
		t.Run(kind, func(t *testing.T) {
			conntest.Source(t, conntest.SourceFactory{
				Incremental: true,
				New:         func(t conntest.T) conntest.Origin { return newOrigin(t, kind) },
			})
		})
	}
}

// newOrigin makes a folder of two streams, one of them of two files.
func newOrigin(t conntest.T, kind string) conntest.Origin {
	dir := t.TempDir()
	format, zip, _ := strings.Cut(kind, ".")
	compression := map[string]string{"gz": CompressionGzip, "zst": CompressionZstd, "": CompressionNone}[zip]
	truth := make(map[messages.StreamID][]string)
	write := func(stream, name string, from, n int) {
		path := filepath.Join(dir, stream, name+"."+kind)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		truth[messages.StreamID(stream)] = append(truth[messages.StreamID(stream)], writeFile(t, path, format, compression, from, n)...)
	}
	write("orders", "a", 0, 25)
	write("orders", "b", 25, 8)
	write("places", "a", 0, 12)
	open := func(t conntest.T) connectors.Source {
		s, err := NewSource(SourceConfig{Path: dir})
		require.NoError(t, err)
		return s
	}
	return conntest.Origin{
		Source: open(t), Reopen: open,
		Streams: []connectors.StreamSpec{
			{Stream: "orders", Mode: connectors.ModeAppend, Path: filepath.Join(dir, "orders", "*")},
			{Stream: "places", Mode: connectors.ModeAppend, Path: filepath.Join(dir, "places")},
		},
		Rows: func(conntest.T) map[messages.StreamID][]string {
			out := make(map[messages.StreamID][]string)
			for s, rows := range truth {
				out[s] = slices.Clone(rows)
			}
			return out
		},
		Append: func(conntest.T) { write("orders", "c", 33, 9) },
	}
}

// writeFile writes n rows through the encoders and returns their texts.
func writeFile(t conntest.T, path, format, compression string, from, n int) []string {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := from; i < from+n; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("näme \"%d\",\n%d", i, i))
		if i%5 == 0 {
			b.Field(2).AppendNull()
		} else {
			b.Field(2).(*array.Float64Builder).Append(float64(i) / 4)
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	require.NoError(t, os.WriteFile(path, encodeFile(t, rec, format, compression), 0o600))
	return conntest.RowTexts(rec)
}

// encodeFile returns a whole file of rec as the destination writes it.
func encodeFile(t conntest.T, rec arrow.RecordBatch, format, compression string) []byte {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer func() { _ = root.Close() }()
	f := &folder{root: root, pipeline: "p", flush: atOnce}
	require.NoError(t, f.makeDir(f.own("tmp")))
	o := newOutput(f, DestinationConfig{Format: format, Compression: compression}, "s", "s", messages.Receipt{})
	_, err = o.write(rec)
	require.NoError(t, err)
	full, err := o.roll()
	require.NoError(t, err)
	content, err := root.ReadFile(full[0].tmp)
	require.NoError(t, err)
	return content
}
