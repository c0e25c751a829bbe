package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(runChild(os.Getenv(childEnv)))
	}
	goleak.VerifyTestMain(m)
}

var wide = connectors.Limits{BatchRows: 8192, BatchBytes: 4 << 20, RowBytes: 16 << 20}

// checkedMem is an allocator that must be empty when the test ends.
func checkedMem(t testing.TB) memory.Allocator {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	t.Cleanup(func() { mem.AssertSize(t, 0) })
	return mem
}

// put writes a file of a test and returns its path.
func put(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// rows is a stream as texts: the header, then one line per row.
type rows struct {
	schema *arrow.Schema
	texts  []string
}

// columns returns name:type of each column.
func (r rows) columns() string {
	var out []string
	for _, f := range r.schema.Fields() {
		out = append(out, f.Name+":"+f.Type.String())
	}
	return strings.Join(out, " ")
}

// readAll scans and reads one stream whole.
func readAll(t testing.TB, c SourceConfig) (rows, error) {
	t.Helper()
	return readStream(t, c, connectors.StreamSpec{Stream: "s", Mode: connectors.ModeAppend}, wide, checkedMem(t))
}

func readStream(t testing.TB, c SourceConfig, spec connectors.StreamSpec, limits connectors.Limits, mem memory.Allocator) (rows, error) {
	t.Helper()
	src, err := NewSource(c)
	require.NoError(t, err)
	scan, err := src.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{spec}, Splits: 1})
	if err != nil {
		return rows{}, err
	}
	var out rows
	for _, l := range scan.Plan().Loads {
		out.schema = l.Streams[0].Schema
		for _, p := range l.Parts {
			got, _, err := readPart(t, src, p, messages.Position{}, limits, mem)
			out.texts = append(out.texts, got...)
			if err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// readPart reads a part from a position; it returns the rows as texts and the
// barriers.
func readPart(t testing.TB, src *Source, p connectors.Part, from messages.Position, limits connectors.Limits, mem memory.Allocator) ([]string, []messages.Barrier, error) {
	t.Helper()
	r, err := src.Open(t.Context(), connectors.ReadRequest{Part: p, From: from, Limits: limits, Mem: mem})
	if err != nil {
		return nil, nil, err
	}
	defer func() { require.NoError(t, r.Close(context.Background())) }()
	var texts []string
	var barriers []messages.Barrier
	e := &conntest.Emitter{Every: 1, Sink: func(_ context.Context, it messages.Item) error {
		switch it := it.(type) {
		case messages.Batch:
			a, _ := it.Rows.(messages.ArrowRows)
			texts = append(texts, conntest.RowTexts(a.Record)...)
			it.Rows.Release()
		case messages.Barrier:
			barriers = append(barriers, it)
		case messages.SchemaChange, messages.Truncate, messages.Rejected:
			require.Fail(t, "a file has rows only", "%T", it)
		}
		return nil
	}}
	err = r.Read(t.Context(), e)
	require.Empty(t, e.Broken())
	return texts, barriers, err
}

// coded requires that err is a connectors.Error of this code and kind.
func coded(t testing.TB, err error, code messages.Code, kind connectors.Kind) *connectors.Error {
	t.Helper()
	var e *connectors.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.Equal(t, kind, e.Kind, "%v", err)
	return e
}

// declaredTypes are the types by which a target's text files read back.
var declaredTypes = map[string]string{
	"bool": "bool", "int16": "int16", "int32": "int32", "int64": "int64", "float32": "float32", "float64": "float64",
	"utf8": "text", "binary": "binary", "large_binary": "binary", "fixed_size_binary[4]": "binary", "date32": "date",
	"timestamp[us]": "timestamp", "timestamp[s]": "timestamp", "timestamp[ms]": "timestamp",
	"timestamp[us, tz=UTC]": "timestamptz", "decimal(38, 9)": "decimal(38,9)",
}

// committedRows reads what a destination has committed to a target.
func committedRows(t conntest.T, dir string, p messages.PipelineID, target, format string) []string {
	t.Helper()
	var texts []string
	for range 20 { // a file that is gone was replaced: read again
		c, err := ReadCommitted(dir, p)
		if e, ok := err.(*connectors.Error); ok && e.Code == messages.CodeDestMissing { //nolint:errorlint // as returned
			return nil
		}
		require.NoError(t, err)
		if texts, err = readFiles(t, c, target, format); err == nil {
			return texts
		}
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.Fail(t, "the target changes faster than it can be read")
	return texts
}

func readFiles(t conntest.T, c Committed, target, format string) ([]string, error) {
	files := c.Files(target)
	cfg := SourceConfig{Format: format, CSV: CSVConfig{NullValues: []string{""}}}
	if format == FormatCSV || format == FormatJSONL {
		cfg.Columns = make(map[string]string)
		for _, col := range c.Targets[target].Columns {
			if as, ok := declaredTypes[col.Type]; ok {
				cfg.Columns[col.Name] = as
			} else {
				cfg.Columns[col.Name] = "text"
			}
		}
	}
	src, err := NewSource(cfg)
	require.NoError(t, err)
	if len(files) == 0 {
		return nil, nil
	}
	var looked []inspected
	for _, f := range files {
		one, err := src.inspector().look(t.Context(), match{path: f, rel: filepath.Base(f)})
		if err != nil {
			return nil, err
		}
		looked = append(looked, one)
	}
	schema, declared, err := src.streamSchema("s", looked, nil)
	require.NoError(t, err)
	encoded, err := encodeSchema(schema)
	require.NoError(t, err)
	var out []string
	for i, f := range looked {
		split, err := split{
			Path: f.path, Format: f.format, Compression: f.compression, fingerprint: f.mark, Schema: encoded, CSV: f.dialect, Declared: declared,
		}.encode()
		require.NoError(t, err)
		r, err := src.Open(t.Context(), connectors.ReadRequest{
			Part: connectors.Part{ID: "x", Streams: []messages.StreamID{"s"}, Split: split}, Limits: wide, Mem: memory.DefaultAllocator,
		})
		if err != nil {
			return nil, err
		}
		before := len(out)
		e := &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
			if b, ok := it.(messages.Batch); ok {
				a, _ := b.Rows.(messages.ArrowRows)
				out = append(out, conntest.RowTexts(a.Record)...)
				b.Rows.Release()
			}
			return nil
		}}
		err = r.Read(t.Context(), e)
		require.NoError(t, r.Close(context.Background()))
		if err != nil {
			return nil, err
		}
		require.EqualValues(t, c.Targets[target].Files[i].Rows, len(out)-before, "rows of %s", f.path)
	}
	return out, nil
}
