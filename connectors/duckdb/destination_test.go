package duckdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

func fields(f ...arrow.Field) *arrow.Schema { return arrow.NewSchema(f, nil) }

var (
	idField   = arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64}
	nameField = arrow.Field{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true}
	orders    = connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: fields(idField, nameField), Key: []string{"id"}}
)

func requireError(t *testing.T, err error, kind connectors.Kind, code messages.Code, says ...string) *connectors.Error {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "not typed: %v", err)
	require.Equal(t, kind, e.Kind, err)
	require.Equal(t, code, e.Code, err)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
	return e
}

func TestExistingTables(t *testing.T) {
	for _, c := range []struct {
		name, sql string
		mode      connectors.WriteMode
		kind      connectors.Kind
		code      messages.Code
		says      string
		rows      []string // after a load of (1, a); nil: it is refused
	}{
		{"column is added", `CREATE TABLE orders (id BIGINT); INSERT INTO orders VALUES (0)`, "append", "", "", "", []string{`0|\N`, "1|a"}},
		{"other columns are null or default", `CREATE TABLE orders (name VARCHAR, x INTEGER, id BIGINT, y INTEGER NOT NULL DEFAULT 7)`, "append", "", "", "", []string{`a|\N|1|7`}},
		{"names in other case", `CREATE TABLE orders (ID BIGINT, Name VARCHAR)`, "append", "", "", "", []string{"1|a"}},
		{"upsert without an index", `CREATE TABLE orders (id BIGINT, name VARCHAR); INSERT INTO orders VALUES (1, 'old'), (2, 'kept')`, "upsert", "", "", "", []string{"1|a", "2|kept"}},
		{"upsert with an index", `CREATE TABLE orders (id BIGINT UNIQUE, name VARCHAR, n INTEGER); INSERT INTO orders VALUES (1, 'old', 5)`, "upsert", "", "", "", []string{"1|a|5"}},
		{"replace takes any shape", `CREATE TABLE orders (id VARCHAR, z INTEGER NOT NULL); INSERT INTO orders VALUES ('x', 1); CREATE INDEX i ON orders (z)`, "replace", "", "", "", []string{"1|a"}},
		{"json holds text", `CREATE TABLE orders (id BIGINT, name JSON)`, "append", "", "", "", nil},
		{"other type", `CREATE TABLE orders (id INTEGER, name VARCHAR)`, "append", connectors.KindSchema, messages.CodeSchemaType, "column id is INTEGER in the table and BIGINT in the stream", nil},
		{"required column", `CREATE TABLE orders (id BIGINT, z INTEGER NOT NULL)`, "append", connectors.KindSchema, messages.CodeSchemaColumn, "column z of the table is NOT NULL", nil},
		{"view", `CREATE VIEW orders AS SELECT 1 AS id`, "append", connectors.KindConfig, messages.CodeSchemaName, "a view", nil},
		{"view is not replaced", `CREATE VIEW orders AS SELECT 1 AS id`, "replace", connectors.KindConfig, messages.CodeSchemaName, "a view", nil},
		{"target in other case", `CREATE TABLE ORDERS (id BIGINT, name VARCHAR)`, "append", connectors.KindSchema, messages.CodeSchemaName, `"ORDERS"`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			require.NoError(t, h.s.Close(t.Context()))
			sqlFile(t, h.path, c.sql)
			l := load(c.mode, 1, orders, "orders")
			found, err := h.dest.Check(t.Context(), []connectors.Load{l})
			require.NoError(t, err)
			h.s = h.open(2)
			if c.kind != "" {
				requireError(t, h.s.Begin(t.Context(), l), c.kind, c.code, c.says)
				require.Len(t, found, 1, "check predicts it")
				require.Equal(t, c.code, found[0].Code)
				require.Contains(t, found[0].Message, c.says)
				return
			}
			require.Empty(t, found)
			require.NoError(t, h.s.Begin(t.Context(), l))
			w, _, err := h.s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: 2, Attempt: 1})
			require.NoError(t, err)
			text := "a"
			if c.rows == nil {
				text = `{"a": 1}`
			}
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, text})))
			h.commit(w, messages.BarrierEnd, 1, 1)
			require.NoError(t, h.s.Finish(t.Context(), l.ID))
			if c.rows != nil {
				require.ElementsMatch(t, c.rows, tableRows(t, h.path, "main", "orders"))
			}
		})
	}
}

func TestLoadsThatCannotBegin(t *testing.T) {
	h := newHarness(t)
	bad := func(schema *arrow.Schema, key ...string) connectors.StreamPlan {
		return connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: schema, Key: key}
	}
	target := func(name string) connectors.StreamPlan {
		sp := orders
		sp.Target = name
		return sp
	}
	for _, c := range []struct {
		plan connectors.StreamPlan
		mode connectors.WriteMode
		kind connectors.Kind
		code messages.Code
		says string
	}{
		{bad(fields(idField)), connectors.ModeUpsert, connectors.KindConfig, messages.CodeDocMissing, "primary key"},
		{bad(fields(idField), "nope"), connectors.ModeUpsert, connectors.KindSchema, messages.CodeSchemaColumn, "nope"},
		{bad(fields(idField, arrow.Field{Name: "ID", Type: arrow.PrimitiveTypes.Int64})), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaName, `"id" and "ID"`},
		{bad(fields()), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaEmpty, "no columns"},
		{bad(fields(arrow.Field{Name: "f", Type: arrow.FixedWidthTypes.Float16})), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaType, "column f"},
		{bad(fields(arrow.Field{Name: "t", Type: &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}})), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaType, "nanoseconds"},
		{bad(fields(arrow.Field{Name: "a\x00b", Type: arrow.PrimitiveTypes.Int64})), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaName, "cannot be used"},
		{target(""), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaName, ""},
		{target("_rapidbyte_stage_1"), connectors.ModeAppend, connectors.KindSchema, messages.CodeSchemaName, ""},
	} {
		l := load(c.mode, 1, c.plan, "orders")
		l.Streams[0].Target = c.plan.Target
		requireError(t, h.s.Begin(t.Context(), l), c.kind, c.code, c.says)
		found, err := h.dest.Check(t.Context(), []connectors.Load{l})
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, c.code, found[0].Code)
	}
	require.Empty(t, rowsOf(t, h.path, "SELECT table_name FROM duckdb_tables() WHERE schema_name <> '_rapidbyte'"), "nothing was made")
}

func TestCheckChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new.duckdb")
	l := load(connectors.ModeAppend, 1, orders, "orders")
	found, err := newDestination(t, path).Check(t.Context(), []connectors.Load{l})
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoFileExists(t, path)

	sqlFile(t, path, "CREATE TABLE x (a INTEGER)")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = newDestination(t, path).Check(t.Context(), []connectors.Load{l})
	require.NoError(t, err)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
	changes, err := newDestination(t, path).Changes(t.Context(), []connectors.Load{l})
	require.NoError(t, err)
	require.Equal(t, []string{`CREATE TABLE "main"."orders" ("id" BIGINT NOT NULL, "name" VARCHAR)`}, changes)

	found, err = newDestination(t, filepath.Join(path, "such.duckdb")).Check(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, messages.CodeDestMissing, found[0].Code)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "junk"), []byte(strings.Repeat("junk", 5000)), 0o600))
	found, err = newDestination(t, filepath.Join(dir, "junk")).Check(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, messages.CodeDestDamaged, found[0].Code)
	_, err = newDestination(t, filepath.Join(dir, "junk")).Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1})
	requireError(t, err, connectors.KindConfig, messages.CodeDestDamaged)
	_, err = newDestination(t, dir).Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1})
	requireError(t, err, connectors.KindConfig, messages.CodeDestMissing)
}

func TestUpsertShapes(t *testing.T) {
	list := arrow.Field{Name: "tags", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}
	for _, c := range []struct {
		name   string
		plan   connectors.StreamPlan
		before string
		rows   [][]any
		want   []string
	}{
		{
			"composite key",
			connectors.StreamPlan{Schema: fields(nameField, idField, arrow.Field{Name: "rowid", Type: arrow.PrimitiveTypes.Int64}), Key: []string{"id", "name"}},
			"",
			[][]any{{"a", 1, 1}, {"b", 1, 2}, {"a", 1, 3}},
			[]string{"a|1|3", "b|1|2"},
		},
		{"only a key", connectors.StreamPlan{Schema: fields(idField), Key: []string{"ID"}}, "", [][]any{{1}, {2}, {1}}, []string{"1", "2"}},
		{
			"only a key, no index",
			connectors.StreamPlan{Schema: fields(idField), Key: []string{"id"}},
			"CREATE TABLE t (id BIGINT); INSERT INTO t VALUES (2)",
			[][]any{{1}, {2}, {1}},
			[]string{"1", "2"},
		},
		{"lists", connectors.StreamPlan{Schema: fields(idField, list), Key: []string{"id"}}, "", [][]any{{1, `["a"]`}, {1, `["b","c"]`}, {2, nil}}, []string{"1|[b,c]", `2|\N`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			if c.before != "" {
				sqlFile(t, h.path, c.before)
			}
			c.plan.Stream, c.plan.Target = "t", "t"
			w := h.begin(load(connectors.ModeUpsert, 1, c.plan, "t"))
			for range 2 { // inside a commit and across commits
				require.NoError(t, w.Write(t.Context(), h.batch(c.plan, c.rows...)))
				h.commit(w, messages.BarrierPeriodic, 1, 3)
				require.ElementsMatch(t, c.want, tableRows(t, h.path, "main", "t"))
			}
		})
	}
}

func TestMissingValuesAreNamed(t *testing.T) {
	h := newHarness(t)
	loose := orders
	loose.Schema = fields(arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, nameField)
	w := h.begin(load(connectors.ModeUpsert, 1, loose, "orders"))
	e := requireError(t, w.Write(t.Context(), h.batch(loose, []any{nil, "x"})), connectors.KindData, messages.CodeValueRange, "id")
	require.Equal(t, "id", e.Place.Field)

	sqlFile(t, h.path, "CREATE TABLE strict (id BIGINT NOT NULL, name VARCHAR NOT NULL)")
	strict := orders
	strict.Stream, strict.Target = "strict", "strict"
	w = h.begin(load(connectors.ModeAppend, 1, strict, "strict"))
	require.NoError(t, w.Write(t.Context(), h.batch(strict, []any{1, nil})))
	_, err := w.Commit(t.Context(), barrier(messages.BarrierEnd, 1, 1))
	e = requireError(t, err, connectors.KindData, messages.CodeValueRange, "strict.name")
	require.Equal(t, messages.StreamID("strict"), e.Place.Stream)
	require.Empty(t, tableRows(t, h.path, "main", "strict"))
}

func TestTruncateThenSameKeys(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHarness(t)
			l := load(mode, 1, orders, "orders")
			w := h.begin(l)
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"}, []any{2, "b"})))
			h.commit(w, messages.BarrierPeriodic, 2, 2)
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{3, "c"})))
			require.NoError(t, w.Write(t.Context(), messages.Truncate{Streams: []messages.StreamID{"orders"}}))
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "again"})))
			h.commit(w, messages.BarrierEnd, 4, 2)
			require.NoError(t, h.s.Finish(t.Context(), l.ID))
			require.Equal(t, []string{"1|again"}, tableRows(t, h.path, "main", "orders"))
		})
	}
}

func TestSchemaChangeInsideACommit(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHarness(t)
			l := load(mode, 1, orders, "orders")
			w := h.begin(l)
			wider := orders
			wider.Schema = fields(idField, arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true}, nameField)
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"}, []any{2, "b"})))
			require.NoError(t, w.Write(t.Context(), messages.SchemaChange{Stream: "orders", Version: 2, Schema: wider.Schema}))
			require.NoError(t, w.Write(t.Context(), h.batch(wider, []any{2, 7, "c"}, []any{3, 8, "d"})))
			h.commit(w, messages.BarrierPeriodic, 4, 4)
			require.NoError(t, w.Write(t.Context(), h.batch(wider, []any{4, 9, "e"})))
			h.commit(w, messages.BarrierEnd, 5, 1)
			require.NoError(t, h.s.Finish(t.Context(), l.ID))
			want := []string{`1|a|\N`, "2|c|7", "3|d|8", "4|e|9"}
			if mode != connectors.ModeUpsert {
				want = append(want, `2|b|\N`)
			}
			require.ElementsMatch(t, want, tableRows(t, h.path, "main", "orders"))

			other := orders
			other.Schema = fields(idField, arrow.Field{Name: "name", Type: arrow.PrimitiveTypes.Int32, Nullable: true})
			w = h.begin(load(mode, 2, orders, "orders"))
			err := w.Write(t.Context(), messages.SchemaChange{Stream: "orders", Version: 2, Schema: other.Schema})
			requireError(t, err, connectors.KindSchema, messages.CodeSchemaType, "column name")
		})
	}
}

// Rows and receipt are one: a commit whose receipt cannot be written leaves no rows.
func TestRowsDoNotComeWithoutTheirReceipt(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
		h := newHarness(t)
		w := h.begin(load(mode, 1, orders, "orders"))
		require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"})))
		_, err := h.s.(*Session).conn.Exec(t.Context(), "UPDATE _rapidbyte.receipt SET commit_no = 7")
		require.NoError(t, err)
		_, err = w.Commit(t.Context(), barrier(messages.BarrierPeriodic, 1, 1))
		require.Error(t, err)
		require.NoError(t, w.Close(t.Context()))
		require.Empty(t, tableRows(t, h.path, "main", "orders"))
	}
}

func TestDeadLettersAreOfTheCommit(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHarness(t)
			w := h.begin(load(mode, 1, orders, "orders"))
			for n := range 2 {
				require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{10 + n, "good"})))
				bad := messages.Rejected{Stream: "orders", Reason: "rule", Rows: h.batch(orders, []any{n, "b'ad"}, []any{n, nil}).Rows}
				require.NoError(t, w.Write(t.Context(), bad))
				require.Len(t, rowsOf(t, h.path, "FROM _rapidbyte.dlq"), 2*n, "not before the commit")
				r := h.commit(w, messages.BarrierPeriodic, int64(n), 3)
				require.Equal(t, messages.Counts{Read: 3 * int64(n+1), Arrived: 3 * int64(n+1), Applied: int64(n + 1), Rejected: 2 * int64(n+1)}, r.Rows)
			}
			require.Equal(t, []string{
				`orders|1|1|rule|{"id":0,"name":"b'ad"}`, `orders|1|2|rule|{"id":0,"name":null}`,
				`orders|2|1|rule|{"id":1,"name":"b'ad"}`, `orders|2|2|rule|{"id":1,"name":null}`,
			}, rowsOf(t, h.path, "SELECT stream, commit_no, ordinal, reason, payload FROM _rapidbyte.dlq ORDER BY commit_no, ordinal"))
		})
	}
}

func TestTextTypes(t *testing.T) {
	h := newHarness(t)
	sp := connectors.StreamPlan{Stream: "t", Target: "t", Schema: fields(
		arrow.Field{Name: "u", Type: arrow.BinaryTypes.String, Metadata: arrow.NewMetadata([]string{typeKey}, []string{"uuid"})},
		arrow.Field{Name: "j", Type: arrow.BinaryTypes.String, Metadata: arrow.NewMetadata([]string{typeKey}, []string{"json"})},
		arrow.Field{Name: "n", Type: arrow.Null, Nullable: true},
	)}
	w := h.begin(load(connectors.ModeAppend, 1, sp, "t"))
	require.NoError(t, w.Write(t.Context(), h.batch(sp, []any{"F81D4FAE-7dec-11d0-a765-00a0c91e6bf6", `{"a":1,"a":2}`, nil})))
	h.commit(w, messages.BarrierPeriodic, 1, 1)
	require.Equal(t, []string{"UUID|VARCHAR|VARCHAR"}, rowsOf(t, h.path, "SELECT typeof(u), typeof(j), typeof(n) FROM t"))
	require.Equal(t, []string{`f81d4fae-7dec-11d0-a765-00a0c91e6bf6|{"a":1,"a":2}|\N`}, tableRows(t, h.path, "main", "t"))
	err := w.Write(t.Context(), h.batch(sp, []any{"not a uuid", "{}", nil}))
	if err == nil {
		_, err = w.Commit(t.Context(), barrier(messages.BarrierPeriodic, 2, 1))
	}
	requireError(t, err, connectors.KindData, messages.CodeValueRange, "not a uuid")
}

func TestChangeRowsAreRefused(t *testing.T) {
	h := newHarness(t)
	w := h.begin(load(connectors.ModeUpsert, 1, orders, "orders"))
	changes := orders
	changes.Schema = fields(idField, nameField, arrow.Field{Name: messages.ColumnOp, Type: arrow.PrimitiveTypes.Uint8})
	requireError(t, w.Write(t.Context(), h.batch(changes, []any{1, "a", 105})), connectors.KindConfig, messages.CodeNotAvailable)
}

// Parts of one stream upsert overlapping keys at the same time: no conflict, no
// lost row.
func TestParallelUpsertsIntoOneTable(t *testing.T) {
	h := newHarness(t)
	const parts, commits, rows = 4, 10, 50
	l := load(connectors.ModeUpsert, 1, orders, "orders/0", "orders/1", "orders/2", "orders/3")
	require.NoError(t, h.s.Begin(t.Context(), l))
	var all sync.WaitGroup
	failed := make([]error, parts)
	for i, p := range l.Parts {
		w, _, err := h.s.OpenWriter(t.Context(), p, messages.Token{Epoch: 1, Attempt: messages.Attempt(i + 1)})
		require.NoError(t, err)
		var batches []messages.Batch
		for c := range commits {
			batches = append(batches, h.batch(orders, conntest.NumberRows(1+c*rows/2+i*rows/4, rows)...))
		}
		all.Go(func() {
			for c, b := range batches {
				if failed[i] != nil {
					b.Rows.Release()
					continue
				}
				if failed[i] = w.Write(t.Context(), b); failed[i] == nil {
					_, failed[i] = w.Commit(t.Context(), barrier(messages.BarrierPeriodic, int64(c), rows))
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(failed...))
	last := 1 + (commits-1)*rows/2 + (parts-1)*rows/4 + rows - 1
	require.Equal(t, []string{fmt.Sprintf("%d|%d|1|%d", last, last, last)}, rowsOf(t, h.path, "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM orders"))
}

func TestFileOfAnotherProcessIsBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.duckdb")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=append 1 "+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	require.True(t, bufio.NewScanner(out).Scan())
	began := time.Now()
	_, err = newDestination(t, path).Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 2, Store: "store"})
	e := requireError(t, err, connectors.KindTransient, messages.CodeDestBusy, fmt.Sprint("PID ", cmd.Process.Pid))
	require.Contains(t, e.Next, fmt.Sprint(cmd.Process.Pid))
	require.Less(t, time.Since(began), 5*time.Second)
	found, err := newDestination(t, path).Check(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, messages.CodeDestBusy, found[0].Code)

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	_, err = newDestination(t, path).Open(ctx, connectors.SessionRequest{Pipeline: "p", Epoch: 2, Store: "store"})
	require.ErrorIs(t, err, cause)
}

func TestComplaintsAreClassified(t *testing.T) {
	for _, c := range []struct {
		text string
		kind connectors.Kind
		code messages.Code
	}{
		{`IO Error: Could not write file "/x/y.duckdb": No space left on device`, connectors.KindTransient, messages.CodeDestFull},
		{`TransactionContext Error: Failed to commit: Could not write file "x.wal": No space left on device`, connectors.KindTransient, messages.CodeDestFull},
		{`IO Error: Could not set lock on file "x": Conflicting lock is held in /bin/duckdb (PID 42) by user u. See also`, connectors.KindTransient, messages.CodeDestBusy},
		{`IO Error: Cannot open file "x": Permission denied`, connectors.KindConfig, messages.CodeDestDenied},
		{`TransactionContext Error: Conflict on update!`, connectors.KindTransient, messages.CodeDest},
		{`Constraint Error: Duplicate key "id: 1" violates primary key constraint.`, connectors.KindData, messages.CodeValueRange},
		{`FATAL Error: database has been invalidated`, connectors.KindScanLost, messages.CodeDest},
		{`INTERNAL Error: oops`, connectors.KindInternal, messages.CodeInternal},
		{`Catalog Error: Table with name t does not exist!`, connectors.KindConfig, messages.CodeDestMissing},
	} {
		class, _, _ := strings.Cut(c.text, ":")
		err := classify(t.Context(), "write", "x.duckdb", &duckarrow.Error{Class: duckarrow.Class(class), Text: c.text})
		requireError(t, err, c.kind, c.code)
	}
	own := &failpoint.Error{Point: failpoint.DestBegin, Text: "says of itself that it is transient"}
	requireError(t, classify(t.Context(), "write", "x.duckdb", own), connectors.KindTransient, messages.CodeDest)
	w := &Writer{session: &Session{}}
	for text, want := range map[string]connectors.CommitState{
		`IO Error: Could not write file "x.wal": No space left on device`: connectors.CommitUnknown,
		`INTERNAL Error: oops`: connectors.CommitUnknown,
		`TransactionContext Error: Failed to commit: write-write conflict on key: "7"`:     "",
		`TransactionContext Error: Failed to commit: Could not write file: Input/output e`: connectors.CommitUnknown,
	} {
		class, _, _ := strings.Cut(text, ":")
		err := w.commitError(t.Context(), &duckarrow.Error{Class: duckarrow.Class(class), Text: text})
		e, ok := errors.AsType[*connectors.Error](err)
		require.True(t, ok)
		require.Equal(t, want, e.Commit, text)
	}
}

func TestSessionCloseEndsARunningCall(t *testing.T) {
	h := newHarness(t)
	w := h.begin(load(connectors.ModeAppend, 1, orders, "orders"))
	require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"})))
	s, ok := h.s.(*Session)
	require.True(t, ok)
	require.NoError(t, s.file.lock(t.Context())) // somebody has control: the commit waits
	ended := make(chan error, 1)
	go func() {
		_, err := w.Commit(context.Background(), barrier(messages.BarrierPeriodic, 1, 1))
		ended <- err
	}()
	writer, ok := w.(*Writer)
	require.True(t, ok)
	require.Eventually(t, func() bool {
		writer.state.Lock()
		defer writer.state.Unlock()
		return writer.cancel != nil
	}, 10*time.Second, time.Millisecond, "the commit has begun")
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	require.ErrorIs(t, <-ended, errClosed)
	s.file.unlock()
	require.NoError(t, <-closed)
	require.Empty(t, tableRows(t, h.path, "main", "orders"))
}

func TestAnotherSchemaIsCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.duckdb")
	d, err := NewDestination(DestinationConfig{Path: path, Schema: `ra"w`})
	require.NoError(t, err)
	s, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
	require.NoError(t, err)
	defer s.Close(context.Background())
	h := &harness{t: t, path: path, s: s}
	for i, mode := range []connectors.WriteMode{connectors.ModeReplace, connectors.ModeAppend} {
		l := load(mode, uint64(i+1), orders, "orders")
		w := h.begin(l)
		rec, err := conntest.Build(memory.DefaultAllocator, orders.Schema, [][]any{{i, "x"}})
		require.NoError(t, err)
		require.NoError(t, w.Write(t.Context(), messages.Batch{Stream: "orders", Rows: messages.ArrowRows{Record: rec}}))
		h.commit(w, messages.BarrierEnd, 1, 1)
		require.NoError(t, s.Finish(t.Context(), l.ID))
	}
	require.ElementsMatch(t, []string{"0|x", "1|x"}, tableRows(t, path, `ra"w`, "orders"))
	require.Empty(t, rowsOf(t, path, "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '_rapidbyte_stage%'"))
}

// Check only looks; Open makes the folders that are missing.
func TestMissingFoldersAreMadeByOpen(t *testing.T) {
	dir := t.TempDir()
	d := newDestination(t, filepath.Join(dir, "a", "b", "x.duckdb"))
	found, err := d.Check(t.Context(), []connectors.Load{load(connectors.ModeAppend, 1, orders, "orders")})
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoDirExists(t, filepath.Join(dir, "a"))
	s, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: 1, Store: "s"})
	require.NoError(t, err)
	require.NoError(t, s.Close(t.Context()))
	require.FileExists(t, filepath.Join(dir, "a", "b", "x.duckdb"))
}

func TestConfigProblems(t *testing.T) {
	require.Empty(t, DestinationConfig{Path: "x.duckdb"}.Problems())
	for _, c := range []DestinationConfig{{}, {Path: ":memory:"}, {Path: "md:x"}, {Path: "s3://b/x"}, {Path: "x", Schema: "_RapidByte"}} {
		require.Len(t, c.Problems(), 1, c)
		_, err := NewDestination(c)
		requireError(t, err, connectors.KindConfig, messages.CodeDocValue)
	}
	_, err := NewSource(SourceConfig{})
	requireError(t, err, connectors.KindConfig, messages.CodeDocValue)

	dir := t.TempDir()
	real := filepath.Join(dir, "x.duckdb")
	require.NoError(t, os.Symlink(real, filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(real, nil, 0o600))
	requireError(t, SameFile(SourceConfig{Path: filepath.Join(dir, "link")}, DestinationConfig{Path: dir + "/./x.duckdb"}), connectors.KindConfig, messages.CodeDocConflict)
	require.NoError(t, SameFile(SourceConfig{Path: real}, DestinationConfig{Path: real + "2"}))
}

func TestPanicInsideAChangeLeavesNoTransaction(t *testing.T) {
	h := newHarness(t)
	s, ok := h.s.(*Session)
	require.True(t, ok)
	require.Panics(t, func() {
		_ = s.changing(t.Context(), "change", func() error {
			_, err := s.conn.Exec(t.Context(), "CREATE TABLE half (id INT)")
			require.NoError(t, err)
			panic("in the middle")
		})
	})
	require.NoError(t, s.changing(t.Context(), "change", func() error {
		_, err := s.conn.Exec(t.Context(), "CREATE TABLE half (id INT)")
		return err
	}))
}
