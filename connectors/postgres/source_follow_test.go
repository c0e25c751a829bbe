package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// resumeEverywhere reads a part in attempts that each end at a barrier, and requires that
// together they give every row once.
func (o *origin) resumeEverywhere(part connectors.Part, want []string, every int64) {
	o.t.Helper()
	whole, err := o.read(part, every, nil)
	require.NoError(o.t, err)
	sameRows(o.t, want, whole.rows)
	seen := 0
	for _, b := range whole.barriers {
		seen += int(b.Rows)
		rest, err := o.readFrom(part, b.Position, 0, nil)
		require.NoError(o.t, err)
		require.Equal(o.t, strings.Join(whole.rows[seen:], "\n"), strings.Join(rest.rows, "\n"), "resumed behind row %d, from %+v", seen, b.Position)
	}
}

func TestPGSourceFollowsACursor(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE orders (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
		INSERT INTO orders SELECT i, '2026-01-01 00:00:00.000001+00'::timestamptz + i / 10 * interval '1 second', 'n' || i FROM generate_series(1, 100) i`, nil)
	spec := following("orders", "at")
	spec.CursorMode = ""
	p := o.scan(spec)
	require.Len(t, p.Loads, 1)
	require.Len(t, p.Loads[0].Parts, 1)
	require.Equal(t, messages.LoadID{Name: "orders", Number: 1}, p.Loads[0].ID)
	require.Equal(t, []string{"id"}, p.Loads[0].Streams[0].Key)
	o.limits.BatchRows = 7
	got, err := o.read(p.Loads[0].Parts[0], 10, nil)
	require.NoError(t, err)
	require.Len(t, got.rows, 100)
	require.Equal(t, messages.BarrierDrain, got.kind, "it rests, and goes on another time")
	require.Greater(t, len(got.barriers), 5)
	last := got.barriers[len(got.barriers)-1].Position.At
	require.Equal(t, messages.TupleCursor(
		messages.Cursor{Type: messages.CursorTimestampTZ, Value: "2026-01-01 00:00:10.000001+00"}, messages.Int64Cursor(100)), last)
	o.resumeEverywhere(p.Loads[0].Parts[0], got.rows, 10)

	o.at["orders"] = messages.Position{At: last}
	o.remember(p)
	require.Empty(t, o.once(spec)["orders"], "nothing new")
	o.exec("INSERT INTO orders VALUES (101, '2026-01-01 00:00:10.000001+00', 'a tie'), (102, '2026-01-02', 'new'); UPDATE orders SET at = '2026-01-03' WHERE id = 5")
	p = o.scan(spec)
	require.Equal(t, connectors.ContinueExact, p.Loads[0].Continuity)
	require.Equal(t, uint64(1), p.Loads[0].ID.Number)
	require.Equal(t, []string{
		`101|2026-01-01T00:00:10.000001Z|a tie`, `102|2026-01-02T00:00:00Z|new`, `5|2026-01-03T00:00:00Z|n5`,
	}, o.all(p)["orders"])
}

// TestPGSourceTiesAcrossBatches: thousands of equal cursors, with each kind of tie-breaker.
func TestPGSourceTiesAcrossBatches(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE with_key (id int, part text, v date NOT NULL, PRIMARY KEY (part, id));
		INSERT INTO with_key SELECT i, chr(97 + i % 3), '2026-01-01'::date + i / 2000 FROM generate_series(1, 5000) i;
		CREATE TABLE without (id int NOT NULL, v date); INSERT INTO without SELECT id, v FROM with_key;
		CREATE TABLE doubled (id int NOT NULL, v date); INSERT INTO doubled SELECT id, v FROM with_key UNION ALL SELECT id, v FROM with_key`, nil)
	o.limits.BatchRows = 100
	specs := []connectors.StreamSpec{following("with_key", "v"), following("without", "v"), following("doubled", "v")}
	specs[2].TieBreaker = "id"
	p := o.scan(specs...)
	for i, want := range []struct{ rows, parts, barriers int }{{5000, 3, 20}, {5000, 0, 3}, {10000, 2, 20}} {
		part := p.Loads[i].Parts[0]
		whole, err := o.read(part, 200, nil)
		require.NoError(t, err)
		require.Len(t, whole.rows, want.rows)
		require.GreaterOrEqual(t, len(whole.barriers), want.barriers, "%s", part.ID)
		seen := 0
		for _, b := range whole.barriers {
			require.Len(t, b.Position.At.Parts, want.parts)
			seen += int(b.Rows)
			rest, err := o.readFrom(part, b.Position, 0, nil)
			require.NoError(t, err)
			sameRows(t, whole.rows[seen:], rest.rows)
		}
	}
}

func TestPGSourceCursorTypes(t *testing.T) {
	for _, c := range []struct {
		typ, values string
		want        messages.CursorType
	}{
		{"smallint", "(-32768), (-1), (0), (32767)", messages.CursorInt64},
		{"bigint", "(-9223372036854775808), (9), (10), (9223372036854775807)", messages.CursorInt64},
		{"numeric", "(-1e30), (1.10), (1.1), (2), (10), (1e20), ('NaN')", messages.CursorNumeric},
		{"numeric(10,2)", "(-1), (1.10), (1.1), (2), (10)", messages.CursorNumeric},
		{"float8", "('-Infinity'), (-0.0), (0.1), (0.30000000000000004), ('NaN')", messages.CursorNumeric},
		{"real", "(0.1), (1e-30), (16777216)", messages.CursorNumeric},
		{"uuid", "('00000000-0000-0000-0000-000000000001'), ('ffffffff-ffff-ffff-ffff-ffffffffffff')", messages.CursorUUID},
		{`text COLLATE "und-x-icu"`, `('a'), ('B'), ('b'), ('Z'), ('é'), ('z'), ('o''x'), ('\\')`, messages.CursorText},
		{`text COLLATE "C"`, "('a'), ('B'), ('b'), ('Z'), ('é'), ('z')", messages.CursorText},
		{"varchar(5)", "('a'), ('ab'), ('abcde')", messages.CursorText},
		{"char(5)", "('a'), ('ab'), ('abcde')", messages.CursorText},
		{"timestamp", "('0044-03-15 10:00:00 BC'), ('0001-01-01'), ('1969-12-31 23:59:59.999999'), ('2026-03-29 02:30:00')", messages.CursorTimestamp},
		{"timestamptz", "('2026-03-29 00:59:59.999999+00'), ('2026-03-29 03:00:00+02'), ('2025-10-26 02:30:00+02'), ('2025-10-26 02:30:00+01')", messages.CursorTimestampTZ},
		{"date", "('0044-03-15 BC'), ('0005-02-29 BC'), ('0005-02-28 BC'), ('2024-02-29')", messages.CursorDate},
		{"mood", "('sad'), ('ok'), ('happy')", messages.CursorText},
		{"amount", "(1), (2), (10)", messages.CursorNumeric},
		{"interval", "('1 day'), ('25 hours'), ('1 mon')", messages.CursorText},
	} {
		t.Run(c.typ, func(t *testing.T) {
			o := newOrigin(t, fmt.Sprintf(`CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN amount AS numeric(8,2);
				CREATE TABLE t (c %s NOT NULL, id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int); INSERT INTO t (c) SELECT v::%s FROM (VALUES %s) x(v)`,
				c.typ, strings.Split(c.typ, " COLLATE")[0], c.values), func(cfg *SourceConfig) { cfg.AsText = []string{"t.n"} })
			o.limits.BatchRows = 1
			for _, columns := range [][]string{nil, {"id"}, {"c"}} {
				spec := following("t", "c")
				spec.Columns = columns
				p := o.scan(spec)
				part := p.Loads[0].Parts[0]
				whole, err := o.read(part, 1, nil)
				require.NoError(t, err)
				require.Len(t, whole.rows, len(o.server.Query(t, o.db, "SELECT id FROM t")))
				for _, b := range whole.barriers {
					require.Equal(t, messages.CursorTuple, b.Position.At.Type)
					require.Equal(t, c.want, b.Position.At.Parts[0].Type)
				}
				o.resumeEverywhere(part, whole.rows, 1)
			}
		})
	}
}

// TestPGSourceCursorOfAnExtension: its operators are not on the search_path, and those that
// are would compare it as another type.
func TestPGSourceCursorOfAnExtension(t *testing.T) {
	o := newOrigin(t, `CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE t (id int PRIMARY KEY, c ext.citext NOT NULL, d ext.citext NOT NULL);
		INSERT INTO t VALUES (1, 'a', 'x'), (2, 'B', 'x'), (3, 'b', 'X'), (4, 'C', 'x'), (5, 'd', 'x'), (6, 'D', 'y')`, nil)
	o.limits.BatchRows = 1
	for _, tie := range []string{"", "d"} {
		spec := following("t", "c")
		spec.TieBreaker = tie
		part := o.scan(spec).Loads[0].Parts[0]
		whole, err := o.read(part, 1, nil)
		require.NoError(t, err)
		for _, b := range whole.barriers[:len(whole.barriers)-1] {
			require.Empty(t, tie, "equal values can have other texts: %+v", b)
		}
		o.resumeEverywhere(part, whole.rows, 1)
	}
}

// TestPGSourceInfiniteCursors: what Arrow cannot hold still orders rows.
func TestPGSourceInfiniteCursors(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c timestamptz NOT NULL, d date NOT NULL);
		INSERT INTO t VALUES (1, '-infinity', '-infinity'), (2, '2026-01-01', '2026-01-01'), (3, 'infinity', 'infinity')`,
		func(c *SourceConfig) { c.AsText = []string{"t.c"} })
	p := o.scan(following("t", "c"))
	require.Len(t, p.Warnings, 1)
	require.Contains(t, p.Warnings[0].Message, "are left for later")
	_, err := o.read(p.Loads[0].Parts[0], 0, nil)
	e := typed(t, err, connectors.KindData, messages.CodeValueRange)
	require.Equal(t, "d", e.Place.Field)
	require.Contains(t, e.Next, `as_text: ["public.t.d"]`)

	spec := following("t", "d")
	spec.Columns = []string{"id", "c"}
	p = o.scan(spec)
	require.Equal(t, []string{"1|-infinity", "2|2026-01-01 00:00:00+00"}, o.all(p)["t"])
	require.Equal(t, messages.TupleCursor(messages.Cursor{Type: messages.CursorDate, Value: "2026-01-01"}, messages.Int64Cursor(2)), o.at["t"].At)
}

// TestPGSourceFutureCursorsDoNotPoison: one row of the year 9999 hides nothing.
func TestPGSourceFutureCursorsDoNotPoison(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c timestamp NOT NULL);
		INSERT INTO t VALUES (1, now() - interval '1 day'), (2, '9999-01-01'), (3, now() + interval '2 hours')`, nil)
	rows := o.once(following("t", "c"))["t"]
	require.Len(t, rows, 2)
	o.exec("INSERT INTO t VALUES (4, now() + interval '3 hours')")
	rows = o.once(following("t", "c"))["t"]
	require.Len(t, rows, 1)
	require.True(t, strings.HasPrefix(rows[0], "4|"))
}

func TestPGSourceNullCursors(t *testing.T) {
	const table = `CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN i END FROM generate_series(1, 10) i;`
	nullable := func(policy string) connectors.StreamSpec {
		s := following("t", "c")
		s.NullCursor = policy
		return s
	}
	t.Run("fail", func(t *testing.T) {
		o := newOrigin(t, table, nil)
		_, err := o.tryScan(nullable("fail"))
		e := typed(t, err, connectors.KindData, messages.CodeValueRange)
		require.Equal(t, messages.StreamID("t"), e.Place.Stream)
		require.Contains(t, e.Error(), "5 rows of stream t")
	})
	t.Run("ignore", func(t *testing.T) {
		o := newOrigin(t, table, nil)
		require.Equal(t, []string{"2|2", "4|4", "6|6", "8|8", "10|10"}, o.once(nullable("ignore"))["t"])
		o.exec("UPDATE t SET c = NULL WHERE id = 10; UPDATE t SET c = 11 WHERE id = 1")
		require.Equal(t, []string{"1|11"}, o.once(nullable("ignore"))["t"])
	})
	t.Run("first", func(t *testing.T) {
		o := newOrigin(t, table, nil)
		o.limits.BatchRows = 1
		p := o.scan(nullable("first"))
		whole, err := o.read(p.Loads[0].Parts[0], 1, nil)
		require.NoError(t, err)
		require.Equal(t, []string{`1|\N`, `3|\N`, `5|\N`, `7|\N`, `9|\N`, "2|2", "4|4", "6|6", "8|8", "10|10"}, whole.rows)
		require.Equal(t, messages.TupleCursor(messages.Cursor{Type: messages.CursorOpaque, Value: "null"}, messages.Int64Cursor(1)), whole.barriers[0].Position.At)
		o.resumeEverywhere(p.Loads[0].Parts[0], whole.rows, 1)
		o.all(p)
		o.remember(p)
		o.exec("INSERT INTO t VALUES (11, NULL), (12, 12)")
		require.Equal(t, []string{"12|12"}, o.once(nullable("first"))["t"], "NULLs are read once")
	})
	t.Run("all of them", func(t *testing.T) {
		o := newOrigin(t, `CREATE TABLE t (id int, c int); INSERT INTO t SELECT i FROM generate_series(1, 10) i`, nil)
		require.Len(t, o.once(nullable("first"))["t"], 10)
		require.Equal(t, "begin", o.at["t"].At.Value)
		require.Empty(t, o.once(nullable("first"))["t"])
		o.exec("INSERT INTO t VALUES (11, -5)")
		require.Equal(t, []string{"11|-5"}, o.once(nullable("first"))["t"])
	})
	t.Run("a tie-breaker", func(t *testing.T) {
		o := newOrigin(t, `CREATE TABLE t (id int, c int NOT NULL); INSERT INTO t VALUES (1, 1), (NULL, 2)`, nil)
		spec := following("t", "c")
		spec.TieBreaker = "id"
		_, err := o.tryScan(spec)
		require.Equal(t, "id", typed(t, err, connectors.KindData, messages.CodeValueRange).Place.Field)
	})
}

// TestPGSourceStrictFindsLateCommits: a transaction that wrote below the upper bound and
// commits later is waited for.
func TestPGSourceStrictFindsLateCommits(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); INSERT INTO t VALUES (1, 1)`, nil)
	late, err := pgx.Connect(t.Context(), o.server.URL(o.db))
	require.NoError(t, err)
	defer closeConn(late)
	_, err = late.Exec(t.Context(), "BEGIN; INSERT INTO t1 VALUES (2, 2)")
	require.NoError(t, err)
	o.exec("INSERT INTO t VALUES (3, 3)") // commits before, with a greater cursor
	spec := following("t", "c")
	spec.CursorMode = "strict"
	type result struct {
		plan connectors.Plan
		err  error
	}
	done := make(chan result, 1)
	go func() {
		s, err := o.source.Scan(t.Context(), o.request(spec))
		r := result{err: err}
		if err == nil {
			r.plan = s.Plan()
			t.Cleanup(func() { _ = s.Close(context.Background()) })
		}
		done <- r
	}()
	require.Eventually(t, func() bool { // it has noted the writer once it asks a second time
		n := o.server.Query(t, o.db, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1' AND query LIKE '%virtualtransaction%'")
		return n[0][0] == "1"
	}, 10*time.Second, time.Millisecond)
	select {
	case <-done:
		t.Fatal("the scan did not wait")
	default:
	}
	_, err = late.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	r := <-done
	require.NoError(t, r.err)
	require.Equal(t, []string{"1|1", "2|2", "3|3"}, o.all(r.plan)["t"])
}

func TestPGSourceStrictNamesWhomItWaitsFor(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL); INSERT INTO t VALUES (1, 1)`, func(c *SourceConfig) { c.LockTimeout = 50 * time.Millisecond })
	late, err := pgx.Connect(t.Context(), o.server.URL(o.db)+"?application_name=nightly")
	require.NoError(t, err)
	defer closeConn(late)
	_, err = late.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (2, 2)")
	require.NoError(t, err)
	spec := following("t", "c")
	spec.CursorMode = "strict"
	_, err = o.tryScan(spec)
	e := typed(t, err, connectors.KindTransient, messages.CodeSource)
	require.Contains(t, e.Error(), fmt.Sprintf(`pid %d (application "nightly", idle in transaction)`, late.PgConn().PID()))
	spec.CursorMode = "raw"
	require.Len(t, o.once(spec)["t"], 1, "raw does not wait")
}

func TestPGSourceLookbackReadsAWindowAgain(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c timestamptz NOT NULL, d date NOT NULL);
		INSERT INTO t SELECT i, '2026-01-01'::timestamptz + i * interval '1 minute', '2026-01-01'::date + i FROM generate_series(1, 30) i`, nil)
	o.limits.BatchRows = 1
	spec := following("t", "c")
	spec.CursorMode, spec.Lookback, spec.Columns, spec.Mode = "lookback", 10*time.Minute, []string{"id"}, connectors.ModeUpsert
	require.Len(t, o.once(spec)["t"], 30)
	rested := o.at["t"]
	o.exec("INSERT INTO t VALUES (31, '2026-01-01 00:25:30', '2026-01-01'), (32, '2026-01-01 00:31:00', '2026-01-01'), (33, '2026-01-01 00:10:00', '2026-01-01')")
	p := o.scan(spec)
	got, err := o.read(p.Loads[0].Parts[0], 1, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"20", "21", "22", "23", "24", "25", "31", "26", "27", "28", "29", "30", "32"}, got.rows)
	for _, b := range got.barriers[:11] {
		require.Equal(t, rested, b.Position, "a crash in the window begins it again")
	}
	require.Equal(t, "2026-01-01 00:31:00+00", got.barriers[len(got.barriers)-1].Position.At.Parts[0].Value)

	days := following("t", "d")
	days.CursorMode, days.Lookback = "lookback", 36*time.Hour
	o = originOn(t, o.server, o.db, "", nil)
	o.once(days)
	require.Len(t, o.once(days)["t"], 3, "the last day and two before")

	numbers := following("t", "id")
	numbers.CursorMode, numbers.Lookback = "lookback", time.Minute
	_, err = o.tryScan(numbers)
	typed(t, err, connectors.KindConfig, messages.CodeDocValue)
}

// TestPGSourceContinuityOfACursor: positions of another table or another order are lost.
func TestPGSourceContinuityOfACursor(t *testing.T) {
	const table = `CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL, d bigint NOT NULL UNIQUE, e text NOT NULL); INSERT INTO t SELECT i, i, i, i FROM generate_series(1, 5) i;`
	for name, change := range map[string]struct {
		sql  string
		spec func(*connectors.StreamSpec)
		want connectors.Continuity
	}{
		"nothing":       {"", func(*connectors.StreamSpec) {}, connectors.ContinueExact},
		"new rows":      {"INSERT INTO t VALUES (6, 6, 6, 6)", func(*connectors.StreamSpec) {}, connectors.ContinueExact},
		"new column":    {"ALTER TABLE t ADD n int", func(*connectors.StreamSpec) {}, connectors.ContinueExact},
		"another table": {"DROP TABLE t; " + table, func(*connectors.StreamSpec) {}, connectors.ContinueLost},
		"cursor column": {"", func(s *connectors.StreamSpec) { s.CursorField = "d" }, connectors.ContinueLost},
		"cursor type":   {"ALTER TABLE t ALTER c TYPE numeric", func(*connectors.StreamSpec) {}, connectors.ContinueLost},
		"tie-breaker":   {"", func(s *connectors.StreamSpec) { s.TieBreaker = "d" }, connectors.ContinueLost},
		"sync mode":     {"", func(s *connectors.StreamSpec) { s.Sync = connectors.SyncFullRefresh }, connectors.ContinueLost},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, table, nil)
			spec := following("t", "c")
			o.remember(o.scan(spec))
			if change.sql != "" {
				o.exec(change.sql)
			}
			change.spec(&spec)
			require.Equal(t, change.want, o.scan(spec).Loads[0].Continuity)
			spec.Fresh = true
			l := o.scan(spec).Loads[0]
			require.Empty(t, l.Continuity)
			require.Equal(t, uint64(2), l.ID.Number)
		})
	}
}

// TestPGSourceFollowsUnderRandomChanges: whatever is inserted and updated between scans
// and wherever attempts end, the newest version of each row arrives.
func TestPGSourceFollowsUnderRandomChanges(t *testing.T) {
	seed := uint64(1)
	if v := os.Getenv("RB_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("RB_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test repeats
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, c int NOT NULL)`, nil)
	o.limits.BatchRows = 3
	spec := following("t", "c")
	clock, have := 0, map[string]string{}
	stop := errors.New("the attempt ends")
	for range 25 {
		for range rnd.IntN(20) {
			clock += rnd.IntN(2) // ties; a tie that comes later has a greater id
			o.exec(fmt.Sprintf("INSERT INTO t SELECT coalesce(max(id), 0) + 1, %d FROM t", clock))
		}
		clock++
		o.exec(fmt.Sprintf("UPDATE t SET c = %d WHERE id %% 7 = %d", clock, rnd.IntN(7)))
		p := o.scan(spec)
		part := p.Loads[0].Parts[0]
		for done := false; !done; {
			left, committed := rnd.IntN(12)+1, 0
			_, err := o.read(part, 2, func(it messages.Item, got *reading, _ *conntest.Emitter) error {
				if b, ok := it.(messages.Barrier); ok { // commits what came before it
					o.at[part.ID], done = b.Position, b.Kind != messages.BarrierPeriodic
					for _, row := range got.rows[committed:] {
						id, c, _ := strings.Cut(row, "|")
						have[id] = c
					}
					committed = len(got.rows)
				}
				if left--; left == 0 && !done {
					return stop
				}
				return nil
			})
			if !done {
				require.ErrorIs(t, err, stop)
			}
		}
		o.remember(p)
		want := map[string]string{}
		for _, row := range o.server.Query(t, o.db, "SELECT id, c FROM t") {
			want[row[0]] = row[1]
		}
		require.Equal(t, want, have)
	}
}
