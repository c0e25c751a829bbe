package file

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// fact is what an independent reader makes of a Parquet file.
type fact struct {
	file       string
	rows, cols int
}

func parquetFacts(t *testing.T) []fact {
	t.Helper()
	f, err := os.Open("testdata/parquet/facts.tsv")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var out []fact
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		field := strings.Split(lines.Text(), "\t")
		rows, err := strconv.Atoi(field[2])
		if err != nil {
			continue // the header, and the file that cannot be read
		}
		cols, err := strconv.Atoi(field[3])
		require.NoError(t, err)
		out = append(out, fact{"testdata/parquet/" + field[0], rows, cols})
	}
	require.Len(t, out, 31)
	return out
}

// refusedParquet are good files whose features the Parquet library lacks or whose
// values Arrow cannot hold, with what the error says.
var refusedParquet = map[string]string{
	"int96_from_spark.parquet":     "INT96 timestamp is outside the Arrow nanosecond range",
	"unknown-logical-type.parquet": "a logical type that this version does not know",
}

func TestParquetFilesAgreeWithAnIndependentReader(t *testing.T) {
	for _, f := range parquetFacts(t) {
		if strings.Contains(f.file, "/bad/") {
			continue
		}
		t.Run(filepath.Base(f.file), func(t *testing.T) {
			got, err := readAll(t, SourceConfig{Path: f.file})
			if want, ok := refusedParquet[filepath.Base(f.file)]; ok {
				require.ErrorContains(t, err, want)
				requireTyped(t, err)
				return
			}
			require.NoError(t, err)
			require.Len(t, got.texts, f.rows)
			require.Equal(t, f.cols, got.schema.NumFields(), got.columns())
		})
	}
}

func TestParquetEncodingsGiveTheExpectedValues(t *testing.T) {
	for _, name := range []string{"delta_byte_array", "delta_encoding_optional_column"} {
		got, err := readAll(t, SourceConfig{Path: "testdata/parquet/good/" + name + ".parquet"})
		require.NoError(t, err)
		want := expected(t, name)
		require.Len(t, got.texts, len(want))
		for i, row := range want {
			require.Equal(t, row, got.texts[i], "%s, row %d", name, i+1)
		}
	}
}

// expected reads the values of a file as rows of texts; an empty field is a null.
func expected(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open("testdata/parquet/good/" + name + "_expect.csv.gz")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	all, err := csv.NewReader(z).ReadAll()
	require.NoError(t, err)
	var out []string
	for _, row := range all[1:] {
		for i, v := range row {
			if v == "" {
				row[i] = conntest.Null
			}
		}
		out = append(out, conntest.Join(row...))
	}
	return out
}

func TestBadParquetFilesAreErrors(t *testing.T) {
	for name, want := range map[string]string{
		"PARQUET-1481.parquet":                 "",
		"ARROW-GH-45185.parquet":               "",
		"datapage_v1-corrupt-checksum.parquet": "checksum of page",
	} {
		_, err := readAll(t, SourceConfig{Path: "testdata/parquet/bad/" + name})
		require.ErrorContains(t, err, want, name)
		e := coded(t, err, messages.CodeFileDamaged, connectors.KindData)
		require.Contains(t, e.Place.File, name)
	}
}

func TestCompressedParquetIsRefusedByName(t *testing.T) {
	content, err := os.ReadFile("testdata/parquet/good/binary.parquet")
	require.NoError(t, err)
	path := put(t, t.TempDir(), "x.parquet.gz", string(gzipped(t, content)))
	_, err = readAll(t, SourceConfig{Path: path})
	require.ErrorContains(t, err, "cannot be read inside gzip")
	coded(t, err, messages.CodeNotAvailable, connectors.KindConfig)
}

// TestDamagedColumnarFilesAreErrors flips bits and cuts ends of good files: whatever
// comes out is an error, or rows that the file still says. Nothing panics, hangs or
// takes memory out of proportion.
func TestDamagedColumnarFilesAreErrors(t *testing.T) {
	files := []string{"alltypes_plain.parquet", "alltypes_dictionary.parquet", "nested_lists.snappy.parquet", "datapage_v2.snappy.parquet", "nullable.impala.parquet"}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			good, err := os.ReadFile("testdata/parquet/good/" + name)
			require.NoError(t, err)
			damageEverywhere(t, good, ".parquet")
		})
	}
	t.Run("parquet with a stored schema", func(t *testing.T) {
		rec := sampleRecord(t, 300)
		defer rec.Release()
		damageEverywhere(t, encodeFile(t, rec, FormatParquet, CompressionSnappy), ".parquet")
	})
	for _, kind := range []string{"file", "stream", "dictionary", "zstd"} {
		t.Run("arrow "+kind, func(t *testing.T) { damageEverywhere(t, arrowSample(t, kind), ".arrow") })
	}
}

func damageEverywhere(t *testing.T, good []byte, ext string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x"+ext)
	want, err := damagedRows(t, path, good)
	require.NoError(t, err)
	step := max(1, len(good)/40)
	for at := 0; at < len(good); at += step {
		_, err := damagedRows(t, path, good[:at])
		require.Error(t, err, "cut to %d of %d bytes", at, len(good))
	}
	errs := 0
	step = max(1, len(good)/150)
	for at := 0; at < len(good); at += step {
		bad := append([]byte(nil), good...)
		bad[at] ^= 1 << (at % 8)
		rows, err := damagedRows(t, path, bad)
		if err != nil {
			errs++
			requireTyped(t, err)
			continue
		}
		require.LessOrEqual(t, rows, max(2*want, 1000), "bit flipped at %d", at)
	}
	require.Positive(t, errs, "some flips must be noticed")
}

// requireTyped requires an error that says what to do, and says so of the file.
func requireTyped(t *testing.T, err error) {
	t.Helper()
	var e *connectors.Error
	require.ErrorAs(t, err, &e)
	require.NotEqual(t, connectors.KindInternal, e.Kind, "%v", err)
}

// damagedRows reads one file within 10 seconds and 1 GiB of new memory.
func damagedRows(t *testing.T, path string, content []byte) (int, error) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, content, 0o600))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := time.Now()
	got, err := readStream(t, SourceConfig{Path: path}, connectors.StreamSpec{Stream: "s", Mode: connectors.ModeAppend}, wide, memory.DefaultAllocator)
	runtime.ReadMemStats(&after)
	require.Less(t, time.Since(begun), 10*time.Second)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30))
	return len(got.texts), err
}

func TestParquetIsReadFromEveryPosition(t *testing.T) {
	const name = "testdata/parquet/good/alltypes_tiny_pages.parquet"
	src, err := NewSource(SourceConfig{Path: name})
	require.NoError(t, err)
	plan := planOf(t, src, connectors.StreamSpec{Stream: "s", Mode: connectors.ModeAppend}, connectors.Recovered{})
	mem := checkedMem(t)
	all, barriers, err := readPart(t, src, plan.Loads[0].Parts[0], messages.Position{}, connectors.Limits{BatchRows: 700}, mem)
	require.NoError(t, err)
	require.Len(t, all, 7300)
	require.Greater(t, len(barriers), 10)
	for _, b := range barriers {
		at, err := b.Position.At.Int64()
		require.NoError(t, err)
		rest, _, err := readPart(t, src, plan.Loads[0].Parts[0], b.Position, wide, mem)
		require.NoError(t, err)
		require.Equal(t, all[at:], append([]string{}, rest...))
	}
}

func planOf(t testing.TB, src *Source, spec connectors.StreamSpec, known connectors.Recovered) connectors.Plan {
	t.Helper()
	scan, err := src.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{spec}, Previous: known, Splits: 1})
	require.NoError(t, err)
	return scan.Plan()
}

func TestWideParquetRowsMakeSmallBatches(t *testing.T) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String}}, nil))
	defer b.Release()
	for i := range 600 {
		b.Field(0).(*array.StringBuilder).Append(strings.Repeat(strconv.Itoa(i%10), 10_000))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	dir := t.TempDir()
	put(t, dir, "x.parquet", string(encodeFile(t, rec, FormatParquet, CompressionSnappy)))
	src, err := NewSource(SourceConfig{Path: dir})
	require.NoError(t, err)
	plan := planOf(t, src, connectors.StreamSpec{Stream: "x"}, connectors.Recovered{})
	mem := checkedMem(t)
	_, barriers, err := readPart(t, src, plan.Loads[0].Parts[0], messages.Position{}, connectors.Limits{BatchRows: 8192, BatchBytes: 100_000}, mem)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(barriers), 60)

	_, _, err = readPart(t, src, plan.Loads[0].Parts[0], messages.Position{}, connectors.Limits{BatchRows: 8192, BatchBytes: 100_000, RowBytes: 9_000}, mem)
	e := coded(t, err, messages.CodeRowTooLarge, connectors.KindData)
	require.EqualValues(t, 1, e.Place.Row)
}

// errStop is an emitter's own error.
var errStop = errors.New("stop")

func TestReaderStopsCleanlyInTheMiddle(t *testing.T) {
	src, err := NewSource(SourceConfig{Path: "testdata/parquet/good/alltypes_tiny_pages.parquet"})
	require.NoError(t, err)
	plan := planOf(t, src, connectors.StreamSpec{Stream: "s"}, connectors.Recovered{})
	r, err := src.Open(t.Context(), connectors.ReadRequest{Part: plan.Loads[0].Parts[0], Limits: connectors.Limits{BatchRows: 100}, Mem: checkedMem(t)})
	require.NoError(t, err)
	n := 0
	e := &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
		if b, ok := it.(messages.Batch); ok {
			b.Rows.Release()
		}
		if n++; n == 5 {
			return errStop
		}
		return nil
	}}
	require.ErrorIs(t, r.Read(t.Context(), e), errStop)
	require.NoError(t, r.Close(t.Context()))
	require.NoError(t, r.Close(t.Context()))
}

func gzipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	_, err := io.Copy(z, strings.NewReader(string(content)))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return []byte(b.String())
}
