package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// session is a connection of somebody else.
func (o *origin) session() *pgx.Conn {
	o.t.Helper()
	conn, err := pgx.Connect(o.t.Context(), o.server.URL(o.db))
	require.NoError(o.t, err)
	o.t.Cleanup(func() { require.NoError(o.t, conn.Close(context.Background())) })
	return conn
}

// scanning runs a scan until do has returned and the scan has ended.
func (o *origin) scanning(do func(ended <-chan struct{}), specs ...connectors.StreamSpec) (connectors.Plan, error) {
	o.t.Helper()
	var plan connectors.Plan
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		plan, err = o.tryScan(specs...)
	}()
	do(ended)
	<-ended
	return plan, err
}

func exec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	_, err := c.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// waits requires that the scan still waits after it has looked at the writers again.
func (o *origin) waits(ended <-chan struct{}) {
	o.t.Helper()
	const sql = "SELECT extract(epoch FROM query_start) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1' AND query LIKE '%virtualtransaction%'"
	var seen []string
	require.Eventually(o.t, func() bool {
		for _, row := range o.server.Query(o.t, o.db, sql) {
			if len(seen) == 0 || seen[len(seen)-1] != row[0] {
				seen = append(seen, row[0])
			}
		}
		select {
		case <-ended:
			return true
		default:
			return len(seen) > 2
		}
	}, 10*time.Second, time.Millisecond)
	select {
	case <-ended:
		o.t.Error("the scan did not wait")
	default:
	}
}

// TestPGSourceStrictWaitsForWhatIsPreparedMeanwhile: a transaction that is prepared goes
// on under another name.
func TestPGSourceStrictWaitsForWhatIsPreparedMeanwhile(t *testing.T) {
	s := pgtest.Start(t, "max_prepared_transactions=5", "fsync=off")
	o := originOn(t, s, s.Database(t), "CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY)", nil)
	late := o.session()
	exec(t, late, "BEGIN; INSERT INTO t DEFAULT VALUES")
	o.exec("INSERT INTO t DEFAULT VALUES")
	spec := following("t", "id")
	spec.CursorMode = cursorStrict
	plan, err := o.scanning(func(ended <-chan struct{}) {
		o.waits(ended)
		exec(t, late, "PREPARE TRANSACTION 'x'")
		o.waits(ended)
		exec(t, late, "COMMIT PREPARED 'x'")
	}, spec)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, o.all(plan)["t"])
}

// TestPGSourceStrictWaitsForWritersOfViews: they lock the tables, not the view.
func TestPGSourceStrictWaitsForWritersOfViews(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
		CREATE VIEW v AS SELECT * FROM t; CREATE VIEW w AS SELECT id FROM v WHERE n IS NULL`, nil)
	late := o.session()
	exec(t, late, "BEGIN; INSERT INTO t DEFAULT VALUES")
	o.exec("INSERT INTO t DEFAULT VALUES")
	spec := following("w", "id")
	spec.CursorMode = cursorStrict
	plan, err := o.scanning(func(ended <-chan struct{}) {
		o.waits(ended)
		exec(t, late, "COMMIT")
	}, spec)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, o.all(plan)["w"])
}

// TestPGSourceStrictIsRefusedWhereNobodySeesWriters: rows that commit late would be lost.
func TestPGSourceStrictIsRefusedWhereNobodySeesWriters(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int); CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE VIEW v AS SELECT * FROM m;
		CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; CREATE TABLE p (id int) PARTITION BY LIST (id);
		CREATE FOREIGN TABLE f PARTITION OF p FOR VALUES IN (1) SERVER nowhere; CREATE TABLE empty (id int) PARTITION BY LIST (id)`, nil)
	for stream, why := range map[messages.StreamID]string{"m": "a materialised view", "v": "a materialised view"} {
		spec := following(stream, "id")
		spec.CursorMode = cursorStrict
		_, err := o.tryScan(spec)
		e := typed(t, err, connectors.KindConfig, messages.CodeDocValue)
		require.Contains(t, e.Error(), why)
		require.Equal(t, "cursor_mode", e.Place.Field)
		found, err := o.source.Check(t.Context(), []connectors.StreamSpec{spec})
		require.NoError(t, err)
		require.Condition(t, func() bool {
			for _, f := range found {
				if f.Severity == connectors.SeverityError && f.Where.Field == "cursor_mode" {
					return true
				}
			}
			return false
		}, "%+v", found)
		spec.CursorMode = "raw"
		require.Empty(t, o.once(spec)[stream])
	}
	spec := following("p", "id")
	spec.CursorMode = ""
	found, err := o.source.Check(t.Context(), []connectors.StreamSpec{spec})
	require.NoError(t, err)
	require.Contains(t, found[len(found)-1].Message, "a foreign table")
}

func TestWritersThatRemain(t *testing.T) {
	a, b, x, y := openWriter{"3/1", 7}, openWriter{"4/1", 8}, openWriter{"-1/700", 0}, openWriter{"-1/701", 0}
	require.Equal(t, []openWriter{a}, remaining([]openWriter{a, b}, []openWriter{a}))
	require.Equal(t, []openWriter{x}, remaining([]openWriter{x}, []openWriter{x, y, a}), "who begins later is not waited for")
	require.Equal(t, []openWriter{a, x}, remaining([]openWriter{a, b}, []openWriter{a, x}), "b may have become x")
	require.Empty(t, remaining([]openWriter{x}, []openWriter{y}), "a prepared one only ends")
	require.Empty(t, remaining([]openWriter{a, b}, nil))
}

func TestPGZAlterDuringScan(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1,3) i", nil)
	late := o.session()
	exec(t, late, "BEGIN; ALTER TABLE t ALTER n TYPE float4 USING n::float4")
	plan, err := o.scanning(func(ended <-chan struct{}) {
		time.Sleep(500 * time.Millisecond)
		exec(t, late, "COMMIT")
	}, full("t"))
	if err == nil {
		require.Equal(t, []string{"1|1", "2|2", "3|3"}, o.all(plan)["t"])
	} else {
		t.Log(err)
	}
}

func TestPGSourceNullsAreNotAskedForAnyMore(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN i END FROM generate_series(1, 10) i", nil)
	o.limits.BatchRows = 1
	spec := following("t", "c")
	spec.NullCursor = "first"
	plan := o.scan(spec)
	stop := errors.New("stop")
	got, err := o.read(plan.Loads[0].Parts[0], 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if len(r.barriers) == 3 {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	o.at["t"] = got.barriers[2].Position
	o.remember(plan)
	spec.NullCursor = "ignore"
	require.Equal(t, []string{"2|2", "4|4", "6|6", "8|8", "10|10"}, o.once(spec)["t"])
}

func TestPGZColumnGrants(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t VALUES (1, 2); DROP ROLE IF EXISTS colonly; CREATE ROLE colonly LOGIN; GRANT SELECT (id) ON t TO colonly", func(c *SourceConfig) {})
	src := newSource(t, o.server, o.db, func(c *SourceConfig) { c.Connection.User = "colonly" })
	o.source = src
	spec := full("t")
	spec.Columns = []string{"id"}
	require.Equal(t, []string{"1"}, o.once(spec)["t"])
}

func TestPGZInheritance(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE c () INHERITS (t); INSERT INTO t SELECT i, 1 FROM generate_series(1,5) i; INSERT INTO c SELECT i, 2 FROM generate_series(1,5) i", nil)
	o.limits.BatchRows = 1
	part := o.scan(following("t", "id")).Loads[0].Parts[0]
	whole, err := o.read(part, 1, nil)
	require.NoError(t, err)
	require.Len(t, whole.rows, 10)
	o.resumeEverywhere(part, whole.rows, 1)
}

func TestPGZVacuumFull(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, pad text); INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 40) i; DELETE FROM t WHERE id <= 20", nil)
	plan := o.scan(full("t"))
	stop := errors.New("stop")
	got, err := o.read(plan.Loads[0].Parts[0], 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if len(r.barriers) == 4 {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	o.at["t"] = got.barriers[3].Position
	o.remember(plan)
	o.exec("VACUUM FULL t")
	plan = o.scan(full("t"))
	t.Log(plan.Loads[0].Continuity, len(got.rows), len(o.all(plan)["t"]))
}

func TestPGZAttach(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int, pad text) PARTITION BY LIST (id); CREATE TABLE a PARTITION OF t FOR VALUES IN (1); CREATE TABLE b (id int, pad text);
		INSERT INTO a SELECT 1, repeat('x', 1000) FROM generate_series(1, 40) i; INSERT INTO b SELECT 2, repeat('x', 1000) FROM generate_series(1, 40) i`, nil)
	plan := o.scan(full("t"))
	done := false
	got, err := o.read(plan.Loads[0].Parts[0], 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if !done && len(r.rows) > 10 {
			done = true
			o.exec("ALTER TABLE t ATTACH PARTITION b FOR VALUES IN (2)")
		}
		return nil
	})
	t.Log(len(got.rows), err)
}

func TestPGZScanLostTruncate(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)`, nil)
	plan := o.scan(full("a"), full("b"))
	_, err := o.read(plan.Loads[0].Parts[0], 0, nil)
	require.NoError(t, err)
	o.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'rb:%' AND query LIKE '%pg_class%' AND datname = current_database()")
	t.Log(o.server.Query(t, o.db, "SELECT pid, application_name, state, query FROM pg_stat_activity WHERE datname = current_database()"))
	o.exec("BEGIN; TRUNCATE b; INSERT INTO b VALUES (2); COMMIT")
	got, err := o.read(plan.Loads[1].Parts[0], 0, nil)
	t.Log(got.rows, err)
}
