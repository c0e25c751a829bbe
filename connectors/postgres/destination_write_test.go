package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

func TestPGUpsertResolvesDuplicatesByOrder(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	w := r.writer(connectors.ModeUpsert, orders, 1)
	r.write(w, orders, []any{1, "old"}, []any{2, "two"}, []any{1, "newer"})
	r.write(w, orders, []any{1, "newest"}, []any{3, nil})
	receipt := r.commit(w, messages.BarrierPeriodic, 5, 5)
	require.Equal(t, messages.Counts{Read: 5, Arrived: 5, Applied: 5}, receipt.Rows)
	require.ElementsMatch(t, []string{"1|newest", "2|two", `3|\N`}, r.rows("orders"))

	r.write(w, orders, []any{3, "three"}, []any{1, nil})
	r.commit(w, messages.BarrierEnd, 7, 2)
	require.ElementsMatch(t, []string{`1|\N`, "2|two", "3|three"}, r.rows("orders"))
	require.NoError(t, w.Close(t.Context()))
}

func TestPGUpsertLeavesUnchangedRowsAlone(t *testing.T) {
	numeric, asText := codec.Field(codec.Column{Name: "n", Type: &codec.Type{OID: 1700, Schema: "pg_catalog", Name: "numeric", Mod: -1, SQL: "numeric", Kind: codec.KindBase}}, false)
	require.False(t, asText)
	sp := connectors.StreamPlan{Stream: "prices", Target: "prices", Schema: fields(idField, numeric), Key: []string{"id"}}
	r := newRig(t, connectors.WritePolicy{Metadata: true}, nil)
	w := r.writer(connectors.ModeUpsert, sp, 1)
	r.write(w, sp, []any{1, "1.0"}, []any{2, nil}, []any{3, "3"})
	r.commit(w, messages.BarrierPeriodic, 3, 3)
	places := func() [][]string {
		return r.server.Query(t, r.db, "SELECT id, ctid, n FROM prices ORDER BY id")
	}
	before := places()
	r.write(w, sp, []any{1, "1.00"}, []any{2, nil}, []any{3, "3"})
	r.commit(w, messages.BarrierEnd, 6, 3)
	after := places()
	require.Equal(t, "1.00", after[0][2], "equal, but not the same")
	require.Equal(t, before[1:], after[1:], "unchanged rows are not written again, although their metadata would differ")
	require.Equal(t, [][]string{{"0"}}, r.server.Query(t, r.db, "SELECT count(*) FROM prices WHERE _rb_run <> 'run-1' OR _rb_loaded_at > now() OR _rb_loaded_at < now() - interval '1 hour'"))
	require.NoError(t, w.Close(t.Context()))
}

func TestPGBadRows(t *testing.T) {
	amount := arrow.Field{Name: "amount", Type: arrow.PrimitiveTypes.Int64, Nullable: true}
	sp := connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: fields(idField, nameField, amount)}
	server := pgtest.Shared(t)
	db := server.Database(t)
	const raises = `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id % 10 = 7 THEN RAISE 'seven is not wanted'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()`
	for _, c := range []struct {
		name, table string
		bad         func(row int) bool
		value       func(row int) []any
		code        messages.Code
		sqlstate    string
		says        string
	}{
		{"not null", "id bigint, name text NOT NULL, amount bigint", nil, func(i int) []any { return []any{i, nil, 1} }, messages.CodeRowRefused, "23502", "name"},
		{"check", "id bigint, name text, amount bigint CHECK (amount < 100)", nil, func(i int) []any { return []any{i, "x", 100} }, messages.CodeRowRefused, "23514", "orders_amount_check"},
		{"unique", "id bigint, name text UNIQUE, amount bigint", nil, func(i int) []any { return []any{i, "1", 1} }, messages.CodeRowRefused, "23505", "orders_name_key"},
		{"foreign key", "id bigint, name text, amount bigint REFERENCES ref", nil, func(i int) []any { return []any{i, "x", 999} }, messages.CodeRowRefused, "23503", "orders_amount_fkey"},
		{"deferred foreign key", "id bigint, name text, amount bigint REFERENCES ref DEFERRABLE INITIALLY DEFERRED", nil, func(i int) []any { return []any{i, "x", 999} }, messages.CodeRowRefused, "23503", "orders_amount_fkey"},
		{"integer overflow", "id bigint, name text, amount integer", nil, func(i int) []any { return []any{i, "x", int64(1) << 40} }, messages.CodeValueRange, "", "amount"},
		{"text too long", "id bigint, name varchar(5), amount bigint", nil, func(i int) []any { return []any{i, "sechs!", 1} }, messages.CodeValueRange, "", "name"},
		{"NUL in a text", "id bigint, name text, amount bigint", nil, func(i int) []any { return []any{i, "a\x00b", 1} }, messages.CodeValueRange, "", "name"},
		{"trigger that raises", "id bigint, name text, amount bigint);" + raises + ";CREATE TABLE dummy (i int", func(i int) bool { return i%10 == 7 }, func(i int) []any { return []any{i, "x", 1} }, messages.CodeRowRefused, "P0001", "seven is not wanted"},
	} {
		bad := c.bad
		if bad == nil {
			bad = func(i int) bool { return i == 3 || i == 77 || i == 78 || i == 200 }
		}
		var rows [][]any
		var good []string
		nBad := 0
		for i := 1; i <= 200; i++ {
			if bad(i) {
				rows = append(rows, c.value(i))
				nBad++
				continue
			}
			rows = append(rows, []any{i, fmt.Sprint(i), 1})
			good = append(good, fmt.Sprintf("%d|%d|1", i, i))
		}
		for _, method := range []LoadMethod{LoadCopy, LoadInsert} {
			for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
				for _, policy := range []connectors.DataErrorPolicy{connectors.DataFail, connectors.DataSkip, connectors.DataDLQ} {
					t.Run(strings.Join([]string{c.name, string(method), string(mode), string(policy)}, "/"), func(t *testing.T) {
						r := rigIn(t, server, db, connectors.WritePolicy{OnDataError: policy, NewColumn: connectors.ColumnAdd}, func(cfg *DestinationConfig) { cfg.LoadMethod = method })
						r.sql("CREATE TABLE ref (n bigint PRIMARY KEY); INSERT INTO ref SELECT generate_series(1, 10)")
						r.sql("CREATE TABLE orders (" + c.table + ")")
						if mode == connectors.ModeUpsert {
							r.sql("CREATE UNIQUE INDEX ON orders (id); ALTER TABLE orders ALTER id SET NOT NULL")
							sp.Key = []string{"id"}
						} else {
							sp.Key = nil
						}
						w := r.writer(mode, sp, 1)
						defer func() { require.NoError(t, w.Close(t.Context())) }()
						err := w.Write(t.Context(), r.batch(sp, rows[:100]...))
						if err == nil {
							err = w.Write(t.Context(), r.batch(sp, rows[100:]...))
						}
						var receipt messages.Receipt
						if err == nil {
							receipt, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 200, 200))
						}
						if policy == connectors.DataFail {
							e := requireError(t, err, connectors.KindData, c.code, c.says)
							require.Equal(t, sp.Stream, e.Place.Stream)
							require.Empty(t, r.rows("orders"), "nothing of the commit is visible")
							return
						}
						require.NoError(t, err)
						require.Equal(t, messages.Counts{Read: 200, Arrived: 200, Applied: int64(200 - nBad), Rejected: int64(nBad)}, receipt.Rows)
						require.ElementsMatch(t, good, r.rows("orders"))
						letters, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline})
						require.NoError(t, err)
						if policy == connectors.DataSkip {
							require.Empty(t, letters)
							return
						}
						require.Len(t, letters, nBad)
						for _, l := range letters {
							require.True(t, bad(int(l.Ordinal)), l.Ordinal)
							require.Equal(t, string(c.code), l.Reason)
							require.Equal(t, c.sqlstate, l.SQLState)
							require.Contains(t, l.Message, c.says)
							rec, err := decodeRow(l.Row)
							require.NoError(t, err)
							require.Equal(t, l.Ordinal, rec.Column(0).(interface{ Value(int) int64 }).Value(0))
							rec.Release()
						}
					})
				}
			}
		}
	}
}

func TestPGTriggerThatSwallowsRowsIsNoticed(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
		for _, method := range []LoadMethod{LoadCopy, LoadInsert} {
			r := newRig(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, func(c *DestinationConfig) { c.LoadMethod = method })
			r.sql(`CREATE TABLE orders (id bigint PRIMARY KEY, name text);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$;
				CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()`)
			w := r.writer(mode, orders, 1)
			err := w.Write(t.Context(), r.batch(orders, []any{1, "a"}, []any{2, "b"}, []any{3, "c"}))
			if err == nil {
				_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 3, 3))
			}
			requireError(t, err, connectors.KindConfig, messages.CodeRowsSwallowed, "orders")
			require.Empty(t, r.rows("orders"))
			require.NoError(t, w.Close(t.Context()))
		}
	}
}

func TestPGLimitsOfDeadLettersStopTheRun(t *testing.T) {
	most, ratio := int64(2), 0.1
	for _, c := range []struct {
		policy connectors.WritePolicy
		bad    int
		fails  bool
	}{
		{connectors.WritePolicy{OnDataError: connectors.DataDLQ, DeadRowsMax: &most}, 2, false},
		{connectors.WritePolicy{OnDataError: connectors.DataDLQ, DeadRowsMax: &most}, 3, true},
		{connectors.WritePolicy{OnDataError: connectors.DataSkip, DeadRatioMax: &ratio}, 10, false},
		{connectors.WritePolicy{OnDataError: connectors.DataSkip, DeadRatioMax: &ratio}, 11, true},
	} {
		r := newRig(t, c.policy, nil)
		r.sql("CREATE TABLE orders (id bigint, name text CHECK (name <> 'bad'))")
		w := r.writer(connectors.ModeAppend, orders, 1)
		var rows [][]any
		for i := range 100 {
			name := "good"
			if i < c.bad {
				name = "bad"
			}
			rows = append(rows, []any{i, name})
		}
		err := w.Write(t.Context(), r.batch(orders, rows...))
		if err == nil {
			_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 100, 100))
		}
		if c.fails {
			requireError(t, err, connectors.KindData, messages.CodeRowsTooMany)
			require.Empty(t, r.rows("orders"))
		} else {
			require.NoError(t, err)
			require.Len(t, r.rows("orders"), 100-c.bad)
		}
		require.NoError(t, w.Close(t.Context()))
	}
}

func TestPGDeadLettersAreReplayedAndPurged(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, nil)
	r.sql("CREATE TABLE orders (id bigint PRIMARY KEY, name text CONSTRAINT short CHECK (length(name) < 3))")
	w := r.writer(connectors.ModeUpsert, orders, 1)
	r.write(w, orders, []any{1, "ok"}, []any{2, "long"}, []any{3, "longer"}, []any{4, "longest"})
	r.commit(w, messages.BarrierEnd, 4, 4)
	require.NoError(t, w.Close(t.Context()))
	require.NoError(t, r.s.Finish(t.Context(), messages.LoadID{Name: "orders", Number: 1}))

	q := connectors.DeadLetterQuery{Pipeline: testPipeline}
	letters, err := r.dest.DeadLetters(t.Context(), q)
	require.NoError(t, err)
	require.Len(t, letters, 3)
	none, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: "other"})
	require.NoError(t, err)
	require.Empty(t, none)

	r.sql("ALTER TABLE orders DROP CONSTRAINT short; ALTER TABLE orders ADD CONSTRAINT shorter CHECK (length(name) < 7)")
	done, err := r.dest.Replay(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, connectors.Replayed{Written: 2, Left: 1}, done)
	require.ElementsMatch(t, []string{"1|ok", "2|long", "3|longer"}, r.rows("orders"))
	left, err := r.dest.DeadLetters(t.Context(), q)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Contains(t, left[0].Message, "shorter")
	require.Equal(t, letters[2].ID, left[0].ID)

	n, err := r.dest.Purge(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline, IDs: []string{left[0].ID}})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	n, err = r.dest.Purge(t.Context(), q)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestPGDurabilityIsNotLeftToDefaults(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.sql("ALTER DATABASE " + r.db + " SET synchronous_commit = off; ALTER DATABASE " + r.db + " SET default_transaction_isolation = 'repeatable read'; ALTER DATABASE " + r.db + " SET statement_timeout = '50ms'")
	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	r.commit(w, messages.BarrierEnd, 1, 1)
	results, err := w.(*Writer).conn.Exec(t.Context(), "SHOW synchronous_commit; SHOW default_transaction_isolation; SHOW statement_timeout")
	require.NoError(t, err)
	require.Equal(t, []string{"on", "read committed", "0"}, []string{string(results[0].Rows[0][0]), string(results[1].Rows[0][0]), string(results[2].Rows[0][0])})
	require.Equal(t, [][]string{{"p"}}, r.server.Query(t, r.db, "SELECT relpersistence FROM pg_class WHERE relname = 'orders'"), "logged")
	require.NoError(t, w.Close(t.Context()))
}

// A type of an extension is compared by its own operators, which may be in a schema that
// nobody searches.
func TestPGUpsertByAKeyOfAnExtension(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.sql(`CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE people (name ext.citext PRIMARY KEY, n bigint); INSERT INTO people VALUES ('Ann', 1)`)
	citext := &codec.Type{Schema: "ext", Name: "citext", Mod: -1, SQL: `"ext"."citext"`, Kind: codec.KindBase}
	name, asText := codec.Field(codec.Column{Name: "name", Type: citext, NotNull: true}, false)
	require.True(t, asText)
	sp := connectors.StreamPlan{Stream: "people", Target: "people", Schema: fields(name, arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int64}), Key: []string{"name"}}
	w := r.writer(connectors.ModeUpsert, sp, 1)
	r.write(w, sp, []any{"bob", 1}, []any{"ANN", 2}, []any{"BOB", 3})
	r.commit(w, messages.BarrierEnd, 3, 3)
	require.Equal(t, [][]string{{"ANN", "2"}, {"BOB", "3"}}, r.server.Query(t, r.db, "SELECT name, n FROM people ORDER BY n"))
	require.NoError(t, w.Close(t.Context()))
}

func TestPGASecondCopyIsNamedAsSuch(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	for load := range 2 {
		w := r.writer(connectors.ModeAppend, orders, uint64(load+1))
		err := w.Write(t.Context(), r.batch(orders, []any{1, "a"}, []any{2, "b"}))
		if err == nil {
			_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 2, 2))
		}
		if load == 1 {
			e := requireError(t, err, connectors.KindData, messages.CodeRowRefused, "orders_pkey")
			require.Contains(t, e.Next, "write_mode upsert")
			require.EqualValues(t, 1, e.Place.Row)
		} else {
			require.NoError(t, err)
			require.NoError(t, r.s.Finish(t.Context(), messages.LoadID{Name: "orders", Number: 1}))
		}
		require.NoError(t, w.Close(t.Context()))
	}
	require.ElementsMatch(t, []string{"1|a", "2|b"}, r.rows("orders"))
}

// A history that goes on gains the columns that the source has gained.
func TestPGNewColumnsOfAHistory(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	r.commit(w, messages.BarrierDrain, 1, 1)
	require.NoError(t, w.Close(t.Context()))

	wider := orders
	wider.Schema = fields(idField, nameField, arrow.Field{Name: "extra", Type: arrow.PrimitiveTypes.Int64, Nullable: true})
	l := loadOf(connectors.ModeAppend, 1, wider, "orders")
	l.Shape = "wider"
	s := r.next()
	require.NoError(t, s.Begin(t.Context(), l))
	require.NoError(t, s.Begin(t.Context(), l), "again changes nothing")
	w, receipt, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: r.epoch, Attempt: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, receipt.Version.Commit)
	r.write(w, wider, []any{2, "b", 7})
	r.commit(w, messages.BarrierDrain, 2, 1)
	require.NoError(t, w.Close(t.Context()))
	require.ElementsMatch(t, []string{`1|a|\N`, "2|b|7"}, r.rows("orders"))
	require.Equal(t, "wider", r.next().Recovered().Loads[0].Shape)

	moved := wider
	moved.Target = "elsewhere"
	l = loadOf(connectors.ModeAppend, 1, moved, "orders")
	l.Shape = "moved"
	requireError(t, r.s.Begin(t.Context(), l), connectors.KindConfig, messages.CodeDocConflict, "another target")
}

// The write loop allocates per batch and per message, never per row.
func TestPGWritingAllocatesNothingPerRow(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	bare := orders
	bare.Key = nil
	w := r.writer(connectors.ModeAppend, bare, 1)
	k := w.(*Writer).sinks[0]
	allocations := func(n int) float64 {
		var rows [][]any
		for i := range n {
			rows = append(rows, []any{i, "some text"})
		}
		b := r.batch(bare, rows...)
		defer b.Rows.Release()
		rec := b.Rows.(messages.ArrowRows).Record
		require.NoError(t, w.(*Writer).transact(t.Context()))
		require.NoError(t, k.write(t.Context(), rec, 0)) // begins the COPY and grows the buffer
		return testing.AllocsPerRun(20, func() { require.NoError(t, k.write(t.Context(), rec, 0)) })
	}
	few, many := allocations(100), allocations(8000)
	require.Less(t, many, few+50, "%v for 100 rows, %v for 8000", few, many)
	require.NoError(t, w.Close(t.Context()))
}
