package sqltransform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var users = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Metadata: arrow.NewMetadata([]string{"k"}, []string{"v"})},
	{Name: "email", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "score", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "tags", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
}, nil)

func make1(t testing.TB, query string) *Transform {
	t.Helper()
	tr, err := New(Config{Query: query})
	require.NoError(t, err)
	t.Cleanup(tr.dbs.close)
	return tr
}

func batchOf(t testing.TB, mem memory.Allocator, schema *arrow.Schema, rows ...[]any) messages.Batch {
	t.Helper()
	rec, err := conntest.Build(mem, schema, rows)
	require.NoError(t, err)
	return messages.Batch{Stream: "public.users", Rows: messages.ArrowRows{Record: rec}}
}

// stage is a stage whose output is collected.
type stage struct {
	connectors.Stage
	t     testing.TB
	mem   *memory.CheckedAllocator
	items []messages.Data
}

func openStage(t testing.TB, tr *Transform, stream messages.StreamID, schema *arrow.Schema, limits connectors.Limits) *stage {
	t.Helper()
	s := &stage{t: t, mem: memory.NewCheckedAllocator(memory.DefaultAllocator)}
	st, err := tr.Open(t.Context(), connectors.StageRequest{
		Streams: []connectors.StreamPlan{{Stream: stream, Schema: schema}}, Limits: limits, Mem: s.mem,
	})
	require.NoError(t, err)
	s.Stage = st
	t.Cleanup(func() {
		require.NoError(t, st.Close(context.Background()))
		require.NoError(t, st.Close(context.Background()))
		for _, d := range s.items {
			conntest.Release(d)
		}
		s.mem.AssertSize(t, 0)
	})
	return s
}

func (s *stage) take(_ context.Context, d messages.Data) error {
	s.items = append(s.items, d)
	return nil
}

func (s *stage) rows() []string {
	var out []string
	for _, d := range s.items {
		if b, ok := d.(messages.Batch); ok {
			out = append(out, conntest.RowTexts(b.Rows.(messages.ArrowRows).Record)...)
		}
	}
	return out
}

func codeOf(t testing.TB, err error) (connectors.Kind, messages.Code) {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "not a connector's error: %v", err)
	return e.Kind, e.Code
}

func TestRowwiseQueries(t *testing.T) {
	rows := [][]any{{int64(1), "A@x", 0.5, `["t","u"]`}, {int64(2), nil, nil, nil}, {int64(3), "b@y", -1.5, nil}}
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"SELECT id, lower(email) AS email FROM users", []string{"1|a@x", `2|\N`, "3|b@y"}},
		{"SELECT * EXCLUDE (tags, score) FROM public.users WHERE id <> 2", []string{"1|A@x", "3|b@y"}},
		{`SELECT id FROM "public"."users" AS u WHERE u.score < 0`, []string{"3"}},
		{`SELECT "ID" + 1 AS n FROM "public.users"`, []string{"2", "3", "4"}},
		{"FROM users SELECT id WHERE id IN (1,2,3,4,5,6,7,8,9,10,11,12,13) AND email IS NOT NULL;", []string{"1", "3"}},
		{"WITH u AS (SELECT id, email FROM users WHERE id > 1) SELECT email, id FROM u", []string{`\N|2`, "b@y|3"}},
		{"SELECT id, unnest([id, id * 10]) AS n FROM users WHERE id < 3", []string{"1|1", "1|10", "2|2", "2|20"}},
		{"SELECT id, tag FROM users, unnest(tags) AS x(tag)", []string{"1|t", "1|u"}},
		{"SELECT 7 AS seven FROM users", []string{"7", "7", "7"}},
		{"SELECT id FROM users WHERE false", nil},
		{"SELECT CASE WHEN id = 1 THEN 'one' ELSE email END AS c FROM users -- with a comment", []string{"one", `\N`, "b@y"}},
		{"SELECT users.id FROM users WHERE email LIKE '%@%' AND score > 0", []string{"1"}},
	} {
		t.Run(c.query, func(t *testing.T) {
			tr := make1(t, c.query)
			s := openStage(t, tr, "public.users", users, connectors.Limits{})
			for range 2 { // the prepared query is run again
				require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, rows...), s.take))
			}
			require.NoError(t, s.Flush(t.Context(), s.take))
			require.Equal(t, slices.Concat(c.want, c.want), s.rows())
			out, err := tr.Schema("public.users", users)
			require.NoError(t, err)
			for _, d := range s.items {
				require.True(t, d.(messages.Batch).Rows.(messages.ArrowRows).Record.Schema().Equal(out))
			}
		})
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		query string
		code  messages.Code
		says  string
	}{
		{"SELECT count(*) FROM users", messages.CodeSchemaQuery, "an aggregate or GROUP BY: the result would depend on batch borders"},
		{"SELECT id FROM users GROUP BY id", messages.CodeSchemaQuery, "batch borders"},
		{"SELECT DISTINCT id FROM users", messages.CodeSchemaQuery, "DISTINCT"},
		{"SELECT DISTINCT ON (email) id FROM users", messages.CodeSchemaQuery, "DISTINCT"},
		{"SELECT id FROM users ORDER BY id", messages.CodeSchemaQuery, "ORDER BY"},
		{"SELECT id FROM users LIMIT 10", messages.CodeSchemaQuery, "LIMIT"},
		{"SELECT id FROM users LIMIT 10000000", messages.CodeSchemaQuery, "LIMIT"},
		{"SELECT id FROM users LIMIT 50%", messages.CodeSchemaQuery, "LIMIT"},
		{"SELECT id, row_number() OVER () FROM users", messages.CodeSchemaQuery, "window"},
		{"SELECT id FROM users QUALIFY row_number() OVER (PARTITION BY email) = 1", messages.CodeSchemaQuery, "window"},
		{"SELECT id FROM users USING SAMPLE 10%", messages.CodeSchemaQuery, "sample"},
		{"SELECT a.id FROM users a JOIN users b USING (id)", messages.CodeSchemaQuery, "join"},
		{"SELECT id FROM users UNION ALL SELECT id FROM users", messages.CodeSchemaQuery, "UNION"},
		{"SELECT id FROM users WHERE score = (SELECT max(score) FROM users)", messages.CodeSchemaQuery, "row-wise queries only"},
		{"SELECT id, (SELECT 1) AS one FROM users", messages.CodeSchemaQuery, "row-wise queries only"},
		{"WITH u AS MATERIALIZED (FROM users) SELECT id FROM u", messages.CodeSchemaQuery, "materialized"},
		{"SELECT id FROM (SELECT id FROM users ORDER BY id LIMIT 3)", messages.CodeSchemaQuery, "batch borders"},
		{"SUMMARIZE users", messages.CodeSchemaQuery, "batch borders"},
		{"SELECT id, random() FROM users", messages.CodeSchemaQuery, "random()"},
		{"SELECT uuid() AS u FROM users", messages.CodeSchemaQuery, "uuid()"},
		{"SELECT id FROM users WHERE id = $1", messages.CodeSchemaQuery, "parameters"},
		{"SELECT 1; SELECT id FROM users", messages.CodeSchemaQuery, "exactly one"},
		{"DELETE FROM users", messages.CodeSchemaQuery, "SELECT"},
		{"SET threads = 8", messages.CodeSchemaQuery, "SELECT"},
		{"ATTACH 'x.db'", messages.CodeSchemaQuery, "SELECT"},
		{"COPY users TO 'x.csv'", messages.CodeSchemaQuery, "SELECT"},
		{"-- nothing", messages.CodeSchemaQuery, "exactly one"},
		{"SELEC id FROM users", messages.CodeSchemaQuery, "LINE 1"},
		{"SELECT id,, email FROM users", messages.CodeSchemaQuery, "syntax error"},
		{"SELECT 42 AS answer", messages.CodeSchemaQuery, "does not read the stream public.users"},
		{"SELECT * FROM orders", messages.CodeSchemaQuery, "reads orders, the stream it is applied to is public.users"},
		{"SELECT * FROM range(3)", messages.CodeSchemaQuery, "does not read the stream"},
		{"SELECT * FROM 'x.csv'", messages.CodeSchemaQuery, "disabled by configuration"},
		{"SELECT * FROM read_csv('/etc/passwd')", messages.CodeSchemaQuery, "disabled by configuration"},
		{"SELECT nope FROM users", messages.CodeSchemaColumn, `"nope"`},
		{"SELECT emial FROM users", messages.CodeSchemaColumn, `"email"`},
		{"SELECT u.nope FROM users u", messages.CodeSchemaColumn, "nope"},
		{"SELECT id, email AS id FROM users", messages.CodeSchemaName, `two columns named "id"`},
		{"SELECT id + email::HUGEINT AS h, id::UHUGEINT AS u FROM users", messages.CodeSchemaType, "UHUGEINT"},
		{"SELECT INTERVAL 1 DAY AS i FROM users", messages.CodeSchemaType, "INTERVAL"},
		{"SELECT id, n FROM users, unnest([id, -id]) AS x(n)", messages.CodeSchemaQuery, "a join or subquery"},
	} {
		t.Run(c.query, func(t *testing.T) {
			_, err := make1(t, c.query).Schema("public.users", users)
			kind, code := codeOf(t, err)
			require.Equal(t, connectors.KindSchema, kind, err)
			require.Equal(t, c.code, code, err)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestMissingColumnIsNamed(t *testing.T) {
	_, err := make1(t, "SELECT emial FROM users").Schema("users", users)
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok)
	require.Equal(t, "emial", e.Place.Field)
	require.Equal(t, messages.StreamID("users"), e.Place.Stream)
}

func TestOddStreamNames(t *testing.T) {
	for _, c := range []struct{ stream, from string }{
		{"users", "users"},
		{"users", "USERS"},
		{"public.users", "users"},
		{"a.b.c", `a."b.c"`},
		{"a.b.c", `"a.b"."c"`},
		{"a.b.c", `"a.b.c"`},
		{`we"ird`, `"we""ird"`},
		{"data/users 1.csv", `"data/users 1.csv"`},
		{"ünï.çødé 💥", `"ünï"."çødé 💥"`},
		{"temp.users", "users"},
		{"main.users", "main.users"},
		{"rapidbyte_batch", "rapidbyte_batch"},
		{"select", `"select"`},
		{".", `"."`},
		{strings.Repeat("n", 300), strings.Repeat("n", 300)},
	} {
		t.Run(c.stream, func(t *testing.T) {
			s := openStage(t, make1(t, "SELECT id FROM "+c.from), messages.StreamID(c.stream), users, connectors.Limits{})
			b := batchOf(t, s.mem, users, []any{int64(5), nil, nil, nil})
			b.Stream = messages.StreamID(c.stream)
			require.NoError(t, s.Apply(t.Context(), b, s.take))
			require.Equal(t, []string{"5"}, s.rows())
		})
	}
}

func TestPassingColumnsKeepTypeNullabilityAndMetadata(t *testing.T) {
	out, err := make1(t, "SELECT *, id AS other, id + 1 AS plus, upper(email) AS email2 FROM users AS u").Schema("public.users", users)
	require.NoError(t, err)
	require.Equal(t, 7, out.NumFields())
	for i, f := range users.Fields() {
		require.True(t, out.Field(i).Equal(f), "%s became %s", f, out.Field(i))
	}
	require.False(t, out.Field(4).Nullable)
	require.Equal(t, "other", out.Field(4).Name)
	require.True(t, out.Field(5).Nullable)
	require.Zero(t, out.Field(5).Metadata.Len())
	require.True(t, out.Field(6).Nullable)
}

func TestNowIsReported(t *testing.T) {
	tr := make1(t, "SELECT id, now() AS at FROM users")
	out, err := tr.Schema("users", users)
	require.NoError(t, err)
	require.Equal(t, "UTC", out.Field(1).Type.(*arrow.TimestampType).TimeZone)
	f, err := tr.Findings("users", users)
	require.NoError(t, err)
	require.Len(t, f, 1)
	require.Contains(t, f[0].Message, "now()")
	require.Equal(t, connectors.SeverityWarning, f[0].Severity)
}

func TestLimitsCutTheOutput(t *testing.T) {
	s := openStage(t, make1(t, "SELECT id, repeat('x', 100) AS pad FROM users"), "public.users", users, connectors.Limits{BatchRows: 100, BatchBytes: 8 << 10})
	var rows [][]any
	for i := range 5000 {
		rows = append(rows, []any{int64(i), nil, nil, nil})
	}
	require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, rows...), s.take))
	require.Len(t, s.rows(), 5000)
	for i, r := range s.rows() {
		require.True(t, strings.HasPrefix(r, fmt.Sprintf("%d|", i)), "order of rows")
	}
	for _, d := range s.items {
		r := d.(messages.Batch).Rows
		require.LessOrEqual(t, r.Len(), int64(100))
		require.LessOrEqual(t, r.Bytes(), int64(8<<10))
	}
}

func TestRowOverTheLimitIsNamed(t *testing.T) {
	s := openStage(t, make1(t, "SELECT id, repeat('x', CASE WHEN id = 3 THEN 5000 ELSE 1 END) AS pad FROM users"), "public.users", users,
		connectors.Limits{BatchRows: 100, BatchBytes: 8 << 10, RowBytes: 1 << 10})
	err := s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(1), nil, nil, nil}, []any{int64(3), nil, nil, nil}), s.take)
	kind, code := codeOf(t, err)
	require.Equal(t, connectors.KindData, kind)
	require.Equal(t, messages.CodeRowTooLarge, code)
}

func TestBrokenRowIsFound(t *testing.T) {
	s := openStage(t, make1(t, "SELECT CAST(email AS INTEGER) AS n FROM users"), "public.users", users, connectors.Limits{})
	require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(0), "7", nil, nil}), s.take))
	var rows [][]any
	for i := range 5000 {
		text := "12"
		if i == 4321 || i == 4900 {
			text = "not a number"
		}
		rows = append(rows, []any{int64(i), text, nil, nil})
	}
	err := s.Apply(t.Context(), batchOf(t, s.mem, users, rows...), s.take)
	kind, code := codeOf(t, err)
	require.Equal(t, connectors.KindData, kind)
	require.Equal(t, messages.CodeRowBroken, code)
	require.ErrorContains(t, err, "rows 2 to 5001 of this attempt: row 4323")
	require.ErrorContains(t, err, "not a number")
	require.ErrorContains(t, err, "public.users")
}

// TestCancelEndsARunningQuery cancels a query that hashes 8 GB, some twenty seconds of
// work. The engine looks for the cancellation behind each 2,048 rows, 0.08 GB.
func TestCancelEndsARunningQuery(t *testing.T) {
	s := openStage(t, make1(t, "SELECT length(sha256(repeat(repeat(email, 100), id % 100))) AS n FROM users"), "public.users", users, connectors.Limits{})
	var rows [][]any
	for i := range 200_000 {
		rows = append(rows, []any{int64(i), "abcdefgh", nil, nil})
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	began := time.Now()
	err := s.Apply(ctx, batchOf(t, s.mem, users, rows...), s.take)
	require.ErrorIs(t, err, cause)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestOutletErrorComesBack(t *testing.T) {
	s := openStage(t, make1(t, "SELECT id FROM users"), "public.users", users, connectors.Limits{BatchRows: 1})
	full := errors.New("downstream")
	err := s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(1), nil, nil, nil}, []any{int64(2), nil, nil, nil}),
		func(_ context.Context, d messages.Data) error {
			conntest.Release(d)
			return full
		})
	require.Equal(t, full, err)
}

func TestSchemaChangePreparesAnew(t *testing.T) {
	s := openStage(t, make1(t, "SELECT * EXCLUDE (tags) FROM users"), "public.users", users, connectors.Limits{})
	wider := arrow.NewSchema(append(users.Fields(), arrow.Field{Name: "extra", Type: arrow.FixedWidthTypes.Boolean, Nullable: true}), nil)
	require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(1), nil, nil, nil}), s.take))
	require.NoError(t, s.Apply(t.Context(), messages.SchemaChange{Stream: "public.users", Version: 2, Schema: wider}, s.take))
	require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, wider, []any{int64(2), nil, nil, nil, true}), s.take))
	require.Equal(t, []string{`1|\N|\N`, `2|\N|\N|true`}, s.rows())
	change := s.items[1].(messages.SchemaChange)
	require.Equal(t, uint64(2), change.Version)
	require.Equal(t, 4, change.Schema.NumFields())

	gone := arrow.NewSchema(users.Fields()[1:3], nil)
	err := s.Apply(t.Context(), messages.SchemaChange{Stream: "public.users", Version: 3, Schema: gone}, s.take)
	kind, _ := codeOf(t, err)
	require.Equal(t, connectors.KindSchema, kind)
}

func TestOtherItemsPass(t *testing.T) {
	s := openStage(t, make1(t, "SELECT id FROM users"), "public.users", users, connectors.Limits{})
	require.NoError(t, s.Apply(t.Context(), messages.Truncate{Streams: []messages.StreamID{"public.users"}}, s.take))
	r := batchOf(t, s.mem, users, []any{int64(1), nil, nil, nil})
	require.NoError(t, s.Apply(t.Context(), messages.Rejected{Stream: "public.users", Reason: "x", Rows: r.Rows}, s.take))
	require.IsType(t, messages.Truncate{}, s.items[0])
	require.IsType(t, messages.Rejected{}, s.items[1])
}

func TestChangeRowsAreRefused(t *testing.T) {
	s := openStage(t, make1(t, "SELECT id FROM users"), "public.users", users, connectors.Limits{})
	schema := arrow.NewSchema(append(users.Fields(), arrow.Field{Name: messages.ColumnOp, Type: arrow.PrimitiveTypes.Uint8}), nil)
	b := array.NewRecordBuilder(s.mem, schema)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(1)
	for _, i := range []int{1, 2, 3} {
		b.Field(i).AppendNull()
	}
	b.Field(4).(*array.Uint8Builder).Append(uint8(messages.OpInsert))
	err := s.Apply(t.Context(), messages.Batch{Stream: "public.users", Rows: messages.ArrowRows{Record: b.NewRecordBatch()}}, s.take)
	kind, code := codeOf(t, err)
	require.Equal(t, connectors.KindConfig, kind)
	require.Equal(t, messages.CodeNotAvailable, code)
}

func TestMemoryLimitHolds(t *testing.T) {
	tr, err := New(Config{Query: "SELECT list_sort(range(id)) AS l FROM users", MaxMemory: 16 << 20})
	require.NoError(t, err)
	t.Cleanup(tr.dbs.close)
	s := openStage(t, tr, "public.users", users, connectors.Limits{})
	err = s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(3_000_000), nil, nil, nil}), s.take)
	kind, _ := codeOf(t, err)
	require.Equal(t, connectors.KindConfig, kind, err)
	require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(3), nil, nil, nil}), s.take), "it goes on afterwards")
}

func TestNamesThatClashAreRefused(t *testing.T) {
	for _, names := range [][]string{{"a", "A"}, {"a", "a"}, {"", "b"}} {
		var fields []arrow.Field
		for _, n := range names {
			fields = append(fields, arrow.Field{Name: n, Type: arrow.PrimitiveTypes.Int64})
		}
		_, err := make1(t, "SELECT 1 AS one FROM users").Schema("users", arrow.NewSchema(fields, nil))
		_, code := codeOf(t, err)
		require.Equal(t, messages.CodeSchemaName, code)
	}
	_, err := make1(t, "SELECT 1 AS one FROM users").Schema("users", arrow.NewSchema(nil, nil))
	_, code := codeOf(t, err)
	require.Equal(t, messages.CodeSchemaEmpty, code)
}

func TestConfigProblems(t *testing.T) {
	require.Empty(t, Config{Query: "SELECT 1"}.Problems())
	require.Len(t, Config{Query: " ", MaxMemory: 1, Threads: -1}.Problems(), 3)
	_, err := New(Config{})
	kind, code := codeOf(t, err)
	require.Equal(t, connectors.KindConfig, kind)
	require.Equal(t, messages.CodeDocValue, code)
}

func TestStagesRunConcurrently(t *testing.T) {
	tr := make1(t, "SELECT id * 2 AS d FROM users WHERE id % 2 = 0")
	for n := range 4 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := openStage(t, tr, "public.users", users, connectors.Limits{})
			for i := range 50 {
				require.NoError(t, s.Apply(t.Context(), batchOf(t, s.mem, users, []any{int64(i), nil, nil, nil}), s.take))
			}
			require.Len(t, s.rows(), 25)
		})
	}
}

func TestConformance(t *testing.T) {
	conntest.Transform(t, conntest.TransformFactory{
		New: func(conntest.T) connectors.Transform {
			return make1(t, "SELECT id, lower(email) AS email FROM users WHERE id <> 2")
		},
		Stream: "public.users", Schema: users,
		Rows: [][]any{{int64(1), "A", 1.0, nil}, {int64(2), "B", nil, nil}, {int64(3), nil, nil, nil}, {int64(4), "D", nil, nil}},
		Want: []string{"1|a", `3|\N`, "4|d"},
	})
}
