package duckarrow

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T) *Conn {
	t.Helper()
	db, err := Memory(map[string]string{"threads": "1"})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	c, err := db.Connect()
	require.NoError(t, err)
	t.Cleanup(c.Close)
	_, err = c.Exec(t.Context(), "SET disabled_optimizers = 'filter_pushdown,unused_columns'")
	require.NoError(t, err)
	return c
}

var ints = arrow.NewSchema([]arrow.Field{{Name: "i", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)

func intBatch(mem memory.Allocator, n int) arrow.RecordBatch {
	b := array.NewRecordBuilder(mem, ints)
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
	}
	return b.NewRecordBatch()
}

func TestRowsAndParameters(t *testing.T) {
	c := connect(t)
	rows, err := c.Rows(t.Context(), "SELECT ?, ?, ?, ?, ?, 'a' || chr(0) || 'b'", "x'\x00y", int64(-5), true, []byte{0, 255}, nil)
	require.NoError(t, err)
	require.Equal(t, [][]any{{"x'\x00y", int64(-5), true, []byte{0, 255}, nil, "a\x00b"}}, rows)
	rows, err = c.Rows(t.Context(), "SELECT i FROM range(5000) r(i)")
	require.NoError(t, err)
	require.Len(t, rows, 5000)
	_, err = c.Rows(t.Context(), "SELECT ?", 1.5)
	require.ErrorContains(t, err, "float64")
	_, err = c.Rows(t.Context(), "SELECT 1; SELECT 2")
	require.ErrorIs(t, err, ErrStatements)
	n, err := c.Exec(t.Context(), "CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (1), (2)")
	require.NoError(t, err)
	require.Equal(t, int64(2), n)
}

func TestComplaintsHaveAClass(t *testing.T) {
	c := connect(t)
	for sql, class := range map[string]Class{
		"SELEC 1": ClassParser, "SELECT nope": ClassBinder, "FROM nope": ClassCatalog, "SELECT CAST(i::VARCHAR || 'x' AS INTEGER) FROM range(1) r(i)": ClassConversion,
	} {
		_, err := c.Rows(t.Context(), sql)
		e, ok := errors.AsType[*Error](err)
		require.True(t, ok, err)
		require.Equal(t, class, e.Class, sql)
	}
	e := newError(`{"exception_type":"Not implemented","exception_message":"no such thing"}`)
	require.Equal(t, "Not implemented Error: no such thing", e.Text)
	require.Equal(t, Class("Not implemented Error"), e.Class)
	require.Empty(t, newError("something: else").Class)
}

// A batch is held while it waits, and given up whether it was read or not.
func TestFeedGivesBatchesUp(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	c := connect(t)
	f, err := c.Feed("f", ints)
	require.NoError(t, err)
	put := func(n int) {
		rec := intBatch(mem, n)
		defer rec.Release()
		require.NoError(t, f.Put(rec))
	}
	put(3)
	put(4) // replaces it
	rows, err := c.Rows(t.Context(), "SELECT sum(i)::BIGINT FROM f")
	require.NoError(t, err)
	require.Equal(t, int64(6), rows[0][0])
	require.Zero(t, mem.CurrentAlloc(), "read and given up")
	rows, err = c.Rows(t.Context(), "FROM f")
	require.NoError(t, err)
	require.Empty(t, rows, "a batch is read once")
	put(5)
	_, err = c.Rows(t.Context(), "SELECT i FROM f WHERE error('stop')")
	require.Error(t, err)
	put(5)
	f.Clear()
	require.Zero(t, mem.CurrentAlloc())
	put(5)
	f.Close()
	f.Close()
}

func TestInterruptedRunSaysWhy(t *testing.T) {
	c := connect(t)
	cause := errors.New("enough")
	for _, streaming := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		stmt, err := c.Prepare(ctx, "SELECT max(a.i + b.i) FROM range(10000000) a(i), range(10000000) b(i)")
		require.NoError(t, err)
		time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
		began := time.Now()
		var res *Result
		if streaming {
			if res, err = stmt.Stream(ctx); err == nil {
				_, err = res.Next(ctx)
				res.Close()
			}
		} else {
			_, err = stmt.Exec(ctx)
		}
		require.ErrorIs(t, err, cause)
		require.Less(t, time.Since(began), 5*time.Second)
		stmt.Close()
		_, err = c.Rows(ctx, "SELECT 1")
		require.ErrorIs(t, err, cause, "an ended context starts nothing")
	}
	rows, err := c.Rows(t.Context(), "SELECT 1")
	require.NoError(t, err, "the connection goes on")
	require.Len(t, rows, 1)
}

func TestCollectorKeepsLimits(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	run := func(c *Collector, sizes ...int) (got []int64, err error) {
		c.Mem, c.Schema = mem, ints
		c.Emit = func(_ context.Context, rec arrow.RecordBatch) error {
			got = append(got, rec.NumRows())
			rec.Release()
			return nil
		}
		defer c.Drop()
		for _, n := range sizes {
			if err := c.Add(t.Context(), intBatch(mem, n)); err != nil {
				return got, err
			}
		}
		return got, c.Flush(t.Context())
	}
	got, err := run(&Collector{RowsMax: 10}, 4, 4, 4, 25, 0, 1)
	require.NoError(t, err)
	require.Equal(t, []int64{8, 4, 10, 7, 9}, got)
	got, err = run(&Collector{BytesMax: 100}, 5, 5, 50)
	require.NoError(t, err)
	require.NotContains(t, got, int64(0))
	for _, n := range got {
		require.LessOrEqual(t, n, int64(12))
	}
	got, err = run(&Collector{BytesMax: 1}, 2)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 1}, got, "a larger row is a batch of its own")
	_, err = run(&Collector{RowBytesMax: 5}, 2)
	require.ErrorIs(t, err, ErrRowTooLarge)
	got, err = run(&Collector{}, 3, 4)
	require.NoError(t, err)
	require.Equal(t, []int64{7}, got)
}

func TestAppender(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	c := connect(t)
	ctx := t.Context()
	_, err := c.Exec(ctx, "CREATE TABLE t (other VARCHAR DEFAULT 'd', i BIGINT)")
	require.NoError(t, err)
	a, err := c.Appender(Table{Schema: "main", Name: "t"}, ints)
	require.NoError(t, err)
	rec := intBatch(mem, 5000)
	defer rec.Release()
	require.NoError(t, a.Append(ctx, rec))
	require.NoError(t, a.Flush(ctx))
	require.NoError(t, a.Append(ctx, rec))
	a.Discard() // not flushed
	a.Discard()
	rows, err := c.Rows(ctx, "SELECT count(*), min(other), sum(i)::BIGINT FROM t")
	require.NoError(t, err)
	require.Equal(t, []any{int64(5000), "d", int64(4999 * 2500)}, rows[0])
	_, err = c.Appender(Table{Schema: "main", Name: "nope"}, ints)
	require.ErrorContains(t, err, "nope")
	_, err = c.Appender(Table{Schema: "main", Name: "t"}, arrow.NewSchema([]arrow.Field{{Name: "nope", Type: arrow.PrimitiveTypes.Int64}}, nil))
	require.Error(t, err)
}

func TestOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x ? & #.duckdb")
	db, err := Open(path, nil)
	require.NoError(t, err)
	c, err := db.Connect()
	require.NoError(t, err)
	_, err = c.Exec(t.Context(), "CREATE TABLE t (i INTEGER); INSERT INTO t VALUES (7)")
	require.NoError(t, err)
	same, err := Open(path, nil)
	require.NoError(t, err, "a second handle of this process")
	c.Close()
	c.Close()
	db.Close()
	db.Close()
	_, err = db.Connect()
	require.Error(t, err)
	c, err = same.Connect()
	require.NoError(t, err)
	rows, err := c.Rows(t.Context(), "FROM t")
	require.NoError(t, err)
	require.Equal(t, int64(7), rows[0][0])
	c.Close()
	same.Close()
	require.FileExists(t, path)
	_, err = Open("", nil)
	require.Error(t, err)
	_, err = Memory(map[string]string{"no_such_setting": "1"})
	require.ErrorContains(t, err, "no_such_setting")
}

func TestQuoting(t *testing.T) {
	c := connect(t)
	name := `a"b'c; --`
	_, err := c.Exec(t.Context(), "CREATE TABLE "+Quote(name)+" (s VARCHAR); INSERT INTO "+Quote(name)+" VALUES ("+Literal(name)+")")
	require.NoError(t, err)
	rows, err := c.Rows(t.Context(), "FROM "+Quote(name))
	require.NoError(t, err)
	require.Equal(t, name, rows[0][0])
}

func TestRefusals(t *testing.T) {
	require.Empty(t, Refuses(arrow.ListOf(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int8}))))
	require.Empty(t, Refuses(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}))
	for _, dt := range []arrow.DataType{
		arrow.FixedWidthTypes.Float16, arrow.StructOf(), arrow.ListOf(arrow.FixedWidthTypes.Duration_s),
		arrow.MapOf(arrow.BinaryTypes.String, &arrow.Decimal256Type{Precision: 40}), &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"},
		arrow.DenseUnionOf([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int8}}, []arrow.UnionTypeCode{0}),
	} {
		require.NotEmpty(t, Refuses(dt), dt.String())
	}
	c := connect(t)
	stmt, err := c.Prepare(t.Context(), "SELECT 1::BIT, 'a'::ENUM('a'), [1::UHUGEINT], NULL::TIMETZ, INTERVAL 1 DAY, {'a': 1::BIGNUM}, 1::BIGINT, [{'x': 1}]")
	require.NoError(t, err)
	defer stmt.Close()
	var lossy []string
	for _, col := range stmt.Columns() {
		if col.Type.Lossy() == "" {
			lossy = append(lossy, col.Type.Name)
		}
	}
	require.Equal(t, "BIGINT, STRUCT(\"x\" INTEGER)[]", strings.Join(lossy, ", "))
}
